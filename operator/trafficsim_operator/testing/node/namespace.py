"""The node's network namespace. The machine's own network stays as it is: nothing leads in or out."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import packages
from trafficsim_operator.testing.node.place import ADDRESS, SERVICES, Place
from trafficsim_operator.testing.unavailable import Unavailable

_INTERFACE: Final = "node0"
_CLONE_NEWNET: Final = 0x40000000


def make(place: Place) -> None:
    """
    Make the namespace with the node's address in it.

    Not by `ip netns`, which makes a directory of the machine's and mounts it, for good.
    """
    place.namespace.touch()
    _run("unshare", f"--net={place.namespace}", "true")
    commands = (
        "ip link set lo up",
        f"ip link add {_INTERFACE} type bridge",  # without ports: a kernel may lack the type dummy
        f"ip address add {ADDRESS}/32 dev {_INTERFACE}",
        f"ip link set {_INTERFACE} up",
        # Where a packet would go is asked before a Service address in it is replaced by a pod's.
        f"ip route add {SERVICES} dev {_INTERFACE}",
        "sysctl -qw net.ipv4.ip_forward=1",
    )
    for command in commands:
        _run(*inside(place, command.split()))


def inside(place: Place, argv: Sequence[str]) -> list[str]:
    """
    Return the command line that runs *argv* in the namespace.

    Subtle: `ip netns exec` would mount a new /sys, and with it hide the cgroups.
    """
    return ["nsenter", f"--net={place.namespace}", *argv]


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return what programs in the namespace are told: the system's programs on PATH, and no proxy.

    The machine's proxy can't be reached from there, and the node's addresses are in nobody's NO_PROXY.
    """
    kept = {name: value for name, value in environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"PATH": packages.path(environ)}


@contextmanager
def entered(place: Place) -> Iterator[None]:
    """Have the calling thread in the namespace; sockets made meanwhile stay there."""
    own = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
    with own.open("rb") as before, place.namespace.open("rb") as there:
        _set(there.fileno())
        try:
            yield
        finally:
            _set(before.fileno())


def _set(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(*command: str) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"cannot make the network namespace: {' '.join(command)}: {done.stderr.strip()}")
