"""
Starvation: neighbours had the CPU that a version's workers were ready for, so late answers and silence tell nothing.

    starved = waited ÷ time ≥ 50 %, over all its workers in the windows of a finding, throttled ÷ periods ≤ 5 %

*waited* is the time in which a worker was ready to run and none of the machine's CPUs was free for it: 1.2 s of two are
60 %. A quota is no neighbour: the resources are part of the version, so one that is throttled by its own limit is
judged by what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trafficsim_operator.observed import ColourWindow
from trafficsim_operator.plan.saturation import THROTTLED

__all__ = ["starvation"]

_WAITED: Final = 0.5


def starvation(windows: Iterable[ColourWindow]) -> str:
    """Return what shows that the workers were starved in *windows* together; "" when they were not."""
    seen = tuple(windows)
    time_ns, waited_ns = sum(window.time_ns for window in seen), sum(window.waited_ns for window in seen)
    periods, throttled = sum(window.periods for window in seen), sum(window.throttled for window in seen)
    if not time_ns or waited_ns < _WAITED * time_ns or throttled > THROTTLED * periods:
        return ""
    return f"its workers waited {100 * waited_ns / time_ns:.0f} % of the time for a CPU that others had"
