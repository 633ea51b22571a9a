"""
How fast runners become more or fewer: windows and rates.

| | up | down |
|---|---|---|
| when | at once | when none of the newest 20 samples (300 s) needed so many |
| how many | at most twice as many, or 4 more, in 15 s | at most one in ten, or 1, in 60 s |
| not | beyond maxRunners | while something is held, below the static size |

The most of what two rates allow counts, by what there was when the 15 or 60 s began: from 1 runner 5 are possible at
once, from 6 runners 12; of 30 runners 3 may go in a minute, of 5 one.

What holds runners (a rollout, a load that is not known) is no evidence against them either: meanwhile a sample needs at
least what there is. A new history is that of what there is, so the first runner goes after 300 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trafficsim_api.status import ScaleEvent
from trafficsim_api.units import format_instant, parse_instant

__all__ = ["SAMPLES", "down", "noted", "remembered", "seeded", "up"]

SAMPLES: Final = 20
UP_MS: Final = 15_000
DOWN_MS: Final = 60_000
_ONE_MS: Final = 3_000
_MOST_EVENTS: Final = 16


def seeded(runners: int) -> tuple[int, ...]:
    """Return a history in which so many *runners* have always been needed."""
    return (runners,) * SAMPLES


def remembered(recommended: tuple[int, ...], needed: int, *, missed: int) -> tuple[int, ...]:
    """Return the history with *needed* as its newest sample; *missed* ones count as the larger of their neighbours."""
    between = (max((*recommended[-1:], needed)),) * missed
    return (*recommended, *between, needed)[-SAMPLES:]


def noted(events: Iterable[ScaleEvent], revision: str, runners: int, now_ms: int) -> tuple[ScaleEvent, ...]:
    """
    Return the *events* that still count for a rate, with so many more *runners* of *revision* (below 0: fewer).

    Those of one version that are raised within 3 s are one event, so a steep profile does not fill the status.
    """
    known = [e for e in events if 0 <= now_ms - parse_instant(e.at) < (UP_MS if e.runners > 0 else DOWN_MS)]
    if not runners:
        return tuple(known)
    same = [e for e in known if e.revision == revision and e.runners > 0 and now_ms - parse_instant(e.at) < _ONE_MS]
    if runners > 0 and same:
        known.remove(same[-1])
        runners += same[-1].runners
    known.append(ScaleEvent(at=format_instant(now_ms), revision=revision, runners=runners))
    return tuple(known[-_MOST_EVENTS:])


def up(wanted: int, needed: int, events: Iterable[ScaleEvent], now_ms: int) -> int:
    """
    Return how many runners are to be there instead of *wanted* when more are *needed*.

        min(needed, max(2 · before, before + 4)),  before = those 15 s ago

    1 wanted and 9 needed: 5. Those 5 asked for 10 s ago: still 5; 15 s ago: 9.
    """
    added = sum(e.runners for e in events if e.runners > 0 and now_ms - parse_instant(e.at) < UP_MS)
    before = max(0, wanted - added)
    return max(wanted, min(needed, max(2 * before, before + 4)))


def down(wanted: int, recommended: Iterable[int], events: Iterable[ScaleEvent], now_ms: int) -> int:
    """
    Return how many runners are to be there instead of *wanted* by the history of what was *recommended*.

        max(most of the history, before - max(1, ⌊before ÷ 10⌋)),  before = those 60 s ago

    30 wanted and 3 needed for 300 s: 27, a minute later 25. One sample that needed 29: 29.
    """
    taken = sum(-e.runners for e in events if e.runners < 0 and now_ms - parse_instant(e.at) < DOWN_MS)
    before = wanted + taken
    return min(wanted, max(max(recommended, default=wanted), before - max(1, before // 10)))
