"""What of a look is worth telling: events, each with a reason and the numbers in its message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trafficsim_api.names import Condition, Event
from trafficsim_api.phases import Phase
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import Barrier, RolloutStatus, Run, Status
from trafficsim_operator.actions import Action, EnsureRevision, Happening, Retire
from trafficsim_operator.plan.conditions import MESSAGE
from trafficsim_operator.plan.look import Look
from trafficsim_operator.plan.planned import planned_user_ms
from trafficsim_operator.plan.scaling_told import changed, told_of_scaling
from trafficsim_operator.plan.unwilling import sentences

__all__ = ["happenings", "skew_of"]

# A condition's message may be cut after so much.
_MARK: Final = 120
# What a pause that ended leads to, unless the rollout ended with it.
_ONWARD: Final = (RolloutPhase.PREPARING, RolloutPhase.SHIFTING, RolloutPhase.ANALYZING, RolloutPhase.PROMOTING)


def happenings(look: Look, status: Status, actions: tuple[Action, ...]) -> tuple[Happening, ...]:
    """Return one event per thing worth telling, the reason and the numbers in the message."""
    before, command = look.before, look.command
    found: list[Happening] = []
    scaled = {version.revision for version, _ in changed(before.scaling, status.scaling)}
    if command is not None:
        text = f"{command.action}: {command.result}" + (f" ({command.reason})" if command.reason else "")
        found.append(Happening(reason=Event.COMMAND, message=text, warning=command.result == "Refused"))
    if status.phase is not before.phase:
        if status.phase is Phase.COMPLETED:
            found.append(Happening(reason=Event.FINISHED, message=f"{status.verdict}: {status.verdict_reason}"))
        else:
            failed = status.phase is Phase.FAILED
            text = f"{before.phase} → {status.phase}" + (f": {status.message}" if status.message else "")
            found.append(Happening(reason=Event.FAILED if failed else Event.PHASE, message=text, warning=failed))
    if status.message and status.message == look.accepted.missing[:MESSAGE] != before.message:
        kept = "; users go on with the rows they have" if status.phase is Phase.RUNNING else ""
        found.append(Happening(reason=Event.DATA_MISSING, message=status.message + kept, warning=True))
    for action in actions:
        match action:
            case EnsureRevision() if look.is_drifted(action.revision):
                text = f"revision {action.revision} was changed by somebody else; put back"
                found.append(Happening(reason=Event.DRIFT_REPAIRED, message=text, warning=True))
            case EnsureRevision() if status.runners.wanted != before.runners.wanted and action.revision not in scaled:
                text = (
                    f"revision {action.revision} to {action.replicas} {'runner' if action.replicas == 1 else 'runners'}"
                )
                found.append(Happening(reason=Event.SCALED, message=f"{text}: {action.reason}"))
            case Retire() if look.life.phase is Phase.RUNNING:
                text = f"{', '.join(action.runners)}: {action.reason}"
                found.append(Happening(reason=Event.RUNNER_RETIRED, message=text))
            case _:
                pass
    found += _told_of_unwilling(look, status)
    found += _told_of_unkept(before, status)
    found += told_of_scaling(look, status)
    found += _told_of_tasks(before, status)
    if status.rollout is not None:
        found += _told_of_rollout(before, before.rollout or RolloutStatus(), status, status.rollout)
    if before.run is not None and status.run is not None and before.run.id == status.run.id:
        found += _told_of_losses(look, before.run, status.run)
        found += _told_of_start(before.run, status)
    return tuple(found)


def _told_of_unwilling(look: Look, status: Status) -> Iterator[Happening]:
    """Yield an event for each runner that goes on refusing what it is told; once, when the condition says so."""
    before, now = (
        next((c.message for c in seen.conditions if c.type == Condition.RUNNERS_HEALTHY), "")
        for seen in (look.before, status)
    )
    for text in sentences(look.runners, look.observed.unwilling):
        mark = text[:_MARK]
        if mark in now and mark not in before:
            yield Happening(reason=Event.ASSIGNMENT_REFUSED, message=text, warning=True)


def _told_of_unkept(before: Status, status: Status) -> Iterator[Happening]:
    """Yield an event for each share of the numbers that the record did not take; once, while it can still be saved."""
    known = {share.uid for share in before.accounts.unkept}
    for share in status.accounts.unkept:
        if share.uid not in known:
            text = f"the last numbers of {share.runner}, {share.requests} requests, are in the operator's memory alone"
            yield Happening(reason=Event.NUMBERS_NOT_KEPT, message=f"{text}: {share.reason}", warning=True)


def _told_of_losses(look: Look, before: Run, run: Run) -> Iterator[Happening]:
    """Yield an event for each runner lost, one more where nobody saw it end, and one for those that are not named."""
    planned = planned_user_ms(run, look.accepted.spec, look.now_ms)
    share = f", {100 * run.lost_user_ms / planned:.2f} % of those planned" if planned else ""
    total = f"{run.lost_user_ms / 1000:.1f} user-seconds are known to be lost so far{share}"
    known = {lost.name for lost in before.lost}
    fresh = [lost for lost in run.lost if lost.name not in known]
    for lost in fresh:
        text = f"{lost.name} was lost with {lost.users} users; its numbers after {lost.since} are missing; {total}"
        yield Happening(reason=Event.RUNNER_LOST, message=text, warning=True)
        if lost.end_unseen:
            text = (
                f"{lost.name} counts as lost though nobody saw it end: its {lost.users} users go to others, "
                "and may be at work twice until its node ends it"
            )
            yield Happening(reason=Event.POSSIBLE_DOUBLE_LOAD, message=text, warning=True)
    if (others := run.lost_runners - before.lost_runners - len(fresh)) > 0:
        were = "runner was" if others == 1 else "runners were"
        yield Happening(reason=Event.RUNNER_LOST, message=f"{others} more {were} lost; {total}", warning=True)


def _told_of_start(before: Run, status: Status) -> Iterator[Happening]:
    """Yield an event when the start was moved on, and when it is known how far apart runners began."""
    run = status.run
    if run is None or run.barrier is None or before.barrier is None:
        return
    if run.barrier.moved and not before.barrier.moved:
        yield Happening(reason=Event.START_MOVED, message=status.message, warning=True)
    if run.barrier.runners and not before.barrier.runners:
        yield Happening(reason=Event.START_MEASURED, message=skew_of(run.barrier))


def skew_of(barrier: Barrier) -> str:
    """Return in one sentence how far apart the runners began."""
    skew, error = barrier.skew_ms, barrier.offset_error_ms
    return f"{barrier.runners} runners began within {skew} ms of each other; their clocks are known to {error} ms"


def _told_of_tasks(before: Status, status: Status) -> list[Happening]:
    """Return an event for setup and teardown when they begin and end."""
    found = []
    for kind, reason in (("setup", Event.SETUP), ("teardown", Event.TEARDOWN)):
        old, new = (getattr(seen.run, kind) if seen.run is not None else None for seen in (before, status))
        if new is None or (old is not None and old.state == new.state):
            continue
        requests = f"requests {new.requests}, failed {new.failed}"
        text = {
            "Running": f"{kind} is ordered from {new.runner}",
            "Done": f"{kind} is done: {requests}, values saved {new.saved}",
            "Failed": f"{kind} failed: {new.message} ({requests})",
        }[new.state]
        found.append(Happening(reason=reason, message=text, warning=new.state == "Failed"))
    return found


def _told_of_rollout(before: Status, old: RolloutStatus, status: Status, new: RolloutStatus) -> Iterator[Happening]:
    """Yield an event per transition of the rollout, as far as a look may go through several."""
    text = f"rollout {new.attempt}"
    if new.attempt != old.attempt:
        yield Happening(reason=Event.ROLLOUT_STARTED, message=f"{text}: {_way(status)}{_steps(new)}")
    is_on = new.step > old.step and new.attempt == old.attempt
    if (new.passed or is_on) and not old.passed:
        yield Happening(reason=Event.STEP_PASSED, message=f"{text}: {old.percent}% passed{_numbers(new)}")
    if new.phase is RolloutPhase.SHIFTING and (old.phase, old.step) != (new.phase, new.step):
        share = f"{new.percent}%, {new.wanted} of {status.users.dealt} users"
        yield Happening(reason=Event.ROLLOUT_STEP, message=f"{text}: {share}")
    if new.pause is not None and new.pause is not old.pause:
        yield Happening(reason=Event.ROLLOUT_PAUSED, message=f"{text}: {new.pause}{_why(new)}")
    if new.pause is None and old.pause is not None and new.attempt == old.attempt and new.phase in _ONWARD:
        yield Happening(reason=Event.ROLLOUT_RESUMED, message=f"{text}: goes on after {old.pause}")
    if new.phase is old.phase:
        return
    if new.phase in (RolloutPhase.ABORTING, RolloutPhase.SUPERSEDING):
        yield Happening(reason=Event.ROLLOUT_ABORTED, message=f"{text}: {new.reason}{_why(new)}", warning=True)
    if new.phase is RolloutPhase.REJECTED:
        yield Happening(reason=Event.REVISION_REJECTED, message=f"{text}: {new.rejected}{_why(new)}", warning=True)
    if status.stable is not None and before.stable is not None and status.stable.revision != before.stable.revision:
        yield Happening(reason=Event.PROMOTED, message=f"{text}: {status.stable.revision} is stable{_why(new)}")
    if new.phase is RolloutPhase.STABLE:
        yield Happening(reason=Event.ROLLOUT_ENDED, message=f"{text}: {new.reason}{_why(new)}")


def _way(status: Status) -> str:
    names = (version.revision if version is not None else "?" for version in (status.stable, status.candidate))
    return " → ".join(names)


def _steps(rollout: RolloutStatus) -> str:
    if rollout.plan is None:
        return ""
    steps = "/".join(str(step.percent) for step in rollout.plan.steps)
    return f", steps {steps}%" + (f"; {rollout.plan.note}" if rollout.plan.note else "")


def _numbers(rollout: RolloutStatus) -> str:
    """Return what a step passed by; that it waits now is told by the pause."""
    return _why(rollout).replace(f" {rollout.percent}% is passed, it waits for promote:", "", 1)


def _why(rollout: RolloutStatus) -> str:
    return f": {rollout.message}" if rollout.message else ""
