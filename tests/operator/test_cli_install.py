"""`trafficsim install`: what it prints, what it refuses, and what it does to a cluster."""

import asyncio
import json

import pytest
import yaml
from click.testing import CliRunner

from trafficsim_api.crd import crd
from trafficsim_api.errors import SpecError
from trafficsim_operator.cli import install as command
from trafficsim_operator.cli.main import trafficsim
from trafficsim_operator.kube import SIMULATIONS
from trafficsim_operator.manifests.installation import Wanted, installation

WHOLE_CLUSTER = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


def printed(*arguments, code=0):
    done = CliRunner().invoke(trafficsim, ["install", *arguments])
    assert code == done.exit_code, done.output
    return done.output


def test_it_prints_what_can_be_applied():
    """Documents of one file, the namespace and the kind first; --json has the same as one List."""
    found = [*yaml.safe_load_all(printed())]
    assert ["Namespace", "CustomResourceDefinition"] == [o["kind"] for o in found[:2]]
    assert found == json.loads(printed("--json"))["items"]


def test_role_only_is_for_nobody_but_the_namespace():
    found = [*yaml.safe_load_all(printed("--role-only", "-n", "shop"))]
    assert set() == WHOLE_CLUSTER & {o["kind"] for o in found}
    assert {"shop"} == {o["metadata"]["namespace"] for o in found}


def test_the_kind_alone():
    assert [crd()] == [*yaml.safe_load_all(printed("--crd-only"))]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-n", "Shop"), "--namespace: a name of lower case letters, digits and - is needed, not 'Shop'"),
        (("--image", "trafficsim/operator"), "--image: an image with a tag or digest is needed"),
        (("--image", "localhost:5000/operator"), "--image: an image with a tag or digest is needed"),
        (("--runner-image", "a b:1"), "--runner-image: an image with a tag or digest is needed, not 'a b:1'"),
        (("--role-only", "--crd-only"), "--crd-only: the CRD is for the whole cluster"),
        (("--helm",), "--helm"),
    ],
)
def test_a_wrong_option_is_named(arguments, told):
    """With exit code 3, and nothing on stdout that could be applied."""
    done = CliRunner().invoke(trafficsim, ["install", *arguments])
    assert done.exit_code in (2, 3)  # what click itself refuses, main() makes 3 of
    assert told in done.stderr
    assert "" == done.stdout


def test_every_wrong_option_is_named_at_once():
    found = json.loads(printed("-n", "Shop", "--image", "x", "--json", code=3))
    assert ["--namespace", "--image"] == [problem["field"] for problem in found["problems"]]


def test_its_help_has_examples():
    text = printed("--help")
    assert "trafficsim install --role-only -n shop --apply" in text
    assert "Exit codes: 0 done, 3" in text


class Cluster:
    """An API server that takes everything; *there* is the operator's Deployment, *knows* whether the kind is served."""

    def __init__(self, there=None, knows=True):
        self.there, self.knows, self.applied = there, knows, []

    async def get(self, resource, namespace, name):
        assert ("Deployment", "trafficsim-operator") == (resource.kind, name)
        return self.there

    async def served(self, resource):
        assert SIMULATIONS == resource
        return self.knows or any(kind == "CustomResourceDefinition" for kind, _, _ in self.applied)

    async def apply(self, resource, body, manager):
        assert "trafficsim-install" == manager
        self.applied.append((resource.kind, resource.path(body["metadata"]["namespace"]), body["metadata"]["name"]))
        return {"metadata": {"uid": f"uid-{len(self.applied)}"}}


def applied(cluster, objects=None, as_json=False, **options):
    wanted = Wanted(**options)
    return asyncio.run(command._apply(cluster, objects or installation(wanted), wanted, as_json))


def test_objects_are_applied_in_order_at_their_paths(capsys):
    """What others need comes first; the pods' owner last."""
    cluster = Cluster(knows=False)
    assert 0 == applied(cluster, namespace="load")
    kinds = [kind for kind, _, _ in cluster.applied]
    assert ["Namespace", "CustomResourceDefinition"] == kinds[:2]
    assert "Deployment" == kinds[-1]
    assert ("NetworkPolicy", "/apis/networking.k8s.io/v1/namespaces/load/networkpolicies", "trafficsim-operator") in (
        cluster.applied
    )
    assert ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "trafficsim-operator") in cluster.applied
    text = capsys.readouterr().out
    assert "deployment load/trafficsim-operator applied" in text
    assert "Next: kubectl -n load rollout status deployment/trafficsim-operator" in text


def test_json_tells_every_object(capsys):
    applied(Cluster(), as_json=True)
    told = json.loads(capsys.readouterr().out)["applied"]
    assert [o["kind"] for o in installation(Wanted())] == [entry["kind"] for entry in told]
    assert all(entry["uid"] for entry in told)


@pytest.mark.parametrize(
    ("cluster", "options", "told"),
    [
        pytest.param(
            Cluster(there={"metadata": {"annotations": {"meta.helm.sh/release-name": "load"}}}),
            {},
            "belongs to Helm's release load",
            id="two would take its fields from each other",
        ),
        pytest.param(
            Cluster(knows=False), {"role_only": True}, "trafficsim install --crd-only --apply", id="the kind is missing"
        ),
    ],
)
def test_it_refuses_before_anything_is_written(cluster, options, told):
    with pytest.raises(SpecError, match=told):
        applied(cluster, **options)
    assert [] == cluster.applied


def test_the_kind_alone_needs_no_look_at_the_operator(capsys):
    cluster = Cluster(there={"metadata": {"annotations": {"meta.helm.sh/release-name": "load"}}}, knows=False)
    assert 0 == applied(cluster, (crd(),))
    assert ["CustomResourceDefinition"] == [kind for kind, _, _ in cluster.applied]
    assert "Next" not in capsys.readouterr().out
