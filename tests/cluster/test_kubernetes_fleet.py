"""Runners as pods: the contract of fleets, and what is true of Deployments only."""

import asyncio
import importlib
import json
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cluster.operator_stand import a_simulation, client, install_kind, now_ms
from component.fleet_contract import OTHER, REVISION, FleetContract, FleetStand, a_template
from levels import unavailable
from trafficsim_api.document import load_spec
from trafficsim_api.errors import Unavailable
from trafficsim_api.names import deployment_name, keys_name
from trafficsim_api.policy import DEFAULT
from trafficsim_operator.actions import EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.kubernetes import KubernetesFleet
from trafficsim_operator.keys import keys_of
from trafficsim_operator.kube import CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES, SIMULATIONS, Changed
from trafficsim_operator.observed import RunnerState
from trafficsim_operator.reconcile import read
from trafficsim_operator.store.kubernetes import KubernetesRecord
from trafficsim_operator.testing import Image, ProcessKubelet
from trafficsim_operator.testing import Unavailable as MachineLacks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

IMAGE = "trafficsim/runner:test"
RUNNER = Image(argv=(sys.executable, "-m", "trafficsim_runner"))
SIGNING = keys_of(Ed25519PrivateKey.generate())
KEYS = SIGNING.public
[KID] = KEYS


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


@pytest.fixture
async def api(control_plane):
    async with client(control_plane) as found:
        yield found


@pytest.fixture
async def owner(api, namespace):
    made = await api.create(SIMULATIONS, a_simulation(namespace))
    return Owner(namespace=namespace, name="shop", uid=made["metadata"]["uid"])


@pytest.fixture
def fleet(api):
    return KubernetesFleet(api, image=IMAGE, keys=KEYS, now_ms=now_ms)


@pytest.fixture
async def kubelet(control_plane, namespace, tmp_path):
    node = ProcessKubelet(
        control_plane.kubeconfig,
        images={IMAGE: RUNNER},
        namespaces=[namespace],
        node=f"process-node-{namespace}",
        directory=tmp_path,
    )
    try:
        await node.start()
    except MachineLacks as error:
        unavailable("control-plane", error)
    yield node
    await node.stop()


@pytest.fixture
def fleet_stand(fleet, owner, kubelet):
    async def kill(name):
        kubelet.kill(name)

    return ImageStand(
        fleet=fleet,
        owner=owner,
        stranger=Owner(namespace=owner.namespace, name="shop", uid="7b0c3c1e-0000-4000-8000-000000000002"),
        kill=kill,
        signer=SIGNING.signer,
    )


class ImageStand(FleetStand):
    """The stand with the image in the template, as decide pins it."""

    async def ensure(self, replicas, revision=REVISION, template=None):
        await super().ensure(replicas, revision, {"image": IMAGE} | dict(template or a_template()))


class TestKubernetesFleet(FleetContract):
    """The real runner in pods."""

    async def test_a_ready_runner_is_not_retired(self, fleet_stand, kubelet):
        """Of a ready and an unready pod the unready one goes; of two ready ones it could be anyone."""
        await fleet_stand.ensure(2)
        first = (await fleet_stand.ready(2)).runners[0]
        retire = Retire(revision=REVISION, runners=(first.name,), replicas=1, reason="test")
        with pytest.raises(Unavailable, match="is still ready"):
            await fleet_stand.fleet.apply(fleet_stand.owner, retire)
        await fleet_stand.ready(2)


def ensure(replicas=1, revision=REVISION, **template):
    return EnsureRevision(
        revision=revision, template={"image": IMAGE} | a_template(**template), replicas=replicas, reason="test"
    )


async def live(api, owner, revision=REVISION):
    return await api.get(DEPLOYMENTS, owner.namespace, deployment_name(owner.name, owner.uid, revision))


