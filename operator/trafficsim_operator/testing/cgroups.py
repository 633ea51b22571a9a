"""
A CPU and memory cgroup for each pod, version 1 or 2.

Groups lie directly below the root of their hierarchy, `trafficsim-<pid>-<n>/<pod uid>`: what limits the test process
does not limit its pods.
"""

import asyncio
import itertools
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from trafficsim_operator.testing import guard
from trafficsim_operator.testing.unavailable import Unavailable

_PERIOD: Final = 100_000  # microseconds, what every kubelet uses
_PATIENCE: Final = 10.0  # seconds for killed processes to leave
_CONTROLLERS: Final = ("cpu", "cpuacct", "memory")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a pod's group has counted."""

    cpu_seconds: float
    oom_kills: int
    throttled_periods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The cgroup of one pod; in version 1 one directory in each hierarchy, in version 2 one in all."""

    unified: bool
    directories: dict[str, Path]  # by controller

    @property
    def procs(self) -> tuple[Path, ...]:
        """The files a process writes its id into to join."""
        return tuple(d / "cgroup.procs" for d in dict.fromkeys(self.directories.values()))

    def limit(self, *, cpu: float | None, cpu_request: float, memory: int | None) -> None:
        """Set the limits: *cpu* in cores, *memory* in bytes; None leaves that one open."""
        cpu_directory, memory_directory = self.directories["cpu"], self.directories["memory"]
        shares = max(2, int(cpu_request * 1024))
        if self.unified:
            # The kubelet's conversion from shares [2, 262144] to weight [1, 10000].
            (cpu_directory / "cpu.weight").write_text(str(1 + (shares - 2) * 9999 // 262142))
            if cpu is not None:
                (cpu_directory / "cpu.max").write_text(f"{int(cpu * _PERIOD)} {_PERIOD}")
            if memory is not None:
                (memory_directory / "memory.max").write_text(str(memory))
            return
        (cpu_directory / "cpu.shares").write_text(str(shares))
        if cpu is not None:
            (cpu_directory / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (cpu_directory / "cpu.cfs_quota_us").write_text(str(int(cpu * _PERIOD)))
        if memory is not None:
            (memory_directory / "memory.limit_in_bytes").write_text(str(memory))

    def usage(self) -> Usage:
        """Return the counters since the pod started."""
        memory = _numbers_in(self.directories["memory"] / ("memory.events" if self.unified else "memory.oom_control"))
        stat = _numbers_in(self.directories["cpu"] / "cpu.stat")
        if self.unified:
            seconds = stat["usage_usec"] / 1e6
        else:
            seconds = int((self.directories["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
        return Usage(
            cpu_seconds=seconds, oom_kills=memory.get("oom_kill", 0), throttled_periods=stat.get("nr_throttled", 0)
        )

    def members(self) -> list[int]:
        """Return the ids of all processes of the pod."""
        return guard.members(str(self.directories["memory"]))

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to every process of the pod."""
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def empty(self) -> None:
        """Kill every process and return when none is left."""
        async with asyncio.timeout(_PATIENCE):
            while self.members():
                self.signal(signal.SIGKILL)
                await asyncio.sleep(0.005)

    async def remove(self) -> None:
        """Kill every process and remove the group."""
        await self.empty()
        async with asyncio.timeout(_PATIENCE):
            while any(directory.exists() for directory in self.directories.values()):
                for directory in dict.fromkeys(self.directories.values()):
                    guard.remove(str(directory))
                await asyncio.sleep(0.005)


class Cgroups:
    """The groups of one kubelet."""

    def __init__(self, unified: bool, roots: dict[str, Path]) -> None:
        self._unified, self._roots = unified, roots

    @classmethod
    def create(cls) -> Self:
        """Make the kubelet's own groups, or raise `Unavailable` where this process may not."""
        unified, mounts = _mounts()
        name = f"trafficsim-{os.getpid()}-{next(_numbers)}"
        roots = {controller: mount / name for controller, mount in mounts.items()}
        try:
            for directory in dict.fromkeys(roots.values()):
                directory.mkdir()
                if unified:
                    (directory / "cgroup.subtree_control").write_text("+cpu +memory")
        except OSError as error:
            for directory in roots.values():
                guard.remove(str(directory))
            raise Unavailable(f"cannot make cgroups: {error.strerror} ({error.filename})") from error
        return cls(unified, roots)

    @property
    def directories(self) -> tuple[Path, ...]:
        """What has to be removed in the end."""
        return tuple(dict.fromkeys(self._roots.values()))

    def make(self, name: str) -> Group:
        """Make the group of one pod."""
        group = Group(unified=self._unified, directories={c: root / name for c, root in self._roots.items()})
        for directory in dict.fromkeys(group.directories.values()):
            directory.mkdir()
        return group


def _mounts() -> tuple[bool, dict[str, Path]]:
    """Return whether the controllers are in version 2, and where each is mounted."""
    unified: dict[str, Path] = {}
    legacy: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, options, *_ = line.split()
        if kind == "cgroup2":
            available = (Path(directory) / "cgroup.controllers").read_text().split()
            if {"cpu", "memory"} <= set(available):
                unified = dict.fromkeys(("cpu", "memory"), Path(directory))
        elif kind == "cgroup":
            for controller in set(options.split(",")) & set(_CONTROLLERS):
                legacy.setdefault(controller, Path(directory))
    if len(legacy) == len(_CONTROLLERS):
        return False, legacy
    if unified:
        return True, unified
    raise Unavailable("no cpu and memory cgroup controllers are mounted")


def _numbers_in(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}
