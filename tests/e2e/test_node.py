"""The node is a whole one: pods run, reach each other by name, are limited and restricted; and it can be got rid of."""

import contextlib
import http.client
import ipaddress
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.pods import deployment, pod, service, web
from trafficsim_operator.testing import leftovers
from trafficsim_operator.testing.go_modules import KUBERNETES
from trafficsim_operator.testing.node import Cluster, CommandFailed, Place, daemons
from trafficsim_operator.testing.node.place import API_SERVICE, DNS_SERVICE, DOMAIN, NODE, PODS
from trafficsim_operator.testing.node.worker import PAUSE

pytestmark = [pytest.mark.node, pytest.mark.timeout(200, func_only=True)]  # the first start may build Kubernetes

PORT = 8080


def eventually(claim, within=60.0):
    """Return what *claim* gives once it is true."""
    deadline = time.monotonic() + within
    while not (value := claim()):
        assert time.monotonic() < deadline, f"not true within {within} s"
        time.sleep(0.05)
    return value


def rolled_out(kubectl, name):
    kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")


def asked(node, address):
    """Return who answers at *address*, asked from the node's side; None while it leads nowhere yet."""
    connection = http.client.HTTPConnection(address, PORT, timeout=5)
    with node.entered(), contextlib.closing(connection):
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode().strip()
        except ConnectionRefusedError:
            return None  # kube-proxy has yet to hear of the pods


@pytest.fixture
def served(node, kubectl):
    """Two pods that answer with their names behind a Service; the names and the address, which leads to them."""
    kubectl("apply", "-f", "-", stdin=deployment("web", 2, web(PORT)))
    kubectl("apply", "-f", "-", stdin=service("web", PORT))
    rolled_out(kubectl, "web")
    pods = kubectl("get", "pods", "--selector=app=web", "-o", "json")["items"]
    address = kubectl("get", "service", "web", "-o", "json")["spec"]["clusterIP"]
    eventually(lambda: asked(node, address))
    return {pod["metadata"]["name"] for pod in pods}, address


def test_the_node_is_ready(node):
    """A kubelet of the pinned version says so, with a container runtime beneath it."""
    found = node.kubectl("get", "node", NODE, "-o", "json")
    [ready] = [c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready"]
    info = found["status"]["nodeInfo"]
    assert ("True", f"v{KUBERNETES.version()}") == (ready, info["kubeletVersion"])
    assert info["containerRuntimeVersion"].startswith("containerd://")


def test_a_deployment_is_rolled_out(kubectl):
    """Three pods, each with an address of its own, and more when more are asked for."""
    kubectl("apply", "-f", "-", stdin=deployment("waiting", 3, pod(image=PAUSE)))
    rolled_out(kubectl, "waiting")
    kubectl("scale", "deployment/waiting", "--replicas=5")
    rolled_out(kubectl, "waiting")
    pods = kubectl("get", "pods", "-o", "json")["items"]
    addresses = {ipaddress.ip_address(pod["status"]["podIP"]) for pod in pods}
    assert 5 == len(addresses)
    assert all(address in ipaddress.ip_network(PODS) for address in addresses)


def test_a_service_answers_from_the_nodes_side(node, served):
    """Its address leads to each of its pods."""
    names, address = served
    answered = set()
    eventually(lambda: answered.add(asked(node, address)) or names <= answered)
    assert names == answered


def test_a_pod_reaches_a_service_by_its_name_and_itself_too(kubectl, served):
    """The short name is enough within a namespace; a pod may be one of those that answer it."""
    names, _ = served
    asking = min(names)
    answered = set()

    def ask():
        answered.add(kubectl("exec", asking, "--", "wget", "-q", "-O", "-", f"http://web:{PORT}/").strip())
        return names <= answered

    eventually(ask)
    assert names == answered


def test_dns_knows_the_api_server(kubectl, served):
    """By way of the Service that each pod's resolv.conf names."""
    names, _ = served
    told = kubectl("exec", min(names), "--", "nslookup", f"kubernetes.default.svc.{DOMAIN}").split()
    assert API_SERVICE in told
    assert DNS_SERVICE in kubectl("exec", min(names), "--", "cat", "/etc/resolv.conf").split()


def test_logs_and_exec(kubectl, served):
    """What a container wrote, and a command inside it; a command that fails says so."""
    name = min(served[0])
    assert "serving" == kubectl("logs", name).strip()
    assert name == kubectl("exec", name, "--", "hostname").strip()
    with pytest.raises(CommandFailed, match="exit code 3"):
        kubectl("exec", name, "--", "sh", "-c", "exit 3")


def test_a_container_beyond_its_memory_is_killed(kubectl):
    """Limits are the kernel's: the kubelet's cgroups work."""
    spec = pod(script="tail /dev/zero", memory="16Mi") | {"restartPolicy": "Never"}
    kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "eater"}, "spec": spec})
    eventually(lambda: kubectl("get", "pod", "eater", "-o", "json")["status"]["phase"] == "Failed")
    [container] = kubectl("get", "pod", "eater", "-o", "json")["status"]["containerStatuses"]
    assert "OOMKilled" == container["state"]["terminated"]["reason"]


