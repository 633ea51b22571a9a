"""
Conditions, derived from phase and findings; a transition time moves only when the status of a condition changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from trafficsim_api.names import Condition, Reason
from trafficsim_api.phases import Phase, Verdict, standard_conditions
from trafficsim_api.status import ConditionStatus

__all__ = ["MESSAGE", "Finding", "conditions", "of_phase", "of_verdict", "verdict_reason"]

# Room for a policy snippet; nine conditions of this length still leave the status well under 16 KiB.
MESSAGE: Final = 768

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One condition's present standing."""

    type: Condition
    status: bool | None
    reason: str
    message: str = ""


def conditions(
    before: Iterable[ConditionStatus], findings: Iterable[Finding], *, generation: int, now: str
) -> tuple[ConditionStatus, ...]:
    """Return the conditions of *findings*, each with *generation*, times kept where the status did not change."""
    known: Mapping[str, ConditionStatus] = {condition.type: condition for condition in before}
    result = []
    for finding in findings:
        status: Truth = "Unknown" if finding.status is None else "True" if finding.status else "False"
        old = known.get(finding.type)
        since = old.last_transition_time if old is not None and old.status == status else now
        result.append(
            ConditionStatus(
                type=finding.type,
                status=status,
                reason=finding.reason,
                message=finding.message[:MESSAGE],
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return tuple(result)


def of_phase(phase: Phase, reason: str, message: str) -> tuple[Finding, ...]:
    """Return the three standard conditions of *phase*."""
    ready, reconciling, stalled = standard_conditions(phase)
    return (
        Finding(type=Condition.READY, status=ready, reason=reason, message=message),
        Finding(type=Condition.RECONCILING, status=reconciling, reason=reason),
        Finding(type=Condition.STALLED, status=stalled, reason=reason, message=message if stalled else ""),
    )


def of_verdict(verdict: Verdict | None, reason: str, message: str, breached: str) -> tuple[Finding, ...]:
    """Return Finished and Passed: Unknown while running (with the rules breached now) and when Inconclusive."""
    if verdict is None:
        return (
            Finding(type=Condition.FINISHED, status=False, reason=Reason.IN_PROGRESS),
            Finding(type=Condition.PASSED, status=None, reason=Reason.IN_PROGRESS, message=breached),
        )
    passed = None if verdict is Verdict.INCONCLUSIVE else verdict is Verdict.PASSED
    return (
        Finding(type=Condition.FINISHED, status=True, reason=verdict, message=message),
        Finding(type=Condition.PASSED, status=passed, reason=reason, message=message),
    )


def verdict_reason(before: Iterable[ConditionStatus]) -> str:
    """Return the reason that the verdict was given with before."""
    return next((condition.reason for condition in before if condition.type == Condition.PASSED), Reason.IN_PROGRESS)
