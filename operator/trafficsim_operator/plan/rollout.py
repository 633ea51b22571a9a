"""
The rollout of a runner version: which phase comes next, one step at a time, by guards over what was seen.

    Stable → Preparing → (Shifting → Analyzing) per step → Promoting → Retiring → Stable

or back: Aborting → Rejected, and Superseding → Preparing when a third version comes. `advance` steps until nothing
changes; TRANSITIONS says which steps exist, an illegal one raises. A step that changes what the pointers name, or gives
a verdict, ends the look: it is on record before anything comes of it.

What interrupts, the first that applies: the end of the simulation, its suspension, abort, the spec asks for the stable
version again, the spec asks for a third one, a pause, a deadline. Then the phase's own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from trafficsim_api.names import Reason
from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.status import RolloutStatus
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.plan.analysis import Analysis, Outcome
from trafficsim_operator.plan.pauses import UNDECIDED, continued, held, paused, refusal, resumed, windows_from
from trafficsim_operator.plan.rolling import SILENT_MS, Colour, Seen
from trafficsim_operator.plan.split import (
    MOVING_BACK,
    SPLIT,
    Replicas,
    chunk,
    goal,
    is_hasty,
    needed,
    pointers,
    quota,
    replicas,
    runners_for,
)
from trafficsim_operator.plan.steps import effective_percent, fast_back

__all__ = [
    "SETTLED",
    "SILENT_MS",
    "TRANSITIONS",
    "Colour",
    "Replicas",
    "Seen",
    "advance",
    "chunk",
    "goal",
    "is_hasty",
    "is_judged",
    "needed",
    "pointers",
    "quota",
    "refusal",
    "replicas",
    "runners_for",
]

_P = RolloutPhase
TRANSITIONS: Final[Mapping[RolloutPhase, frozenset[RolloutPhase]]] = {
    _P.STABLE: frozenset({_P.PREPARING, _P.REJECTED}),
    _P.PREPARING: frozenset({_P.SHIFTING, _P.ABORTING, _P.SUPERSEDING, _P.STABLE}),
    _P.SHIFTING: frozenset({_P.ANALYZING, _P.ABORTING, _P.SUPERSEDING, _P.STABLE}),
    _P.ANALYZING: frozenset({_P.SHIFTING, _P.PROMOTING, _P.ABORTING, _P.SUPERSEDING, _P.STABLE}),
    _P.PROMOTING: frozenset({_P.RETIRING}),
    _P.RETIRING: frozenset({_P.STABLE, _P.PREPARING}),
    _P.ABORTING: frozenset({_P.REJECTED, _P.STABLE}),
    _P.REJECTED: frozenset({_P.PREPARING, _P.STABLE}),
    _P.SUPERSEDING: frozenset({_P.PREPARING, _P.STABLE}),
}
# The pointers change, or a verdict is given: written before the next step.
_ON_RECORD_FIRST: Final = frozenset({_P.PREPARING, _P.PROMOTING, _P.REJECTED})
SETTLED: Final = 2
"""Looks in a row at which the split must be as it is to be."""
# So long a runner fails in a way that won't mend itself until its version is given up.
_FAILING_MS: Final = 10_000


def advance(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return where *rollout* stands after everything that can happen at this look has happened."""
    for _ in range(len(RolloutPhase)):
        following = _step(rollout, seen)
        if following.phase is rollout.phase:
            rollout = following
            break
        if following.phase not in TRANSITIONS[rollout.phase]:
            raise AssertionError(f"there is no way from {rollout.phase} to {following.phase}")
        rollout = following
        if rollout.phase in _ON_RECORD_FIRST:
            break
        if seen.command:
            seen = replace(seen, command="")  # a command is done once
    return _with_split(rollout, seen.total)


def is_judged(rollout: RolloutStatus) -> bool:
    """Say whether the present step's analysis is to be asked for."""
    return (
        rollout.phase is _P.ANALYZING
        and rollout.settled >= SETTLED
        and not (rollout.passed or rollout.fast)
        and rollout.pause is None
        and rollout.suspended_at is None
    )


