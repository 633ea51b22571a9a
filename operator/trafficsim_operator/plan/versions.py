"""
The runner versions of one look: which is stable, which is rolled out, and how many runners and users each is to have.

What is seen goes to the rollout's machine (plan/rollout.py); pointers, runners and users of every version follow from
where it stands then (plan/split.py), and are on record before anything is done by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from trafficsim_api.phases import Phase
from trafficsim_api.places import Places, position
from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import Revision, RolloutPlan, RolloutStatus, Run
from trafficsim_operator.observed import Desired, Observed, RevisionSeen, Runner
from trafficsim_operator.plan import split
from trafficsim_operator.plan.acceptance import Accepted
from trafficsim_operator.plan.analysis import LATE_MS, Analysis, Users, analyse, silence_ms
from trafficsim_operator.plan.assignments import held_by, retiring
from trafficsim_operator.plan.colours import colour_of, written_off
from trafficsim_operator.plan.data import gives_first
from trafficsim_operator.plan.lifecycle import Life, start_at
from trafficsim_operator.plan.pauses import COMMANDS
from trafficsim_operator.plan.rolling import Colour, Seen
from trafficsim_operator.plan.rollout import advance, is_judged
from trafficsim_operator.plan.scaling import Scaled
from trafficsim_operator.plan.silence import quiet_ms
from trafficsim_operator.plan.steps import pin

__all__ = ["Versions", "excess", "runners_of_run", "versions"]

# What the runners are told of the document: an edit of it makes windows from before incomparable.
_LOAD: Final = ("target", "users", "profile", "arrivals", "archetypes", "seed", "connections", "data")
_SETTLED_DOWN: Final = (RolloutPhase.STABLE, RolloutPhase.REJECTED, RolloutPhase.RETIRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """
    The versions after a look, and the *rollout* that led there (None: there has been none).

    *replicas* are the runners each is to have, by revision; *quota* the places each is to hold (None: stable has all),
    *chunk* and *hasty* how places move between them. *silent* are the runners whose word is not waited for.
    """

    stable: Revision
    candidate: Revision | None = None
    previous: Revision | None = None
    rollout: RolloutStatus | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    quota: Mapping[str, int] | None = None
    chunk: int | None = None
    hasty: bool = False
    silent: frozenset[str] = frozenset()

    @property
    def known(self) -> Mapping[str, Revision]:
        """Return stable, candidate and previous by revision."""
        found = (self.stable, self.candidate, self.previous)
        return {version.revision: version for version in found if version is not None}

    @property
    def in_progress(self) -> bool:
        """Say whether a new version is being rolled out or taken back."""
        return self.rollout is not None and self.rollout.phase in split.ATTEMPT

    def may_take(self, revision: str) -> bool:
        """Say whether runners of *revision* may get users: a version that is not proven, or rejected, gets none."""
        if self.quota is None or revision == self.stable.revision:
            return revision == self.stable.revision
        return self.quota.get(revision, 0) > 0

    def may_hold(self, revision: str) -> bool:
        """Say whether a runner of *revision* may have users, as far as anybody can tell who has not heard it yet."""
        if self.rollout is not None and self.rollout.phase in split.SPLIT | split.MOVING_BACK:
            return True  # also of the version that is to have none: they may still be there
        return self.may_take(revision)


def versions(
    desired: Desired,
    observed: Observed,
    accepted: Accepted,
    life: Life,
    total: int,
    action: str,
    now_ms: int,
    scaling: Scaled,
) -> Versions:
    """Take the rollout on by what was seen, *action* being a command that was accepted, and return what follows."""
    before, stable = desired.status, accepted.revision
    on = life.phase is Phase.RUNNING
    plain = Versions(stable=stable, replicas={stable.revision: accepted.sizing.runners})
    if before.rollout is None and (not on or accepted.wanted.revision == stable.revision):
        return plain
    rollout = before.rollout or RolloutStatus()
    seen = _seen(desired, observed, accepted, life, rollout, total, action, now_ms)
    after = advance(rollout, seen)
    if before.rollout is None and after == rollout:
        return plain
    found = split.pointers(
        rollout, after, stable=stable, candidate=before.candidate, previous=before.previous, wanted=accepted.wanted
    )
    return _split(observed, accepted, after, found, total, now_ms, life, scaling)


def excess(observed: Observed, run: int, found: Versions) -> Mapping[str, frozenset[str]]:
    """Return the names of the runners beyond what each revision is to have; all of one that nobody knows any more."""
    return {
        name: frozenset(retiring(seen.runners, run, found.replicas.get(name, 0)))
        for name, seen in observed.revisions.items()
        if name in found.known or _holds(seen.runners, run)
    }


def runners_of_run(observed: Observed, run: int, found: Versions) -> tuple[Runner, ...]:
    """Return the runners of the versions of *run*, and of any other revision that has not left it yet."""
    return tuple(
        runner
        for name, seen in observed.revisions.items()
        if name in found.known or _holds(seen.runners, run)
        for runner in seen.runners
    )


def _holds(runners: tuple[Runner, ...], run: int) -> bool:
    return any(held_by(runner, run) is not None for runner in runners)


def _seen(
    desired: Desired,
    observed: Observed,
    accepted: Accepted,
    life: Life,
    rollout: RolloutStatus,
    total: int,
    action: str,
    now_ms: int,
) -> Seen:
    """Return what a step of the rollout is decided by."""
    before, run, stable, wanted = desired.status, life.run, accepted.revision, accepted.wanted
    assert run is not None
    candidate, previous = before.candidate, before.previous
    blue, green, old = (
        colour_of(observed.revisions.get(version.revision) if version is not None else None, run.id)
        for version in (stable, candidate, previous)
    )
    sizing = accepted.sizings.get(candidate.revision if candidate is not None else "", accepted.sizing)
    run_ms = max(0, now_ms - start_at(run)) if run.origin else 0
    return Seen(
        now_ms=now_ms,
        run_ms=run_ms,
        total=total,
        on=life.phase is Phase.RUNNING,
        suspended=bool(run.origin) and life.phase in (Phase.SUSPENDED, Phase.STARTING),
        ended=not run.origin or life.phase in (Phase.DRAINING, Phase.COMPLETED, Phase.FAILED),
        stable=stable.revision,
        candidate=candidate.revision if candidate is not None else "",
        previous=previous.revision if previous is not None else "",
        wanted=wanted.revision,
        plan=_plan(accepted.spec, observed, rollout, wanted, stable),
        paused=accepted.spec.rollout.paused,
        command=action if action in COMMANDS else "",
        blue=blue,
        green=green,
        old=old,
        needed=split.needed(rollout, total, sizing.runners),
        analysis=_analysis(rollout, observed, accepted, candidate, blue, run, total, now_ms, run_ms),
        attended_ms=observed.evidence.attended_ms,
        disturbed=_is_disturbed(desired, observed, accepted.spec),
    )


def _plan(
    spec: TrafficSimulationSpec,
    observed: Observed,
    rollout: RolloutStatus,
    wanted: Revision,
    stable: Revision,
) -> RolloutPlan | None:
    """Return what an attempt that begins now would go by, with the users asked for; None where none can."""
    if wanted.revision == stable.revision:
        return None
    if rollout.phase not in (*_SETTLED_DOWN, *split.MOVING_BACK, RolloutPhase.PREPARING):
        return None
    seconds = observed.evidence.active_user_ms / 1000
    # Subtle: an edit may raise users together with the version; those dealt are behind until their runners are there.
    return pin(spec.rollout, spec.users, observed.evidence.requests / seconds if seconds else None)


def _analysis(
    rollout: RolloutStatus,
    observed: Observed,
    accepted: Accepted,
    candidate: Revision | None,
    blue: Colour,
    run: Run,
    total: int,
    now_ms: int,
    run_ms: int,
) -> Analysis | None:
    """Return what the present step's windows say; None while it is not to be judged."""
    if candidate is None or not is_judged(rollout):
        return None
    evidence = observed.evidence
    seconds = evidence.active_user_ms / 1000
    users = Users(
        blue=blue.active,
        requests_per_user_s=evidence.requests / seconds if seconds else 0.0,
        due=_due(observed.revisions.get(candidate.revision), run.id, accepted, total, _newest(rollout, run_ms)),
    )
    return analyse(
        rollout,
        green=evidence.colours.get(candidate.revision, ()),
        blue=evidence.colours.get(accepted.revision.revision, ()),
        users=users,
        now_ms=now_ms,
        run_ms=run_ms,
        listening_ms=evidence.listening_ms,
        quiet_ms=quiet_ms(accepted.load),
    )


