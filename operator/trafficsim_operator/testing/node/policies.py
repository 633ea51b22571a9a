"""What enforces NetworkPolicies: kube-router's firewall, by rules of iptables and sets in the node's namespace."""

import shlex
import subprocess
from typing import Final

from trafficsim_operator.testing import packages
from trafficsim_operator.testing.node import namespace
from trafficsim_operator.testing.node.place import NODE, SERVICES, Place

NAME: Final = "kube-router"
# Program → Debian package: what it calls.
CALLED: Final = {"iptables": "iptables", "iptables-save": "iptables", "iptables-restore": "iptables", "ipset": "ipset"}
_CHAIN: Final = "KUBE-ROUTER-FORWARD"  # what passes between pods goes through it
_RESTORE: Final = "iptables-restore"
_BRIDGED: Final = "--physdev-is-bridged"


def arguments(place: Place) -> list[str]:
    """Return its arguments."""
    return [f"-kubeconfig={place.kubeconfig()}", f"-node={NODE}", f"-services={SERVICES}"]


def without_bridges(place: Place) -> list[str]:
    """
    Return what its command line begins with, so that its rules for bridges are left out, and write the program for it.

    The kernel would load br_netfilter for them, which stays and changes the machine's own bridges. What passes between
    pods is routed here, and the rules for that are kept.
    """
    programs = place.directory / "iptables"
    programs.mkdir()
    restore = programs / _RESTORE
    found = packages.programs({_RESTORE: CALLED[_RESTORE]})[_RESTORE]
    restore.write_text(f'#!/bin/sh\ngrep -v -e {_BRIDGED} | {shlex.quote(str(found))} "$@"\n')
    restore.chmod(0o755)
    return ["env", f"PATH={programs}:{packages.path()}"]


def are_enforced(place: Place) -> bool:
    """Return whether every packet that passes between pods goes through its chain: it makes that, then the jump."""
    command = namespace.inside(place, ["iptables", "--wait", "--list-rules", "FORWARD"])
    done = subprocess.run(command, env=namespace.environment(), capture_output=True, text=True, check=False)
    # Subtle: the jump cannot be asked for by --check, as a number that it makes of its rule stands in the comment.
    return done.returncode == 0 and any(rule.split()[-2:] == ["-j", _CHAIN] for rule in done.stdout.splitlines())