def _step(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    match rollout.phase:
        case _P.STABLE:
            return _stable(rollout, seen)
        case _P.REJECTED:
            return _rejected(rollout, seen)
        case _P.PROMOTING:
            due = seen.now_ms + (rollout.plan.scale_down_ms if rollout.plan else 0)
            kept = f"{rollout.message}; {seen.previous} is kept for the way back"
            return _to(_P.RETIRING, rollout, seen, scale_down_at=format_instant(due), message=kept)
        case _P.RETIRING:
            return _retiring(rollout, seen)
        case _:
            return _attempt(rollout, seen)


def _attempt(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Take an attempt on, but for what interrupts it."""
    if seen.ended:
        return _ended(rollout, seen)
    if not seen.on:
        return held(rollout, seen)
    if rollout.suspended_at is not None:
        following = continued(rollout, seen)
        if following.phase is not rollout.phase:
            return following
        rollout = following
    if rollout.phase in MOVING_BACK:
        return _moving_back(rollout, seen)
    if seen.command == "abort":
        return _abort(rollout, seen, Reason.ABORTED, f"{_at(rollout)}: aborted by command")
    if seen.wanted == seen.stable:
        return _abort(rollout, seen, Reason.WITHDRAWN, f"the spec asks for {seen.stable} again")
    if seen.wanted and seen.wanted != seen.candidate:
        message = f"the spec asks for {seen.wanted}: all users go back to {seen.stable} first"
        return _back(_P.SUPERSEDING, rollout, seen, Reason.SUPERSEDED, message)
    rollout = _told(rollout, seen)
    if rollout.pause is PauseReason.SPEC and not seen.paused:
        rollout = resumed(rollout, seen)
    elif rollout.pause is None and seen.paused:
        rollout = paused(rollout, seen, PauseReason.SPEC, "spec.rollout.paused holds it")
    if rollout.pause is not None:
        return rollout
    return _going_on(rollout, seen)


def _going_on(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Take an attempt on that nothing interrupts."""
    if seen.green.crashed:
        since = rollout.failing_since or format_instant(seen.now_ms)
        if since != rollout.failing_since:
            rollout = rollout.model_copy(update={"failing_since": since})
        if seen.now_ms - parse_instant(since) >= _FAILING_MS:
            return _abort(rollout, seen, Reason.CANDIDATE_FAILING, f"{_at(rollout)}: {seen.green.cause}")
    elif rollout.failing_since is not None:
        rollout = rollout.model_copy(update={"failing_since": None})
    match rollout.phase:
        case _P.PREPARING:
            return _preparing(rollout, seen)
        case _P.SHIFTING:
            return _shifting(rollout, seen)
        case _:
            return _analyzing(rollout, seen)


def _told(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Do what the command of this look says; a step it passes goes on by itself."""
    action = seen.command
    if not action or refusal(rollout, action, on=seen.on, paused=seen.paused):
        return rollout
    was = rollout.pause
    if action == "pause":
        return paused(rollout, seen, PauseReason.COMMAND, "paused by command")
    if was is not None:
        rollout = resumed(rollout, seen)
    last = len(rollout.plan.steps) - 1 if rollout.plan else 0
    match action:
        case "promote" if was in UNDECIDED:
            return rollout.model_copy(update={"passed": True})
        case "promote-full":
            changes = {"passed": True} if rollout.step == last else {"passed": True, "step": last, "settled": 0}
            return rollout.model_copy(update=changes)
        case "skip-step" if rollout.phase is _P.SHIFTING:
            return _shift(rollout, seen, rollout.step + 1)
        case "skip-step" if was is not PauseReason.STEP:
            rollout = rollout.model_copy(update={"passed": True})
            return _awaiting(rollout, seen) if rollout.step == last else rollout
        case _:
            return rollout


def _preparing(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Wait until the new version has the runners that its first step needs, at least one."""
    green, needs = seen.green, max(1, seen.needed)
    if green.ready >= needs:
        return _shift(rollout, seen, rollout.step, passed=rollout.passed)
    message = f"{green.ready} of {needs} runners of {seen.candidate} are ready"
    message += f"; {green.cause}" if green.cause else ""
    if _is_late(rollout, seen):
        return _abort(rollout, seen, Reason.PREPARE_TIMEOUT, f"{_at(rollout)}: {message} after {_deadline(rollout)}")
    return _saying(rollout, message)


def _shifting(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Wait until the split is as the step asks for, and settled, at two looks in a row."""
    users = goal(rollout, seen.total)
    if seen.blue.is_silent:
        message = f"{seen.stable} does not answer: the split is kept"
        if _is_late(rollout, seen):  # nobody moves towards or away from a version that is not heard
            rollout = rollout.model_copy(update={"since": format_instant(seen.now_ms)})
        return _saying(rollout, message, settled=0)
    if seen.green.is_silent:
        silent = f"{_at(rollout)}: its runners have not answered for {seen.green.silent_ms // 1000} s"
        return _abort(rollout, seen, Reason.CANDIDATE_SILENT, silent)
    if _is_split(seen, users):
        if rollout.settled + 1 < SETTLED:
            return rollout.model_copy(update={"settled": rollout.settled + 1})
        return _analyze(rollout, seen)
    message = f"{seen.green.held} of {users} users are at {seen.candidate}, {seen.blue.held} at {seen.stable}"
    if _is_late(rollout, seen):
        return _abort(rollout, seen, Reason.SHIFT_TIMEOUT, f"{_at(rollout)}: {message} after {_deadline(rollout)}")
    return _saying(rollout, message, settled=0)


def _analyzing(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Hold the step until it is passed, or failed; its windows are void while the split is not as it is to be."""
    plan, users = rollout.plan, goal(rollout, seen.total)
    assert plan is not None
    last = len(plan.steps) - 1
    if rollout.passed and rollout.step < last:
        return _shift(rollout, seen, rollout.step + 1)
    if seen.green.held == users == 0 < seen.total or not _is_split(seen, users) or seen.disturbed:
        return _unsettled(rollout, seen, users)
    if rollout.settled < SETTLED:
        rollout = rollout.model_copy(update={"settled": rollout.settled + 1})
        if rollout.settled < SETTLED:
            return rollout
        rollout = rollout.model_copy(update={"windows_from_ms": windows_from(rollout, seen)})
        if not (rollout.passed or _is_unjudged(rollout, seen)):
            return rollout  # what was read is of windows that are void
    if rollout.passed or _is_unjudged(rollout, seen):
        return _promote(rollout, seen)
    return _judged(rollout, seen, seen.analysis) if seen.analysis is not None else rollout


def _is_unjudged(rollout: RolloutStatus, seen: Seen) -> bool:
    """Say whether the step passes as it is: on the fast way back, or for want of users since the attempt began."""
    assert rollout.plan is not None
    return rollout.fast or (not seen.total and not rollout.plan.steps[rollout.step].dwell_ms)


def _unsettled(rollout: RolloutStatus, seen: Seen, users: int) -> RolloutStatus:
    """Hold a step whose split is not as it is to be; the time it may be held goes on."""
    assert rollout.plan is not None and rollout.step_started_at is not None
    message = f"{seen.green.held} of {users} users are at {seen.candidate}: windows count anew when the split holds"
    over = seen.now_ms - parse_instant(rollout.step_started_at) >= rollout.plan.max_dwell_ms
    if over and not rollout.passed:
        return paused(rollout, seen, PauseReason.INCONCLUSIVE, f"{message}; maxDwell is over")
    return _saying(rollout, message, settled=0)


def _judged(rollout: RolloutStatus, seen: Seen, analysis: Analysis) -> RolloutStatus:
    """Do what the analysis of the step says."""
    assert rollout.plan is not None
    since = analysis.no_numbers_since_ms
    rollout = rollout.model_copy(
        update={
            "errors": analysis.errors,
            "no_numbers_since": format_instant(since) if since is not None else None,
            "message": analysis.message,
        }
    )
    match analysis.outcome:
        case Outcome.HOLD:
            return rollout
        case Outcome.PAUSE:
            return paused(rollout, seen, analysis.pause or PauseReason.INCONCLUSIVE, analysis.message)
        case Outcome.FAIL if rollout.plan.on_failure == "pause":
            return paused(rollout, seen, PauseReason.FAILED, analysis.message)
        case Outcome.FAIL:
            reason = analysis.reason or Reason.ANALYSIS_FAILED
            return _abort(rollout, seen, reason, f"{_at(rollout)}: {analysis.message}")
    rollout = rollout.model_copy(update={"passed": True})
    step = rollout.plan.steps[rollout.step]
    if step.pause:
        return paused(rollout, seen, PauseReason.STEP, f"{step.percent}% is passed, it waits for promote")
    if rollout.step == len(rollout.plan.steps) - 1:
        waiting = _awaiting(rollout, seen)
        return waiting if waiting.pause is not None else _promote(waiting, seen)
    return _shift(rollout, seen, rollout.step + 1)


def _awaiting(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout*, its last step passed, paused where the promotion is to be accepted by somebody."""
    if rollout.plan is None or rollout.plan.auto_promote:
        return rollout
    return paused(rollout, seen, PauseReason.AWAITING_PROMOTION, "100% is passed, it waits for promote")


def _moving_back(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Wait until blue has all users, and green none: by its word, because it is gone, or because it is silent."""
    green = seen.green
    is_empty = not green.held or green.gone
    if seen.blue.held < seen.total or not (is_empty or green.is_silent):
        back = f"{seen.blue.held} of {seen.total} users are at {seen.stable}, {green.held} at {seen.candidate}"
        silent = f"; {seen.stable} does not answer" if seen.blue.is_silent else ""
        failed = rollout.message.partition(" · ")[0]
        return _saying(rollout, f"{failed} · {back}{silent}")
    failed = rollout.message.partition(" · ")[0]
    written_off = "" if is_empty else f"; its runners don't answer and are let go with {green.held} users"
    if rollout.phase is _P.SUPERSEDING:
        begins = seen.plan is not None and seen.wanted not in ("", seen.stable)
        return _begin(rollout, seen) if begins else _withdrawn(rollout, seen, failed)
    if rollout.reason == Reason.WITHDRAWN:
        return _withdrawn(rollout, seen, failed)
    return _reject(rollout, seen, failed + written_off, at_once=not is_empty)


def _ended(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """End an attempt with its simulation: no verdict, but for the one that was given."""
    if rollout.phase is _P.ABORTING and rollout.reason != Reason.WITHDRAWN:
        return _reject(rollout, seen, rollout.message.partition(" · ")[0], at_once=True)
    rollout = rollout.model_copy(update={"reason": Reason.SIMULATION_ENDED})
    return _withdrawn(rollout, seen, f"the simulation ended {_where(rollout)}")


def _stable(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    if rollout.scale_down_at is not None and seen.green.gone:
        rollout = rollout.model_copy(update={"scale_down_at": None})
    if not seen.on or not seen.stable or seen.wanted in ("", seen.stable):
        return rollout
    if seen.wanted == rollout.rejected:
        return _to(_P.REJECTED, rollout, seen)
    return _begin(rollout, seen)


def _rejected(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    if seen.wanted == seen.stable:
        return _to(_P.STABLE, rollout, seen)
    is_other = seen.wanted not in ("", rollout.rejected)
    return _begin(rollout, seen) if seen.on and (is_other or seen.command == "retry") else rollout


def _retiring(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Keep the old version's runners for the way back; begin the next rollout when one is asked for."""
    due = seen.ended or rollout.scale_down_at is None or seen.now_ms >= parse_instant(rollout.scale_down_at)
    if seen.on and seen.wanted not in ("", seen.stable):
        if seen.wanted == seen.previous and seen.old.ready and not due:
            return _begin(rollout, seen, fast=True)
        if not seen.old.held:
            return _begin(rollout, seen)
    if due and seen.old.gone:
        return _to(_P.STABLE, rollout, seen, scale_down_at=None)
    return rollout


def _begin(rollout: RolloutStatus, seen: Seen, *, fast: bool = False) -> RolloutStatus:
    """Return the next attempt, what it goes by pinned."""
    if seen.plan is None:
        return rollout
    plan = fast_back(seen.plan) if fast else seen.plan
    return RolloutStatus(
        phase=_P.PREPARING,
        attempt=rollout.attempt + 1,
        since=format_instant(seen.now_ms),
        plan=plan,
        fast=fast,
        message=f"{seen.wanted} is prepared" + (f"; {plan.note}" if plan.note else ""),
    )


def _shift(rollout: RolloutStatus, seen: Seen, step: int, *, passed: bool = False) -> RolloutStatus:
    changes = {"step": step, "passed": passed, "settled": 0, "step_started_at": None, "windows_from_ms": None}
    return _to(_P.SHIFTING, rollout, seen, **changes, errors=0, no_numbers_since=None)


def _analyze(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    assert rollout.plan is not None
    begun = _to(_P.ANALYZING, rollout, seen, settled=SETTLED, step_started_at=format_instant(seen.now_ms), message="")
    return begun.model_copy(update={"windows_from_ms": windows_from(begun, seen)})


def _promote(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    if seen.blue.held or not rollout.passed and not _is_unjudged(rollout, seen):
        return rollout
    unjudged = "" if rollout.message and rollout.passed else " unjudged"
    message = f"{seen.candidate} is promoted{unjudged}" + (f": {rollout.message}" if rollout.message else "")
    return _to(_P.PROMOTING, rollout, seen, reason=Reason.PROMOTED, message=message, windows_from_ms=None)


def _abort(rollout: RolloutStatus, seen: Seen, reason: Reason, message: str) -> RolloutStatus:
    return _back(_P.ABORTING, rollout, seen, reason, message)


def _back(phase: RolloutPhase, rollout: RolloutStatus, seen: Seen, reason: Reason, message: str) -> RolloutStatus:
    """Return *rollout* with all users on their way to blue; a pause does not hold them up."""
    return _to(phase, rollout, seen, reason=reason, message=message, pause=None, paused_at=None, settled=0)


def _reject(rollout: RolloutStatus, seen: Seen, message: str, *, at_once: bool) -> RolloutStatus:
    """Return the verdict; *at_once*: its runners are not kept for their logs."""
    assert rollout.plan is not None
    due = seen.now_ms + (0 if at_once else rollout.plan.abort_scale_down_ms)
    return _to(
        _P.REJECTED,
        rollout,
        seen,
        rejected=seen.candidate,
        message=message,
        scale_down_at=format_instant(due),
        windows_from_ms=None,
        suspended_at=None,
    )


def _withdrawn(rollout: RolloutStatus, seen: Seen, message: str) -> RolloutStatus:
    """Return to rest without a verdict; what is left of green goes at once."""
    return _to(
        _P.STABLE,
        rollout,
        seen,
        message=message,
        scale_down_at=format_instant(seen.now_ms),
        windows_from_ms=None,
        pause=None,
        paused_at=None,
        suspended_at=None,
        settled=0,
    )


def _to(phase: RolloutPhase, rollout: RolloutStatus, seen: Seen, **changes: object) -> RolloutStatus:
    return rollout.model_copy(update={"phase": phase, "since": format_instant(seen.now_ms), **changes})


def _saying(rollout: RolloutStatus, message: str, **changes: object) -> RolloutStatus:
    if rollout.message == message and all(getattr(rollout, name) == value for name, value in changes.items()):
        return rollout
    return rollout.model_copy(update={"message": message, **changes})


def _with_split(rollout: RolloutStatus, total: int) -> RolloutStatus:
    """Return *rollout* saying how many of *total* users the new version is to have."""
    users = goal(rollout, total)
    if rollout.phase in SPLIT and rollout.plan is not None:
        percent = rollout.plan.steps[rollout.step].percent
    else:
        percent = 100 if rollout.phase in (_P.PROMOTING, _P.RETIRING) else 0
    effective = effective_percent(users, total)
    if (rollout.wanted, rollout.percent, rollout.effective_percent) == (users, percent, effective):
        return rollout
    return rollout.model_copy(update={"wanted": users, "percent": percent, "effective_percent": effective})


def _is_split(seen: Seen, users: int) -> bool:
    """Say whether by acknowledgement *users* are at green and all others at blue, and every one is where it is."""
    green, blue = seen.green, seen.blue
    return green.held == users and blue.held == seen.total - users and green.settled and blue.settled


def _is_late(rollout: RolloutStatus, seen: Seen) -> bool:
    assert rollout.plan is not None and rollout.since is not None
    return seen.now_ms - parse_instant(rollout.since) >= rollout.plan.deadline_ms


def _deadline(rollout: RolloutStatus) -> str:
    assert rollout.plan is not None
    return f"{rollout.plan.deadline_ms // 1000} s"


def _at(rollout: RolloutStatus) -> str:
    return f"rejected {_where(rollout)}"


def _where(rollout: RolloutStatus) -> str:
    if rollout.phase not in SPLIT or rollout.plan is None:
        return "before its first user"
    return f"at {rollout.plan.steps[rollout.step].percent}%"
