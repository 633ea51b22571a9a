"""CPU time of a process and everything below it, from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(root: int) -> dict[int, float]:
    """
    Return the CPU seconds (user + system) of *root* and of each living descendant, by process id.

    A child that has ended and been waited for is in its parent's figure, so the sum never falls.
    """
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it ended between the listing and the look
            # The name in parentheses may hold anything; what follows the last one is numbers.
            fields = text.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = sum(map(int, fields[11:15])) / _TICKS_PER_S
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return {pid: seconds[pid] for pid in family if pid in seconds}
