"""
Counters of one layout in another's order: what is added up need not have come from equal layouts.

A layout that takes in another only grows: its own actions and metrics stay first, those of the other follow. One more
action moves the metrics, which stand behind the actions; so indices are told anew here whenever layouts differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trafficsim_api.layout import EXTREMES, FIRST_ACTION, METRIC_STRIDE, STRIDE, Layout, grown
from trafficsim_api.statistics import Vector, zeros

__all__ = ["aligned", "aligned_extremes", "grown", "remapped"]


def aligned(vector: Vector, layout: Layout, to: Layout) -> Vector:
    """Return *vector* of *layout* in the order of *to*, which has all its actions and metrics."""
    if layout == to:
        return vector
    result = zeros(to)
    result[:FIRST_ACTION] = vector[:FIRST_ACTION]
    if layout.actions:
        places = {action: row for row, action in enumerate(to.actions)}
        rows = np.array([places[action] for action in layout.actions], dtype=np.intp)
        found = vector[FIRST_ACTION : layout.first_metric].reshape(-1, STRIDE)
        result[FIRST_ACTION : to.first_metric].reshape(-1, STRIDE)[rows] = found
    if layout.metrics:
        where = {metric: row for row, metric in enumerate(to.metrics)}
        rows = np.array([where[metric] for metric in layout.metrics], dtype=np.intp)
        found = vector[layout.first_metric :].reshape(-1, METRIC_STRIDE)
        result[to.first_metric :].reshape(-1, METRIC_STRIDE)[rows] = found
    return result


def aligned_extremes(extremes: Sequence[int], layout: Layout, to: Layout) -> tuple[int, ...]:
    """Return *extremes* of *layout* in the order of *to*."""
    if layout.actions == to.actions:
        return tuple(extremes)
    width = len(EXTREMES)
    known = {action: extremes[number * width : (number + 1) * width] for number, action in enumerate(layout.actions)}
    return tuple(value for action in to.actions for value in known.get(action, (0,) * width))


def remapped(indices: npt.NDArray[np.uint32], layout: Layout, to: Layout) -> npt.NDArray[np.int64]:
    """Return *indices* into *layout* as indices into *to*, which has all its actions and metrics."""
    wide = indices.astype(np.int64)
    if layout == to:
        return wide
    for first, stop, begin, stride, mine, theirs in (
        (FIRST_ACTION, layout.first_metric, FIRST_ACTION, STRIDE, layout.actions, to.actions),
        (layout.first_metric, layout.size, to.first_metric, METRIC_STRIDE, layout.metrics, to.metrics),
    ):
        if not mine:
            continue
        places = {one: row for row, one in enumerate(theirs)}
        rows = np.array([places[one] for one in mine], dtype=np.int64)
        inside = (indices >= first) & (indices < stop)
        behind = indices[inside].astype(np.int64) - first
        wide[inside] = begin + rows[behind // stride] * stride + behind % stride
    return wide
