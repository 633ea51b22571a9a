"""
A record of every change of a worker's active users, for tests that hold a shift of users to its bounds. Off by default.

    instant (CLOCK_MONOTONIC ns) · epoch of the assignment · users active from then on            one line of text each
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ENDING", "ActiveLog", "Change", "merged", "read_active"]

ENDING: Final = "active"


class Change(NamedTuple):
    """So many users were active from *at_ns* (CLOCK_MONOTONIC) on."""

    at_ns: int
    epoch: int
    active: int


class ActiveLog:
    """Writes a line at each change, at once: a worker that is killed leaves all it did."""

    __slots__ = ("_clock", "_file", "epoch")

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._file = path.open("w", buffering=1)
        self._clock = clock
        self.epoch = 0

    def add(self, active: int) -> None:
        """Record that so many are active from now on."""
        self._file.write(f"{self._clock()} {self.epoch} {active}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_active(path: Path) -> list[Change]:
    """Return the changes in *path*; a line cut short at the end is left out."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [Change(*map(int, line.split())) for line in whole.splitlines()]


def merged(workers: Iterable[Iterable[Change]]) -> list[Change]:
    """
    Return the changes of the sum over *workers*, in order; each has the epoch of the change that made it.

    One that says 2 at 10 and 3 at 30, another 5 at 20: 2 from 10 on, 7 from 20 on, 8 from 30 on.
    """
    found: list[Change] = []
    active: dict[int, int] = {}
    every = ((change, worker) for worker, changes in enumerate(workers) for change in changes)
    for change, worker in sorted(every, key=lambda pair: pair[0].at_ns):
        active[worker] = change.active
        found.append(change._replace(active=sum(active.values())))
    return found
