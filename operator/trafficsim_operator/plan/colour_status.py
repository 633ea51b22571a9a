"""
What the status shows of a rollout: users and runners of both versions, and what it makes of the conditions.

| of a simulation that is on | Ready | Reconciling | Stalled |
|---|---|---|---|
| a rollout is in progress | True | True, RollingOut | False |
| its newest version is rejected | False, RevisionRejected | False | True |

RolloutPaused says why a rollout waits for somebody; it is there from the first rollout on.
"""

from __future__ import annotations

from typing import Final

from trafficsim_api.names import Condition, Reason
from trafficsim_api.phases import Phase
from trafficsim_api.places import Places
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import ColourStatus, Revision, RolloutStatus
from trafficsim_operator.observed import RunnerState
from trafficsim_operator.plan.assignments import held_by
from trafficsim_operator.plan.conditions import Finding
from trafficsim_operator.plan.look import Look
from trafficsim_operator.plan.places import Deal

__all__ = ["of_pause", "of_rollout", "places_of", "rollout_of"]

_PROMOTED: Final = (RolloutPhase.PROMOTING, RolloutPhase.RETIRING)
_ON: Final = (Phase.RUNNING, Phase.SUSPENDED)


def rollout_of(look: Look, dealt: Deal, *, is_due: bool) -> RolloutStatus | None:
    """Return the rollout with both versions' shares; active users are told anew when figures are (*is_due*)."""
    versions, before = look.versions, look.before.rollout
    rollout = versions.rollout
    if rollout is None:
        return None
    blue: Revision | None = versions.stable
    green = versions.candidate
    if rollout.phase in _PROMOTED:
        # After the promotion: the colours stay those of the rollout.
        blue, green = versions.previous, versions.stable
    # What was told of other versions, or of none yet, is nothing to go on with.
    old = before if before is not None and _colours(before) == _colours(rollout) and not is_due else None
    return rollout.model_copy(
        update={
            "blue": _colour(look, dealt, blue, old.blue.active if old is not None else None),
            "green": _colour(look, dealt, green, old.green.active if old is not None else None),
        }
    )


def _colours(rollout: RolloutStatus) -> tuple[int, bool]:
    """Return what decides which version is which colour: the attempt, and whether it is promoted and not over."""
    return rollout.attempt, rollout.phase in _PROMOTED


def places_of(look: Look, dealt: Deal, revision: str) -> int:
    """Return how many places the runners of *revision* hold by intent; who does not answer keeps what it has."""
    held = []
    for runner in look.runners:
        if runner.revision == revision and runner.name not in look.versions.silent:
            ack = held_by(runner, look.run.id)
            held.append(dealt.places.get(runner.name, ack.held if ack is not None else Places()))
    return len(Places.union(held).below(look.total))


def of_rollout(found: tuple[Finding, ...], look: Look, rollout: RolloutStatus | None) -> tuple[Finding, ...]:
    """Return the three standard conditions *found* for the phase, as a rollout changes them."""
    if rollout is None or look.life.phase not in _ON:
        return found
    ready, reconciling, stalled = found
    if look.versions.in_progress:
        text = f"rollout {rollout.attempt} is {rollout.phase}"
        moving = Finding(type=Condition.RECONCILING, status=True, reason=Reason.ROLLING_OUT, message=text)
        return ready, moving, stalled
    if rollout.phase is not RolloutPhase.REJECTED:
        return found
    asked = look.accepted.wanted.revision
    # Subtle: a third version that is asked for while the simulation is suspended is begun with when it goes on.
    which = "," if asked == rollout.rejected else f"; {rollout.rejected} was"
    text = f"running {look.versions.stable.revision}; spec asks {asked}{which} {rollout.message}"
    reason = Reason.REVISION_REJECTED
    return (
        Finding(type=Condition.READY, status=False, reason=reason, message=text),
        reconciling,
        Finding(type=Condition.STALLED, status=True, reason=reason, message=text),
    )


def of_pause(rollout: RolloutStatus | None) -> tuple[Finding, ...]:
    """Return RolloutPaused, from the first rollout on."""
    if rollout is None:
        return ()
    if rollout.pause is None:
        return (Finding(type=Condition.ROLLOUT_PAUSED, status=False, reason=Reason.NOT_PAUSED),)
    return (Finding(type=Condition.ROLLOUT_PAUSED, status=True, reason=rollout.pause.value, message=rollout.message),)


def _colour(look: Look, dealt: Deal, version: Revision | None, active: int | None) -> ColourStatus:
    """Return one version's share; *active* is what was told of it before, None to count anew."""
    if version is None:
        return ColourStatus()
    own = [runner for runner in look.runners if runner.revision == version.revision]
    acks = [ack for runner in own if (ack := held_by(runner, look.run.id)) is not None]
    return ColourStatus(
        users=places_of(look, dealt, version.revision),
        active=sum(ack.active for ack in acks) if active is None else active,
        runners=look.versions.replicas.get(version.revision, 0),
        ready=sum(runner.state is RunnerState.READY for runner in own),
    )