async def test_replicas_change_without_touching_the_rest(api, fleet, owner):
    """Applied once by `trafficsim`, then only replicas by `trafficsim-scale`: a scale is no rollout."""
    await fleet.apply(owner, ensure(2))
    before = await live(api, owner)
    await fleet.apply(owner, ensure(3))
    await fleet.apply(owner, ensure(3))
    after = await live(api, owner)
    assert 3 == after["spec"]["replicas"]
    assert before["spec"]["template"] == after["spec"]["template"]
    managers = {entry["manager"] for entry in after["metadata"]["managedFields"] if not entry.get("subresource")}
    assert {"trafficsim", "trafficsim-scale"} <= managers
    assert not (await fleet.observe(owner))[REVISION].drifted


async def test_a_scale_goes_by_what_was_seen(api, fleet, owner):
    """An operator that was stopped in the midst must not undo another's scale; a new status is in nobody's way."""
    await fleet.apply(owner, ensure(2))
    seen = await live(api, owner)
    name = seen["metadata"]["name"]
    await api.merge(DEPLOYMENTS, owner.namespace, name, {"metadata": {"annotations": {"a": "b"}}}, "somebody")
    await fleet._scale(owner, seen, 3)
    assert 3 == (await live(api, owner))["spec"]["replicas"]
    with pytest.raises(Changed):
        await fleet._scale(owner, seen, 1)
    assert 3 == (await live(api, owner))["spec"]["replicas"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"spec": {"replicas": 7}}, id="replicas"),
        pytest.param({"metadata": {"annotations": {"trafficsim.io/applied-template": None}}}, id="the note is gone"),
        pytest.param({"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}}, id="a field"),
        pytest.param({"spec": {"template": {"metadata": {"labels": {"sidecar.istio.io/inject": None}}}}}, id="a label"),
        pytest.param({"spec": {"paused": True, "minReadySeconds": 60}}, id="a pause"),
        pytest.param({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}, id="the strategy"),
        pytest.param(
            {"spec": {"template": {"spec": {"hostNetwork": True, "initContainers": [{"name": "i", "image": "i"}]}}}},
            id="in the pod",
        ),
        pytest.param({"metadata": {"labels": {"trafficsim.io/revision": "other"}}}, id="what it is found by"),
    ],
)
async def test_drift_is_seen_and_repaired(api, fleet, owner, change):
    """However often the operator scaled before: after a repair everything is as it was applied, replicas too."""
    await fleet.apply(owner, ensure(2))
    await fleet.apply(owner, ensure(3))
    whole = await live(api, owner)
    await api.merge(DEPLOYMENTS, owner.namespace, whole["metadata"]["name"], change, "kubectl-edit")
    seen = (await fleet.observe(owner)).get(REVISION)
    assert seen is None or seen.drifted
    await fleet.apply(owner, ensure(3))
    repaired = await live(api, owner)
    assert whole["spec"] == repaired["spec"]
    assert whole["metadata"]["labels"] == repaired["metadata"]["labels"]
    assert not (await fleet.observe(owner))[REVISION].drifted


async def scaled_by(kube, manager, what, replicas):
    """Write through the subresource `scale` as *manager*, as a HorizontalPodAutoscaler does."""
    patch = json.dumps({"spec": {"replicas": replicas}})
    await kube("patch", *what, "--subresource=scale", f"--field-manager={manager}", "--type=merge", "-p", patch)


async def test_an_autoscaler_is_seen_and_a_person_is_put_right(api, fleet, owner, kube):
    """Replicas of an autoscaler are no drift, until we set others; those of `kubectl scale` are."""
    await fleet.apply(owner, ensure(1))
    what = ("deployment", deployment_name(owner.name, owner.uid, REVISION))
    await scaled_by(kube, "kube-controller-manager", what, 4)
    seen = (await fleet.observe(owner))[REVISION]
    assert (4, False) == (seen.replicas, seen.drifted)
    assert "kube-controller-manager" == seen.scaler
    await fleet.apply(owner, ensure(2))
    seen = (await fleet.observe(owner))[REVISION]
    assert (2, False, "") == (seen.replicas, seen.drifted, seen.scaler)
    await kube("scale", *what, "--replicas=3")
    seen = (await fleet.observe(owner))[REVISION]
    assert (3, True, "") == (seen.replicas, seen.drifted, seen.scaler)


