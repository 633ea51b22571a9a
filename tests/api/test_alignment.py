"""Counters keep their meaning when layouts differ, and when one grows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.alignment import aligned, grown, remapped
from trafficsim_api.layout import FIRST_ACTION, STRIDE, Layout
from trafficsim_api.statistics import histogram, metric_counter, sparse, total, trend_histogram, zeros

ACTIONS = [("a", "user"), ("b", "user"), ("c", "bulk")]
METRICS = [("rows", "trend", ""), ("exported", "counter", ""), ("latency", "trend", "ms")]
LAYOUTS = st.builds(
    lambda actions, metrics: Layout(actions=tuple(actions), metrics=tuple(metrics)),
    st.lists(st.sampled_from(ACTIONS), unique=True),
    st.lists(st.sampled_from(METRICS), unique=True),
)


def meanings(layout, vector):
    """Return what *vector* says, by the names of its counters."""
    found = {("worker", number): int(value) for number, value in enumerate(vector[:FIRST_ACTION]) if value}
    for number, action in enumerate(layout.actions):
        row = vector[layout.action(number, "sent") :][:STRIDE]
        found |= {(action, int(at)): int(row[at]) for at in np.flatnonzero(row)}
    for number, metric in enumerate(layout.metrics):
        found[metric, "count"] = metric_counter(layout, vector, number)
        found[metric, "sum"] = metric_counter(layout, vector, number, "sum")
        trend = trend_histogram(layout, vector, number)
        found |= {(metric, int(at)): int(trend[at]) for at in np.flatnonzero(trend)}
    return {key: value for key, value in found.items() if value}


def a_vector(layout, seed):
    draw = np.random.default_rng(seed)
    vector = zeros(layout)
    vector[draw.integers(0, layout.size, 60)] = draw.integers(1, 1000, 60).astype("<u8")
    return vector


@given(left=LAYOUTS, right=LAYOUTS, seed=st.integers(0, 10**6))
def test_every_counter_keeps_its_meaning_in_a_layout_that_grew(left, right, seed):
    """Actions and metrics of the first stay where they are among their own; new actions move the metrics."""
    both, vector = grown(left, (right,)), a_vector(right, seed)
    assert both.actions[: len(left.actions)] == left.actions
    assert both.metrics[: len(left.metrics)] == left.metrics
    assert meanings(right, vector) == meanings(both, aligned(vector, right, both))
    indices, counts = sparse(vector)
    there = zeros(both)
    np.add.at(there, remapped(indices, right, both), counts)
    assert meanings(right, vector) == meanings(both, there)


def test_totals_over_actions_know_nothing_of_metrics():
    """A metric's figures count as no request, and as nobody's time."""
    layout = Layout(actions=(ACTIONS[0],), metrics=tuple(METRICS))
    vector = zeros(layout)
    vector[layout.first_metric :] = 7
    assert 0 == total(layout, vector, "done") == total(layout, vector, "response_ns")
    assert 0 == int(histogram(layout, vector).sum())


def test_a_layout_without_metrics_has_the_identity_it_had():
    """Runners without scenarios are understood by who knows of no metrics."""
    assert Layout(actions=tuple(ACTIONS)).id == Layout(actions=tuple(ACTIONS), metrics=()).id
    assert Layout(actions=tuple(ACTIONS)).id != Layout(actions=tuple(ACTIONS), metrics=tuple(METRICS)).id
