"""The machine under a measurement: who else works on it, and how to be served first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# Share of one core that others may take before a measurement of milliseconds is no measurement.
FOREIGN_CORE = 0.15


@contextlib.contextmanager
def served_first(*processes: int) -> Iterator[None]:
    """
    Let *processes* and this one be scheduled before whatever else runs here, as far as we may (root may).

    A figure of a few ms is about the target and the generator, not about a neighbour's compiler. Linux weighs sessions
    first (autogroup), then the processes in them, so both are set.
    """
    groups: dict[str, tuple[Path, str]] = {}
    nice: dict[int, int] = {}
    for pid in (os.getpid(), *processes):
        with contextlib.suppress(OSError):
            file = Path(f"/proc/{pid}/autogroup")
            name, _, value = file.read_text().partition(" nice ")
            groups.setdefault(name, (file, value.strip()))
            nice[pid] = os.getpriority(os.PRIO_PROCESS, pid)
    _set(dict.fromkeys((file for file, _ in groups.values()), "-10"), dict.fromkeys(processes, -10))
    try:
        yield
    finally:
        _set(dict(groups.values()), nice)


def _set(groups: Mapping[Path, str], nice: Mapping[int, int]) -> None:
    for file, text in groups.items():
        with contextlib.suppress(OSError):
            file.write_text(text)
    for pid, value in nice.items():
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, value)


class Neighbours:
    """CPU that others took since this was made; *ours* are our processes beside this one."""

    def __init__(self, ours: Iterable[int]) -> None:
        self._ours = (os.getpid(), *ours)
        self._at = self._read()

    def _read(self) -> tuple[int, int, int]:
        words = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        busy = sum(words[:3]) + sum(words[5:8])
        own = 0
        for pid in self._ours:
            with contextlib.suppress(OSError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                own += int(fields[11]) + int(fields[12])
        return busy, own, busy + words[3] + words[4]

    def cores(self) -> float:
        """Return how many cores others kept busy."""
        busy, own, whole = (now - then for now, then in zip(self._read(), self._at, strict=True))
        return max(0.0, (busy - own) / whole * (os.cpu_count() or 1)) if whole else 0.0
