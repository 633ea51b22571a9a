"""Where a live Deployment differs from what was applied."""

import copy
import json

import pytest

from trafficsim_api.names import APPLIED_ANNOTATION
from trafficsim_operator.fleet.drift import differs, is_drifted

TEMPLATE = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [{"name": "runner", "image": "r:1", "env": [{"name": "X", "value": ""}], "args": ["a", "b"]}],
    },
}


def a_deployment(template=None, holders=("trafficsim",), note=True):
    live = copy.deepcopy(template or TEMPLATE)
    live["spec"].setdefault("dnsPolicy", "ClusterFirst")  # as the API server fills in
    live["spec"]["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    return {
        "metadata": {
            "annotations": {APPLIED_ANNOTATION: json.dumps(TEMPLATE)} if note else {},
            "managedFields": [{"manager": name, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for name in holders],
        },
        "spec": {"replicas": 2, "template": live},
    }


def changed(change):
    template = copy.deepcopy(TEMPLATE)
    change(template)
    return template


@pytest.mark.parametrize(
    ("live", "drifted"),
    [
        pytest.param(a_deployment(), False, id="as applied, with the server's defaults"),
        pytest.param(a_deployment(holders=("trafficsim-scale",)), False, id="scaled by us"),
        pytest.param(a_deployment(holders=("kubectl",)), True, id="scaled by somebody else"),
        pytest.param(a_deployment(holders=("kubectl", "trafficsim-scale")), False, id="scaled by both to one number"),
        pytest.param(a_deployment(note=False), True, id="the note about it is gone"),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"][0].update(image="evil:1"))), True, id="other image"
        ),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"][0].update(env=[]))), True, id="variable gone"
        ),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"].update(nodeSelector={"disk": "ssd"}))), False, id="a field added"
        ),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"].append({"name": "proxy"}))),
            False,
            id="a container added by a mesh",
        ),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"][0].update(args=["a"]))), True, id="argument gone"
        ),
    ],
)
def test_is_drifted(live, drifted):
    """Fields of ours with another value are drift; what others added is theirs."""
    assert drifted is is_drifted(live)


def test_an_empty_value_may_be_left_out():
    """The API server drops `value: ""`."""
    assert not differs({"name": "X", "value": ""}, {"name": "X"})
