"""
The node's cgroup: `<name>-node` below the root of every hierarchy, with `daemons` and the kubelet's `kubepods` in it.

Whatever the node's programs start is in it too, so it is what says which processes are the node's.
"""

import os
import time
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import guard
from trafficsim_operator.testing.node.place import Place
from trafficsim_operator.testing.unavailable import Unavailable

_NEEDED: Final = frozenset({"cpu", "cpuset", "memory"})
_SHARES: Final = 1024  # for each CPU: as much as the kubelet gives its pods
_GENERAL: Final = frozenset({"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "xattr", "clone_children"})
_PATIENCE: Final = 20.0  # seconds for killed processes to leave


def make(place: Place) -> None:
    """Make the groups in every hierarchy, or raise `Unavailable` where this process may not."""
    try:
        for root in _roots():
            for directory in (root / place.cgroup, root / place.cgroup / "daemons"):
                directory.mkdir()
                _open(directory)
    except OSError as error:
        remove(place)
        raise Unavailable(f"cannot make cgroups: {error.strerror} ({error.filename})") from error


def procs(place: Place) -> list[Path]:
    """Return the files into which a program of the node writes its process id."""
    return [root / place.cgroup / "daemons" / "cgroup.procs" for root in _roots()]


def members(place: Place) -> set[int]:
    """Return the ids of all processes of the node."""
    return {pid for root in _roots() for pid in guard.members(str(root / place.cgroup))}


def remove(place: Place) -> None:
    """Remove the groups; their processes are gone, or about to go."""
    deadline = time.monotonic() + _PATIENCE
    while left := [directory for directory in directories(place) if directory.exists()]:
        for directory in left:
            guard.remove(str(directory))
        if time.monotonic() > deadline:
            raise Unavailable(f"{left[0]} could not be removed: somebody is still in it")
        time.sleep(0.02)


def directories(place: Place) -> list[Path]:
    """Return the node's group in each hierarchy."""
    return [root / place.cgroup for root in _roots()]


def _open(directory: Path) -> None:
    """Let processes and groups live in the new *directory*."""
    if (controllers := directory / "cgroup.controllers").exists():
        if directory.name != "daemons":  # version 2: a group has either processes or controllers for groups below it
            for controller in controllers.read_text().split():
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")
        return
    for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: a new cpuset is empty, and nothing may run in it
        if (file := directory / name).exists():
            file.write_text((directory.parent / name).read_text())
    if (shares := directory / "cpu.shares").exists():
        shares.write_text(str(_SHARES * (os.cpu_count() or 1)))


def _roots() -> list[Path]:
    """Return where each hierarchy is mounted: all of version 1 with version 2 beside them, or version 2 alone."""
    legacy: dict[str, Path] = {}  # the same hierarchy may be mounted twice
    unified: list[Path] = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, options, *_ = line.split()
        if kind == "cgroup":
            legacy.setdefault(controllers(options), Path(directory))
        elif kind == "cgroup2":
            unified.append(Path(directory))
    if _NEEDED <= {name for names in legacy for name in names.split(",")}:
        return [*legacy.values(), *unified]
    for root in unified:
        if _NEEDED <= set((root / "cgroup.controllers").read_text().split()):
            return [root]
    raise Unavailable(f"the cgroup controllers {', '.join(sorted(_NEEDED))} are not mounted")


def controllers(options: str) -> str:
    """Return the controllers of a version 1 hierarchy, or its name, from its mount *options*."""
    return ",".join(word for word in options.split(",") if word not in _GENERAL and "release_agent=" not in word)