def _newest(rollout: RolloutStatus, run_ms: int) -> Iterable[int]:
    """Return instants, in run time, of the newest windows: as long as a silence, by the second."""
    assert rollout.plan is not None
    return range(max(0, run_ms - LATE_MS - silence_ms(rollout.plan)), run_ms + 1, 1_000)


def _due(seen: RevisionSeen | None, run: int, accepted: Accepted, total: int, instants: Iterable[int]) -> int:
    """Return how many of the places that the version *seen* holds are on by the profile at each of *instants*."""
    acks = [ack for runner in (seen.runners if seen is not None else ()) if (ack := held_by(runner, run)) is not None]
    held = Places.union(ack.held for ack in acks).below(total)
    profile = shape(accepted.spec.profile)
    wanted = min((profile.users_at(total, at) for at in instants), default=total)
    return len(held) if wanted == total else sum(position(place, total) < wanted for place in held)


def _is_disturbed(desired: Desired, observed: Observed, spec: TrafficSimulationSpec) -> bool:
    """Say whether the load was edited since the last look; an edit that this operator did not see counts as one."""
    run, known = desired.status.run, observed.accepted
    if run is None or run.generation == desired.generation:
        return False
    return known is None or any(getattr(spec, name) != getattr(known, name) for name in _LOAD)


