"""
The rollout of a runner version: which phase comes next, one step at a time, by guards over what was seen.

    Stable → Preparing → (Shifting → Analyzing) per step → Promoting → Retiring → Stable

or back: Aborting → Rejected, and Superseding → Preparing when a third version comes. `advance` steps until nothing
changes; TRANSITIONS says which steps exist, an illegal one raises. A step that changes what the pointers name, sends
users back or gives a verdict ends the look: it is on record before anything comes of it.

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
from trafficsim_operator.plan.entering import (
    SETTLED,
    abort,
    analyze,
    at,
    back,
    begin,
    promote,
    reject,
    saying,
    shift,
    to,
    where,
    withdrawn,
)
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
from trafficsim_operator.plan.steps import effective_percent, is_for_nobody

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
# The pointers change, users are sent back, or a verdict is given: written before the next step.
_ON_RECORD_FIRST: Final = frozenset({_P.PREPARING, _P.PROMOTING, _P.REJECTED, *MOVING_BACK})
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
        is_continued = rollout.suspended_at is not None and following.suspended_at is None
        # Subtle: a step that is shifted to again after a suspension was not passed, and a command of this look is due.
        is_passed = rollout.phase is _P.ANALYZING and following.phase is _P.SHIFTING and not is_continued
        rollout = following
        if rollout.phase in _ON_RECORD_FIRST or is_passed:
            break
        if seen.command and not is_continued:
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
            return to(_P.RETIRING, rollout, seen, scale_down_at=format_instant(due), message=kept)
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
        return abort(rollout, seen, Reason.ABORTED, f"{at(rollout)}: aborted by command")
    if seen.wanted == seen.stable:
        return abort(rollout, seen, Reason.WITHDRAWN, f"the spec asks for {seen.stable} again")
    if seen.wanted and seen.wanted != seen.candidate:
        message = f"the spec asks for {seen.wanted}: all users go back to {seen.stable} first"
        return back(_P.SUPERSEDING, rollout, seen, Reason.SUPERSEDED, message)
    told = _told(rollout, seen)
    if told.step != rollout.step and told.phase in SPLIT:
        return told  # its message says why the step before was not judged
    rollout = told
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
            return abort(rollout, seen, Reason.CANDIDATE_FAILING, f"{at(rollout)}: {seen.green.cause}")
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
    was, phase = rollout.pause, rollout.phase
    if action == "pause":
        return paused(rollout, seen, PauseReason.COMMAND, "paused by command, it waits for resume")
    if was is not None:
        rollout = resumed(rollout, seen)
    last = len(rollout.plan.steps) - 1 if rollout.plan else 0
    unjudged = {"passed": True, "message": f"not judged, {action} by command"}
    match action:
        case "promote" if was in UNDECIDED:
            return rollout.model_copy(update=unjudged)
        case "promote" if rollout.passed:
            return rollout.model_copy(update={"message": "accepted by command"})
        case "promote-full" if phase in SPLIT and rollout.step != last:
            return shift(rollout, seen, last, passed=True).model_copy(update=unjudged)
        case "promote-full":
            return rollout.model_copy(update=unjudged | {"step": last})
        case "skip-step" if phase is _P.SHIFTING:
            return shift(rollout, seen, rollout.step + 1).model_copy(update={"message": unjudged["message"]})
        case "skip-step" if was is not PauseReason.STEP:
            rollout = rollout.model_copy(update=unjudged)
            return _awaiting(rollout, seen) if rollout.step == last else rollout
        case _:
            return rollout


def _preparing(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Wait until the new version has the runners that its first step needs, at least one."""
    green, needs = seen.green, max(1, seen.needed)
    if seen.plan is not None and not rollout.fast and is_for_nobody(rollout.plan) and not is_for_nobody(seen.plan):
        return rollout.model_copy(update={"plan": seen.plan})  # begun without users, and now there are some
    if green.ready >= needs:
        return shift(rollout, seen, rollout.step, passed=rollout.passed)
    message = f"{green.ready} of {needs} runners of {seen.candidate} are ready"
    message += f"; {green.cause}" if green.cause else ""
    if _is_late(rollout, seen):
        return abort(rollout, seen, Reason.PREPARE_TIMEOUT, f"{at(rollout)}: {message} after {_deadline(rollout)}")
    return saying(rollout, message)


