"""
What scenarios counted and measured of their own, and what rules say about it.

    count = a counter's value, or how often a trend was recorded · rate = count ÷ seconds
    avg = sum ÷ count · percentiles, min and max from the merged histogram: the bucket's upper edge

A time is in ns, any other value in the trend's unit. A name is an action's if there is one of that name, unless the
rule can only be about a metric.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trafficsim_api.histogram import upper_edge
from trafficsim_api.layout import Layout, MetricKind
from trafficsim_api.rules import Rule
from trafficsim_api.statistics import Vector, metric_counter, quantiles, trend_histogram
from trafficsim_operator.observed import MetricRow

__all__ = ["NS", "MetricRow", "measured", "metric_of", "metric_value", "problem_of"]

NS: Final = "ns"
_COUNTED: Final = ("count", "rate")


def measured(layout: Layout, vector: Vector) -> tuple[MetricRow, ...]:
    """Return every metric in *vector*."""
    return tuple(_row(layout, vector, number) for number in range(len(layout.metrics)))


def _row(layout: Layout, vector: Vector, number: int) -> MetricRow:
    name, kind, unit = layout.metrics[number]
    count = metric_counter(layout, vector, number)
    if kind == MetricKind.COUNTER:
        return MetricRow(name=name, kind=kind, unit=unit, count=count)
    counts = trend_histogram(layout, vector, number)
    p50, p95, p99 = quantiles(counts, (0.5, 0.95, 0.99))
    return MetricRow(
        name=name, kind=kind, unit=unit, count=count, total=metric_counter(layout, vector, number, "sum"), p50=p50,
        p95=p95, p99=p99, least=_edge(counts, 0), most=_edge(counts, -1),
    )  # fmt: skip


def _edge(counts: Vector, which: int) -> int | None:
    filled = np.flatnonzero(counts)
    return upper_edge(int(filled[which])) if len(filled) else None


def metric_of(rule: Rule, layout: Layout) -> int | None:
    """Return the number of the metric that *rule* is about; None when it is about actions, or about nothing."""
    if not rule.may_name_metric:
        return None
    if not rule.needs_metric and any(name == rule.action for name, _ in layout.actions):
        return None
    return next((number for number, (name, _, _) in enumerate(layout.metrics) if name == rule.action), None)


def problem_of(rule: Rule, layout: Layout) -> str:
    """Say why *rule* cannot be judged on what the runners count, "" when it can; nothing was counted yet: it can."""
    name = rule.action
    if name is None or not layout.actions:
        return ""
    number = metric_of(rule, layout)
    if number is None:
        if not rule.needs_metric and any(action == name for action, _ in layout.actions):
            return ""
        what = "metric" if rule.needs_metric else "action or metric" if rule.may_name_metric else "action"
        return f"no {what} {name} is declared"
    _, kind, unit = layout.metrics[number]
    if rule.metric in _COUNTED:
        return ""
    if kind == MetricKind.COUNTER:
        return f"{name} is a counter: only count and rate are of it"
    if rule.plain and unit == NS:
        return f"{name} is a time: its limit needs ms or s"
    return "" if rule.plain or unit == NS else f"{name} is no time: its limit has no unit"


def metric_value(rule: Rule, layout: Layout, vector: Vector, number: int, *, seconds: float) -> float | None:
    """Return what *rule* is about of metric *number*; None without samples."""
    count = metric_counter(layout, vector, number)
    match rule.metric:
        case "count":
            return float(count)
        case "rate":
            return count / seconds if seconds > 0 else None
        case "avg":
            return metric_counter(layout, vector, number, "sum") / count if count else None
        case "min" | "max":
            edge = _edge(trend_histogram(layout, vector, number), 0 if rule.metric == "min" else -1)
            return None if edge is None else float(edge)
        case _:
            assert rule.quantile is not None
            found = quantiles(trend_histogram(layout, vector, number), (rule.quantile,))[0]
            return None if found is None else float(found)
