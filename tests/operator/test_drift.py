"""Where a live Deployment differs from what was applied."""

import copy
import json

import pytest

from trafficsim_api.names import APPLIED_ANNOTATION
from trafficsim_operator.fleet.drift import differs, fingerprint, has_additions, has_other_selector, is_drifted

TEMPLATE = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [{"name": "runner", "image": "r:1", "env": [{"name": "X", "value": ""}], "args": ["a", "b"]}],
    },
}


def a_deployment(template=None, holders=("trafficsim",), note=True, **spec):
    live = copy.deepcopy(template or TEMPLATE)
    live["spec"].setdefault("dnsPolicy", "ClusterFirst")  # as the API server fills in
    live["spec"]["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    return {
        "metadata": {
            "labels": {"trafficsim.io/simulation-uid": "u1", "trafficsim.io/revision": "r1"},
            "annotations": {APPLIED_ANNOTATION: json.dumps(TEMPLATE)} if note else {},
            "managedFields": [{"manager": name, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for name in holders],
        },
        "spec": {
            "replicas": 2,
            "template": live,
            "selector": {"matchLabels": {"trafficsim.io/simulation-uid": "u1", "trafficsim.io/revision": "r1"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 600,
            **spec,
        },
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
        pytest.param(a_deployment(strategy={"type": "Recreate"}), True, id="other strategy"),
        pytest.param(a_deployment(revisionHistoryLimit=10), True, id="other history"),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"][0].update(args=["a"]))), True, id="argument gone"
        ),
    ],
)
def test_is_drifted(live, drifted):
    """Fields of ours with another value are drift; what others added is theirs, unless it changes what a runner is."""
    assert drifted is is_drifted(live)
    assert has_additions(live) is (APPLIED_ANNOTATION not in live["metadata"]["annotations"])


@pytest.mark.parametrize(
    "live",
    [
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"].append({"name": "proxy"}))), id="a container"
        ),
        pytest.param(a_deployment(changed(lambda t: t["spec"].update(initContainers=[{"name": "i"}]))), id="an init"),
        pytest.param(a_deployment(changed(lambda t: t["spec"].update(volumes=[{"name": "v"}]))), id="a volume"),
        pytest.param(a_deployment(changed(lambda t: t["spec"].update(hostNetwork=True))), id="the node's network"),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"][0]["env"].append({"name": "Y", "value": "1"}))),
            id="a variable",
        ),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"][0]["env"].append({"name": "X"}))),
            id="a variable twice",
        ),
        pytest.param(
            a_deployment(changed(lambda t: t["spec"]["containers"][0].update(command=["sh"]))), id="a command"
        ),
        pytest.param(a_deployment(paused=True), id="a pause"),
        pytest.param(a_deployment(minReadySeconds=600), id="a wait"),
    ],
)
def test_what_others_added_to_a_runner_is_drift(live):
    """Applying our part again leaves it there; so it is told apart."""
    assert is_drifted(live)
    assert has_additions(live)


def test_another_selector_is_drift():
    """It can't be changed; the Deployment is to be made anew."""
    live = a_deployment(selector={"matchLabels": {"app": "theirs"}})
    assert is_drifted(live)
    assert has_other_selector(live)
    assert not has_other_selector(a_deployment())


def test_what_no_repair_makes_better_is_borne():
    """A webhook puts back what it adds: only a further change is drift again."""
    live = a_deployment(changed(lambda t: t["spec"]["containers"].append({"name": "proxy"})))
    assert not is_drifted(live, borne=fingerprint(live))
    live["spec"]["replicas"] = 5
    assert not is_drifted(live, borne=fingerprint(live))
    before = fingerprint(live)
    live["spec"]["template"]["spec"]["containers"][1]["image"] = "evil:1"
    assert is_drifted(live, borne=before)


def test_an_empty_value_may_be_left_out():
    """The API server drops `value: ""`."""
    assert not differs({"name": "X", "value": ""}, {"name": "X"})


def test_what_an_autoscaler_set_is_no_drift():
    """It would set it again: repaired every time, both would go on for ever."""
    live = a_deployment(holders=("kube-controller-manager",))
    assert is_drifted(live)
    live["metadata"]["managedFields"][0]["subresource"] = "scale"
    assert not is_drifted(live)
