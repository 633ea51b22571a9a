"""The reading side of a worker's slab (see slab.py); the only module of the two that needs numpy."""

from __future__ import annotations

import json
import mmap
import os
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from trafficsim_api.layout import ACTION_INDEX, EXTREMES, FIRST_ACTION, RESPONSE, SERVICE, STRIDE, Layout
from trafficsim_api.statistics import Vector
from trafficsim_runner.stats.slab import HEADER, MAGIC, PAGE, SLAB_FORMAT, areas

__all__ = ["Slab", "Snapshot", "TornSlab"]

_TRIES: Final = 40
_SERVICE_NS: Final = ACTION_INDEX["service_ns"]
_RESPONSE_NS: Final = ACTION_INDEX["response_ns"]


class TornSlab(Exception):
    """The writer stopped in the middle of a snapshot (it died): only `Slab.final` tells its counts now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """
    A worker's counters at one instant, *mono_ns* (CLOCK_MONOTONIC; 0: no snapshot was taken yet) and *wall_ms*.

    *active* and *wanted* are users; *epoch* is the assignment they worked by. The vectors are copies.
    """

    mono_ns: int
    wall_ms: int
    active: int
    wanted: int
    epoch: int
    vector: Vector
    extremes: tuple[int, ...]


class Slab:
    """A worker's slab, opened for reading; it stays readable after the worker died and the file was removed."""

    __slots__ = ("_header", "_mapping", "_sections", "layout", "path")

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            self._mapping = mmap.mmap(handle, 0, prot=mmap.PROT_READ)
        finally:
            os.close(handle)
        self.path = path
        self._header = np.frombuffer(self._mapping, dtype=np.uint64, count=PAGE // 8)
        if self._word("magic") != MAGIC or self._word("format") != SLAB_FORMAT:
            raise ValueError(f"{path} is no slab of format {SLAB_FORMAT}")
        size = self._word("json_bytes")
        actions, metrics = json.loads(self._mapping[PAGE : PAGE + size])
        self.layout = Layout(
            actions=tuple((str(name), str(group)) for name, group in actions),
            metrics=tuple((str(name), str(kind), str(unit)) for name, kind, unit in metrics),
        )
        where = areas(self.layout, size)
        self._sections: dict[str, Vector] = {
            name: np.frombuffer(self._mapping, dtype=np.uint64, count=length // 8, offset=start)
            for name, (start, length) in where.items()
            if name != "file"
        }

    @classmethod
    def open(cls, path: Path | str) -> Slab:
        """Open the slab at *path*; raise ValueError when it is none, OSError when it cannot be read."""
        return cls(Path(path))

    def _word(self, name: str) -> int:
        return int(self._header[HEADER[name]])

    @property
    def pid(self) -> int:
        """Return the process that writes (or wrote) the slab."""
        return self._word("pid")

    @property
    def sequence(self) -> int:
        """Return the snapshot's sequence number: it grows by two with each snapshot."""
        return self._word("sequence")

    def snapshot(self) -> Snapshot:
        """Return the last snapshot; raise TornSlab when the writer died while it made one."""
        for _ in range(_TRIES):
            before = self._word("sequence")
            if not before & 1:
                found = self._read("snapshot", "mono_ns", "wall_ms", "active", "wanted", "epoch")
                if self._word("sequence") == before:
                    return found
            select.select((), (), (), 0.0005)
        raise TornSlab(str(self.path))

    def final(self) -> Snapshot:
        """
        Return the live counts of a worker that died, as they stood when it did; *active* is how many users it had.

        *mono_ns* and *wall_ms* are of its last snapshot: nobody knows the instant of its death better.
        """
        return self._read("live", "mono_ns", "wall_ms", "live_active", "live_wanted", "live_epoch")

    def warmup(self) -> Vector | None:
        """Return the counts at the warm-up's end, None before it."""
        if not self._word("warm"):
            return None
        return self._mirrored(self._sections["warm"].copy())

    def close(self) -> None:
        """Let go of the mapping (once no vector of it is in use; vectors handed out are copies)."""
        self._sections.clear()
        self._header = np.zeros(PAGE // 8, dtype=np.uint64)
        self._mapping.close()

    def _read(self, area: str, mono: str, wall: str, active: str, wanted: str, epoch: str) -> Snapshot:
        return Snapshot(
            mono_ns=self._word(mono),
            wall_ms=self._word(wall),
            active=self._word(active),
            wanted=self._word(wanted),
            epoch=self._word(epoch),
            vector=self._mirrored(self._sections[area].copy()),
            extremes=self._mirrored_extremes(self._sections[f"{area}_extremes"].tolist()),
        )

    def _mirrored(self, vector: Vector) -> Vector:
        """Add the service times to the response times, which are written as the difference (it may be negative)."""
        if self._word("mirrored") and self.layout.actions:
            rows: npt.NDArray[np.uint64] = vector[FIRST_ACTION : self.layout.first_metric].reshape(-1, STRIDE)
            rows[:, RESPONSE:] += rows[:, SERVICE:RESPONSE]
            rows[:, _RESPONSE_NS] += rows[:, _SERVICE_NS]
        return vector

    def _mirrored_extremes(self, extremes: list[int]) -> tuple[int, ...]:
        if self._word("mirrored"):
            for start in range(0, len(extremes), len(EXTREMES)):
                # A response takes at least as long as its service; the least is known of the model used last.
                extremes[start + 2] = extremes[start + 2] or extremes[start]
                extremes[start + 3] = max(extremes[start + 1], extremes[start + 3])
        return tuple(extremes)
