"""What is to be done about revisions: made, scaled, their retired runners let go, the superseded removed."""

from __future__ import annotations

from typing import Final

from trafficsim_api.phases import Phase
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import Revision
from trafficsim_api.units import parse_instant
from trafficsim_operator.actions import Action, EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.observed import RevisionSeen, RunnerState
from trafficsim_operator.plan.assignments import held_by
from trafficsim_operator.plan.colours import written_off
from trafficsim_operator.plan.look import ENDED, Look
from trafficsim_operator.plan.once import is_at_setup, teardown_is_due
from trafficsim_operator.plan.unwilling import out

__all__ = ["objects"]

# Suspended this long, the runners are let go.
_SCALE_DOWN_MS: Final = 60_000


def objects(look: Look) -> tuple[Action, ...]:
    """Return what is to be done about revisions: ensured, scaled, let go."""
    versions, phase = look.versions, look.life.phase
    stable, seen = versions.stable, look.observed.revisions.get(versions.stable.revision)
    if phase in ENDED:
        return (*_removed(look, frozenset({stable.revision})), *_emptied(look, stable))
    if _let_go(look):
        emptied = (action for version in versions.known.values() for action in _emptied(look, version))
        return (*_removed(look, frozenset(versions.known)), *emptied)
    if phase is Phase.DRAINING:
        # What other versions have left drains with the rest, and is removed when it has.
        is_empty = seen is None or not seen.replicas
        if is_empty and teardown_is_due(look.run, look.accepted.spec.teardown):
            # Those of a long pause were let go.
            return (_ensured(stable, 1, "teardown needs a runner"),)
        return ()
    others = _removed(
        look, frozenset(name for name, count in versions.replicas.items() if count or name == stable.revision)
    )
    if phase is Phase.PENDING or (phase is Phase.SUSPENDED and not look.run.origin):
        return others
    return (*others, *(action for version in versions.known.values() for action in _kept(look, version)))


def _kept(look: Look, version: Revision) -> tuple[Action, ...]:
    """Return what brings the runners of *version* to the number it is to have; nothing where it is to have none."""
    revision = version.revision
    wanted, seen = look.versions.replicas.get(revision, 0), look.observed.revisions.get(revision)
    if not wanted and (seen is None or revision != look.versions.stable.revision):
        return ()
    if seen is not None and _is_called_back(look, revision):
        if not seen.replicas:
            return ()
        if out(seen.runners, look.observed.unwilling, look.now_ms):
            names = tuple(runner.name for runner in seen.runners)
            return (Retire(revision=revision, runners=names, replicas=0, reason="it does not give its users back"),)
    reason = look.reason_of(revision)
    gone = _retired(look, revision)
    left = max(wanted, seen.replicas - len(gone)) if seen is not None else 0
    # With none to take away, what is too much is a Deployment's own rollout: only a repair, below, ends that.
    if gone and seen is not None and left < seen.replicas:
        return (Retire(revision=revision, runners=gone, replicas=left, reason=reason),)
    if seen is None:
        return (_ensured(version, wanted, reason),)
    if seen.drifted or seen.replicas < wanted:
        # A scale-in under way is not cut short by a repair: who holds places stays.
        holding = sum(bool(ack and ack.held) for ack in (held_by(r, look.run.id) for r in seen.runners))
        return (_ensured(version, max(wanted, holding if seen.drifted else seen.replicas), reason),)
    return ()


def _is_called_back(look: Look, revision: str) -> bool:
    """
    Say whether the users of *revision* are on their way back.

    A version that refuses to give them is ended as a whole: its pods drain when they go, and nobody is at work twice.
    """
    rollout, candidate = look.versions.rollout, look.versions.candidate
    is_back = rollout is not None and rollout.phase in (RolloutPhase.ABORTING, RolloutPhase.SUPERSEDING)
    return is_back and candidate is not None and candidate.revision == revision


def _ensured(version: Revision, replicas: int, reason: str) -> EnsureRevision:
    return EnsureRevision(revision=version.revision, template=version.runner, replicas=replicas, reason=reason)


def _emptied(look: Look, version: Revision) -> tuple[Retire, ...]:
    """Let go of all runners of *version*; its object stays."""
    seen = look.observed.revisions.get(version.revision)
    if seen is None or not seen.replicas:
        return ()
    names = tuple(runner.name for runner in seen.runners)
    return (Retire(revision=version.revision, runners=names, replicas=0, reason=f"{look.life.phase}"),)


def _removed(look: Look, kept: frozenset[str]) -> tuple[RemoveRevision, ...]:
    """
    Remove every revision but those *kept*, once its runners have nothing left of the run.

    In a run they are retired first, so that the last of their numbers is read; who does not answer is not waited for.
    """
    is_over = look.life.phase in ENDED
    return tuple(
        RemoveRevision(revision=name, reason="superseded", runners=tuple(runner.name for runner in seen.runners))
        for name, seen in look.observed.revisions.items()
        if name not in kept and not seen.foreign and (is_over or _is_idle(look, seen))
    )


def _is_idle(look: Look, seen: RevisionSeen) -> bool:
    """Say whether no runner of a revision has anything left to do or to tell."""
    silent = written_off(seen.runners)
    for runner in seen.runners:
        ack = held_by(runner, look.run.id)
        # Subtle: whom this operator has not heard yet may still have users; it answers, or is silent for long enough.
        unheard = runner.acknowledgement is None and runner.state is not RunnerState.STARTING
        if runner.name in silent or runner.state is RunnerState.LEAVING or (ack is None and not unheard):
            continue
        if ack is None or not (ack.retire and ack.drained):
            return False
    return True


def _let_go(look: Look) -> bool:
    """
    Say whether a suspended simulation's runners have been idle long enough to go; one at setup is not idle.

    Nor do they count as idle while nobody looked: whoever did may not have come to tell them.
    """
    if look.life.phase is not Phase.SUSPENDED or is_at_setup(look.run):
        return False
    idle_ms = look.now_ms - parse_instant(look.run.phase_since)
    attended_ms = look.observed.evidence.attended_in_phase_ms
    if attended_ms is not None and any(seen.runners for seen in look.observed.revisions.values()):
        idle_ms = min(idle_ms, attended_ms)
    return idle_ms >= _SCALE_DOWN_MS


def _retired(look: Look, revision: str) -> tuple[str, ...]:
    """Return the runners to let go: retired, drained and no longer ready; or never started, holding nothing."""
    going = look.excess.get(revision, frozenset())
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
