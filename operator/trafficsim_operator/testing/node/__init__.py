"""
A whole Kubernetes node for tests: real pods, Service addresses, DNS, logs and exec, without a container engine.

    python -m trafficsim_operator.testing.node up|status|down

Control plane, containerd, kubelet, kube-proxy, CoreDNS and kube-router's firewall run inside a network namespace and a
cgroup of their own, with all state in one directory. They outlive whoever started them; what belongs to the node is
what is in its cgroup, so `down` ends exactly that, also after an `up` that was killed. It needs root on Linux; what is
missing raises `Unavailable` with the reason.
"""

from trafficsim_operator.testing.node.archive import Link, Text, archive
from trafficsim_operator.testing.node.cluster import Cluster, CommandFailed
from trafficsim_operator.testing.node.place import Place

__all__ = ["Cluster", "CommandFailed", "Link", "Place", "Text", "archive"]
