"""
What a rollout means for both versions: users and runners of each, and which version the pointers name.

Blue is `stable`, green `candidate`; after the promotion green is `stable` and the old blue `previous`, until its
runners are gone. One function says how many users each has, and from the same numbers another how many runners. A pause
changes neither: in Shifting it holds the step, and users still move until its split is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import Revision, RolloutStatus, Status
from trafficsim_api.units import parse_instant
from trafficsim_operator.plan.rolling import Colour
from trafficsim_operator.plan.steps import green_users

__all__ = [
    "ATTEMPT",
    "MOVING_BACK",
    "SPLIT",
    "Replicas",
    "chunk",
    "goal",
    "is_hasty",
    "is_rolling",
    "needed",
    "pointers",
    "quota",
    "replicas",
    "runners_for",
    "users_ahead",
]

SPLIT: Final = frozenset({RolloutPhase.SHIFTING, RolloutPhase.ANALYZING})
"""Both versions have users."""
MOVING_BACK: Final = frozenset({RolloutPhase.ABORTING, RolloutPhase.SUPERSEDING})
"""All users go back to blue, whatever green does."""
ATTEMPT: Final = frozenset({RolloutPhase.PREPARING, *SPLIT, *MOVING_BACK})
"""Green is rolled out, or being taken back."""
_PROMOTED: Final = frozenset({RolloutPhase.PROMOTING, RolloutPhase.RETIRING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """Runners that each version is to have; None: as many as there are."""

    blue: int
    green: int | None = None
    previous: int | None = None


def goal(rollout: RolloutStatus, total: int) -> int:
    """Return how many of *total* users the new version is to have now: all from the promotion on, it is stable then."""
    if rollout.phase in SPLIT:
        return _users_at(rollout, rollout.step, total)
    return total if rollout.phase in _PROMOTED else 0


def quota(
    rollout: RolloutStatus, total: int, *, stable: str, candidate: str = "", previous: str = ""
) -> Mapping[str, int]:
    """Return how many users each revision is to have; they add up to *total*."""
    green = goal(rollout, total) if rollout.phase in SPLIT and candidate else 0
    shares = dict.fromkeys(filter(None, (previous, candidate)), 0)
    if green:
        shares[candidate] = green
    return shares | {stable: total - green}


def chunk(rollout: RolloutStatus, total: int) -> int | None:
    """Return how many places may be on twice while users go back: max(1, ⌊T ÷ 4⌋); None: as in any move."""
    return max(1, total // 4) if is_hasty(rollout) else None


def is_hasty(rollout: RolloutStatus) -> bool:
    """Say whether users go back to blue without waiting for green's word."""
    return rollout.phase in MOVING_BACK


def is_rolling(status: Status) -> bool:
    """Say whether a new version is being rolled out or taken back, by *status*."""
    return status.rollout is not None and status.rollout.phase in ATTEMPT


def runners_for(users: int, total: int, runners: int) -> int:
    """
    Return how many of the *runners* that *total* users need *users* of them need.

        ⌈runners · users ÷ T⌉, at least 1

    With 2 runners for 10 users, 1 user and 5 users need 1, 8 users need 2.
    """
    return max(1, -(-runners * users // total)) if total else 1


def needed(rollout: RolloutStatus, total: int, runners: int) -> int:
    """Return how many runners green needs for its present step, of the *runners* it would need for *total* users."""
    return runners_for(_users_at(rollout, rollout.step, total), total, runners)


def users_ahead(rollout: RolloutStatus, total: int) -> int:
    """Return the most users that green is to have at the present step and the next."""
    return max(_users_at(rollout, step, total) for step in (rollout.step, rollout.step + 1))


def replicas(
    rollout: RolloutStatus,
    *,
    total: int,
    now_ms: int,
    blue_runners: int,
    green_runners: int,
    green: Colour,
    old: Colour,
) -> Replicas:
    """
    Return the runners each version is to have, *…_runners* being what all *total* users would need of it.

    Blue keeps those for all users, so an abort never waits for runners. Green is scaled ahead, for the most users of
    now, this step and the next. Neither becomes fewer in a rollout: take the larger of this and what there is.
    """
    is_due = rollout.scale_down_at is not None and now_ms >= parse_instant(rollout.scale_down_at)
    match rollout.phase:
        case RolloutPhase.PREPARING if rollout.pause is not None:
            return Replicas(blue=blue_runners)
        case RolloutPhase.PREPARING:
            return Replicas(blue=blue_runners, green=needed(rollout, total, green_runners))
        case RolloutPhase.SHIFTING | RolloutPhase.ANALYZING:
            users = min(total, max(green.held, users_ahead(rollout, total)))
            return Replicas(blue=blue_runners, green=runners_for(users, total, green_runners))
        case RolloutPhase.STABLE | RolloutPhase.REJECTED:
            return Replicas(blue=blue_runners, green=0 if is_due or rollout.scale_down_at is None else None)
        case RolloutPhase.RETIRING:
            return Replicas(blue=blue_runners, previous=0 if is_due and not old.held else None)
        case _:
            return Replicas(blue=blue_runners)


def pointers(
    before: RolloutStatus,
    after: RolloutStatus,
    *,
    stable: Revision | None,
    candidate: Revision | None,
    previous: Revision | None,
    wanted: Revision,
) -> tuple[Revision | None, Revision | None, Revision | None]:
    """
    Return stable, candidate and previous after a look that took the rollout from *before* to *after*.

    The promotion flips pointers, and so does the way back: nothing is copied.
    """
    if after.attempt != before.attempt:
        return stable, wanted, None
    if after.phase is RolloutPhase.PROMOTING and before.phase is not RolloutPhase.PROMOTING:
        return candidate, None, stable
    if after.phase is RolloutPhase.REJECTED and candidate is None:
        return stable, wanted, None
    if after.phase is RolloutPhase.STABLE:
        is_other = candidate is not None and (stable is None or candidate.revision != stable.revision)
        return stable, candidate if is_other and after.scale_down_at is not None else None, None
    return stable, candidate, previous


def _users_at(rollout: RolloutStatus, step: int, total: int) -> int:
    if rollout.plan is None:
        return 0
    steps = rollout.plan.steps
    return green_users(total, steps[min(step, len(steps) - 1)].percent)
