"""The ring of windows: bounded, and what is lost is stated."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Window
from trafficsim_runner.stats.ring import Ring, fold


def a_window(sequence, entries=1, **changes):
    fields = {
        "sequence": sequence, "start_ms": 1000 * (sequence - 1), "end_ms": 1000 * sequence,
        "wall_ms": 5_000_000 + 1000 * sequence, "epoch": 1, "active": sequence, "wanted": 9, "busiest_permille": 100,
        "pod_permille": 50, "warm": True, "indices": np.arange(entries, dtype="<u4"),
        "counts": np.ones(entries, dtype="<u8"),
    } | changes  # fmt: skip
    return Window(**fields)


def filled(count, capacity=1 << 20, entries=1):
    ring = Ring(capacity)
    for sequence in range(1, count + 1):
        ring.add(a_window(sequence, entries))
    return ring


def test_a_reader_gets_what_is_new():
    """Windows after the last one known; none is no gap."""
    ring = filled(5)
    first, windows = ring.since(3)
    assert (4, [4, 5]) == (first, [w.sequence for w in windows])
    assert (6, ()) == ring.since(5)
    assert (1, ()) == Ring(1000).since(0)


def test_windows_fold_when_room_is_short():
    """The oldest ten become one of ten seconds, with all their counts."""
    ring = filled(20, capacity=19 * 412)
    assert 10 == ring.folded
    first, windows = ring.since(0)
    assert 1 == first
    assert (0, 10_000, 10) == (windows[0].start_ms, windows[0].end_ms, int(windows[0].counts[0]))
    assert [10, *range(11, 21)] == [w.sequence for w in windows]


def test_a_folded_window_is_never_counted_twice():
    """A reader that knows a part of it is told of a gap instead."""
    ring = filled(20, capacity=19 * 412)
    first, windows = ring.since(4)
    assert (11, 11) == (first, windows[0].sequence)


def test_the_oldest_go_when_nothing_is_left_to_fold():
    """The gap shows in the first sequence."""
    ring = filled(500, capacity=15 * 412)
    first, windows = ring.since(0)
    assert first > 1
    assert 500 == windows[-1].sequence
    assert ring.size <= ring.capacity


@given(count=st.integers(1, 200), room=st.integers(1, 60), known=st.integers(0, 200))
def test_what_is_given_is_contiguous_and_complete(count, room, known):
    """From *first* on every second is there once, within the room."""
    ring = filled(count, capacity=room * 412)
    known = min(known, count)
    first, windows = ring.since(known)
    assert first > known
    assert count - first + 1 == sum(int(w.counts[0]) for w in windows)
    at = 1000 * (first - 1)
    for window in windows:
        assert at == window.start_ms
        at = window.end_ms
    assert ring.size <= ring.capacity or 1 == len(windows)


def test_a_fold_adds_and_averages():
    """Counts are added, utilisation is averaged over time, warm only if all were."""
    one = fold([
        a_window(1, entries=1, busiest_permille=0, warm=False),
        a_window(2, entries=3, busiest_permille=400, core_permille=200, waited_percent=20, end_ms=4000, epoch=2),
    ])  # fmt: skip
    assert ([0, 1, 2], [2, 1, 1]) == (one.indices.tolist(), one.counts.tolist())
    assert (300, 150, 15, False, 2, 2, 0, 4000) == (
        one.busiest_permille, one.core_permille, one.waited_percent, one.warm, one.epoch, one.sequence, one.start_ms,
        one.end_ms,
    )  # fmt: skip


def test_windows_move_with_a_layout_that_grew():
    """A reader gets every window in the layout of the answer, whatever it was when the window was made."""
    before = Layout(actions=(("a", "user"),), metrics=(("rows", "trend", ""),))
    after = Layout(actions=(("a", "user"), ("b", "user")), metrics=before.metrics)
    ring = Ring(10_000)
    indices = np.array([before.action(0, "done"), before.metric(0)], dtype="<u4")
    ring.add(a_window(1, indices=indices, counts=np.array([2, 5], dtype="<u8")))
    ring.move(before, after)
    window = ring.since(0)[1][0]
    found = dict(zip(window.indices.tolist(), window.counts.tolist(), strict=True))
    assert {after.action(0, "done"): 2, after.metric(0): 5} == found