async def test_an_autoscaler_of_users_is_seen(api, owner, kube):
    """It writes `users` through the resource's own `scale`; a person's `kubectl scale` is what the user asks for."""
    record = KubernetesRecord(api, identity="test", now_ms=now_ms)
    await kube("scale", "tsim/shop", "--replicas=6")
    document = await record.read(owner.namespace, owner.name)
    assert read(document).scaler == ""
    await scaled_by(kube, "kube-controller-manager", ("tsim", "shop"), 7)
    desired = read(await record.read(owner.namespace, owner.name))
    assert (7, "kube-controller-manager") == (desired.spec.users, desired.scaler)


async def test_what_kubectl_set_adds_goes_again(api, fleet, owner, kube):
    """A variable and a container beside ours, under another field manager; a label of others stays."""
    await fleet.apply(owner, ensure(2))
    whole = await live(api, owner)
    name = whole["metadata"]["name"]
    await kube("set", "env", f"deployment/{name}", "HTTP_PROXY=http://192.0.2.1:3128")
    sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}}}}
    await kube("patch", "deployment", name, "--patch", json.dumps(sidecar))
    await kube("label", "deployment", name, "team=shop")
    assert (await fleet.observe(owner))[REVISION].drifted
    await fleet.apply(owner, ensure(2))
    repaired = await live(api, owner)
    assert whole["spec"] == repaired["spec"]
    assert "shop" == repaired["metadata"]["labels"]["team"]
    assert not (await fleet.observe(owner))[REVISION].drifted
    await fleet.apply(owner, ensure(4))
    assert not (await fleet.observe(owner))[REVISION].drifted


async def test_a_deployment_that_selects_other_pods_is_made_anew(api, fleet, owner):
    await fleet.apply(owner, ensure(0))
    whole = await live(api, owner)
    await api.delete(DEPLOYMENTS, owner.namespace, whole["metadata"]["name"], whole["metadata"]["uid"])
    other = json.loads(json.dumps({"metadata": whole["metadata"], "spec": whole["spec"]}))
    for field in ("uid", "resourceVersion", "managedFields"):
        other["metadata"].pop(field)
    other["spec"]["selector"]["matchLabels"]["app"] = "theirs"
    other["spec"]["template"]["metadata"]["labels"]["app"] = "theirs"
    await api.create(DEPLOYMENTS, other)
    assert (await fleet.observe(owner))[REVISION].drifted
    await fleet.apply(owner, ensure(0))
    assert whole["spec"]["selector"] == (await live(api, owner))["spec"]["selector"]
    assert not (await fleet.observe(owner))[REVISION].drifted


async def test_a_repair_applies_the_template_that_was_applied(api, fleet, owner, monkeypatch):
    """An operator of another version builds another template; no runner is restarted for that."""
    await fleet.apply(owner, ensure(1))
    before = await live(api, owner)
    monkeypatch.setattr(importlib.import_module("trafficsim_operator.manifests.deployment"), "_TOLERATED_S", 31)
    assert not (await fleet.observe(owner))[REVISION].drifted
    await api.merge(DEPLOYMENTS, owner.namespace, before["metadata"]["name"], {"spec": {"replicas": 5}}, "kubectl")
    await fleet.apply(owner, ensure(1))
    assert before["spec"] == (await live(api, owner))["spec"]


async def test_somebody_elses_deployment_is_never_adopted(api, fleet, owner):
    """A name that is taken is told, and once it is free the runners come."""
    name = deployment_name(owner.name, owner.uid, REVISION)
    labels = {"app": "theirs"}
    theirs = {
        "metadata": {"name": name, "namespace": owner.namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "x", "image": "x"}]},
            },
        },
    }
    made = await api.create(DEPLOYMENTS, theirs)
    for action in (
        ensure(2),
        Retire(revision=REVISION, runners=(), replicas=0, reason="test"),
        RemoveRevision(revision=REVISION, reason="test"),
    ):
        with pytest.raises(Unavailable, match="not ours"):
            await fleet.apply(owner, action)
    assert (await fleet.observe(owner))[REVISION].foreign
    assert made["spec"] == (await live(api, owner))["spec"]
    await api.delete(DEPLOYMENTS, owner.namespace, name, made["metadata"]["uid"])
    async with asyncio.timeout(30):
        while await live(api, owner):
            await asyncio.sleep(0.1)
    assert {} == dict(await fleet.observe(owner))
    await fleet.apply(owner, ensure(2))
    assert not (await fleet.observe(owner))[REVISION].foreign