def _shifting(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Wait until the split is as the step asks for, and settled, at two looks in a row."""
    users = goal(rollout, seen.total)
    if seen.blue.is_silent and seen.blue.held:
        message = f"{seen.stable} does not answer: the split is kept"
        if _is_late(rollout, seen):  # nobody moves towards or away from a version that is not heard
            rollout = rollout.model_copy(update={"since": format_instant(seen.now_ms)})
        return saying(rollout, message, settled=0)
    if seen.green.is_silent:
        silent = f"{at(rollout)}: its runners have not answered for {seen.green.silent_ms // 1000} s"
        return abort(rollout, seen, Reason.CANDIDATE_SILENT, silent)
    if _is_split(seen, users):
        if rollout.settled + 1 < SETTLED:
            return rollout.model_copy(update={"settled": rollout.settled + 1})
        return analyze(rollout, seen)
    message = f"{seen.green.held} of {users} users are at {seen.candidate}, {seen.blue.held} at {seen.stable}"
    if _is_late(rollout, seen):
        return abort(rollout, seen, Reason.SHIFT_TIMEOUT, f"{at(rollout)}: {message} after {_deadline(rollout)}")
    return saying(rollout, message, settled=0)


def _analyzing(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Hold the step until it is passed, or failed; its windows are void while the split is not as it is to be."""
    plan, users = rollout.plan, goal(rollout, seen.total)
    assert plan is not None
    last = len(plan.steps) - 1
    # Where there are too few users by now for one of them to be at green, the step is none.
    if rollout.step < last and (rollout.passed or users == 0 < seen.total):
        return shift(rollout, seen, rollout.step + 1)
    if not _is_split(seen, users) or seen.disturbed:
        return _unsettled(rollout, seen, users)
    if rollout.settled < SETTLED:
        rollout = rollout.model_copy(update={"settled": rollout.settled + 1})
        if rollout.settled < SETTLED:
            return rollout
        rollout = rollout.model_copy(update={"windows_from_ms": windows_from(rollout, seen)})
        if not (rollout.passed or _is_unjudged(rollout, seen)):
            return rollout  # what was read is of windows that are void
    if rollout.passed or _is_unjudged(rollout, seen):
        return promote(rollout, seen)
    return _judged(rollout, seen, seen.analysis) if seen.analysis is not None else rollout


def _is_unjudged(rollout: RolloutStatus, seen: Seen) -> bool:
    """Say whether the step passes as it is: on the fast way back, or for want of users since the attempt began."""
    assert rollout.plan is not None
    return rollout.fast or (not seen.total and is_for_nobody(rollout.plan))


def _unsettled(rollout: RolloutStatus, seen: Seen, users: int) -> RolloutStatus:
    """Hold a step whose split is not as it is to be; the time it may be held goes on."""
    assert rollout.plan is not None and rollout.step_started_at is not None
    split = f"{seen.green.held} of {users} users are at {seen.candidate}, {seen.blue.held} at {seen.stable}"
    cause = seen.green.cause or seen.blue.cause
    if rollout.passed:
        numbers = rollout.message.partition(" · ")[0] or "passed"
        return saying(rollout, f"{numbers} · {split}" + (f"; {cause}" if cause else ""), settled=0)
    message = f"{split}: windows count anew when the split holds" + (f"; {cause}" if cause else "")
    over = seen.now_ms - parse_instant(rollout.step_started_at) >= rollout.plan.max_dwell_ms
    if over:
        return paused(rollout, seen, PauseReason.INCONCLUSIVE, f"{message}; maxDwell is over")
    return saying(rollout, message, settled=0)


def _judged(rollout: RolloutStatus, seen: Seen, analysis: Analysis) -> RolloutStatus:
    """Do what the analysis of the step says."""
    plan, since = rollout.plan, analysis.no_numbers_since_ms
    assert plan is not None
    rollout = rollout.model_copy(
        update={
            "errors": analysis.errors,
            "no_numbers_since": format_instant(since) if since is not None else None,
            "message": analysis.message,
            "windows": analysis.windows,
        }
    )
    match analysis.outcome:
        case Outcome.HOLD:
            return rollout
        case Outcome.PAUSE:
            return paused(rollout, seen, analysis.pause or PauseReason.INCONCLUSIVE, analysis.message)
        case Outcome.FAIL if plan.on_failure == "pause":
            return paused(rollout, seen, PauseReason.FAILED, analysis.message)
        case Outcome.FAIL:
            reason = analysis.reason or Reason.ANALYSIS_FAILED
            return abort(rollout, seen, reason, f"{at(rollout)}: {analysis.message}")
    rollout = rollout.model_copy(update={"passed": True})
    step = plan.steps[rollout.step]
    is_last = rollout.step == len(plan.steps) - 1
    # Where the promotion is to be accepted, a pause before it that `resume` ends would promote unaccepted.
    if step.pause and (plan.auto_promote or not is_last):
        message = f"{step.percent}% is passed, it waits for promote: {analysis.message}"
        return paused(rollout, seen, PauseReason.STEP, message)
    if is_last:
        rollout = _awaiting(rollout, seen)
        return rollout if rollout.pause is not None else promote(rollout, seen)
    return shift(rollout, seen, rollout.step + 1)


def _awaiting(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Return *rollout*, its last step passed, paused where the promotion is to be accepted by somebody."""
    if rollout.plan is None or rollout.plan.auto_promote:
        return rollout
    message = f"100% is passed, it waits for promote: {rollout.message}"
    return paused(rollout, seen, PauseReason.AWAITING_PROMOTION, message)


def _moving_back(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Wait until blue has all users, and green none: by its word, because it is gone, or because it is silent."""
    green = seen.green
    is_empty = not green.held or green.gone
    # Subtle: a silent version is let go with its users, so blue's must be on by then, not only on their way.
    may_go = is_empty or (green.is_silent and seen.blue.settled)
    if seen.blue.held < seen.total or not may_go:
        back = f"{seen.blue.held} of {seen.total} users are at {seen.stable}, {green.held} at {seen.candidate}"
        silent = f"; {seen.stable} does not answer" if seen.blue.is_silent else ""
        failed = rollout.message.partition(" · ")[0]
        return saying(rollout, f"{failed} · {back}{silent}")
    failed = rollout.message.partition(" · ")[0]
    written_off = "" if is_empty else f"; its runners don't answer and are let go with {green.held} users"
    if rollout.phase is _P.SUPERSEDING:
        begins = seen.plan is not None and seen.wanted not in ("", seen.stable)
        return begin(rollout, seen) if begins else withdrawn(rollout, seen, Reason.WITHDRAWN, failed)
    if rollout.reason == Reason.WITHDRAWN:
        return withdrawn(rollout, seen, Reason.WITHDRAWN, failed)
    return reject(rollout, seen, failed + written_off, at_once=not is_empty)


def _ended(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """End an attempt with its simulation: no verdict, but for the one that was given."""
    if rollout.phase is _P.ABORTING and rollout.reason != Reason.WITHDRAWN:
        return reject(rollout, seen, rollout.message.partition(" · ")[0], at_once=True)
    return withdrawn(rollout, seen, Reason.SIMULATION_ENDED, f"the simulation ended {where(rollout)}")


def _stable(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    if rollout.scale_down_at is not None and seen.green.gone:
        rollout = rollout.model_copy(update={"scale_down_at": None})
    if not seen.on or not seen.stable or seen.wanted in ("", seen.stable):
        return rollout
    if seen.wanted == rollout.rejected:
        return to(_P.REJECTED, rollout, seen)
    return begin(rollout, seen)


def _rejected(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    if seen.wanted == seen.stable:
        return to(_P.STABLE, rollout, seen)
    is_other = seen.wanted not in ("", rollout.rejected)
    return begin(rollout, seen) if seen.on and (is_other or seen.command == "retry") else rollout


def _retiring(rollout: RolloutStatus, seen: Seen) -> RolloutStatus:
    """Keep the old version's runners for the way back; begin the next rollout when one is asked for."""
    due = seen.ended or rollout.scale_down_at is None or seen.now_ms >= parse_instant(rollout.scale_down_at)
    if seen.on and seen.wanted not in ("", seen.stable):
        if seen.wanted == seen.previous and seen.old.ready and not due:
            return begin(rollout, seen, fast=True)
        if not seen.old.held:
            return begin(rollout, seen)
    if due and seen.old.gone:
        return to(_P.STABLE, rollout, seen, scale_down_at=None)
    return rollout


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
    """Say whether the phase lasts as long as it may; what nobody was there to take on is not held against it."""
    assert rollout.plan is not None and rollout.since is not None
    lasts_ms = seen.now_ms - parse_instant(rollout.since)
    if seen.attended_ms is not None:
        lasts_ms = min(lasts_ms, seen.attended_ms)
    return lasts_ms >= rollout.plan.deadline_ms


def _deadline(rollout: RolloutStatus) -> str:
    assert rollout.plan is not None
    return f"{rollout.plan.deadline_ms // 1000} s"
