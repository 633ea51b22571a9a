"""Saying no: what a refused document, or a name that is taken, does to status and runners."""

from __future__ import annotations

from trafficsim_api.names import Condition, Event, Reason
from trafficsim_api.phases import Phase
from trafficsim_api.status import Runners, Status, Users
from trafficsim_api.units import format_instant
from trafficsim_operator.actions import Decision, Happening, Retire
from trafficsim_operator.observed import Desired, Observed
from trafficsim_operator.plan.acceptance import Refused
from trafficsim_operator.plan.conditions import Finding, conditions, of_phase, of_verdict, verdict_reason
from trafficsim_operator.plan.look import ON, STEADY_MS

__all__ = ["name_taken", "refuse"]


def refuse(desired: Desired, observed: Observed, refused: Refused, now_ms: int) -> Decision:
    """
    Say no. A run that is on keeps what it was told while the user mends an edit; if policy changed under it, it ends.
    """
    before, now = desired.status, format_instant(now_ms)
    reason = Reason.INVALID if refused.invalid else Reason.REFUSED
    said = Finding(type=Condition.ACCEPTED, status=False, reason=reason, message=refused.message)
    on = before.phase in ON
    if on and before.run is not None and before.run.generation != desired.generation and not observed.stop:
        kept = [c for c in before.conditions if c.type != Condition.ACCEPTED]
        again = [
            Finding(
                type=Condition(c.type),
                status={"True": True, "False": False}.get(c.status),
                reason=c.reason,
                message=c.message,
            )
            for c in kept
        ]
        status = before.model_copy(
            update={
                "observed_generation": desired.generation,
                "conditions": conditions(before.conditions, [*again, said], generation=desired.generation, now=now),
            }
        )
        return Decision(status=status, happenings=_told(before, status, refused.message), next_look_ms=STEADY_MS)
    if before.phase is Phase.COMPLETED:
        phase, message = Phase.COMPLETED, before.message
    else:
        phase, message = Phase.FAILED, refused.message
    found = [*of_phase(phase, Reason.REFUSED if phase is Phase.FAILED else Reason.COMPLETED, message), said]
    found += of_verdict(before.verdict, verdict_reason(before.conditions), before.verdict_reason, "")
    status = before.model_copy(
        update={
            "observed_generation": desired.generation,
            "phase": phase,
            "message": message,
            "users": Users(),
            "runners": Runners(),
            "conditions": conditions(before.conditions, found, generation=desired.generation, now=now),
        }
    )
    actions = tuple(
        Retire(revision=name, runners=tuple(r.name for r in seen.runners), replicas=0, reason="refused")
        for name, seen in observed.revisions.items()
        if seen.replicas and not seen.foreign
    )
    return Decision(
        status=status,
        actions=actions,
        happenings=_told(before, status, refused.message),
        next_look_ms=STEADY_MS if actions else None,
    )


def _told(before: Status, status: Status, message: str) -> tuple[Happening, ...]:
    def said(of: Status) -> str:
        return next((c.message for c in of.conditions if c.type == Condition.ACCEPTED and c.status == "False"), "")

    return (Happening(reason=Event.REFUSED, message=message, warning=True),) if said(before) != said(status) else ()


def name_taken(desired: Desired, now_ms: int) -> Decision:
    """Stall: an object of the name that the runners need is not ours."""
    before = desired.status
    message = "an object of the runners' name belongs to somebody else; it is not touched"
    found = [
        *of_phase(Phase.FAILED, Reason.NAME_TAKEN, message),
        Finding(type=Condition.ACCEPTED, status=True, reason=Reason.ACCEPTED),
    ]
    status = before.model_copy(
        update={
            "observed_generation": desired.generation,
            "phase": Phase.FAILED,
            "message": message,
            "conditions": conditions(
                before.conditions, found, generation=desired.generation, now=format_instant(now_ms)
            ),
        }
    )
    return Decision(status=status, next_look_ms=STEADY_MS)