def _split(
    observed: Observed,
    accepted: Accepted,
    rollout: RolloutStatus,
    found: tuple[Revision | None, Revision | None, Revision | None],
    total: int,
    now_ms: int,
    life: Life,
    scaling: Scaled,
) -> Versions:
    """Return runners and users of each version where the *rollout* stands now."""
    stable, candidate, previous = found
    assert stable is not None and life.run is not None
    is_single = candidate is None and previous is None and observed.revisions.keys() <= {stable.revision}
    quota = split.quota(
        rollout,
        total,
        stable=stable.revision,
        candidate=candidate.revision if candidate is not None else "",
        previous=previous.revision if previous is not None else "",
    )
    return Versions(
        stable=stable,
        candidate=candidate,
        previous=previous,
        rollout=rollout,
        replicas=_scaled(
            _replicas(observed, accepted, rollout, (stable, candidate, previous), total, now_ms, life.run.id),
            observed,
            scaling,
        ),
        quota=None if is_single else quota,
        chunk=split.chunk(rollout, total),
        hasty=split.is_hasty(rollout),
        silent=_silent(observed, rollout, stable, exclusive=gives_first(accepted.load)),
    )


def _replicas(
    observed: Observed,
    accepted: Accepted,
    rollout: RolloutStatus,
    found: tuple[Revision, Revision | None, Revision | None],
    total: int,
    now_ms: int,
    run: int,
) -> Mapping[str, int]:
    """Return the runners that each version is to have, by revision."""
    stable, candidate, previous = found
    green, old = (
        colour_of(observed.revisions.get(version.revision) if version is not None else None, run)
        for version in (candidate, previous)
    )
    sizes = {name: sizing.runners for name, sizing in accepted.sizings.items()}
    most = accepted.sizing.runners
    replicas = split.replicas(
        rollout,
        total=total,
        now_ms=now_ms,
        blue_runners=sizes.get(stable.revision, most),
        green_runners=sizes.get(candidate.revision, most) if candidate is not None else 0,
        green=green,
        old=old,
    )
    if gives_first(accepted.load) and green.is_silent and green.held and split.is_hasty(rollout):
        # Its users may be at work with the rows that blue's would have: its runners go first, nobody waits for more.
        replicas = replace(replicas, green=0)
    counts = {stable.revision: _at_least(observed, stable, replicas.blue, keep=rollout.phase not in _SETTLED_DOWN)}
    for version, count in ((candidate, replicas.green), (previous, replicas.previous)):
        if version is not None:
            counts[version.revision] = _at_least(observed, version, count, keep=count != 0)
    return counts


def _scaled(replicas: Mapping[str, int], observed: Observed, scaling: Scaled) -> Mapping[str, int]:
    """Return *replicas* with what versions that are to have runners need by their load, or are given by others."""

    def count(name: str, least: int) -> int:
        if not least:
            return 0
        return observed.revisions[name].replicas if name in scaling.given else max(least, scaling.runners.get(name, 0))

    return {name: count(name, least) for name, least in replicas.items()}


def _at_least(observed: Observed, version: Revision, count: int | None, *, keep: bool) -> int:
    """Return the runners *version* is to have: *count* (None: those there are), to *keep* no fewer than there are."""
    seen = observed.revisions.get(version.revision)
    there = seen.replicas if seen is not None else 0
    return max(count or 0, there) if keep else count or 0


def _silent(observed: Observed, rollout: RolloutStatus, stable: Revision, *, exclusive: bool) -> frozenset[str]:
    """Return the silent runners of other versions than *stable*, unless users, or *exclusive* rows, stay with them."""
    if rollout.phase in split.SPLIT or (exclusive and split.is_hasty(rollout)):
        return frozenset()
    others = (seen.runners for name, seen in observed.revisions.items() if name != stable.revision)
    return frozenset().union(*(written_off(runners) for runners in others))
