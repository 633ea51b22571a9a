"""
Windows of a rollout's step, by version: what all runners of one revision counted, merged by addition.

A runner tells of about a second at a time, off any grid; each such second counts for the window that it begins in:

    number = (start - from) // length;  what began before *from* (`rollout.windowsFromMs`) never counts

A window is whole once every runner of its version that answers has told of what comes after its end, and one saw at
least half of it. Everything comes from the runners' rings, so an operator that was started anew gathers the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from trafficsim_api.layout import ACTION_INDEX, FIRST_ACTION, RESPONSE, STRIDE, Layout
from trafficsim_api.statistics import Window
from trafficsim_api.status import RolloutStatus
from trafficsim_operator.observed import ColourWindow

__all__ = ["ColourWindows", "Grid", "grid_of"]

_SECOND_MS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """From when on windows count (run time), how long each is, and how many are kept at most."""

    from_ms: int
    window_ms: int
    most: int


def grid_of(rollout: RolloutStatus | None) -> Grid | None:
    """Return the windows that the present step is judged by; None while none are."""
    if rollout is None or rollout.plan is None or rollout.windows_from_ms is None:
        return None
    plan = rollout.plan
    most = max(plan.max_dwell_ms, *(step.dwell_ms for step in plan.steps)) // plan.window_ms + 1
    return Grid(from_ms=rollout.windows_from_ms, window_ms=plan.window_ms, most=most)


@dataclass(slots=True, kw_only=True)
class ColourWindows:
    """The windows of the present step, by revision and number."""

    grid: Grid | None = None
    _windows: dict[tuple[str, int], ColourWindow] = field(default_factory=dict)
    _seen_ms: dict[tuple[str, int, str], int] = field(default_factory=dict)
    _reached: dict[str, int] = field(default_factory=dict)
    _in_flight: dict[str, tuple[str, int]] = field(default_factory=dict)

    def begin(self, grid: Grid | None) -> None:
        """Go by *grid* from now on; what was gathered by another one is void."""
        if grid == self.grid:
            return
        self.grid, self._windows, self._seen_ms = grid, {}, {}
        # The run's time goes back when a pause ends: what was told in it is no sign of having got that far.
        first_ms = grid.from_ms if grid is not None else 0
        self._reached = {runner: min(reached, first_ms) for runner, reached in self._reached.items()}

    def add(self, runner: str, revision: str, layout: Layout, windows: Sequence[Window], *, in_flight: int = 0) -> None:
        """Take what *runner* has told since it was read last, and how many requests it has under way now."""
        self._in_flight[runner] = revision, in_flight
        if not windows:
            return
        self._reached[runner] = windows[-1].end_ms
        if self.grid is None:
            return
        for window in _of_one_course(windows):
            # A folded one, of ten seconds, says nothing of the windows that it lies across.
            if window.start_ms >= self.grid.from_ms and (
                window.end_ms - window.start_ms <= self.grid.window_ms + _SECOND_MS
            ):
                self._count(runner, revision, layout, window, self.grid)

    def _count(self, runner: str, revision: str, layout: Layout, window: Window, grid: Grid) -> None:
        number = (window.start_ms - grid.from_ms) // grid.window_ms
        newest = max((n for r, n in self._windows if r == revision), default=number)
        if number <= newest - grid.most:
            return
        seen = self._seen_ms.get((revision, number, runner), 0) + window.end_ms - window.start_ms
        self._seen_ms[revision, number, runner] = seen
        before = self._windows.get((revision, number), ColourWindow(number=number))
        self._windows[revision, number] = _with(before, layout, window, seen)
        for key in [key for key in self._windows if key[0] == revision and key[1] <= number - grid.most]:
            del self._windows[key]
            self._seen_ms = {at: ms for at, ms in self._seen_ms.items() if at[:2] != key}

    def forget(self, runner: str) -> None:
        """Wait for *runner* no longer: it is gone. What it counted stays counted."""
        self._reached.pop(runner, None)
        self._in_flight.pop(runner, None)

    def judge(self, answering: Mapping[str, str]) -> None:
        """Say which windows are whole, given the runners that answer now and their revisions."""
        grid = self.grid
        if grid is None:
            return
        until: dict[str, int] = {}
        for runner, revision in answering.items():
            reached = self._reached.get(runner, grid.from_ms)
            until[revision] = min(until.get(revision, reached), reached)
        for key, window in self._windows.items():
            end = grid.from_ms + (key[1] + 1) * grid.window_ms
            if not window.whole and end <= until.get(key[0], 0) and 2 * window.seen_ms >= grid.window_ms:
                self._windows[key] = replace(window, whole=True)

    def told(self) -> Mapping[str, tuple[ColourWindow, ...]]:
        """Return the windows by revision, oldest first; the newest with what is under way."""
        found: dict[str, list[ColourWindow]] = {}
        for revision, number in sorted(self._windows):
            found.setdefault(revision, []).append(self._windows[revision, number])
        under_way: dict[str, int] = {}
        for revision, count in self._in_flight.values():
            under_way[revision] = under_way.get(revision, 0) + count
        return {
            revision: (*windows[:-1], replace(windows[-1], in_flight=under_way.get(revision, 0)))
            for revision, windows in found.items()
        }


def _of_one_course(windows: Sequence[Window]) -> Iterable[Window]:
    """
    Return *windows* without those that a later one begins before.

    In a pause runners go on telling, while the run's time stands: when it is over, time goes back to where it began.
    """
    first_ms = windows[-1].end_ms
    kept: list[Window] = []
    for window in reversed(windows):
        if window.end_ms <= first_ms:
            kept.append(window)
        first_ms = min(first_ms, window.start_ms)
    return reversed(kept)


def _with(before: ColourWindow, layout: Layout, window: Window, seen_ms: int) -> ColourWindow:
    """Return *before* with what *window* counted."""
    inside = (window.indices >= FIRST_ACTION) & (window.indices < layout.first_metric)
    places = (window.indices[inside].astype(np.int64) - FIRST_ACTION) % STRIDE
    counts = window.counts[inside]

    def counted(counter: str) -> int:
        return int(counts[places == ACTION_INDEX[counter]].sum())

    first = window.indices < FIRST_ACTION
    of_workers = dict(zip(window.indices[first].tolist(), window.counts[first].tolist(), strict=True))

    def of_worker(counter: str) -> int:
        return int(of_workers.get(layout.worker(counter), 0))

    is_time = places >= RESPONSE
    buckets, times = _together(before, places[is_time] - RESPONSE, counts[is_time])
    return replace(
        before,
        requests=before.requests + counted("done"),
        failed=before.failed + counted("failed"),
        checks=before.checks + counted("checks"),
        checks_failed=before.checks_failed + counted("checks_failed"),
        # Subtle: by what a worker said last, so that one that hangs keeps its users; its counters stand still.
        user_ms=before.user_ms + window.active * (window.end_ms - window.start_ms),
        seen_ms=max(before.seen_ms, seen_ms),
        time_ns=before.time_ns + of_worker("wall_ns"),
        waited_ns=before.waited_ns + of_worker("waited_ns"),
        periods=before.periods + of_worker("cfs_periods"),
        throttled=before.throttled + of_worker("cfs_throttled"),
        buckets=buckets,
        counts=times,
    )


def _together(
    before: ColourWindow, buckets: npt.NDArray[np.int64], counts: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint64]]:
    both, where = np.unique(np.concatenate((before.buckets.astype(np.int64), buckets)), return_inverse=True)
    sums = np.zeros(len(both), dtype=np.uint64)
    np.add.at(sums, where, np.concatenate((before.counts, counts)))
    return both.astype(np.uint16), sums
