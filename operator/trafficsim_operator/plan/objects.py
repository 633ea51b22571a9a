"""What is to be done about revisions: made, scaled, their retired runners let go, the superseded removed."""

from __future__ import annotations

from typing import Final

from trafficsim_api.phases import Phase
from trafficsim_api.units import parse_instant
from trafficsim_operator.actions import Action, EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.observed import RunnerState
from trafficsim_operator.plan.assignments import held_by, retiring
from trafficsim_operator.plan.look import ENDED, Look
from trafficsim_operator.plan.once import is_at_setup, teardown_is_due

__all__ = ["objects"]

# Suspended this long, the runners are let go.
_SCALE_DOWN_MS: Final = 60_000


def objects(look: Look) -> tuple[Action, ...]:
    """Return what is to be done about revisions: ensured, scaled, let go."""
    revision, sizing, phase = look.accepted.revision, look.accepted.sizing, look.life.phase
    seen = look.observed.revisions.get(revision.revision)
    others = tuple(
        RemoveRevision(revision=name, reason="superseded")
        for name in look.observed.revisions
        if name != revision.revision
    )
    if phase in ENDED or _let_go(look):
        if seen is None or (not seen.replicas and not seen.runners):
            return others
        names = tuple(runner.name for runner in seen.runners)
        return (
            *others,
            *(
                (Retire(revision=revision.revision, runners=names, replicas=0, reason=f"{phase}"),)
                if seen.replicas
                else ()
            ),
        )
    is_empty = seen is None or not seen.replicas
    if phase is Phase.DRAINING and is_empty and teardown_is_due(look.run, look.accepted.spec.teardown):
        # Those of a long pause were let go.
        reason = "teardown needs a runner"
        return (
            *others,
            EnsureRevision(revision=revision.revision, template=revision.runner, replicas=1, reason=reason),
        )
    if phase in (Phase.PENDING, Phase.DRAINING) or (phase is Phase.SUSPENDED and not look.run.origin):
        return others
    if not sizing.runners and seen is None:
        return others
    gone = _retired(look)
    left = max(sizing.runners, seen.replicas - len(gone)) if seen is not None else 0
    # With none to take away, what is too much is a rollout's: only a repair, below, ends that.
    if gone and seen is not None and left < seen.replicas:
        return (*others, Retire(revision=revision.revision, runners=gone, replicas=left, reason=sizing.reason))
    replicas = seen.replicas if seen else 0
    if seen is None or seen.drifted or replicas < sizing.runners:
        # A scale-in under way is not cut short by a repair: who holds places stays.
        holding = sum(bool(ack and ack.held) for ack in (held_by(r, look.run.id) for r in look.runners))
        wanted = max(sizing.runners, holding if seen is not None and seen.drifted else replicas)
        return (
            *others,
            EnsureRevision(revision=revision.revision, template=revision.runner, replicas=wanted, reason=sizing.reason),
        )
    return others


def _let_go(look: Look) -> bool:
    """Say whether a suspended simulation's runners have been idle long enough to go; one at setup is not idle."""
    if look.life.phase is not Phase.SUSPENDED or is_at_setup(look.run):
        return False
    return look.now_ms - parse_instant(look.run.phase_since) >= _SCALE_DOWN_MS


def _retired(look: Look) -> tuple[str, ...]:
    """Return the runners to let go: retired, drained and no longer ready; or never started, holding nothing."""
    going = retiring(look.runners, look.run.id, look.accepted.sizing.runners)
    found = []
    for runner in (runner for runner in look.runners if runner.name in going):
        ack = held_by(runner, look.run.id)
        if ack is None:
            is_done = runner.state is RunnerState.STARTING
        else:
            is_done = runner.state is RunnerState.UNREADY and ack.retire and ack.drained
        if is_done:
            found.append(runner.name)
    return tuple(found)
