"""CPU time, memory and cores of a process and everything below it, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """
    One process: its *own* CPU seconds (user + system), and those of the children it has *buried*.

    A child that has ended and been waited for is in its parent's second figure, so the sum of both never falls.
    """

    pid: int
    parent: int
    own: float
    buried: float

    @property
    def cpu(self) -> float:
        """Return all the CPU seconds that are its."""
        return self.own + self.buried


def family_of(root: int) -> dict[int, Process]:
    """Return *root* and each of its living descendants, by process id."""
    known = {process.pid: process for process in _all()}
    family = {root} & known.keys()
    while grown := {pid for pid, process in known.items() if process.parent in family} - family:
        family |= grown
    return {pid: known[pid] for pid in family}


def _all() -> Iterable[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it ended between the listing and the look
            # The name in parentheses may hold anything; what follows the last one is numbers.
            fields = text.rpartition(")")[2].split()
            own, buried = (sum(map(int, fields[at : at + 2])) / _TICKS_PER_S for at in (11, 13))
            yield Process(pid=int(entry.name), parent=int(fields[1]), own=own, buried=buried)


def waited_s(pid: int) -> float:
    """Return how long a process' first thread was ready to run and did not, as others had the core; 0 when unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process: its private memory and its share of what others share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/smaps_rollup tells no Pss")


def command_of(pid: int) -> list[str]:
    """Return the command line of a process, [] when it is gone."""
    return _strings(Path(f"/proc/{pid}/cmdline"))


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment a process was started with."""
    return dict(text.split("=", 1) for text in _strings(Path(f"/proc/{pid}/environ")) if "=" in text)


def move(pid: int, cores: Iterable[int]) -> None:
    """Let every thread of a process run on *cores* only."""
    for entry in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(entry.name), cores)


def _strings(file: Path) -> list[str]:
    try:
        return [part.decode(errors="replace") for part in file.read_bytes().split(b"\0") if part]
    except OSError:
        return []
