"""
The statistics format: cumulative integer vectors with a layout id, and sparse one-second windows.

A runner's vector is the sum over its workers (with the supervisor's own counters added); a simulation's is the sum over
its runners: merging is addition, whatever the partition. Extremes (min, max) merge by min and max and stand outside.
A window is the *difference* of two cumulative snapshots, kept sparse. Every answer is keyed by
(runner UID, boot id, sequence), so a lost answer loses nothing and a gap can be stated.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trafficsim_api import layout as _layout
from trafficsim_api.histogram import BUCKETS, upper_edge
from trafficsim_api.layout import FORMAT, Layout

__all__ = [
    "Answer",
    "Vector",
    "Window",
    "action_counter",
    "histogram",
    "lag_histogram",
    "merge_extremes",
    "metric_counter",
    "quantiles",
    "sparse",
    "total",
    "trend_histogram",
    "zeros",
]

Vector = npt.NDArray[np.uint64]


def zeros(layout: Layout) -> Vector:
    """Return an empty vector."""
    return np.zeros(layout.size, dtype="<u8")


def total(layout: Layout, vector: Vector, counter: str) -> int:
    """Return an action counter summed over all actions."""
    actions = slice(layout.action(0, counter), layout.first_metric, _layout.STRIDE)
    return int(vector[actions].sum()) if layout.actions else 0


def action_counter(layout: Layout, vector: Vector, action: int, counter: str) -> int:
    """Return one counter of one action."""
    return int(vector[layout.action(action, counter)])


def histogram(layout: Layout, vector: Vector, which: str = "response", action: int | None = None) -> Vector:
    """Return the *which* ("service" or "response") histogram of one action, or merged over all."""
    start_of = layout.service if which == "service" else layout.response
    actions = range(len(layout.actions)) if action is None else (action,)
    merged = np.zeros(BUCKETS, dtype="<u8")
    for number in actions:
        merged += vector[start_of(number) : start_of(number) + BUCKETS]
    return merged


def metric_counter(layout: Layout, vector: Vector, metric: int, counter: str = "count") -> int:
    """Return one counter of one metric of a scenario."""
    return int(vector[layout.metric(metric, counter)])


def trend_histogram(layout: Layout, vector: Vector, metric: int) -> Vector:
    """Return the histogram of a metric of a scenario."""
    return vector[layout.trend(metric) : layout.trend(metric) + BUCKETS]


def lag_histogram(layout: Layout, vector: Vector) -> Vector:
    """Return the lag histogram."""
    return vector[layout.lag() : layout.lag() + BUCKETS]


def quantiles(counts: Vector, qs: Sequence[float]) -> list[int | None]:
    """
    Return the quantiles *qs* (each in [0, 1]) of the histogram *counts*, each the upper edge (ns) of its bucket.

        rank(q) = max(1, ceil(q · n)); the quantile is the bucket in which the rank-th smallest value lies

    An empty histogram has none.
    """
    cumulated = np.cumsum(counts)
    n = int(cumulated[-1])
    if not n:
        return [None] * len(qs)
    # The product q·n carries rounding noise: 0.99 · 100 must be rank 99, not 100.
    ranks = [max(1, math.ceil(q * n - 1e-9)) for q in qs]
    return [upper_edge(int(bucket)) for bucket in np.searchsorted(cumulated, ranks, side="left")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """
    What was counted between two snapshots of one runner.

    *start_ms* and *end_ms* count from the run's origin; *wall_ms* is the end in wall-clock ms since the Unix epoch.
    *busiest_permille* is the busiest worker's (CPU + wait for a CPU) ÷ time, *waited_percent* the wait of the same one,
    *core_permille* the most CPU of one worker ÷ time, be it the busiest or another; *pod_permille* the pod's CPU ÷ its
    quota (or the machine's cores without one); *warm* says that the whole window lies after the warm-up. *indices* and
    *counts* are the sparse difference.
    """

    sequence: int
    start_ms: int
    end_ms: int
    wall_ms: int
    epoch: int
    active: int
    wanted: int
    busiest_permille: int
    core_permille: int = 0
    waited_percent: int = 0
    pod_permille: int
    warm: bool
    indices: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint64]

    def add_to(self, vector: Vector) -> None:
        """Add the window's counts to *vector* of the same layout."""
        np.add.at(vector, self.indices, self.counts)


# Of runners built before they were told, core_permille (H) and waited_percent (the second B) are 0.
_WINDOW: Final = struct.Struct("<QqqqQIIIIBBHI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    What a runner answers to GET /v1/statistics?since=N&boot=ID: its whole account, and the windows after *since*.

    *total* covers everything since the runner began, *warmup* what of it happened before the warm-up's end; *first* is
    the oldest window still in the ring: first > since + 1 is a gap in the windows (the total is whole all the same).
    *gauges* are instantaneous figures (memory, descriptors, connections, workers), *extremes* by action.
    """

    runner: str
    boot: str
    run: int
    layout: Layout
    sequence: int
    first: int
    total: Vector
    warmup: Vector
    extremes: tuple[int, ...]
    windows: tuple[Window, ...]
    gauges: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the answer as bytes: length-prefixed JSON head, then sparse total and warm-up, then the windows."""
        head: dict[str, Any] = {
            "format": FORMAT,
            "runner": self.runner,
            "boot": self.boot,
            "run": self.run,
            "layout": self.layout.id,
            "actions": self.layout.actions,
            "sequence": self.sequence,
            "first": self.first,
            "extremes": self.extremes,
            "gauges": dict(self.gauges),
            "windows": len(self.windows),
        }
        if self.layout.metrics:
            head["metrics"] = self.layout.metrics
        text = json.dumps(head, separators=(",", ":")).encode()
        parts = [struct.pack("<I", len(text)), text, _pack_sparse(self.total), _pack_sparse(self.warmup)]
        for w in self.windows:
            parts += [
                _WINDOW.pack(
                    w.sequence, w.start_ms, w.end_ms, w.wall_ms, w.epoch, w.active, w.wanted,
                    w.busiest_permille, w.pod_permille, w.warm, w.waited_percent, w.core_permille, len(w.indices),
                ),
                w.indices.astype("<u4").tobytes(),
                w.counts.astype("<u8").tobytes(),
            ]  # fmt: skip
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Return the answer in *data*; raise ValueError for another format or layout, or a cut."""
        try:
            (length,) = struct.unpack_from("<I", data)
            head = json.loads(data[4 : 4 + length])
            if head["format"] != FORMAT:
                raise ValueError(f"statistics format {head['format']} is not {FORMAT}")
            layout = Layout(
                actions=tuple((str(name), str(group)) for name, group in head["actions"]),
                metrics=tuple((str(name), str(kind), str(unit)) for name, kind, unit in head.get("metrics", ())),
            )
            if layout.id != head["layout"]:
                raise ValueError(f"layout {head['layout']} of the runner is not ours ({layout.id})")
            at = 4 + length
            total, at = _unpack_sparse(data, at, layout)
            warmup, at = _unpack_sparse(data, at, layout)
            windows: list[Window] = []
            for _ in range(int(head["windows"])):
                window, at = _unpack_window(data, at, layout)
                windows.append(window)
            return cls(
                runner=str(head["runner"]),
                boot=str(head["boot"]),
                run=int(head["run"]),
                layout=layout,
                sequence=int(head["sequence"]),
                first=int(head["first"]),
                total=total,
                warmup=warmup,
                extremes=tuple(int(value) for value in head["extremes"]),
                windows=tuple(windows),
                gauges={str(key): int(value) for key, value in head["gauges"].items()},
            )
        except (struct.error, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a statistics answer: {error}") from error


def sparse(vector: Vector) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    """Return the indices and values of the counters that are not 0."""
    indices = np.flatnonzero(vector)
    return indices.astype("<u4"), vector[indices]


def _pack_sparse(vector: Vector) -> bytes:
    indices, counts = sparse(vector)
    return struct.pack("<I", len(indices)) + indices.tobytes() + counts.astype("<u8").tobytes()


def _read_sparse(data: bytes, at: int, count: int, layout: Layout) -> tuple[npt.NDArray[np.uint32], Vector, int]:
    if at + 12 * count > len(data):
        raise ValueError("not a statistics answer: cut short")
    indices = np.frombuffer(data, dtype="<u4", count=count, offset=at)
    counts = np.frombuffer(data, dtype="<u8", count=count, offset=at + 4 * count)
    if count and int(indices.max()) >= layout.size:
        raise ValueError("not a statistics answer: an index lies outside its layout")
    return indices, counts, at + 12 * count


def _unpack_sparse(data: bytes, at: int, layout: Layout) -> tuple[Vector, int]:
    (count,) = struct.unpack_from("<I", data, at)
    indices, counts, at = _read_sparse(data, at + 4, count, layout)
    vector = zeros(layout)
    vector[indices] = counts
    return vector, at


def _unpack_window(data: bytes, at: int, layout: Layout) -> tuple[Window, int]:
    head = _WINDOW.unpack_from(data, at)
    sequence, start, end, wall, epoch, active, wanted, busiest, pod, warm, waited, core, count = head
    indices, counts, at = _read_sparse(data, at + _WINDOW.size, count, layout)
    return Window(
        sequence=sequence, start_ms=start, end_ms=end, wall_ms=wall, epoch=epoch, active=active, wanted=wanted,
        busiest_permille=busiest, core_permille=core, waited_percent=waited, pod_permille=pod, warm=bool(warm),
        indices=indices, counts=counts,
    ), at  # fmt: skip


def merge_extremes(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """
    Return the extremes of two accounts together: minima at even, maxima at odd positions (see EXTREMES).

    A minimum of 0 means that nothing was measured yet.
    """
    return tuple(
        max(a, b) if index % 2 else (min(a, b) if a and b else a or b)
        for index, (a, b) in enumerate(zip(left, right, strict=True))
    )
