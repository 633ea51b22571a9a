"""
One account of a runner out of its workers': sums by action name, whatever the workers' layouts.

The layout of the whole only grows (new actions stand at the end), so indices once given out keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trafficsim_api.layout import EXTREMES, FIRST_ACTION, STRIDE, Layout
from trafficsim_api.statistics import Vector, merge_extremes, zeros

__all__ = ["Part", "Total", "grown", "together", "widened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The cumulative account of one worker (or of all that ended); *warmup* is what of it happened before its end."""

    layout: Layout
    vector: Vector
    warmup: Vector
    extremes: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Total:
    """The account of a runner."""

    layout: Layout
    vector: Vector
    warmup: Vector
    extremes: tuple[int, ...]

    @classmethod
    def empty(cls, layout: Layout | None = None) -> Total:
        """Return an account of nothing."""
        layout = layout or Layout(actions=())
        return cls(layout=layout, vector=zeros(layout), warmup=zeros(layout), extremes=(0,) * layout.extremes)

    def part(self) -> Part:
        """Return the account as a part of another one."""
        return Part(layout=self.layout, vector=self.vector, warmup=self.warmup, extremes=self.extremes)


def grown(layout: Layout, others: Iterable[Layout]) -> Layout:
    """Return *layout* with the actions of *others* that it lacks, in order of appearance, at its end."""
    actions = dict.fromkeys(layout.actions)
    for other in others:
        if other.actions != layout.actions:
            actions.update(dict.fromkeys(other.actions))
    return layout if len(actions) == len(layout.actions) else Layout(actions=tuple(actions))


def widened(vector: Vector, source: Layout, target: Layout) -> Vector:
    """Return *vector* of layout *source* in layout *target*, which has all its actions."""
    if source.actions == target.actions:
        return vector
    wide = zeros(target)
    wide[:FIRST_ACTION] = vector[:FIRST_ACTION]
    if source.actions:
        rows = _rows(source, target)
        wide[FIRST_ACTION:].reshape(-1, STRIDE)[rows] = vector[FIRST_ACTION:].reshape(-1, STRIDE)
    return wide


def together(layout: Layout, parts: Iterable[Part]) -> Total:
    """Return the sum of *parts* in *layout*, grown by the actions it lacks."""
    parts = tuple(parts)
    layout = grown(layout, (part.layout for part in parts))
    total = Total.empty(layout)
    for part in parts:
        total.vector += widened(part.vector, part.layout, layout)
        total.warmup += widened(part.warmup, part.layout, layout)
        total.extremes = merge_extremes(total.extremes, _wide_extremes(part, layout))
    return total


def _rows(source: Layout, target: Layout) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    at = {action: row for row, action in enumerate(target.actions)}
    return np.array([at[action] for action in source.actions], dtype=np.intp)


def _wide_extremes(part: Part, target: Layout) -> tuple[int, ...]:
    if part.layout.actions == target.actions:
        return part.extremes
    wide = np.zeros((len(target.actions), len(EXTREMES)), dtype=object)
    if part.layout.actions:
        wide[_rows(part.layout, target)] = np.array(part.extremes, dtype=object).reshape(-1, len(EXTREMES))
    return tuple(int(value) for value in wide.reshape(-1))
