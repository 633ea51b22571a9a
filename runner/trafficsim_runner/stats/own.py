"""The supervisor's own counters, in a small mapped file so that they outlive it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from trafficsim_api.layout import WORKER_INDEX
from trafficsim_api.statistics import Vector

__all__ = ["OWN", "OwnCounters"]

OWN: Final = (
    "worker_restarts",
    "worker_lost_users",
    "oom_kills",
    "pod_cpu_ns",
    "pod_wall_ns",
    "cfs_periods",
    "cfs_throttled",
    "windows_folded",
    "memory_permille_ms",
)
_INDEX: Final = {name: index for index, name in enumerate(OWN)}
_PLACES: Final = np.array([WORKER_INDEX[name] for name in OWN], dtype=np.intp)
_WARM: Final = 2 * len(OWN)  # the word that says that the second half holds the values at the warm-up's end


class OwnCounters:
    """The counters named in OWN, and their values at the warm-up's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        mode = "r+" if path.exists() else "w+"
        self._words: Vector = np.memmap(path, dtype="<u8", mode=mode, shape=(_WARM + 1,))  # type: ignore[call-overload]

    def add(self, name: str, amount: int) -> None:
        """Add *amount* to the counter *name*."""
        self._words[_INDEX[name]] += np.uint64(amount)

    def __getitem__(self, name: str) -> int:
        return int(self._words[_INDEX[name]])

    def mark_warm(self) -> None:
        """Keep the values as those at the warm-up's end, once."""
        if not self._words[_WARM]:
            self._words[len(OWN) : _WARM] = self._words[: len(OWN)]
            self._words[_WARM] = 1

    def add_to(self, vector: Vector, warmup: Vector) -> None:
        """Add the counters to *vector*, and what of them belongs to the warm-up to *warmup*."""
        now = self._words[: len(OWN)]
        vector[_PLACES] += now
        warmup[_PLACES] += self._words[len(OWN) : _WARM] if self._words[_WARM] else now
