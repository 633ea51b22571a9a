"""One account out of many, by action."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.alignment import grown
from trafficsim_api.layout import Layout
from trafficsim_api.statistics import action_counter, zeros
from trafficsim_runner.stats.merge import Part, together

A, B, C = ("a", "user"), ("b", "user"), ("c", "bulk")


def a_part(actions, done=(), extremes=None, iterations=0):
    layout = Layout(actions=tuple(actions))
    vector = zeros(layout)
    for number, count in enumerate(done):
        vector[layout.action(number, "done")] = count
        vector[layout.response(number) + 7] = count
    vector[layout.worker("iterations")] = iterations
    return Part(layout=layout, vector=vector, warmup=vector // 2, extremes=extremes or (0,) * layout.extremes)


def test_a_layout_only_grows_at_its_end():
    """Indices once given out keep their meaning."""
    assert (A, B, C) == grown(Layout(actions=(A, B)), [Layout(actions=(C, A))]).actions
    same = Layout(actions=(A, B))
    assert same is grown(same, [Layout(actions=(B, A))])


def test_counts_are_added_by_action_whatever_their_index():
    """A worker that was restarted after a load edit lays its actions out anew; they are added all the same."""
    total = together(Layout(actions=(A,)), [a_part([A, B], [1, 10], iterations=3), a_part([B, C], [100, 1000])])
    assert (A, B, C) == total.layout.actions
    assert [1, 110, 1000] == [action_counter(total.layout, total.vector, n, "done") for n in range(3)]
    assert [0, 55, 500] == [action_counter(total.layout, total.warmup, n, "done") for n in range(3)]
    assert 110 == total.vector[total.layout.response(1) + 7]
    assert 3 == total.vector[total.layout.worker("iterations")]


def test_extremes_are_merged_by_action():
    """The least minimum (0: none yet) and the largest maximum."""
    total = together(
        Layout(actions=()),
        [a_part([A, B], extremes=(5, 9, 6, 8, 0, 0, 0, 0)), a_part([B, A], extremes=(2, 3, 2, 3, 4, 7, 7, 9))],
    )
    assert (4, 9, 6, 9, 2, 3, 2, 3) == total.extremes


@given(counts=st.lists(st.lists(st.integers(0, 10**9), min_size=2, max_size=2), min_size=1, max_size=6))
def test_any_partition_has_the_same_sum(counts):
    """Merging is addition: in one go or one after the other."""
    parts = [a_part([A, B], done) for done in counts]
    at_once = together(Layout(actions=()), parts)
    one_by_one = together(Layout(actions=()), parts[:1])
    for part in parts[1:]:
        one_by_one = together(one_by_one.layout, [one_by_one.part(), part])
    assert np.array_equal(at_once.vector, one_by_one.vector)
    assert np.array_equal(at_once.warmup, one_by_one.warmup)


def test_parts_are_not_changed():
    """A sum is a new vector."""
    part = a_part([A], [4])
    together(part.layout, [part, part])
    assert 4 == action_counter(part.layout, part.vector, 0, "done")
