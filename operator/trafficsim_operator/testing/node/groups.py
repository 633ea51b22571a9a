"""
The node's cgroup: `<name>-node` below the root of every hierarchy, with `daemons` and the kubelet's `kubepods` in it.

Whatever the node's programs start is in it too, so it is what says which processes are the node's.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import guard
from trafficsim_operator.testing.node.place import Place
from trafficsim_operator.testing.unavailable import Unavailable

_NEEDED: Final = frozenset({"cpu", "cpuset", "memory"})
_KUBELETS: Final = frozenset({"cpu", "cpuset", "memory", "hugetlb", "pids"})  # it wants those that there are, version 2
_SHARES: Final = 1024  # for each CPU: as much as the kubelet gives its pods
_WEIGHT, _MOST_WEIGHT = 100, 10_000  # of version 2: that of 1024 shares beside others of the machine, and the limit
_GENERAL: Final = frozenset({"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "xattr", "clone_children"})
_PATIENCE: Final = 20.0  # seconds for killed processes to leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Where one is mounted, and what it controls; *unified*: it is of version 2, and the only one."""

    root: Path
    controllers: frozenset[str]
    unified: bool = False


def make(place: Place, table: str | None = None) -> None:
    """Make the groups in every hierarchy of the mount *table*, or raise `Unavailable` where this process may not."""
    try:
        for hierarchy in hierarchies(table):
            (_make_unified if hierarchy.unified else _make)(hierarchy, hierarchy.root / place.cgroup)
    except OSError as error:
        remove(place)
        raise Unavailable(f"cannot make cgroups: {error.strerror} ({error.filename})") from error


def procs(place: Place, table: str | None = None) -> list[Path]:
    """Return the files into which a program of the node writes its process id."""
    return [group / "daemons" / "cgroup.procs" for group in directories(place, table)]


def members(place: Place) -> set[int]:
    """Return the ids of all processes of the node."""
    return {pid for group in directories(place) for pid in guard.members(str(group))}


def remove(place: Place) -> None:
    """Remove the groups; their processes are gone, or about to go."""
    deadline = time.monotonic() + _PATIENCE
    while left := [directory for directory in directories(place) if directory.exists()]:
        for directory in left:
            guard.remove(str(directory))
        if time.monotonic() > deadline:
            raise Unavailable(f"{left[0]} could not be removed: somebody is still in it")
        time.sleep(0.02)


def directories(place: Place, table: str | None = None) -> list[Path]:
    """Return the node's group in each hierarchy."""
    return [hierarchy.root / place.cgroup for hierarchy in hierarchies(table)]


def _make(hierarchy: Hierarchy, group: Path) -> None:
    """Make the groups of version 1, where a new cpuset is empty and nothing may run in it."""
    shares = str(_SHARES * (os.cpu_count() or 1))
    for directory in (group, group / "daemons"):
        directory.mkdir()
        if "cpuset" in hierarchy.controllers:
            for name in ("cpuset.cpus", "cpuset.mems"):
                (directory / name).write_text((hierarchy.root / name).read_text())
        if "cpu" in hierarchy.controllers:
            (directory / "cpu.shares").write_text(shares)


def _make_unified(hierarchy: Hierarchy, group: Path) -> None:
    """
    Make the groups of version 2, where a group has controllers if the one above it hands them on.

    One that hands on has no processes of its own, but for the root of the machine: in a container this is refused.
    """
    handed = hierarchy.controllers & _KUBELETS
    at_root = hierarchy.root / "cgroup.subtree_control"
    _hand_on(at_root, handed - set(at_root.read_text().split()))
    group.mkdir()
    _hand_on(group / "cgroup.subtree_control", handed)
    cpus = os.cpu_count() or 1
    (group / "cpu.weight").write_text(str(min(_WEIGHT * cpus, _MOST_WEIGHT)))
    daemons = group / "daemons"
    daemons.mkdir()
    (daemons / "cpu.weight").write_text(str(kubelets_weight(_SHARES * cpus)))


def _hand_on(control: Path, controllers: frozenset[str]) -> None:
    if controllers:
        control.write_text(" ".join(f"+{name}" for name in sorted(controllers)))


def kubelets_weight(shares: int) -> int:
    """
    Return the weight that the kubelet makes of *shares*, 2 to 262144.

        weight = 1 + (shares - 2) · 9999 ÷ 262142

    Two CPUs have 2048 shares, and a weight of 79.
    """
    return 1 + (min(shares, 262_144) - 2) * 9999 // 262_142


def hierarchies(table: str | None = None) -> list[Hierarchy]:
    """
    Return each hierarchy of the mount *table*: all of version 1 with version 2 beside them, or version 2 alone.

    Beside version 1 it has processes in it, but controls nothing of theirs.
    """
    legacy: dict[str, Path] = {}  # the same hierarchy may be mounted twice
    unified: list[Path] = []
    for line in (Path("/proc/self/mounts").read_text() if table is None else table).splitlines():
        _, directory, kind, options, *_ = line.split()
        if kind == "cgroup":
            legacy.setdefault(controllers(options), Path(directory))
        elif kind == "cgroup2":
            unified.append(Path(directory))
    found = [Hierarchy(root=root, controllers=frozenset(names.split(","))) for names, root in legacy.items()]
    if _NEEDED <= {name for hierarchy in found for name in hierarchy.controllers}:
        return [*found, *(Hierarchy(root=root, controllers=frozenset()) for root in unified)]
    for root in unified:
        offered = frozenset((root / "cgroup.controllers").read_text().split())
        if _NEEDED <= offered:
            return [Hierarchy(root=root, controllers=offered, unified=True)]
    raise Unavailable(f"the cgroup controllers {', '.join(sorted(_NEEDED))} are not mounted")


def controllers(options: str) -> str:
    """Return the controllers of a version 1 hierarchy, or its name, from its mount *options*."""
    return ",".join(word for word in options.split(",") if word not in _GENERAL and "release_agent=" not in word)