def test_pod_security_is_enforced(kubectl):
    """A pod that is not restricted is not admitted."""
    spec = pod(image=PAUSE, securityContext={"privileged": True})
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"}, "spec": spec}
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted'):
        kubectl("apply", "-f", "-", stdin=document)


def test_a_second_start_changes_nothing(node):
    """It says that the node was up; every program is the one that ran before."""
    before = daemons.pids(node.place)
    assert not node.start(bound=True)
    assert before & daemons.pids(node.place) >= {int(f.read_text().split()[0]) for f in node.place.ids.iterdir()}


def test_the_node_is_a_provider_of_pytest_kubernetes(k8s, node):
    """The library's own calls work on it, and its deleting leaves a node that was up before."""
    k8s.create()
    major, minor, _ = KUBERNETES.version().split(".")
    assert (int(major), int(minor)) == k8s.version()
    k8s.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "quoted"}, "data": {"a": 'it\'s "so"'}})
    assert 'it\'s "so"' == k8s.kubectl(["get", "configmap", "quoted"])["data"]["a"]
    k8s.kubectl(["delete", "configmap", "quoted"], as_dict=False)
    k8s.wait("node/node", "condition=Ready")
    k8s.delete()
    assert node.is_up()


@pytest.fixture
def other(node):
    """A second node beside the first, which is gone after the test; *node* is there for what makes nodes possible."""
    cluster = Cluster(Place(name="trafficsim-other"))
    cluster.stop()
    yield cluster
    cluster.stop()


def command(cluster, verb):
    module = "trafficsim_operator.testing.node"
    return [sys.executable, "-W", "ignore::RuntimeWarning", "-m", module, verb, f"--name={cluster.place.name}"]


def left_of(place):
    """Return whatever of a node there still is: processes, mounts, its directory with its namespace, and cgroups."""
    mounted = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    hierarchies = [Path(words[1]) for words in mounted if words[2] in ("cgroup", "cgroup2")]
    paths = [place.directory, place.reaper_log, *(root / place.cgroup for root in hierarchies)]
    return [*(path for path in paths if path.exists()), *leftovers.mounts(place.directory), *daemons.pids(place)]


STAGES = {
    "after the first program": lambda place: (place.ids / "etcd").exists(),
    "while the API server starts": lambda place: (place.ids / "kube-apiserver").exists(),
    "with pods that start": lambda place: any(place.containerd.glob("state/*/sandboxes/*")),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_start_that_is_killed_can_be_cleaned_up(other, node, stage):
    """Nothing is left of it: processes, mounts, cgroups, namespace, files; the other node does not notice."""
    before = daemons.pids(node.place)
    with subprocess.Popen(command(other, "up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as start:
        eventually(lambda: STAGES[stage](other.place))
        start.kill()
    assert daemons.pids(other.place)
    assert 0 == subprocess.run(command(other, "down"), check=False).returncode
    assert [] == left_of(other.place)
    assert node.is_up() and before & daemons.pids(node.place)


def test_a_node_that_lost_a_program_is_started_anew(other):
    """It is not up, which its status says, too; a start then cleans up first."""
    assert other.start()
    assert 0 == subprocess.run(command(other, "status"), check=False, stdout=subprocess.DEVNULL).returncode
    kubelet = int((other.place.ids / "kubelet").read_text().split()[0])
    subprocess.run(["kill", "-KILL", str(kubelet)], check=True)
    eventually(lambda: not other.status()["kubelet"])
    told = subprocess.run(command(other, "status"), check=False, capture_output=True, text=True)
    assert (1, True) == (told.returncode, "kubelet                  ended" in told.stdout)
    assert other.start()
    assert all(other.status().values())
    other.stop()
    assert [] == left_of(other.place)


def test_an_interrupted_start_cleans_up_by_itself(other):
    """Ctrl-C, or what a pipeline sends when its time is over."""
    with subprocess.Popen(command(other, "up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as start:
        eventually(lambda: STAGES["while the API server starts"](other.place))
        start.send_signal(signal.SIGTERM)
    assert 128 + signal.SIGINT == start.returncode
    assert [] == left_of(other.place)


# A session of tests, as far as the node is concerned: what `conftest.py` does.
SESSION = """
import signal, sys
from trafficsim_operator.testing.node import Cluster, Place
Cluster(Place(name=sys.argv[1])).start(bound=True)
print("it is up", flush=True)
signal.pause()
"""
KILLED = {
    "before the first program": lambda place, said: place.directory.exists(),
    **{stage: lambda place, said, reached=reached: reached(place) for stage, reached in STAGES.items()},
    "when it is up": lambda place, said: said.read_text(),
}


@pytest.mark.parametrize("stage", KILLED)
def test_a_killed_session_leaves_no_node(other, node, stage, tmp_path):
    """Nobody has to be told: all of it goes by itself, in seconds, and the other node does not notice."""
    before = daemons.pids(node.place)
    session = [sys.executable, "-c", SESSION, other.place.name]
    with (tmp_path / "said").open("w") as said:
        tests = subprocess.Popen(session, stdout=said, stderr=subprocess.DEVNULL)
    with tests:
        eventually(lambda: KILLED[stage](other.place, tmp_path / "said"), within=120)
        assert tests.poll() is None
        tests.kill()
    eventually(lambda: not left_of(other.place))
    assert node.is_up() and before & daemons.pids(node.place)
