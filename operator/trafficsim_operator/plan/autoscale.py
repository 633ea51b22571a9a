"""
Scaling by what runners measure: how many runners each version is to have now. Pure, idempotent, never more than one
decision in the same instant; everything the next one builds on stands in `status.scaling`.

    users_per_runner    u*: what its runners carry at the target utilisation, measured (plan/utilisation.py)
    users               its share of the users wanted now, or of those due before another runner could be ready
    needed              ⌈users ÷ u*⌉, within a tenth of what there is: what there is; never below the static size
    wanted              `needed`, reached in steps (plan/pace.py): up at once, down after 300 s; within min … max

600 users at u* = 200 take 3 runners. On 1 there, 3 are wanted at once; on 10 there, 300 s without need for more, then
one fewer a minute.

A sample is taken every 15 s. Between samples runners only ever become more: by an edit, by the static size, by users
who are due.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trafficsim_api.status import ScalingStatus
from trafficsim_operator.observed import RunnerLoad

__all__ = ["SAMPLE_MS", "ScalingSeen", "VersionSeen", "ahead_ms", "scale"]

SAMPLE_MS: Final = 15_000
START_UP_MS: Final = 30_000
"""Taken for the start-up time of a runner while none was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSeen:
    """
    One version as scaling sees it.

    *static* are the fewest runners it is to have now (of the static sizing, in a rollout those of its share; minRunners
    is in it), *capacity* the most users of one of its runners, *existing* the runners asked for now. *places* of the T
    places are what it must be able to carry: the most of what its runners hold and what this and the next step give it;
    for the stable version all, also in a rollout. *conflict*: somebody else scales it.
    """

    revision: str
    static: int
    capacity: int
    existing: int
    places: int
    conflict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSeen:
    """
    What one decision is made by. Only versions that have, or get, users are listed, the stable one first.

    *missing* names the runners that hold users and whose load is not known. *total* is the T asked for. *demand* are
    the users wanted now: u(t); in the open model, where nobody knows how long an iteration takes, those at work.
    *known_ahead* is the most that *demand* comes to in [now, now + ahead_ms], None where no profile tells it.
    *load* is a hash over what a user does (an edit of it makes measured runners begin anew).
    *max_runners* holds for a version, *most_runners* (the policy's) for all together, *others* being those of versions
    that are not listed. *start_ups_ms* are those measured at this look, *target* is in permille.
    """

    versions: tuple[VersionSeen, ...]
    loads: tuple[RunnerLoad, ...] = ()
    missing: tuple[str, ...] = ()
    total: int
    demand: int
    known_ahead: int | None = None
    load: str = ""
    min_runners: int = 1
    max_runners: int | None = None
    most_runners: int | None = None
    others: int = 0
    in_rollout: bool = False
    start_ups_ms: tuple[int, ...] = ()
    target: int = 700
    prediction: bool = True
    look_ahead_ms: int = 60_000


def ahead_ms(before: ScalingStatus | None) -> int:
    """
    Return how far ahead the users that are due count: until a runner asked for at the next sample is ready.

        start-up time + 15 s; 30 s are taken for a start-up time that is not known

    A runner that takes 8 s: 23 s.
    """
    return (before.start_up_ms if before is not None and before.start_up_ms else START_UP_MS) + SAMPLE_MS


def scale(before: ScalingStatus | None, seen: ScalingSeen, now_ms: int) -> ScalingStatus:
    """
    Return the runners that each version is to have, and everything that the next decision builds on.

    *before* is `status.scaling`, None at the first look of a run that is on. The runners of a version are `wanted`, the
    final count, its share of a rollout included; a raise of users waits for `needed` ones, which no rate holds back.
    """
    raise NotImplementedError
