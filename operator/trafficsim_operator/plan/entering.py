"""How each phase of a rollout is entered: what is set, what is void from then on, and what is said."""

from __future__ import annotations

from typing import Final

from trafficsim_api.names import Reason
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import RolloutStatus
from trafficsim_api.units import format_instant
from trafficsim_operator.plan.pauses import windows_from
from trafficsim_operator.plan.rolling import Seen
from trafficsim_operator.plan.split import SPLIT
from trafficsim_operator.plan.steps import fast_back

__all__ = [
    "SETTLED",
    "abort",
    "analyze",
    "at",
    "back",
    "begin",
    "promote",
    "reject",
    "saying",
    "shift",
    "to",
    "where",
    "withdrawn",
]

SETTLED: Final = 2
"""Looks in a row at which the split must be as it is to be."""


def begin(rollout: RolloutStatus, seen: Seen, *, fast: bool = False) -> RolloutStatus:
    """Return the next attempt, what it goes by pinned."""
    if seen.plan is None:
        return rollout
    plan = fast_back(seen.plan) if fast else seen.plan
    return RolloutStatus(
        phase=RolloutPhase.PREPARING,
        attempt=rollout.attempt + 1,
        since=format_instant(seen.now_ms),
        plan=plan,
        fast=fast,
        message=f"{seen.wanted} is prepared" + (f"; {plan.note}" if plan.note else ""),
    )


def shift(rollout: RolloutStatus, seen: Seen, step: int, *, passed: bool = False) -> RolloutStatus:
    """Return *rollout* on its way to *step*; *passed*: it is not to be judged there."""
    return to(
        RolloutPhase.SHIFTING,
        rollout,
        seen,
        step=step,
        passed=passed,
        settled=0,
        step_started_at=None,
        windows_from_ms=None,
        windows=(),
        errors=0,
        no_numbers_since=None,
    )


def analyze(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout* with its step held from now on, its windows counted after the warm-up."""
    message = "not judged, by command" if rollout.passed else ""
    now = format_instant(seen.now_ms)
    begun = to(RolloutPhase.ANALYZING, rollout, seen, settled=SETTLED, step_started_at=now, message=message)
    return begun.model_copy(update={"windows_from_ms": windows_from(begun, seen)})


def promote(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout* with its candidate promoted."""
    why = rollout.message.partition(" · ")[0] or (rollout.plan.note if rollout.plan is not None else "")
    message = f"{seen.candidate} is promoted" + (f": {why}" if why else "")
    return to(
        RolloutPhase.PROMOTING, rollout, seen, reason=Reason.PROMOTED, message=message, windows_from_ms=None, settled=0
    )


def abort(rollout: RolloutStatus, seen: Seen, reason: Reason, message: str) -> RolloutStatus:
    """Return *rollout* given up for *reason*."""
    return back(RolloutPhase.ABORTING, rollout, seen, reason, message)


def back(phase: RolloutPhase, rollout: RolloutStatus, seen: Seen, reason: Reason, message: str) -> RolloutStatus:
    """Return *rollout* with all users on their way to blue; a pause does not hold them up."""
    return to(phase, rollout, seen, reason=reason, message=message, pause=None, paused_at=None, settled=0)


def reject(rollout: RolloutStatus, seen: Seen, message: str, *, at_once: bool) -> RolloutStatus:
    """Return the verdict; *at_once*: the version's runners are not kept for their logs."""
    assert rollout.plan is not None
    due = seen.now_ms + (0 if at_once else rollout.plan.abort_scale_down_ms)
    return to(
        RolloutPhase.REJECTED,
        rollout,
        seen,
        rejected=seen.candidate,
        message=message,
        scale_down_at=format_instant(due),
        windows_from_ms=None,
        suspended_at=None,
    )


def withdrawn(rollout: RolloutStatus, seen: Seen, reason: Reason, message: str) -> RolloutStatus:
    """Return *rollout* at rest without a verdict; what is left of green goes at once."""
    return to(
        RolloutPhase.STABLE,
        rollout,
        seen,
        reason=reason,
        message=message,
        scale_down_at=format_instant(seen.now_ms),
        windows_from_ms=None,
        pause=None,
        paused_at=None,
        suspended_at=None,
        settled=0,
    )


def to(phase: RolloutPhase, rollout: RolloutStatus, seen: Seen, **changes: object) -> RolloutStatus:
    """Return *rollout* in *phase* from now on."""
    return rollout.model_copy(update={"phase": phase, "since": format_instant(seen.now_ms), **changes})


def saying(rollout: RolloutStatus, message: str, **changes: object) -> RolloutStatus:
    """Return *rollout* where it was, with *message* and *changes*."""
    if rollout.message == message and all(getattr(rollout, name) == value for name, value in changes.items()):
        return rollout
    return rollout.model_copy(update={"message": message, **changes})


def at(rollout: RolloutStatus) -> str:
    """Return how the words of a rejection begin."""
    return f"rejected {where(rollout)}"


def where(rollout: RolloutStatus) -> str:
    """Return how far *rollout* had come."""
    if rollout.phase not in SPLIT or rollout.plan is None:
        return "before its first user"
    return f"at {rollout.plan.steps[rollout.step].percent}%"
