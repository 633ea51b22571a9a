"""
Numbers from merged vectors: what a rule's metric is worth, and one layout's counters in another's order.

    error_rate = failed ÷ done · success = 1 - checks_failed ÷ checks · check_failures = checks_failed ÷ checks
    avg = sum ÷ answered · rps = done ÷ seconds
    percentiles, min and max from the merged histogram: the bucket's upper edge
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trafficsim_api.alignment import aligned, aligned_extremes, grown, remapped
from trafficsim_api.histogram import BUCKETS, upper_edge
from trafficsim_api.layout import ACTION_COUNTERS, Layout, MetricKind
from trafficsim_api.rules import Rule
from trafficsim_api.statistics import Vector, histogram, metric_counter, quantiles
from trafficsim_operator.plan.measured import metric_of, metric_value

__all__ = [
    "actions_named",
    "aligned",
    "aligned_extremes",
    "counter",
    "joined",
    "remapped",
    "rounded",
    "samples_of",
    "value_of",
]


def joined(left: Layout, right: Layout) -> Layout:
    """Return the layout of both: *left* first, then what is new in *right*; it only grows."""
    return grown(left, (right,))


def rounded(count: int) -> int:
    """
    Return *count* to three digits, as figures are told on the way; never smaller for a larger count.

    4 068 is told as 4 070, 999 as 999.
    """
    return count if count < 1000 else int(float(f"{count:.2e}"))


def actions_named(layout: Layout, name: str | None) -> tuple[int, ...]:
    """Return the numbers of the actions called *name* (None: of all)."""
    return tuple(number for number, (action, _) in enumerate(layout.actions) if name is None or action == name)


def counter(layout: Layout, vector: Vector, name: str, actions: Iterable[int]) -> int:
    """Return a counter summed over *actions*."""
    assert name in ACTION_COUNTERS
    return sum(int(vector[layout.action(action, name)]) for action in actions)


def samples_of(rule: Rule, layout: Layout, vector: Vector) -> int:
    """Return n, what *rule* is judged on: finished requests, or the values of a scenario's trend."""
    metric = metric_of(rule, layout)
    if rule.metric in ("count", "rate"):
        return counter(layout, vector, "done", actions_named(layout, None)) if metric is not None else 0
    if metric is not None:
        return metric_counter(layout, vector, metric) if layout.metrics[metric][1] == MetricKind.TREND else 0
    return counter(layout, vector, "done", actions_named(layout, rule.action))


def value_of(rule: Rule, layout: Layout, vector: Vector, *, seconds: float) -> float | None:
    """Return what *rule*'s metric is worth in its unit (ns, ratio, per second, number); None without samples."""
    metric = metric_of(rule, layout)
    if metric is not None:
        return metric_value(rule, layout, vector, metric, seconds=seconds)
    actions = actions_named(layout, rule.action)
    if not actions or rule.needs_metric:
        return None
    done = counter(layout, vector, "done", actions)
    which = "service" if rule.service else "response"
    match rule.metric:
        case "requests":
            return float(done)
        case "rps":
            return done / seconds if seconds > 0 else None
        case "error_rate":
            return counter(layout, vector, "failed", actions) / done if done else None
        case "success" | "check_failures":
            checks = counter(layout, vector, "checks", actions)
            missed = counter(layout, vector, "checks_failed", actions) / checks if checks else None
            return missed if missed is None or rule.metric == "check_failures" else 1 - missed
        case "avg":
            answered = sum(int(histogram(layout, vector, which, action).sum()) for action in actions)
            return counter(layout, vector, f"{which}_ns", actions) / answered if answered else None
        case "min" | "max":
            # From the outermost buckets, so that warm-up and span are as with the percentiles.
            filled = np.flatnonzero(_merged(layout, vector, which, actions))
            bucket = None if not len(filled) else int(filled[0 if rule.metric == "min" else -1])
            return None if bucket is None else float(upper_edge(bucket))
        case _:
            assert rule.quantile is not None
            found = quantiles(_merged(layout, vector, which, actions), (rule.quantile,))[0]
            return None if found is None else float(found)


def _merged(layout: Layout, vector: Vector, which: str, actions: Iterable[int]) -> Vector:
    merged = np.zeros(BUCKETS, dtype="<u8")
    for action in actions:
        merged += histogram(layout, vector, which, action)
    return merged
