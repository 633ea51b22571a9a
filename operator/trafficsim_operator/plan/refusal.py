"""Saying no: what a refused document, or a name that is taken, does to status and runners."""

from __future__ import annotations

from trafficsim_api.names import Condition, Event, Reason
from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.status import LastCommand, Run, Runners, Status, Users
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.actions import Decision, Happening, Retire
from trafficsim_operator.observed import Desired, Observed
from trafficsim_operator.plan import commands, once
from trafficsim_operator.plan.acceptance import Refused
from trafficsim_operator.plan.conditions import MESSAGE, Finding, conditions, of_phase, of_verdict, verdict_reason
from trafficsim_operator.plan.look import ON, STEADY_MS

__all__ = ["name_taken", "refuse", "told"]


def refuse(desired: Desired, observed: Observed, refused: Refused, now_ms: int) -> Decision:
    """
    Say no.

    A run that is on, whose accepted document this operator has not seen, keeps what its runners were told while the
    user mends the edit, until its end or a stop. If policy changed under an accepted document, the run ends now.
    """
    before = desired.status
    reason = Reason.INVALID if refused.invalid else Reason.REFUSED
    said = Finding(type=Condition.ACCEPTED, status=False, reason=reason, message=refused.message)
    command = commands.answer(desired.command, before.last_command, before.phase, running=before.phase in ON)
    over = _is_over(desired, observed, command, now_ms)
    is_edit = before.run is not None and before.run.generation != desired.generation
    if before.phase in ON and is_edit and not over:
        status = _with(desired, [*_kept(before), said], now_ms, {"last_command": command or before.last_command})
        return Decision(status=status, happenings=told(before, status), next_look_ms=STEADY_MS)
    update: dict[str, object] = {"users": Users(), "runners": Runners(), "scaling": None}
    update |= {"last_command": command or before.last_command}
    if before.phase in ON and is_edit:
        why = f"{over}; the newest document was refused, so its rules were not judged"
        update |= {"phase": Phase.COMPLETED, "message": why, "verdict": Verdict.INCONCLUSIVE, "verdict_reason": why}
        found = [*of_phase(Phase.COMPLETED, Reason.COMPLETED, why), said]
        found += of_verdict(Verdict.INCONCLUSIVE, Reason.STOPPED, why, "")
    else:
        phase = Phase.COMPLETED if before.phase is Phase.COMPLETED else Phase.FAILED
        message = before.message if phase is Phase.COMPLETED else refused.message[:MESSAGE]
        update |= {"phase": phase, "message": message}
        found = [*of_phase(phase, Reason.REFUSED if phase is Phase.FAILED else Reason.COMPLETED, message), said]
        found += of_verdict(before.verdict, verdict_reason(before.conditions), before.verdict_reason, "")
    if before.run is not None and before.phase in ON:
        update |= {"run": _without_tasks(before.run, desired, now_ms)}
    status = _with(desired, found, now_ms, update)
    actions = tuple(
        Retire(revision=name, runners=tuple(r.name for r in seen.runners), replicas=0, reason="refused")
        for name, seen in observed.revisions.items()
        if seen.replicas and not seen.foreign
    )
    return Decision(
        status=status,
        actions=actions,
        happenings=told(before, status),
        next_look_ms=STEADY_MS if actions else None,
    )


def _without_tasks(run: Run, desired: Desired, now_ms: int) -> Run:
    """Return *run* with its setup and teardown ended as they stand: no runner will do them any more."""
    why = "the document is refused"
    ended = {kind: once.broken_off(getattr(run, kind), why, now_ms) for kind in ("setup", "teardown")}
    teardown = desired.spec.teardown if desired.spec is not None else None
    if teardown is not None and once.teardown_is_due(run, teardown):
        ended["teardown"] = once.undone(teardown, now_ms, f"not done: {why}")
    return run.model_copy(update=ended)


def _is_over(desired: Desired, observed: Observed, command: LastCommand | None, now_ms: int) -> str:
    """Return why a run that goes on under a refused edit is over, "" while it is not."""
    run = desired.status.run
    if observed.stop:
        return observed.stop
    if command is not None and (command.action, command.result) == ("stop", "Done"):
        return "stopped by command"
    return "the run's end has come" if run is not None and run.end and now_ms >= parse_instant(run.end) else ""


def _kept(before: Status) -> list[Finding]:
    """Return the conditions as they were, but Accepted; one that this version does not know is left out."""
    truth = {"True": True, "False": False}
    return [
        Finding(type=Condition(c.type), status=truth.get(c.status), reason=c.reason, message=c.message)
        for c in before.conditions
        if c.type != Condition.ACCEPTED and c.type in set(Condition)
    ]


def _with(desired: Desired, found: list[Finding], now_ms: int, update: dict[str, object]) -> Status:
    before, generation = desired.status, desired.generation
    written = conditions(before.conditions, found, generation=generation, now=format_instant(now_ms))
    return before.model_copy(update={"observed_generation": generation, "conditions": written} | update)


def told(before: Status, status: Status) -> tuple[Happening, ...]:
    """Return the event of a refusal that is new."""

    def said(of: Status) -> str:
        return next((c.message for c in of.conditions if c.type == Condition.ACCEPTED and c.status == "False"), "")

    message = said(status)
    return (
        (Happening(reason=Event.REFUSED, message=message, warning=True),) if message and message != said(before) else ()
    )


def name_taken(desired: Desired, now_ms: int) -> Decision:
    """Stall: an object of the name that the runners need is not ours."""
    before = desired.status
    message = "an object of the runners' name belongs to somebody else; it is not touched"
    found = [
        *of_phase(Phase.FAILED, Reason.NAME_TAKEN, message),
        Finding(type=Condition.ACCEPTED, status=True, reason=Reason.ACCEPTED),
        *of_verdict(before.verdict, verdict_reason(before.conditions), before.verdict_reason, ""),
    ]
    status = _with(desired, found, now_ms, {"phase": Phase.FAILED, "message": message})
    return Decision(status=status, next_look_ms=STEADY_MS)
