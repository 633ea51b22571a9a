"""
Silence: for how long a version of which the other one's users hear nothing may be quiet before that means something.

| what is quiet | for so long at least, and for three windows |
|---|---|
| it told nothing: its runners do not answer | 10 s, as everywhere |
| it told that no request was finished | max(10 s, connect time-out + request time-out + the longest pause) |

A request that is under way comes back or times out within its time-outs. Users who were begun together pause together:
a flow that waits a minute after each round is quiet for a minute, however many requests were to be expected by then.
The pause of `median` and `p95` counts as its p95; how long a scenario waits nobody knows beforehand. With time-outs of
1 s and 30 s and a pause of 500 ms: 31.5 s; with 100 ms, 2 s and 20 ms: 10 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from trafficsim_api.flow import Step
from trafficsim_api.protocol import Load
from trafficsim_api.units import milliseconds
from trafficsim_operator.plan.rolling import SILENT_MS

__all__ = ["quiet_ms"]

_NONE: Final = timedelta(0)


def quiet_ms(load: Load) -> int:
    """Return for how long users of *load* may finish no request and be well all the same."""
    timeouts = load.target.timeouts
    pause = max((pause for archetype in load.archetypes for pause in _pauses(archetype.steps)), default=_NONE)
    return max(SILENT_MS, milliseconds(timeouts.connect + timeouts.request + pause))


def _pauses(steps: Sequence[Step]) -> Iterator[timedelta]:
    """Yield the longest that each pause of a flow takes, nested flows included."""
    for step in steps:
        for _, inner in step.nested:
            yield from _pauses(inner)
        if step.think is not None:
            yield step.think.constant or step.think.max or step.think.p95 or _NONE
