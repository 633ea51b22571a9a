"""
The fence: before an operator that has just come moves a place, every runner has heard it.

    F = max(epoch on record, acknowledged epochs) + 1, on record with the first assignments of this operator
    a runner is unfenced while it answers and 0 < its epoch < F; it is sent what it holds under F or later
    while one is unfenced, for 10 s at most: no place is dealt or moved, no runner retired, no revision scaled down

Runners refuse what is older than what they hold. So an assignment that another operator decided on, was stopped, and
sends now, is void once its runner is fenced; before that it does what that operator meant, and is seen and taken back.

    epochs 7 and 7 acknowledged, 8 on record (decided on, and sent to nobody): F = 9. Both are sent what they hold under
    9; an assignment of epoch 8 that comes before is overwritten, one that comes after is refused (409)

Who does not answer keeps its places and is not waited for: it is sent what it is to hold, under a new epoch, when it
answers. Nor is who answers, but refuses what it is sent: it is told again ever more rarely (unwilling.py). A runner
that was never told anything has nothing to repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from trafficsim_api.places import Places
from trafficsim_api.status import Status
from trafficsim_operator.actions import Action, EnsureRevision
from trafficsim_operator.observed import Fence, Runner, RunnerState
from trafficsim_operator.plan.places import Deal, Holder

__all__ = ["PATIENCE_MS", "fence_from", "is_up", "raising", "repeated", "unfenced"]

PATIENCE_MS: Final = 10_000


def fence_from(status: Status, runners: Iterable[Runner], now_ms: int) -> Fence:
    """Return the fence of an operator that has told no runner of this simulation anything yet."""
    known = (runner.acknowledgement.epoch for runner in runners if runner.acknowledgement is not None)
    return Fence(epoch=max([status.epoch, *known]) + 1, since_ms=now_ms)


def unfenced(runners: Iterable[Runner], fence: Fence | None) -> frozenset[str]:
    """
    Return the names of the runners that would still take what another operator sends.

    One that is being deleted drains by itself and takes nothing new; unless its node does not hear of that.
    """
    if fence is None:
        return frozenset()
    return frozenset(
        runner.name
        for runner in runners
        if runner.answered
        and not runner.is_out
        and runner.state is not RunnerState.STARTING
        and runner.acknowledgement is not None
        and 0 < runner.acknowledgement.epoch < fence.epoch
    )


def is_up(runners: Iterable[Runner], fence: Fence | None, now_ms: int) -> bool:
    """Say whether places may move: every runner that answers is fenced, or has been waited for long enough."""
    return fence is None or now_ms - fence.since_ms >= PATIENCE_MS or not unfenced(runners, fence)


def repeated(total: int, holders: Sequence[Holder], *, unknown: bool = False) -> Deal:
    """
    Return what every runner that answers holds of *total* places, as its next step.

    10 places, a holds 0–5, b holds 5–9: both are to hold that, and 5 is on twice until the fence is up. Of 4 places a
    holds 0–3 and b nothing. *unknown*: a runner that was never heard may hold what nobody else does.
    """
    held = {holder.name: holder.held.below(total) for holder in holders}
    return Deal(
        places={holder.name: held[holder.name] for holder in holders if holder.answers},
        unplaced=Places.first(total) - Places.union(held.values()),
        moving=True,
        unknown=unknown,
    )


def raising(actions: Iterable[Action], replicas: dict[str, int]) -> tuple[Action, ...]:
    """Return those of *actions* that take no runner away from the *replicas* there are, by revision."""
    return tuple(
        action
        for action in actions
        if isinstance(action, EnsureRevision) and action.replicas >= replicas.get(action.revision, 0)
    )
