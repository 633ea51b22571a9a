"""`trafficsim install`: what it prints, what it refuses, and what it does to a cluster."""

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from trafficsim_api.crd import crd
from trafficsim_api.errors import SpecError
from trafficsim_operator.cli import install as command
from trafficsim_operator.cli.main import trafficsim
from trafficsim_operator.kube import SIMULATIONS
from trafficsim_operator.manifests.installation import Wanted, installation

PAGE = Path(__file__).parents[2] / "docs" / "install.md"
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


POLICY = "maxUsers: 5000  # mine\ntargets: [{service: own}]\n"


def test_the_policy_is_the_files_text(tmp_path):
    """Comments and all; a byte order mark is none of it."""
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8-sig")
    found = [*yaml.safe_load_all(printed("--policy", str(tmp_path / "policy.yaml")))]
    assert [POLICY] == [o["data"]["policy.yaml"] for o in found if o["kind"] == "ConfigMap"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("maxUser: 5", "policy.yaml: maxUser: unknown"),
        ("maxUsers: many", "policy.yaml: maxUsers: "),
        ("- a", "policy.yaml: a policy is needed"),
        (None, "policy.yaml: cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_policy_is_named_by_file_and_field(tmp_path, text, told):
    """Nothing comes of it: an operator would not start with it."""
    file = tmp_path / "policy.yaml"
    if text is not None:
        file.write_text(text)
    done = CliRunner().invoke(trafficsim, ["install", "--policy", str(file)])
    assert 3 == done.exit_code
    assert told in done.stderr
    assert "" == done.stdout


def test_its_help_has_examples():
    text = printed("--help")
    assert "trafficsim install --role-only -n shop --apply" in text
    assert "Exit codes: 0 done, 3" in text


class Cluster:
    """An API server that takes everything; *there* are objects it has, *knows* whether the kind is served."""

    def __init__(self, *there, knows=True):
        self.there = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in there}
        self.knows, self.applied, self.bodies = knows, [], []

    async def get(self, resource, namespace, name):
        return self.there.get((resource.kind, namespace, name))

    async def served(self, resource):
        assert SIMULATIONS == resource
        return self.knows or "CustomResourceDefinition" in self.kinds

    async def apply(self, resource, body, manager):
        assert "trafficsim-install" == manager
        self.applied.append((resource.kind, resource.path(body["metadata"]["namespace"]), body["metadata"]["name"]))
        self.bodies.append(body)
        return {"metadata": {"uid": f"uid-{len(self.applied)}"}}

    @property
    def kinds(self):
        return [kind for kind, _, _ in self.applied]


def applied(cluster, crd_only=False, as_json=False, **options):
    return asyncio.run(command._apply(cluster, Wanted(**options), crd_only, as_json))


def present(kind, namespace=None, name="trafficsim-operator", annotations=None, **fields):
    """Return an object that is there before."""
    meta = {"name": name, "annotations": annotations} | ({"namespace": namespace} if namespace else {})
    return {"kind": kind, "metadata": meta, **fields}


def helms(kind, *where):
    """Return an object that the release `load` in the namespace `tests` owns."""
    owner = {"meta.helm.sh/release-name": "load", "meta.helm.sh/release-namespace": "tests"}
    return present(kind, *where, annotations=owner)


def binding(namespace):
    """Return the binding that gives an operator in *namespace* its rights over the cluster."""
    account = {"kind": "ServiceAccount", "name": "trafficsim-operator", "namespace": namespace}
    return present("ClusterRoleBinding", subjects=[account])


def running(**options):
    """Return the Deployment of an operator that was installed with *options*."""
    return next(o for o in installation(Wanted(**options)) if o["kind"] == "Deployment")


KIND = "trafficsimulations.trafficsim.io"
POLICY_NAME = "trafficsim-operator-policy"


def test_objects_are_applied_in_order_at_their_paths(capsys):
    """What others need comes first; the pods' owner last."""
    cluster = Cluster(knows=False)
    assert 0 == applied(cluster, namespace="load")
    assert ["Namespace", "CustomResourceDefinition"] == cluster.kinds[:2]
    assert "Deployment" == cluster.kinds[-1]
    assert ("NetworkPolicy", "/apis/networking.k8s.io/v1/namespaces/load/networkpolicies", "trafficsim-operator") in (
        cluster.applied
    )
    assert ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "trafficsim-operator") in cluster.applied
    text = capsys.readouterr().out
    assert "deployment load/trafficsim-operator applied" in text
    assert "kept" not in text
    assert "Next: kubectl -n load rollout status deployment/trafficsim-operator" in text


