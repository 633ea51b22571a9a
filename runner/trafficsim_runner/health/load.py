"""A worker's load: its CPU ÷ what it can have. Pure."""

from __future__ import annotations

__all__ = ["CpuLoad", "share_of_cores"]

CORE: int = 1000
SHORTEST_NS: int = 100_000_000


def share_of_cores(cores: int, workers: int) -> int:
    """
    Return how many millicores each of *workers* can have of *cores*: an equal share, at most a core for its one thread.

    500 millicores and one worker: 500; 2 cores and 4 workers: 500; 4 cores and 2 workers: 1000.
    """
    return max(1, min(CORE, cores // max(1, workers)))


class CpuLoad:
    """The load of one process, as the difference to the last reading."""

    def __init__(self, now_ns: int, cpu_ns: int) -> None:
        self._now_ns, self._cpu_ns = now_ns, cpu_ns
        self._last = 0

    def since_last(self, now_ns: int, cpu_ns: int, cores: int) -> int:
        """
        Return the load since the last reading in permille of *cores* (millicores).

            1 000 000 · CPU ÷ (time · cores)          0.41 s of CPU in a second of 500 millicores are 820

        Over less than 100 ms nothing is measured: the last reading stands.
        """
        passed = now_ns - self._now_ns
        if passed >= SHORTEST_NS:
            self._last = 1_000_000 * (cpu_ns - self._cpu_ns) // (passed * cores)
            self._now_ns, self._cpu_ns = now_ns, cpu_ns
        return self._last
