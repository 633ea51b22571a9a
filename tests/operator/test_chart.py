"""The chart: what it renders, what it refuses, and that it says what the code says. Without helm most is skipped."""

import json
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import client

from levels import unavailable
from trafficsim_api import __version__, names
from trafficsim_api.policy import DEFAULT, Policy, PolicyTarget
from trafficsim_api.protocol import PORT
from trafficsim_operator.chart import __main__ as generator
from trafficsim_operator.chart.files import CHART, written
from trafficsim_operator.chart.rendered import RenderError, manifests, own, rendered, template
from trafficsim_operator.fleet import Owner
from trafficsim_operator.manifests import deployment
from trafficsim_operator.manifests.installation import Wanted, installation
from trafficsim_operator.manifests.rbac import own_namespace_rules, simulation_rules
from trafficsim_operator.policy_file import read_policy
from trafficsim_operator.settings import ENVIRONMENT, Settings
from trafficsim_operator.testing import Unavailable, helm
from trafficsim_operator.testing.go_modules import KUBERNETES

ROOT = Path(__file__).parents[2]
PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
READERS = f"networkPolicy.readers=[{json.dumps(PEER)}]"
MONITORS = ("metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true", READERS)
ROLE_ONLY = "rbac.scope=namespaced"
WHOLE_CLUSTER = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
EVERYWHERE = {
    "ConfigMap", "Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Role", "RoleBinding", "Service",
    "ServiceAccount",
}  # fmt: skip
AS_SHIPPED = EVERYWHERE | {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


@pytest.fixture(scope="module")
def program():
    try:
        return helm.find(build=False)
    except Unavailable as error:
        unavailable("helm", error)


@pytest.fixture(scope="module")
def chart(program):
    """Return what renders the chart with values, each as `--set-json` takes it, or as `--set` does."""

    def render(*values, **where):
        options = []
        for value in values:
            as_json = value.partition("=")[2][:1] in ("[", "{")
            options += ["--set-json" if as_json else "--set", value]
        return template(program, *options, **where)

    return render


def one(objects, kind, name=None):
    """Return the only object of *kind*, or the one called *name*."""
    [found] = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def pod_of(objects):
    return one(objects, "Deployment")["spec"]["template"]


def environment(objects):
    """Return the variables that are given as they are."""
    variables = pod_of(objects)["spec"]["containers"][0]["env"]
    return {variable["name"]: variable["value"] for variable in variables if "value" in variable}


def policy_of(objects):
    return read_policy(one(objects, "ConfigMap")["data"]["policy.yaml"].encode(), "the ConfigMap")


def test_what_is_written_from_python_is_up_to_date():
    """Values, their schema and table, the rights, the CRD: `make generate` writes them."""
    files = written((ROOT / CHART / "README.md").read_text()) | manifests()
    assert [] == [str(path) for path, text in files.items() if (ROOT / path).read_text() != text]


def test_the_manifests_are_as_helm_renders_the_chart(program):
    assert [] == [str(path) for path, text in rendered(program).items() if (ROOT / path).read_text() != text]


def test_a_stale_file_is_named_and_written(tmp_path, monkeypatch, capsys):
    """--check says which; without it they are written; where there is no helm that is said, and no fault."""
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.delenv("TRAFFICSIM_REQUIRE", raising=False)
    monkeypatch.setenv("TRAFFICSIM_HELM", str(tmp_path / "none"))
    (tmp_path / CHART).mkdir(parents=True)
    (tmp_path / CHART / "README.md").write_text((ROOT / CHART / "README.md").read_text())
    assert 1 == generator.main(["--check"])
    told = capsys.readouterr()
    assert "charts/trafficsim/values.yaml is out of date: run `make generate`" in told.err
    assert "README.md" not in told.err
    assert "the rendered manifests are not compared: TRAFFICSIM_HELM" in told.out
    assert 0 == generator.main([])
    assert 0 == generator.main(["--check"])
    assert (ROOT / "manifests/install.yaml").read_text() == (tmp_path / "manifests/install.yaml").read_text()


@pytest.mark.parametrize(("required", "code"), [("node,helm", 1), ("node,helmet", 0), ("", 0)])
def test_without_helm_a_check_fails_where_helm_is_required(tmp_path, monkeypatch, capsys, required, code):
    """What could not be compared may be out of date."""
    monkeypatch.setenv("TRAFFICSIM_HELM", str(tmp_path / "none"))
    monkeypatch.setenv("TRAFFICSIM_REQUIRE", required)
    assert code == generator.main(["--check"])
    assert "the rendered manifests are not compared: TRAFFICSIM_HELM" in capsys.readouterr().out


def test_helm_finds_nothing_to_mend(program):
    done = helm.run(program, "lint", str(ROOT / CHART), "--strict", "--kube-version", KUBERNETES.version())
    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        pytest.param((), AS_SHIPPED, id="as shipped"),
        pytest.param((ROLE_ONLY,), EVERYWHERE, id="a Role is all there is"),
        pytest.param(MONITORS, AS_SHIPPED | {"ServiceMonitor", "PodMonitor"}, id="monitors"),
        pytest.param(
            ("crds.install=false",), AS_SHIPPED - {"CustomResourceDefinition"}, id="the kind is there already"
        ),
        pytest.param(("networkPolicy.enabled=false",), AS_SHIPPED - {"NetworkPolicy"}, id="no NetworkPolicies"),
        pytest.param(("replicas=1",), AS_SHIPPED - {"PodDisruptionBudget"}, id="one replica can always be evicted"),
        pytest.param(
            ("rbac.create=false",),
            AS_SHIPPED - {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"},
            id="roles of somebody else",
        ),
        pytest.param(
            ("serviceAccount.create=false", "serviceAccount.name=ours"),
            AS_SHIPPED - {"ServiceAccount"},
            id="an account of somebody else",
        ),
    ],
)
def test_the_kinds_that_are_rendered(chart, values, kinds):
    assert kinds == {found["kind"] for found in chart(*values)}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param("replicas=two", "/replicas", id="no number"),
        pytest.param("replicas=0", "/replicas", id="too small"),
        pytest.param("replica=1", "'replica'", id="unknown"),
        pytest.param("image.name=operator", "'/image': additional properties 'name'", id="unknown, further down"),
        pytest.param("image.repository=UPPER", "/image/repository", id="no repository"),
        pytest.param("image.digest=sha256:12", "/image/digest", id="no digest"),
        pytest.param("rbac.scope=all", "/rbac/scope", id="no scope"),
        pytest.param('rbac.namespaces=["Shop"]', "/rbac/namespaces/0", id="no namespace"),
        pytest.param('rbac.namespaces=["shop"]', "rbac.namespaces: belongs to rbac.scope=namespaced", id="scope"),
        pytest.param("policy.default.maxUsers=many", "/policy/default/maxUsers", id="a policy's number"),
        pytest.param("policy.default.maxDuration=forever", "/policy/default/maxDuration", id="a policy's duration"),
        pytest.param("policy.default.maxusers=1", "'maxusers'", id="a policy's field"),
        pytest.param('policy.default.verbs=["fetch"]', "/policy/default/verbs/0", id="a policy's verb"),
        pytest.param(
            'policy.default.targets=[{"service": "own", "host": "shop"}]', "/policy/default/targets/0", id="two at once"
        ),
        pytest.param("resources.limits.memory=lots", "/resources/limits/memory", id="no amount"),
        pytest.param("runAsUser=0", "/runAsUser", id="root"),
        pytest.param("metrics.podMonitor.interval=often", "/metrics/podMonitor/interval", id="no interval"),
        pytest.param("metrics.podMonitor.enabled=true", "metrics.podMonitor: nobody could read", id="unreachable"),
        pytest.param("serviceAccount.create=false", "serviceAccount.name: needed", id="no account"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(chart, value, told):
    with pytest.raises(RenderError) as refused:
        chart(value)
    assert told in str(refused.value)


def test_values_of_a_parent_chart_are_let_through(chart):
    """Helm hands `global` to every dependency."""
    assert chart() == chart("global.region=north")


@pytest.mark.parametrize("scope", ["cluster", "namespaced"])
def test_every_field_is_one_that_kubernetes_has(chart, scope):
    """The client's models drop what they don't know and refuse what has the wrong type: nothing may get lost."""
    objects = chart(
        f"rbac.scope={scope}",
        'networkPolicy.runnerNamespaces=["shop"]',
        READERS,
        'imagePullSecrets=[{"name":"registry"}]',
        'tolerations=[{"key":"infra","operator":"Exists"}]',
        'affinity={"nodeAffinity":{}}',
        'nodeSelector={"pool":"infra"}',
        'podAnnotations={"note":"hello"}',
        'serviceAccount.annotations={"note":"hello"}',
        "priorityClassName=high",
    )
    for found in objects:
        if found["kind"] != "CustomResourceDefinition":  # the tests of the CRD apply it
            model = getattr(client, f"V1{found['kind']}")
            assert found == json.loads(model.from_dict(found).to_json())


def test_the_rights_are_those_the_operator_states(chart):
    """The very rules that the tests of the process run under, and the Lease by the name that it is told."""
    objects = chart(release="load")
    assert simulation_rules() == one(objects, "ClusterRole")["rules"]
    assert own_namespace_rules(environment(objects)["TRAFFICSIM_LEASE"]) == one(objects, "Role")["rules"]


def test_role_only_is_a_role_in_each_namespace(chart):
    """Nothing belongs to the whole cluster, and the account of the release's namespace is bound in every one."""
    objects = chart(ROLE_ONLY, 'rbac.namespaces=["shop","cart","shop"]', namespace="load")
    assert set() == WHOLE_CLUSTER & {found["kind"] for found in objects}
    roles = [o for o in objects if o["kind"] == "Role" and o["metadata"]["namespace"] != "load"]
    assert {"shop": simulation_rules(), "cart": simulation_rules()} == {
        role["metadata"]["namespace"]: role["rules"] for role in roles
    }
    bindings = [o for o in objects if o["kind"] == "RoleBinding"]
    assert ["cart", "load", "shop"] == sorted(binding["metadata"]["namespace"] for binding in bindings)
    account = one(objects, "ServiceAccount")["metadata"]
    assert {("load", account["name"])} == {(b["subjects"][0]["namespace"], b["subjects"][0]["name"]) for b in bindings}
    assert "shop,cart" == environment(objects)["TRAFFICSIM_NAMESPACES"]


def test_role_only_serves_the_releases_namespace_unless_told(chart):
    objects = chart(ROLE_ONLY, namespace="shop")
    assert "shop" == environment(objects)["TRAFFICSIM_NAMESPACES"]
    assert {"shop"} == {found["metadata"]["namespace"] for found in objects}


def test_the_operator_can_read_its_environment(chart):
    """Every variable is one it knows; as shipped they say what it would do by itself, but for policy and image."""
    objects = chart()
    given = environment(objects)
    from_the_pod = {variable["name"] for variable in pod_of(objects)["spec"]["containers"][0]["env"]} - given.keys()
    assert {"POD_NAMESPACE", "POD_NAME", "POD_IP"} == from_the_pod
    assert given.keys() <= ENVIRONMENT.keys()
    policy = pod_of(objects)["spec"]["containers"][0]["volumeMounts"][0]["mountPath"]
    read = Settings.from_env(given)
    assert f"{policy}/policy.yaml" == str(read.policy)
    assert Settings.from_env({"TRAFFICSIM_POLICY": str(read.policy)}) == read


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        pytest.param((), DEFAULT, id="as shipped: the operator's own"),
        pytest.param(
            ("runner.image.repository=registry.example.com:5000/runner",),
            DEFAULT.model_copy(update={"images": ("registry.example.com:5000/runner",)}),
            id="the runners' repository is allowed",
        ),
        pytest.param(
            ("policy.default.maxUsers=null", "policy.default.maxDuration=null", "policy.default.images=null"),
            Policy(targets=DEFAULT.targets, max_runners=DEFAULT.max_runners),
            id="limits taken away",
        ),
        pytest.param(
            (
                'policy.default.targets=[{"cidr":"10.0.0.0/8","ports":[443]}]',
                "policy.default.maxUsers=10000000",
                'policy.default.verbs=["get"]',
            ),
            DEFAULT.model_copy(
                update={
                    "targets": (PolicyTarget(cidr="10.0.0.0/8", ports=(443,)),),
                    "max_users": 10_000_000,
                    "verbs": ("get",),
                }
            ),
            id="one's own, and a number that is not rounded",
        ),
    ],
)
def test_the_policy_is_the_document_that_the_operator_reads(chart, values, policy):
    assert policy == policy_of(chart(*values))