def test_json_tells_every_object(capsys):
    applied(Cluster(), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [o["kind"] for o in installation(Wanted())] == [entry["kind"] for entry in told["applied"]]
    assert all(entry["uid"] for entry in told["applied"])
    assert [] == told["kept"]


@pytest.mark.parametrize(
    ("cluster", "options", "told"),
    [
        pytest.param(
            Cluster(helms("Deployment", "trafficsim")),
            {},
            "the Deployment trafficsim-operator belongs to Helm's release load in namespace tests",
            id="two would take its fields from each other",
        ),
        pytest.param(
            Cluster(helms("ClusterRoleBinding")),
            {},
            "the ClusterRoleBinding trafficsim-operator belongs to Helm's release load in namespace tests",
            id="a release in another namespace has the rights",
        ),
        pytest.param(
            Cluster(helms("CustomResourceDefinition", None, KIND)),
            {"crd_only": True},
            f"kubectl annotate customresourcedefinition {KIND} meta.helm.sh/release-name-",
            id="the kind is a release's, which may be gone",
        ),
        pytest.param(
            Cluster(binding("tests")),
            {"namespace": "load"},
            "the ClusterRoleBinding trafficsim-operator is that of the operator in namespace tests, which would lose",
            id="an operator in another namespace has the rights",
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


def test_what_belongs_to_others_is_not_in_the_way_of_a_role():
    """Where a Role is all there is, nothing of the whole cluster is touched, or looked at."""
    cluster = Cluster(binding("tests"), helms("ClusterRoleBinding"), helms("CustomResourceDefinition", None, KIND))
    assert 0 == applied(cluster, namespace="load", role_only=True)
    assert set() == WHOLE_CLUSTER & set(cluster.kinds)


def test_a_second_time_it_is_an_upgrade(capsys):
    """The policy and the images that were set stay, and that is said; so is how to change them."""
    chosen = {"image": "registry.example.com/operator:2", "runner_image": "registry.example.com/runner:3"}
    cluster = Cluster(running(**chosen), present("ConfigMap", "trafficsim", POLICY_NAME), binding("trafficsim"))
    assert 0 == applied(cluster)
    assert "ConfigMap" not in cluster.kinds
    assert running(**chosen)["spec"] == cluster.bodies[-1]["spec"]
    text = capsys.readouterr().out
    assert f"kept: configmap {POLICY_NAME}, as it is (--policy FILE writes another)" in text
    assert "kept: --image registry.example.com/operator:2" in text
    assert "kept: --runner-image registry.example.com/runner:3" in text


def test_what_an_option_names_is_written(capsys):
    """Over what is there: policy and images."""
    chosen = {"image": "registry.example.com/operator:3", "runner_image": "registry.example.com/runner:4"}
    before = running(image="registry.example.com/operator:2", runner_image="registry.example.com/runner:3")
    cluster = Cluster(before, present("ConfigMap", "trafficsim", POLICY_NAME))
    assert 0 == applied(cluster, policy=POLICY, **chosen)
    assert running(**chosen)["spec"] == cluster.bodies[-1]["spec"]
    assert POLICY == cluster.bodies[cluster.kinds.index("ConfigMap")]["data"]["policy.yaml"]
    assert "kept" not in capsys.readouterr().out


def test_a_policy_that_is_missing_allows_the_images_that_are_kept():
    """Somebody has deleted it: with the shipped one the runners' repository would be refused."""
    cluster = Cluster(running(runner_image="registry.example.com/runner:3"))
    applied(cluster)
    policy = yaml.safe_load(cluster.bodies[cluster.kinds.index("ConfigMap")]["data"]["policy.yaml"])
    assert ["registry.example.com/runner"] == policy["images"]


def test_a_namespace_that_is_there_is_left_as_it_is(capsys):
    """Its labels are its owner's: `restricted` would keep the pods of others out."""
    cluster = Cluster(present("Namespace", None, "shop"))
    applied(cluster, namespace="shop", as_json=True)
    assert "Namespace" not in cluster.kinds
    assert ["namespace shop, as it is"] == json.loads(capsys.readouterr().out)["kept"]


@pytest.mark.parametrize("role_only", [False, True], ids=["the whole cluster", "a Role is all there is"])
def test_what_the_page_says_removes_all_but_namespace_and_kind(role_only):
    """By kinds and the label in the namespace, by name in the cluster."""
    page = PAGE.read_text().partition("## Remove")[2]
    kinds, label = re.search(r"delete (\S+) \\\n  -l (\S+) ", page).groups()
    cluster = re.search(r"kubectl delete (\S+) trafficsim-operator ", page).group(1)
    key, _, value = label.partition("=")
    left = [
        (o["kind"], o["metadata"]["name"])
        for o in installation(Wanted(role_only=role_only))
        if not (o["kind"].lower() in kinds.split(",") and value == o["metadata"]["labels"][key])
        and not (o["kind"].lower() in cluster.split(",") and "trafficsim-operator" == o["metadata"]["name"])
    ]
    assert left == ([] if role_only else [("Namespace", "trafficsim"), ("CustomResourceDefinition", KIND)])


def test_the_kind_alone_needs_no_look_at_the_operator(capsys):
    cluster = Cluster(helms("Deployment", "trafficsim"), knows=False)
    assert 0 == applied(cluster, crd_only=True)
    assert ["CustomResourceDefinition"] == cluster.kinds
    assert "Next" not in capsys.readouterr().out
