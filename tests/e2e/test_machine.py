"""
A node leaves the machine as it was, and while it is up little of it is another.

By its name this file comes before those that keep a node up, so that it is the first node's doing that is seen.
"""

import pytest

from e2e.machine import changes, look
from e2e.pods import deployment, pod, service
from levels import unavailable
from trafficsim_operator.testing import Unavailable
from trafficsim_operator.testing.node import Cluster, Place, daemons, machine
from trafficsim_operator.testing.node.mounts import PRIVATE
from trafficsim_operator.testing.node.worker import PAUSE

pytestmark = [pytest.mark.node, pytest.mark.timeout(600, func_only=True)]  # the first start may build Kubernetes


@pytest.fixture(scope="module")
def looks():
    """The machine before a node of its own, with it and with pods behind a Service, and after it; and who was alive."""
    cluster = Cluster(Place(name="trafficsim-looked-at"))
    try:
        cluster.stop()
        before = look()
        cluster.start(bound=True)
    except Unavailable as error:
        unavailable("node", error)
    try:
        for thing in (deployment("waiting", 2, pod(image=PAUSE)), service("waiting", 8080)):
            cluster.kubectl("apply", "-f", "-", stdin=thing)
        cluster.kubectl("rollout", "status", "deployment/waiting", "--timeout=60s")
        during = look()
        alive = {pid: start for pid in daemons.pids(cluster.place) if (start := daemons.started(pid)) != "-"}
    finally:
        cluster.stop()
    return cluster.place, before, during, look(), alive


def test_the_machine_is_as_it_was(looks):
    """Its network, packet filter, mounts, cgroups, kernel parameters and files; no process of the node is left."""
    place, before, _, after, alive = looks
    assert {} == changes(before, after)
    assert len(alive) > len(PROGRAMS)
    assert [] == [pid for pid, start in alive.items() if start == daemons.started(pid)]
    assert set() == daemons.pids(place)


# What is another meanwhile, by its kind; it also shows that a look would see what is left.
PROGRAMS = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
OWN = {
    "mounts": lambda place, thing: thing == str(place.namespace),
    "cgroups": lambda place, thing: thing.endswith((f"/{place.cgroup}", "/cgroup.subtree_control")),
    "kernel parameters": lambda place, thing: thing in machine.PARAMETERS,
    "files": lambda place, thing: (
        thing in (*PRIVATE, str(place.machine), str(place.reaper_log)) or f"{thing}/".startswith(f"{place.directory}/")
    ),
}


def test_with_a_node_only_what_is_said_is_another(looks):
    """Its directory, cgroup and namespace, empty directories to mount on, and what the kubelet sets."""
    place, before, during, _, _ = looks
    found = {kind: [line[2:].split(": ")[0] for line in lines] for kind, lines in changes(before, during).items()}
    assert {} == {
        kind: left for kind, things in found.items()
        if (left := [thing for thing in things if kind not in OWN or not OWN[kind](place, thing)])
    }  # fmt: skip
    assert {"mounts", "cgroups", "files"} <= found.keys()