@pytest.mark.parametrize(
    ("values", "image"),
    [
        pytest.param((), f"trafficsim/operator:{__version__}", id="of this version, never latest"),
        pytest.param(("image.tag=1.5",), "trafficsim/operator:1.5", id="a tag"),
        pytest.param(
            ("image.tag=1.5", f"image.digest=sha256:{'a' * 64}"),
            f"trafficsim/operator@sha256:{'a' * 64}",
            id="a digest goes before the tag",
        ),
    ],
)
def test_the_operators_image(chart, values, image):
    objects = chart(*values)
    assert image == pod_of(objects)["spec"]["containers"][0]["image"]
    assert image == one(objects, "Pod")["spec"]["containers"][0]["image"]


def test_the_version_is_the_packages():
    chart = yaml.safe_load((ROOT / CHART / "Chart.yaml").read_text())
    assert (__version__, __version__) == (chart["version"], chart["appVersion"])


def test_pods_are_good_for_the_restricted_standard(chart):
    """The operator's and that of `helm test`; the user is a number, so that nothing has to look into the image."""
    objects = chart()
    for pod in (pod_of(objects), one(objects, "Pod")):
        security = pod["spec"]["securityContext"]
        assert (True, {"type": "RuntimeDefault"}) == (security["runAsNonRoot"], security["seccompProfile"])
        assert security["runAsUser"] > 0
        [container] = pod["spec"]["containers"]
        assert {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        } == container["securityContext"]
        assert {"cpu", "memory"} == container["resources"]["limits"].keys() == container["resources"]["requests"].keys()


