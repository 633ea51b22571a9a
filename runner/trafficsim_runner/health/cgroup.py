"""
The runner's own cgroup, version 1 or 2, found through /proc/self/cgroup and the mounts.

Only a cgroup that holds nobody but the runner says something about it: on a bare machine the shell, the target and
everything else share one. Such a group is not *own*, and its figures are not used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["Cgroup", "Cpu", "Memory"]

# Version 1 writes "no limit" as the largest page-aligned signed number.
NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """CPU used (ns) and the scheduler's periods since the group began; *limit* in millicores, None without a quota."""

    usage_ns: int
    periods: int
    throttled: int
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """
    Memory in bytes, the limit (None: none) and how many processes the kernel killed for want of it.

        used = usage - file cache not in use            what the kernel can give back at once presses nobody
    """

    used: int
    limit: int | None
    oom_kills: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """Where the controllers' files are; None where there is none, or the group is not the runner's own."""

    cpu: Path | None = None
    accounting: Path | None = None
    memory: Path | None = None
    version: int = 2

    @classmethod
    def own(cls, proc: Path = Path("/proc"), pids: Iterable[int] | None = None) -> Cgroup:
        """Return the cgroup that holds nobody but *pids* (this process and its children, when not given)."""
        known = set(pids) if pids is not None else {os.getpid()}
        found = locate((proc / "self/cgroup").read_text(), (proc / "self/mountinfo").read_text())
        mine = {name: path for name, path in found.items() if _holds_only(path, known, proc)}
        if "unified" in mine and (mine["unified"] / "cpu.stat").exists() and (mine["unified"] / "cpu.max").exists():
            path = mine["unified"]
            memory = path if (path / "memory.current").exists() else None
            return cls(cpu=path, accounting=path, memory=memory, version=2)
        return cls(cpu=mine.get("cpu"), accounting=mine.get("cpuacct"), memory=mine.get("memory"), version=1)

    def read_cpu(self) -> Cpu | None:
        """Return the CPU figures; None when the group has none."""
        if self.cpu is None or self.accounting is None:
            return None
        try:
            stat = _table(self.cpu / "cpu.stat")
            if self.version == 2:
                quota, period = (self.cpu / "cpu.max").read_text().split()
                usage = stat["usage_usec"] * 1000
            else:
                quota = (self.cpu / "cpu.cfs_quota_us").read_text().strip()
                period = (self.cpu / "cpu.cfs_period_us").read_text().strip()
                usage = int((self.accounting / "cpuacct.usage").read_text())
        except (OSError, ValueError, KeyError):
            return None
        limit = 1000 * int(quota) // int(period) if quota.isdigit() else None
        return Cpu(
            usage_ns=usage, periods=stat.get("nr_periods", 0), throttled=stat.get("nr_throttled", 0), limit=limit
        )

    def read_memory(self) -> Memory | None:
        """Return the memory figures; None when the group has none."""
        if self.memory is None:
            return None
        used, limit, events, cache = (
            ("memory.current", "memory.max", "memory.events", "inactive_file")
            if self.version == 2
            else ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control", "total_inactive_file")
        )
        try:
            text = (self.memory / limit).read_text().strip()
            return Memory(
                used=max(0, int((self.memory / used).read_text()) - _table(self.memory / "memory.stat").get(cache, 0)),
                limit=int(text) if text.isdigit() and int(text) < NO_LIMIT else None,
                oom_kills=_table(self.memory / events).get("oom_kill", 0),
            )
        except (OSError, ValueError):
            return None


def locate(cgroups: str, mounts: str) -> Mapping[str, Path]:
    """
    Return the directory of each controller ("unified" for version 2), from /proc/self/cgroup and /proc/self/mountinfo.

    A container without a cgroup namespace sees its path from the machine's root, while the mount's root is its group:
    path `/pods/a/b` under a mount whose root is `/pods/a` is `b` below the mount point.
    """
    paths: dict[str, str] = {}
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ["unified"]:
            paths[controller] = path
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" ", 2), "", ""][:3]
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, point = left.split(" ")[3:5]
        names = {"unified"} if kind == "cgroup2" else set(options.split(",")) & paths.keys()
        for name in names & paths.keys():
            group = PurePosixPath(paths[name])
            inside = group.relative_to(root) if group.is_relative_to(root) else group.relative_to("/")
            found.setdefault(name, Path(point) / inside)
    return found


def _holds_only(path: Path, pids: set[int], proc: Path) -> bool:
    """Say whether the group at *path* holds nobody but *pids* and an idle init (process 1) beside them."""
    try:
        inside = {int(line) for line in (path / "cgroup.procs").read_text().split()}
    except (OSError, ValueError):
        return False
    return bool(inside) and inside <= pids | {1}


def _table(path: Path) -> dict[str, int]:
    """Return the "name value" lines of *path*."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
