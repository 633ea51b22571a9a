"""
Scaling in a look: what the rules of plan/autoscale.py are asked, and what their answer means for the runners.

Nothing is scaled but while the simulation is Running. What was decided stands in `status.scaling`, and is kept over a
suspension, whose end has a rule of its own (plan/resuming.py); a new run begins without it.

Another autoscaler in the way: somebody writes the replicas of a Deployment of ours, or `users`, through the subresource
`scale`. Nobody tells when it did, or when it is gone, so it counts for ten minutes from when its value was seen first.
Until then that version keeps the runners it is given, and nothing is scaled where it sets users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from trafficsim_api.names import hash8
from trafficsim_api.phases import Phase
from trafficsim_api.scaling import ScalingReason
from trafficsim_api.status import ForeignScaling, Revision, RolloutStatus, ScalingStatus, VersionScaling
from trafficsim_api.units import format_instant, milliseconds, parse_instant
from trafficsim_operator.observed import Desired, Observed, RunnerLoad, RunnerState
from trafficsim_operator.plan import split
from trafficsim_operator.plan.acceptance import Accepted
from trafficsim_operator.plan.assignments import held_by
from trafficsim_operator.plan.autoscale import ScalingSeen, VersionSeen, ahead_ms, scale
from trafficsim_operator.plan.colours import colour_of
from trafficsim_operator.plan.lifecycle import Life, start_at
from trafficsim_operator.plan.resuming import again, due, within
from trafficsim_operator.plan.sizing import most_here
from trafficsim_operator.plan.split import is_rolling

__all__ = ["QUIET_MS", "Scaled", "promised", "scaled"]

QUIET_MS: Final = 600_000
"""After so long without another value another autoscaler counts as gone."""
_FOREIGN: Final = 4
_ON: Final = (Phase.SUSPENDED, Phase.STARTING, Phase.DRAINING)
# What a user does, and to whom: with another one runners carry another number of users.
_LOAD: Final = ("target", "archetypes", "connections", "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What scaling comes to: its *status*, and the *runners* of each version where it has a say."""

    status: ScalingStatus | None = None
    runners: Mapping[str, int]
    needed: Mapping[str, int]
    """Runners that a raise of users waits for, by revision."""
    conflict: str = ""
    """Who else scales, in the user's words."""
    given: frozenset[str] = frozenset()
    """The revisions whose runners somebody else sets."""

    def version(self, revision: str) -> VersionScaling | None:
        """Return what is known of the version *revision*."""
        versions = self.status.versions if self.status is not None else ()
        return next((version for version in versions if version.revision == revision), None)

    def of(self, accepted: Accepted) -> Accepted:
        """Return *accepted* with the runners that the stable version is to have; its processes stay as they are."""
        revision, sizing = accepted.revision.revision, accepted.sizing
        count, version = self.runners.get(revision), self.version(revision)
        if count is None or count == sizing.runners:
            return accepted
        told = self.conflict if revision in self.given or version is None else version.message
        users = -(-sizing.users // count) if count else 0
        sizing = replace(sizing, runners=count, users_per_runner=users, scaled=told)
        return replace(accepted, sizing=sizing, sizings={**accepted.sizings, revision: sizing})


def scaled(
    desired: Desired, observed: Observed, accepted: Accepted, life: Life, now_ms: int, *, is_told: bool
) -> Scaled:  # fmt: skip
    """
    Return the runners that the versions are to have, as far as that follows from what they measure.

    A sample that changes no runner waits until figures are told (*is_told*): one write does for both.
    """
    status, run = desired.status, life.run
    before = status.scaling if status.run is not None and run is not None and status.run.id == run.id else None
    foreign = _foreign(before, desired, observed, now_ms)
    writing = [found for found in foreign if now_ms - parse_instant(found.at) < QUIET_MS]
    conflict = _said(writing)
    if run is None or not run.origin or (life.phase is not Phase.RUNNING and life.phase not in _ON):
        return Scaled(runners={}, needed={}, conflict=conflict)
    given = frozenset(found.revision for found in writing if found.revision)
    if life.phase is Phase.RUNNING:
        is_users = any(not found.revision for found in writing)
        seen = _seen(desired, observed, accepted, life, before, given, now_ms, is_users=is_users)
        after = scale(_resized(before, seen), seen, now_ms).model_copy(update={"foreign": foreign})
        before = after if is_told or before is None or _stand(before) != _stand(after) else before
    versions = before.versions if before is not None else ()
    runners = {version.revision: version.wanted for version in versions}
    if life.phase is not Phase.RUNNING:
        runners = {name: within(accepted, name, count) for name, count in runners.items()}
    if life.phase is Phase.STARTING:
        runners[accepted.revision.revision] = again(desired.status, accepted, cores=observed.cores)
    runners |= {name: observed.revisions[name].replicas for name in given}
    needed = {v.revision: v.wanted if v.reason is ScalingReason.CONFLICT else v.needed for v in versions}
    needed |= {name: observed.revisions[name].replicas for name in given}
    return Scaled(status=before, runners=runners, needed=needed, conflict=conflict, given=given)


def _stand(scaling: ScalingStatus) -> tuple[object, ...]:
    """Return what is worth a write of its own."""
    runners = [(v.revision, v.wanted, v.needed, v.static) for v in scaling.versions]
    return scaling.users, scaling.load, scaling.start_ups_ms, scaling.forecast.off, scaling.foreign, *runners


def _resized(before: ScalingStatus | None, seen: ScalingSeen) -> ScalingStatus | None:
    """
    Return *before* with the size that an edit left: runners that users and tier alone asked for go with them at once.

    Of 3 that were the size of 2001 users, 300 users leave 1; of 3 that load asked for, those of a size of 1, all stay.
    """
    if before is None or seen.in_rollout:
        return before
    static = {version.revision: version.static for version in seen.versions}
    return before.model_copy(update={"versions": tuple(_with_size(v, static) for v in before.versions)})


def _with_size(version: VersionScaling, static: Mapping[str, int]) -> VersionScaling:
    size = static.get(version.revision, version.static)
    if size >= version.static or version.wanted > version.static:
        return version
    recommended = tuple(min(size, count) for count in version.recommended)
    return version.model_copy(update={"wanted": size, "static": size, "recommended": recommended})


def _foreign(
    before: ScalingStatus | None, desired: Desired, observed: Observed, now_ms: int
) -> tuple[ForeignScaling, ...]:
    """Return what other autoscalers have set, each since when: from now on where it is another value than before."""
    set_by = [(seen.scaler, name, seen.replicas) for name, seen in sorted(observed.revisions.items()) if seen.scaler]
    if desired.scaler and desired.spec is not None:
        set_by.append((desired.scaler, "", desired.spec.users))
    known = {(f.manager, f.revision, f.value): f for f in (before.foreign if before is not None else ())}
    now = format_instant(now_ms)
    return tuple(
        known.get(found) or ForeignScaling(manager=found[0], revision=found[1], value=found[2], at=now)
        for found in set_by[:_FOREIGN]
    )


def _said(writing: Sequence[ForeignScaling]) -> str:
    """Return who else scales and what, in the user's words, "" when nobody does."""
    if not writing:
        return ""
    told = (
        f"{found.manager} sets "
        + (f"the replicas of the runners of version {found.revision}" if found.revision else "users")
        for found in writing
    )
    then = f"nothing is scaled until {QUIET_MS // 60_000} minutes after it set another value last"
    return f"{'; '.join(told)} through the subresource scale, as a HorizontalPodAutoscaler does: {then}"


def _seen(
    desired: Desired,
    observed: Observed,
    accepted: Accepted,
    life: Life,
    before: ScalingStatus | None,
    given: frozenset[str],
    now_ms: int,
    *,
    is_users: bool,
) -> ScalingSeen:
    """Return what the rules are asked about."""
    spec, size, run = accepted.spec, accepted.sizing, life.run
    assert run is not None
    rollout = desired.status.rollout or RolloutStatus()
    candidate = desired.status.candidate if is_rolling(desired.status) else None
    begun = desired.status.run is not None and desired.status.run.origin is not None
    is_resumed = begun and desired.status.phase in (Phase.STARTING, Phase.SUSPENDED)
    # An edit before the pause may have left some that were still to go.
    asked = again(desired.status, accepted, cores=observed.cores) if is_resumed else None if begun else size.runners
    versions = [
        _stable(observed, accepted, given, before if is_users else None, run.id, conflict=is_users, asked=asked)
    ]
    reserved = 0
    if candidate is not None and candidate.revision in accepted.sizings:
        green = _candidate(observed, accepted, rollout, candidate, run.id, given, now_ms, conflict=is_users)
        versions.append(green)
        reserved = promised(green, before, accepted.sizings[candidate.revision].runners)
    names = {version.revision for version in versions}
    others = sum(seen.replicas for name, seen in observed.revisions.items() if name not in names)
    limits = (spec.scaling.max_runners, most_here(size, observed.cores))
    loads = {load.runner: load for load in observed.evidence.loads if load.revision in names}
    at_work = [
        runner.name
        for runner in observed.runners
        if runner.revision in names
        and runner.state is not RunnerState.LEAVING
        and (ack := held_by(runner, run.id)) is not None
        and ack.held
        and not ack.retire
    ]
    told = tuple(loads[name] for name in at_work if name in loads)
    missing = tuple(name for name in at_work if name not in loads)
    ahead: int | None
    if spec.arrivals is None:
        demand, ahead = due(spec, now_ms - start_at(run), ahead_ms(before))
    else:
        demand, ahead = _at_work(observed, run.id, () if missing else told), None
    return ScalingSeen(
        versions=tuple(versions),
        loads=told,
        missing=missing,
        total=spec.users,
        demand=demand,
        known_ahead=ahead,
        load=hash8(*(spec.model_dump(mode="json", include={name})[name] for name in _LOAD)),
        min_runners=spec.scaling.min_runners,
        max_runners=min((most for most in limits if most is not None), default=None),
        most_runners=observed.policy.max_runners,
        others=others + reserved,
        in_rollout=is_rolling(desired.status),
        is_resumed=is_resumed,
        start_ups_ms=observed.evidence.starts_ms,
        target=spec.scaling.target_utilisation // 10,
        prediction=spec.scaling.prediction,
        look_ahead_ms=milliseconds(spec.scaling.look_ahead),
    )


def _stable(
    observed: Observed,
    accepted: Accepted,
    given: frozenset[str],
    frozen: ScalingStatus | None,
    run: int,
    *,
    conflict: bool,
    asked: int | None,
) -> VersionSeen:
    """
    Return the stable version; with users that somebody else sets it has its size, or what it had by its load.

    *asked* are those to begin or to go on with, None in between: of those that are there an edit of users may have left
    some that are still to go, and no load asked for them.
    """
    revision, sizing = accepted.revision.revision, accepted.sizing
    seen = observed.revisions.get(revision)
    existing = seen.replicas if seen is not None else 0
    if conflict and revision not in given:
        versions = frozen.versions if frozen is not None else ()
        kept = (v.wanted for v in versions if v.revision == revision and v.wanted > v.static)
        existing = max(sizing.runners, next(kept, 0))
    elif asked is not None and revision not in given:
        existing = asked
    return VersionSeen(
        revision=revision,
        static=sizing.runners,
        capacity=sizing.capacity,
        existing=existing,
        places=sizing.users,
        active=colour_of(seen, run).active,
        conflict=conflict or revision in given,
    )


def _candidate(
    observed: Observed,
    accepted: Accepted,
    rollout: RolloutStatus,
    candidate: Revision,
    run: int,
    given: frozenset[str],
    now_ms: int,
    *,
    conflict: bool,
) -> VersionSeen:
    """Return the version that is rolled out, or taken back: runners and places as its present step and the next ask."""
    revision, sizing = candidate.revision, accepted.sizings[candidate.revision]
    seen = observed.revisions.get(revision)
    green = colour_of(seen, run)
    existing = seen.replicas if seen is not None else 0
    replicas = split.replicas(
        rollout,
        total=sizing.users,
        now_ms=now_ms,
        blue_runners=accepted.sizing.runners,
        green_runners=sizing.runners,
        green=green,
        old=colour_of(None, run),
    )
    ahead = split.users_ahead(rollout, sizing.users) if rollout.phase in split.SPLIT else 0
    return VersionSeen(
        revision=revision,
        static=existing if replicas.green is None else replicas.green,
        capacity=sizing.capacity,
        existing=existing,
        places=min(sizing.users, max(green.held, ahead)),
        active=green.active,
        conflict=conflict or revision in given,
    )


def promised(version: VersionSeen, before: ScalingStatus | None, size: int) -> int:
    """
    Return how many more runners than it counts with now the steps to come need of a *version* of so large a *size*.

    Of a size of 5 with 3 runners 2; when its load asked for 7 by now, none.
    """
    versions = before.versions if before is not None else ()
    asked = next((v.wanted for v in versions if v.revision == version.revision), version.existing)
    return max(0, size - max(version.static, asked))


def _at_work(observed: Observed, run: int, loads: tuple[RunnerLoad, ...]) -> int:
    """
    Return the users at work in the open model; nobody knows them ahead: it depends on how long an iteration takes.

    By all *loads* on the average of 15 s, since they come and go; where those are not known, by the newest answers.
    """
    if loads:
        return round(sum(load.users for load in loads))
    acks = (held_by(runner, run) for runner in observed.runners)
    return sum(ack.active for ack in acks if ack is not None)
