"""
One account of a runner out of its workers': sums by action and metric, whatever the workers' layouts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trafficsim_api.alignment import aligned, aligned_extremes, grown
from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Vector, merge_extremes, zeros

__all__ = ["Part", "Total", "together"]


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


def together(layout: Layout, parts: Iterable[Part]) -> Total:
    """Return the sum of *parts* in *layout*, grown by the actions and metrics it lacks."""
    parts = tuple(parts)
    layout = grown(layout, (part.layout for part in parts))
    total = Total.empty(layout)
    for part in parts:
        total.vector += aligned(part.vector, part.layout, layout)
        total.warmup += aligned(part.warmup, part.layout, layout)
        total.extremes = merge_extremes(total.extremes, aligned_extremes(part.extremes, part.layout, layout))
    return total