async def test_a_deleted_simulation_takes_everything_along(api, fleet, owner, kubelet):
    await fleet.apply(owner, ensure(1))
    await fleet.apply(owner, ensure(1, OTHER, labels={"colour": "green"}))
    await api.delete(SIMULATIONS, owner.namespace, owner.name, owner.uid)
    labels = {"trafficsim.io/simulation-uid": owner.uid}
    left = {"any"}
    async with asyncio.timeout(60):
        while left:
            await asyncio.sleep(0.1)
            found = [await api.list(kind, owner.namespace, labels) for kind in (DEPLOYMENTS, CONFIG_MAPS, PODS)]
            left = {item["metadata"]["name"] for part in found for item in part}


async def test_public_keys_that_vanished_are_made_again(api, fleet, owner, kubelet):
    """Without them no new pod starts; nobody notices while every pod runs."""
    kubelet.images.pop(IMAGE)
    await fleet.apply(owner, ensure(1))
    name = keys_name(owner.name, owner.uid)
    made = await api.get(CONFIG_MAPS, owner.namespace, name)
    assert {f"{kid}.pem": pem for kid, pem in KEYS.items()} == made["data"]
    await api.delete(CONFIG_MAPS, owner.namespace, name, made["metadata"]["uid"])
    async with asyncio.timeout(30):
        while not (await fleet.observe(owner))[REVISION].drifted:
            await asyncio.sleep(0.1)
    await fleet.apply(owner, ensure(1))
    assert await api.get(CONFIG_MAPS, owner.namespace, name) is not None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"data": {"fedcba9876543210.pem": "-----BEGIN PUBLIC KEY-----\n"}}, id="another key"),
        pytest.param({"data": {f"{KID}.pem": "-----BEGIN PUBLIC KEY-----\n"}}, id="another for ours"),
        pytest.param({"data": None}, id="none"),
        pytest.param({"binaryData": {"x.pem": "eA=="}}, id="in binary"),
    ],
)
async def test_runners_trust_our_key_only(api, fleet, owner, change):
    """Whatever somebody did to the ConfigMap, it holds our key again and no other."""
    await fleet.apply(owner, ensure(1))
    name = keys_name(owner.name, owner.uid)
    made = await api.get(CONFIG_MAPS, owner.namespace, name)
    await api.merge(CONFIG_MAPS, owner.namespace, name, change, "kubectl-edit")
    assert (await fleet.observe(owner))[REVISION].drifted
    await fleet.apply(owner, ensure(1))
    found = await api.get(CONFIG_MAPS, owner.namespace, name)
    assert (made["data"], None) == (found["data"], found.get("binaryData"))
    assert not (await fleet.observe(owner))[REVISION].drifted


async def test_a_new_signing_key_takes_the_place_of_the_old_one(api, fleet, owner):
    """The Secret was lost: without this no runner would listen to the operator any more."""
    await fleet.apply(owner, ensure(1))
    new = {"fedcba9876543210": KEYS[KID]}
    later = KubernetesFleet(api, image=IMAGE, keys=new, now_ms=now_ms)
    assert (await later.observe(owner))[REVISION].drifted
    await later.apply(owner, ensure(1))
    found = await api.get(CONFIG_MAPS, owner.namespace, keys_name(owner.name, owner.uid))
    assert {"fedcba9876543210.pem"} == set(found["data"])


