"""The ring of windows a runner keeps for readers that come late: bounded in bytes, and what is lost is stated."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from trafficsim_api.alignment import remapped
from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Window

__all__ = ["BYTES_PER_WORKER", "Ring", "fold"]

BYTES_PER_WORKER: Final = 8 * 1024 * 1024
FOLD: Final = 10
_ENTRY_BYTES: Final = 12
_HEAD_BYTES: Final = 400  # the window's object and its two array headers


@dataclass(frozen=True, slots=True)
class _Folded:
    first: int
    window: Window


class Ring:
    """
    The newest windows, oldest first, in at most *capacity* bytes.

    When it is full the oldest ten one-second windows become one of ten seconds; when only such are left, the oldest
    goes. *folded* counts the one-second windows that were folded.
    """

    __slots__ = ("_bytes", "_fresh", "_old", "capacity", "folded", "sequence")

    def __init__(self, capacity: int, sequence: int = 0) -> None:
        self.capacity = capacity
        self.sequence = sequence
        self.folded = 0
        self._bytes = 0
        self._fresh: deque[Window] = deque()
        self._old: deque[_Folded] = deque()

    @property
    def size(self) -> int:
        """Return the bytes held."""
        return self._bytes

    def add(self, window: Window) -> None:
        """Append *window*, whose sequence is the next one."""
        assert window.sequence == self.sequence + 1
        self.sequence = window.sequence
        self._fresh.append(window)
        self._bytes += _bytes_of(window)
        while self._bytes > self.capacity and (len(self._fresh) > 1 or self._old):
            self._shrink()

    def since(self, sequence: int) -> tuple[int, tuple[Window, ...]]:
        """
        Return the windows after *sequence*, and the first sequence they cover (the next one, if there are none).

        A folded window that only partly lies after *sequence* is left out: adding it would count twice.
        """
        kept = [old for old in self._old if old.first > sequence]
        fresh = [window for window in self._fresh if window.sequence > sequence]
        first = kept[0].first if kept else fresh[0].sequence if fresh else self.sequence + 1
        return first, (*(old.window for old in kept), *fresh)

    def move(self, layout: Layout, to: Layout) -> None:
        """Tell the windows of *layout* in *to*, which took it in."""

        def moved(window: Window) -> Window:
            return replace(window, indices=remapped(window.indices, layout, to).astype("<u4"))

        self._fresh = deque(moved(window) for window in self._fresh)
        self._old = deque(_Folded(old.first, moved(old.window)) for old in self._old)

    def _shrink(self) -> None:
        if len(self._fresh) > FOLD:
            parts = [self._fresh.popleft() for _ in range(FOLD)]
            self.folded += FOLD
            one = fold(parts)
            self._old.append(_Folded(parts[0].sequence, one))
            self._bytes += _bytes_of(one) - sum(map(_bytes_of, parts))
        elif self._old:
            self._bytes -= _bytes_of(self._old.popleft().window)
        else:
            self._bytes -= _bytes_of(self._fresh.popleft())


def fold(windows: Sequence[Window]) -> Window:
    """Return consecutive *windows* as one: counts added, utilisation averaged over time, warm only if all are."""
    indices, where = np.unique(np.concatenate([w.indices for w in windows]), return_inverse=True)
    counts = np.zeros(len(indices), dtype="<u8")
    np.add.at(counts, where, np.concatenate([w.counts for w in windows]))
    last = windows[-1]
    return Window(
        sequence=last.sequence,
        start_ms=windows[0].start_ms,
        end_ms=last.end_ms,
        wall_ms=last.wall_ms,
        epoch=last.epoch,
        active=last.active,
        wanted=last.wanted,
        busiest_permille=_mean(windows, [w.busiest_permille for w in windows]),
        core_permille=_mean(windows, [w.core_permille for w in windows]),
        waited_percent=_mean(windows, [w.waited_percent for w in windows]),
        pod_permille=_mean(windows, [w.pod_permille for w in windows]),
        warm=all(w.warm for w in windows),
        indices=indices.astype("<u4"),
        counts=counts,
    )


def _mean(windows: Sequence[Window], values: Sequence[int]) -> int:
    lengths = [w.end_ms - w.start_ms for w in windows]
    whole = sum(lengths)
    return sum(v * length for v, length in zip(values, lengths, strict=True)) // whole if whole else values[-1]


def _bytes_of(window: Window) -> int:
    return _HEAD_BYTES + _ENTRY_BYTES * len(window.indices)
