"""The runner's CPU, throttling and memory: from its own cgroup where it has one, else from its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from trafficsim_runner.health.cgroup import Cgroup
from trafficsim_runner.health.processes import resident

__all__ = ["Probe", "Reading"]

SHORTEST_NS: Final = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was used since the last reading (ns, periods, kills), and the memory (bytes) now; *cores* in millicores."""

    span_ns: int
    cpu_ns: int
    cores: int
    periods: int
    throttled: int
    oom_kills: int
    memory: int
    memory_limit: int

    @property
    def permille(self) -> int:
        """Return CPU ÷ (time · cores) in permille; 0 when the time is too short for the clock ticks of a cgroup."""
        return self.cpu_ns * 1_000_000 // (self.span_ns * self.cores) if self.span_ns >= SHORTEST_NS else 0

    @property
    def memory_permille(self) -> int:
        """Return memory ÷ limit in permille."""
        return 1000 * self.memory // self.memory_limit if self.memory_limit else 0


class Probe:
    """
    Reads what the whole runner uses, as differences to the last reading.

    *cpu* (millicores) and *memory* (bytes) are the limits the environment told; without them the cgroup's count, else
    the machine's.
    """

    def __init__(
        self,
        cpu: int | None,
        memory: int | None,
        find: Callable[[Iterable[int]], Cgroup] = lambda pids: Cgroup.own(pids=pids),
        own_cpu_ns: Callable[[], int] = time.process_time_ns,
    ) -> None:
        self._cpu = cpu
        self._memory = memory
        self._find = find
        self._own_cpu_ns = own_cpu_ns
        self._cgroup = Cgroup()
        self._last_ns: int | None = None
        self._last_cpu: int | None = None
        self._last_own = own_cpu_ns()
        self._last_workers: int | None = None
        self._last_periods: tuple[int, int] | None = None
        self._last_kills: int | None = None

    def find(self, pids: Iterable[int]) -> None:
        """Look again which cgroup is the runner's own, *pids* being its processes; keep what was found."""
        if self._cgroup.cpu is None or self._cgroup.memory is None:
            try:
                found = self._find(pids)
            except (OSError, ValueError):
                return
            if (found.cpu or self._cgroup.cpu is None) and (found.memory or self._cgroup.memory is None):
                self._cgroup = found

    def cores(self) -> int:
        """Return the CPU quota in millicores: what the environment told, else the cgroup's, else the machine's."""
        cpu = self._cgroup.read_cpu()
        return self._cpu or (cpu.limit if cpu else None) or 1000 * len(os.sched_getaffinity(0))

    def oom_kills(self) -> int:
        """Return how many processes of the runner's own cgroup the kernel has killed for want of memory so far."""
        memory = self._cgroup.read_memory()
        return memory.oom_kills if memory else 0

    def read(self, now_ns: int, pids: Iterable[int], workers_cpu_ns: int) -> Reading:
        """Return what was used since the last reading; *workers_cpu_ns* is what the workers used in all so far."""
        own, cpu, memory = self._own_cpu_ns(), self._cgroup.read_cpu(), self._cgroup.read_memory()
        periods = throttled = kills = 0
        before = workers_cpu_ns if self._last_workers is None else self._last_workers
        used = own - self._last_own + max(0, workers_cpu_ns - before)
        if cpu is not None:
            if self._last_cpu is not None:
                used = max(0, cpu.usage_ns - self._last_cpu)
            self._last_cpu = cpu.usage_ns
            if self._last_periods is not None:
                periods = max(0, cpu.periods - self._last_periods[0])
                throttled = max(0, cpu.throttled - self._last_periods[1])
            self._last_periods = (cpu.periods, cpu.throttled)
        if memory is not None:
            if self._last_kills is not None:
                kills = max(0, memory.oom_kills - self._last_kills)
            self._last_kills = memory.oom_kills
        self._last_own, self._last_workers = own, workers_cpu_ns
        span_ns, self._last_ns = (now_ns - self._last_ns if self._last_ns is not None else 0), now_ns
        cgroup_limit = cpu.limit if cpu else None
        return Reading(
            span_ns=span_ns,
            cpu_ns=used,
            cores=self._cpu or cgroup_limit or 1000 * len(os.sched_getaffinity(0)),
            periods=periods,
            throttled=throttled,
            oom_kills=kills,
            memory=memory.used if memory else resident(pids),
            memory_limit=self._memory or (memory.limit if memory else None) or _machine_memory(),
        )


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
