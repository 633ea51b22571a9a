"""
What is laid over a rollout's phase: a pause, and the suspension of the simulation. Clocks stand under both.

`since` and `stepStartedAt` move on by the time it took, so nobody's deadline or dwell passes meanwhile; the step's
windows are void, and count again from what remains of the warm-up.
"""

from __future__ import annotations

from typing import Any, Final

from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.status import RolloutStatus
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.plan.rolling import Seen
from trafficsim_operator.plan.split import ATTEMPT, MOVING_BACK

__all__ = ["COMMANDS", "UNDECIDED", "continued", "held", "paused", "refusal", "resumed", "windows_from"]

COMMANDS: Final = ("promote", "promote-full", "skip-step", "pause", "resume", "abort", "retry")
UNDECIDED: Final = frozenset(
    {
        PauseReason.INCONCLUSIVE,
        PauseReason.FAILED,
        PauseReason.METRICS_UNAVAILABLE,
        PauseReason.TARGET_DEGRADED,
    }
)
"""Pauses of a step that was not passed: resumed, it is judged anew; promoted, it passes unjudged."""


def paused(rollout: RolloutStatus, seen: Seen, reason: PauseReason, message: str) -> RolloutStatus:
    """Return *rollout* paused from now on."""
    return rollout.model_copy(
        update={"pause": reason, "paused_at": format_instant(seen.now_ms), "message": message, "settled": 0}
    )


def resumed(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout* without its pause, its clocks moved on; a step that was not decided is judged anew."""
    took = seen.now_ms - parse_instant(rollout.paused_at) if rollout.paused_at else 0
    changes = _moved_on(rollout, took) | {"pause": None, "paused_at": None, "message": ""}
    if rollout.phase is RolloutPhase.ANALYZING and rollout.pause in UNDECIDED:
        changes["step_started_at"] = format_instant(seen.now_ms)
    return _afresh(rollout.model_copy(update=changes), seen)


def held(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout* while the simulation is not running: from its first look on all clocks stand."""
    if rollout.suspended_at is not None:
        return rollout
    changes: dict[str, Any] = {"suspended_at": format_instant(seen.now_ms), "settled": 0}
    if rollout.pause is None and rollout.phase not in MOVING_BACK:
        # What a pause waits for, or why users go back, is worth more.
        changes["message"] = "the simulation is suspended" if seen.suspended else "the simulation is not running yet"
    return rollout.model_copy(update=changes)


def continued(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout* when the simulation runs again; a step that was being judged is shifted to again."""
    assert rollout.suspended_at is not None
    took = seen.now_ms - parse_instant(rollout.suspended_at)
    changes = _moved_on(rollout, took) | {"suspended_at": None, "paused_at": _later(rollout.paused_at, took)}
    if rollout.phase is RolloutPhase.ANALYZING and not rollout.passed:
        changes |= {
            "phase": RolloutPhase.SHIFTING,
            "since": format_instant(seen.now_ms),
            "step_started_at": None,
            "windows_from_ms": None,
        }
    return rollout.model_copy(update=changes)


def windows_from(rollout: RolloutStatus, seen: Seen) -> int:
    """Return from when on, in run time, windows count that begin now: after what remains of the warm-up."""
    assert rollout.plan is not None and rollout.step_started_at is not None
    dwelt = seen.now_ms - parse_instant(rollout.step_started_at)
    return seen.run_ms + max(0, rollout.plan.warm_up_ms - dwelt)


def refusal(rollout: RolloutStatus, action: str, *, on: bool, paused: bool) -> str:
    """Return why *action* can't be done now, "" if it can; *paused*: `spec.rollout.paused` is set."""
    if not on:
        return f"the simulation is not running: {action} has nothing to act on"
    if action == "retry":
        return "" if rollout.phase is RolloutPhase.REJECTED else "no version is rejected"
    if rollout.phase not in ATTEMPT:
        return "no rollout is in progress"
    if rollout.phase in MOVING_BACK:
        return f"all users are being moved back already ({rollout.phase})"
    if action == "abort":
        return ""
    if action == "pause":
        return f"it is paused already ({rollout.pause})" if rollout.pause is not None else ""
    if paused:
        return f"spec.rollout.paused holds the rollout, {action} can't override it: change the spec"
    return _refusal_to_go_on(rollout, action)


def _refusal_to_go_on(rollout: RolloutStatus, action: str) -> str:
    is_last = rollout.plan is not None and rollout.step >= len(rollout.plan.steps) - 1
    match action:
        case "resume" if rollout.pause is None:
            return "it is not paused"
        case "resume" if rollout.pause is PauseReason.AWAITING_PROMOTION:
            return "it waits for the promotion: promote accepts it"
        case "promote" if rollout.pause is None:
            return "it is not paused; promote-full goes to 100% and promotes unjudged"
        case "skip-step" if rollout.phase is RolloutPhase.PREPARING:
            return "no step has begun: the new version is starting"
        case "skip-step" if rollout.phase is RolloutPhase.SHIFTING and is_last:
            return "all users are being moved; promote-full promotes unjudged"
        case "skip-step" if rollout.pause is PauseReason.AWAITING_PROMOTION:
            return "it waits for the promotion: promote accepts it"
        case _:
            return ""


def _afresh(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout* with its windows void."""
    changes: dict[str, Any] = {"settled": 0, "errors": 0, "no_numbers_since": None}
    if rollout.phase is RolloutPhase.ANALYZING and rollout.step_started_at is not None:
        changes["windows_from_ms"] = windows_from(rollout, seen)
    return rollout.model_copy(update=changes)


def _moved_on(rollout: RolloutStatus, took_ms: int) -> dict[str, Any]:
    return {name: _later(getattr(rollout, name), took_ms) for name in ("since", "step_started_at")}


def _later(instant: str | None, ms: int) -> str | None:
    return format_instant(parse_instant(instant) + ms) if instant is not None else None