def test_an_operator_that_is_slow_to_begin_is_not_killed_for_it(chart):
    """Three minutes until it answers for the first time, a minute without an answer afterwards."""
    [container] = pod_of(chart())["spec"]["containers"]
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["httpGet"] == liveness["httpGet"]
    assert 180 == startup["periodSeconds"] * startup["failureThreshold"]
    assert 60 == liveness["periodSeconds"] * liveness["failureThreshold"]


def test_a_large_user_stays_a_whole_number(program):
    """Helm reads numbers of a file as floats, and would print 1e+09; so it does with those of the policy."""
    values = ("--set-json", "runAsUser=1000650000", "--set-json", "policy.default.maxUsers=10000000")
    objects = template(program, *values)
    security = pod_of(objects)["spec"]["securityContext"]
    assert (1_000_650_000, 1_000_650_000) == (security["runAsUser"], security["runAsGroup"])
    assert 10_000_000 == policy_of(objects).max_users


def test_the_platform_may_choose_the_user(chart):
    security = pod_of(chart("runAsUser=null"))["spec"]["securityContext"]
    assert {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}} == security


def test_everything_selects_the_operators_pods_and_no_others(chart):
    """Service, budget, spread and NetworkPolicy by the labels of the Deployment; the pod of the test is no replica."""
    objects = chart(*MONITORS)
    selector = one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    labels = pod_of(objects)["metadata"]["labels"]
    assert selector.items() <= labels.items()
    name = one(objects, "Deployment")["metadata"]["name"]
    assert selector == one(objects, "Service")["spec"]["selector"]
    assert selector == one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert selector == one(objects, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= one(objects, "Service")["metadata"]["labels"].items()
    assert selector == one(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    for spread in pod_of(objects)["spec"]["topologySpreadConstraints"]:
        assert selector == spread["labelSelector"]["matchLabels"]
    assert not selector.items() <= one(objects, "Pod")["metadata"]["labels"].items()


def test_an_upgrade_hands_over(chart):
    """A new replica is there before an old one goes, and one at a time may be evicted."""
    objects = chart()
    assert {"maxSurge": 1, "maxUnavailable": 0} == one(objects, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert 2 == one(objects, "Deployment")["spec"]["replicas"]
    assert 1 == one(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"]


def a_runner(**more):
    """Return the pod template of a runner as the operator makes it, with labels of the user's own."""
    owner = Owner(namespace="shop", name="shop", uid="6f1d0f5e-0000-4000-8000-000000000001")
    labels = {"app.kubernetes.io/name": "mine"} | more
    return deployment(owner, "0a1b2c3d", {"image": "trafficsim/runner:1.0", "labels": labels}, 1)["spec"]["template"]


def test_runners_are_reached_by_the_operator_alone(chart):
    """In each namespace served: its pods as the operator labels them, on the port they listen on, and out anywhere."""
    objects = chart(ROLE_ONLY, 'rbac.namespaces=["shop","cart"]', namespace="load")
    policies = [o for o in objects if o["kind"] == "NetworkPolicy" and o["metadata"]["namespace"] != "load"]
    assert ["shop", "shop", "cart", "cart"] == [found["metadata"]["namespace"] for found in policies]
    for found in policies[::2]:
        assert ["Ingress"] == found["spec"]["policyTypes"]
        assert found["spec"]["podSelector"]["matchLabels"].items() <= a_runner()["metadata"]["labels"].items()
        [rule] = found["spec"]["ingress"]
        assert [{"port": PORT, "protocol": "TCP"}] == rule["ports"]
        [peer] = rule["from"]
        assert {"kubernetes.io/metadata.name": "load"} == peer["namespaceSelector"]["matchLabels"]
        assert one(objects, "Deployment")["spec"]["selector"] == peer["podSelector"]
    for found in policies[1::2]:
        assert (["Egress"], [{}]) == (found["spec"]["policyTypes"], found["spec"]["egress"])
        assert found["spec"]["podSelector"] == policies[0]["spec"]["podSelector"]


def test_where_simulations_are_is_not_known_of_a_whole_cluster(chart):
    """There are NetworkPolicies for runners in the namespaces that are named."""
    assert 1 == sum(o["kind"] == "NetworkPolicy" for o in chart())
    found = [o for o in chart('networkPolicy.runnerNamespaces=["shop"]') if o["metadata"].get("namespace") == "shop"]
    assert ["NetworkPolicy", "NetworkPolicy"] == [o["kind"] for o in found]


def test_without_egress_of_its_own_the_namespaces_policies_hold(chart):
    runners = [
        o["spec"]
        for o in chart(ROLE_ONLY, "networkPolicy.runnerEgress=[]")
        if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] != "trafficsim-operator"
    ]
    assert [["Ingress"]] == [spec["policyTypes"] for spec in runners]


def test_the_operator_reaches_what_it_needs(chart):
    """DNS, the API server, runners of every namespace on their port, and the replica that works."""
    found = one(chart(), "NetworkPolicy")["spec"]
    assert ["Ingress", "Egress"] == found["policyTypes"]
    ports = [sorted({entry["port"] for entry in rule["ports"]}) for rule in found["egress"]]
    assert [[53, 5353], [443, 6443], [PORT], [8080]] == ports
    assert {(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")} == {
        (entry["port"], entry["protocol"]) for entry in found["egress"][0]["ports"]
    }
    [runners] = found["egress"][2]["to"]
    assert {} == runners["namespaceSelector"]
    assert runners["podSelector"]["matchLabels"].items() <= a_runner()["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("ports", "expected"),
    [("[53]", [53]), ("[]", None)],
    ids=["of one's own", "none: another NetworkPolicy has them"],
)
def test_the_ports_of_dns(chart, ports, expected):
    """A rule without ports would be one for all of them, so it is left out."""
    rules = one(chart(f"networkPolicy.dnsPorts={ports}"), "NetworkPolicy")["spec"]["egress"]
    assert (3 if expected is None else 4) == len(rules)
    assert all(rule["ports"] for rule in rules)
    assert (expected or [443, 6443]) == sorted({entry["port"] for entry in rules[0]["ports"]})


def _let_in(objects):
    """Return the selector of the pods that reach the operator."""
    return one(objects, "NetworkPolicy")["spec"]["ingress"][0]["from"][0]["podSelector"]


def _selects(selector, labels):
    """Return whether *selector* matches *labels*; its expressions are all of the operator In."""
    assert {"In"} == {found["operator"] for found in selector["matchExpressions"]}
    return selector["matchLabels"].items() <= labels.items() and all(
        labels.get(found["key"]) in found["values"] for found in selector["matchExpressions"]
    )


def test_the_operator_is_reached_by_no_runner(chart):
    """Labels that a user may set on runners don't let them in; the replicas are let in."""
    objects = chart()
    selector = _let_in(objects)
    assert _selects(selector, pod_of(objects)["metadata"]["labels"])
    labels = pod_of(objects)["metadata"]["labels"]
    assert not _selects(selector, a_runner(**labels)["metadata"]["labels"])


def test_who_reads_metrics_is_let_in(chart):
    """Prometheus reaches the operator; runners only when it is to read theirs."""
    name = "trafficsim-operator-runners"
    for values, with_runners in ((MONITORS, True), (("metrics.serviceMonitor.enabled=true", READERS), False)):
        objects = chart(ROLE_ONLY, *values)
        assert PEER in one(objects, "NetworkPolicy", "trafficsim-operator")["spec"]["ingress"][0]["from"]
        assert with_runners == (PEER in one(objects, "NetworkPolicy", name)["spec"]["ingress"][0]["from"])


def test_monitors_read_ports_that_are_there(chart):
    """By the ports' names in the Service and in a runner's pod, with labels that runners have."""
    objects = chart(*MONITORS, "metrics.podMonitor.labels.release=prometheus")
    [endpoint] = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in one(objects, "Service")["spec"]["ports"]}
    monitor = one(objects, "PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in a_runner()["spec"]["containers"][0]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= a_runner()["metadata"]["labels"].items()
    assert set(monitor["spec"]["podTargetLabels"]) <= a_runner()["metadata"]["labels"].keys()
    assert {"any": True} == monitor["spec"]["namespaceSelector"]
    assert "prometheus" == monitor["metadata"]["labels"]["release"]
    served = one(chart(ROLE_ONLY, *MONITORS, namespace="shop"), "PodMonitor")["spec"]["namespaceSelector"]
    assert {"matchNames": ["shop"]} == served


def test_an_uninstall_keeps_the_kind(chart):
    """With the CRD every simulation would go."""
    found = one(chart(), "CustomResourceDefinition")
    assert {"helm.sh/resource-policy": "keep"} == found["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("trafficsim", (), "trafficsim-operator"),
        ("load", (), "load-trafficsim-operator"),
        ("trafficsim-operator", (), "trafficsim-operator"),
        ("load", ("fullnameOverride=generator",), "generator"),
        ("a" * 53, (), f"{'a' * 41}-operator"),
    ],
)
def test_names_follow_from_the_release(chart, release, values, name):
    """A Service's name is short enough, the Lease has the same, and no label is longer than one may be."""
    objects = chart(*values, release=release)
    assert name == one(objects, "Deployment")["metadata"]["name"]
    assert name == environment(objects)["TRAFFICSIM_LEASE"]
    assert len(name) <= 63
    assert all(len(value) <= 63 for o in objects for value in o["metadata"].get("labels", {}).values())


def test_helm_test_asks_the_service(chart):
    """By the operator's own program; the kind is looked up with the operator's account."""
    objects = chart(namespace="load")
    pod, service = one(objects, "Pod"), one(objects, "Service")["metadata"]
    assert ["--check", f"http://{service['name']}.load.svc:8080"] == pod["spec"]["containers"][0]["args"]
    assert pod_of(objects)["spec"]["serviceAccountName"] == pod["spec"]["serviceAccountName"]
    assert "test" == pod["metadata"]["annotations"]["helm.sh/hook"]
    assert _selects(_let_in(objects), pod["metadata"]["labels"])


@pytest.mark.parametrize("role_only", [False, True], ids=["the whole cluster", "a Role is all there is"])
def test_an_installation_without_helm_is_what_helm_renders(chart, role_only):
    """Another namespace and other images are put where the chart has them, and nowhere else."""
    wanted = Wanted(
        namespace="load",
        role_only=role_only,
        image="registry.example.com/operator:2",
        runner_image="registry.example.com/runner:3",
    )
    values = (
        "image.repository=registry.example.com/operator", "runner.image.repository=registry.example.com/runner",
    )  # fmt: skip
    values += ('image={"tag":"2"}', 'runner.image={"tag":"3"}', *((ROLE_ONLY,) if role_only else ()))
    expected = [own(o) for o in chart(*values, namespace="load") if o["kind"] != "Pod"]
    found = [o for o in installation(wanted) if o["kind"] != "Namespace"]
    assert sorted(map(_comparable, expected)) == sorted(map(_comparable, found))


def _comparable(found):
    """Return *found* as text, the policy by what it says."""
    data = {name: yaml.safe_load(text) for name, text in found.get("data", {}).items()}
    return json.dumps(found | ({"data": data} if data else {}), sort_keys=True)


def test_manifests_do_not_claim_to_be_helms():
    """Nobody's release owns them, so none is kept from taking them over."""
    for text in manifests().values():
        assert "helm.sh" not in text
        assert "managed-by: Helm" not in text
    assert names.MANAGED_BY in manifests()[next(iter(manifests()))], "but runners are told by who makes them"