async def test_a_missing_image_is_the_cause(fleet, owner, kubelet):
    await fleet.apply(owner, ensure(1, image="nowhere/runner:1"))
    while True:
        runners = (await fleet.observe(owner))[REVISION].runners
        if runners and runners[0].cause.startswith(("ErrImagePull", "ImagePullBackOff")):
            break
        await asyncio.sleep(0.1)
    assert RunnerState.STARTING is runners[0].state


async def test_a_quota_is_the_problem(kube, fleet, owner):
    """Pods that can't be made are told from the Deployment."""
    await kube("create", "quota", "small", "--hard=pods=0")
    await kube("wait", "quota/small", "--for=jsonpath={.status.hard.pods}=0", "--timeout=20s")
    await fleet.apply(owner, ensure(1))
    problem = ""
    while not problem:
        problem = (await fleet.observe(owner))[REVISION].problem
        await asyncio.sleep(0.1)
    assert "exceeded quota: small" in problem


async def test_a_cluster_that_says_no_is_quoted(kube, fleet, owner):
    """A quota on Deployments, a webhook, missing rights: in the API server's words."""
    await kube("create", "quota", "none", "--hard=count/deployments.apps=0")
    await kube("wait", "quota/none", "--for=jsonpath={.status.hard.count/deployments\\.apps}=0", "--timeout=20s")
    with pytest.raises(Unavailable, match=r"the cluster says no: 403 .* exceeded quota: none"):
        await fleet.apply(owner, ensure(1))


async def test_the_restricted_pod_standard_lets_runners_in(kube, fleet, owner, api, kubelet):
    await kube("label", "namespace", owner.namespace, "pod-security.kubernetes.io/enforce=restricted")
    await fleet.apply(owner, ensure(1))
    while not await api.list(PODS, owner.namespace, {"trafficsim.io/simulation-uid": owner.uid}):
        assert not (await fleet.observe(owner))[REVISION].problem
        await asyncio.sleep(0.1)


async def test_what_the_target_is(api, fleet, owner):
    """A Service of the namespace, an address, a name nobody knows."""

    def spec(url, **target):
        return load_spec(a_simulation(owner.namespace, target={"url": url, **target})).spec

    service = {
        "metadata": {"name": "web", "namespace": owner.namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    made = await api.create(SERVICES, service)
    facts, ca, problem = await fleet.look_up(owner, spec("http://web"), DEFAULT)
    assert (True, (made["spec"]["clusterIP"],), 80) == (facts.own_service, facts.addresses, facts.port)
    assert (None, "") == (ca, problem)
    facts, _, _ = await fleet.look_up(owner, spec("http://127.0.0.1:8080"), DEFAULT)
    assert (False, ("127.0.0.1",), "") == (facts.own_service, facts.addresses, facts.problem)
    facts, _, _ = await fleet.look_up(owner, spec("http://nix"), DEFAULT)
    assert f"there is no Service nix in namespace {owner.namespace}" == facts.problem
    *_, problem = await fleet.look_up(owner, spec("https://web", tls={"caFrom": {"configMap": "ca"}}), DEFAULT)
    assert "target.tls.caFrom.configMap: there is no ConfigMap ca" in problem
    *_, problem = await fleet.look_up(owner, spec("https://web", tls={"caFrom": {"path": "ca.crt"}}), DEFAULT)
    assert "target.tls.caFrom.path" in problem


async def test_the_grace_follows_the_targets_time_out(api, fleet, owner):
    """Known when the Deployment is made; a later edit restarts nobody."""
    document = a_simulation(owner.namespace, target={"url": "http://127.0.0.1:9", "timeouts": {"request": "90s"}})
    await fleet.look_up(owner, load_spec(document).spec, DEFAULT)
    await fleet.apply(owner, ensure(1))
    assert 100 == (await live(api, owner))["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    await fleet.look_up(owner, load_spec(a_simulation(owner.namespace)).spec, DEFAULT)
    await fleet.apply(owner, ensure(1))
    assert 100 == (await live(api, owner))["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert json.loads((await live(api, owner))["metadata"]["annotations"]["trafficsim.io/applied-template"])
