"""What enforces NetworkPolicies: kube-router's firewall, by rules of iptables and sets in the node's namespace."""

import subprocess
from typing import Final

from trafficsim_operator.testing.node import namespace
from trafficsim_operator.testing.node.place import NODE, SERVICES, Place

NAME: Final = "kube-router"
# Program → Debian package: what it calls.
CALLED: Final = {"iptables": "iptables", "iptables-save": "iptables", "iptables-restore": "iptables", "ipset": "ipset"}
_CHAIN: Final = "KUBE-ROUTER-FORWARD"  # what passes between pods goes through it


def arguments(place: Place) -> list[str]:
    """Return its arguments."""
    return [f"-kubeconfig={place.kubeconfig()}", f"-node={NODE}", f"-services={SERVICES}"]


def are_enforced(place: Place) -> bool:
    """Return whether its rules are asked about every packet."""
    command = namespace.inside(place, ["iptables", "--wait", "--list-rules", _CHAIN])
    return subprocess.run(command, env=namespace.environment(), capture_output=True, check=False).returncode == 0
