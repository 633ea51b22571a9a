"""
Scaling by what runners measure: how many runners each version is to have now.

    users_per_runner    u*: what its runners carry at the target utilisation, measured (plan/utilisation.py)
    users               its share of the users wanted now, or of those due before another runner could be ready
    needed              ⌈users ÷ u*⌉, within a tenth of what there is: what there is; never below the static size
    wanted              `needed`, reached in steps (plan/pace.py): up at once, down after 300 s; within min … max

600 users at u* = 200 take 3 runners. On 1 there, 3 are wanted at once; on 10 there, 300 s without need for more, then
one fewer a minute.

A sample is taken every 15 s. Between samples runners only ever become more: by an edit, by the static size, by users
who are due. Everything the next decision builds on stands in `status.scaling`; the same look twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_high
from typing import Final

from trafficsim_api.scaling import ScalingReason
from trafficsim_api.status import DemandStatus, ForecastStatus, ScaleEvent, ScalingStatus, VersionScaling
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.observed import RunnerLoad
from trafficsim_operator.plan.forecast import is_proven, is_releasable, observed_demand, raised
from trafficsim_operator.plan.need import need, runners_for_users
from trafficsim_operator.plan.pace import down, noted, remembered, seeded, up
from trafficsim_operator.plan.scaling_reasons import Case, why
from trafficsim_operator.plan.utilisation import full_milliusers, milliusers_per_runner, sampled

__all__ = ["SAMPLE_MS", "ScalingSeen", "VersionSeen", "ahead_ms", "scale"]

SAMPLE_MS: Final = 15_000
_START_UP_MS: Final = 30_000
_MOST_START_UP_MS: Final = 120_000
_STARTS: Final = 5
_BLIND_MS: Final = 180_000
_SURE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSeen:
    """
    One version as scaling sees it.

    *static* are the fewest runners it is to have now (of the static sizing, in a rollout those of its share; minRunners
    is in it), *capacity* the most users of one of its runners, *existing* the runners asked for now. *places* of the T
    places are what it must be able to carry: the most of what its runners hold and what this and the next step give it;
    for the stable version all, also in a rollout. *active* are the users that its runners say are at work now.
    *conflict*: somebody else scales it.
    """

    revision: str
    static: int
    capacity: int
    existing: int
    places: int
    active: int = 0
    conflict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSeen:
    """
    What one decision is made by. Only versions that have, or get, users are listed, the stable one first.

    *missing* names the runners that hold users and whose load is not known. *total* is the T asked for. *demand* are
    the users wanted now: u(t); in the open model, where nobody knows how long an iteration takes, those at work.
    *known_ahead* is the most that *demand* comes to in [now, now + ahead_ms], None where no profile tells it.
    *load* is a hash over what a user does (an edit of it makes measured runners begin anew).
    *max_runners* holds for a version, *most_runners* (the policy's) for all together, *others* being those of versions
    that are not listed. *start_ups_ms* are those measured at this look, *target* is in permille.
    """

    versions: tuple[VersionSeen, ...]
    loads: tuple[RunnerLoad, ...] = ()
    missing: tuple[str, ...] = ()
    total: int
    demand: int
    known_ahead: int | None = None
    load: str = ""
    min_runners: int = 1
    max_runners: int | None = None
    most_runners: int | None = None
    others: int = 0
    in_rollout: bool = False
    is_resumed: bool = False
    """The run goes on after a pause: runners were let go, and asked for anew."""
    start_ups_ms: tuple[int, ...] = ()
    target: int = 700
    prediction: bool = True
    look_ahead_ms: int = 60_000


def ahead_ms(before: ScalingStatus | None) -> int:
    """
    Return how far ahead the users that are due count: until a runner asked for at the next sample is ready.

        start-up time + 15 s; 30 s are taken for a start-up time that is not known

    Runners that take 8 s: 23 s.
    """
    return (before.start_up_ms if before is not None and before.start_up_ms else _START_UP_MS) + SAMPLE_MS


def scale(before: ScalingStatus | None, seen: ScalingSeen, now_ms: int) -> ScalingStatus:
    """
    Return the runners that each version is to have, and everything that the next decision builds on.

    *before* is `status.scaling`, None at the first look of a run that is on. The runners of a version are `wanted`, the
    final count, its share of a rollout included; a raise of users waits for `needed` ones, which no rate holds back.
    """
    was = before or ScalingStatus()
    if not seen.versions:
        return was
    if _is_off(seen):
        return _off(seen)
    look = _look(was, seen, now_ms)
    status = _started(was, seen.start_ups_ms)
    if look.is_fresh:
        status = _demanded(status, seen, look)
    for version in seen.versions:
        status = _with(status, was, version, seen, look)
    listed = {version.revision for version in seen.versions}
    return _told(was, status.model_copy(update={"versions": tuple(v for v in status.versions if v.revision in listed)}))


def _started(was: ScalingStatus, measured_ms: Iterable[int]) -> ScalingStatus:
    """
    Return *was* with the start-up time after what was *measured*: the median of the newest five, at most 2 min.

    One that waited for its image, or on a node in trouble, doesn't move the median; if all did, it is not what the next
    will take either, and runners would stand idle for as long before their users come. Of 8, 8 and 600 s 8 s count, of
    600 s alone 2 min.
    """
    newest = (*was.start_ups_ms, *(start for start in measured_ms if start))[-_STARTS:]
    if newest == was.start_ups_ms:
        return was
    return was.model_copy(update={"start_ups_ms": newest, "start_up_ms": min(median_high(newest), _MOST_START_UP_MS)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """
    What this look is: *missed* samples before the one that is due (None: none is due), or the first after a *gap*.

    *is_edit*: other users are asked for than at the look before; *is_new_load*: they do something else; *is_turn*:
    another version is the stable one. *since*: since when nobody has told any load.
    """

    now_ms: int
    at_ms: int
    missed: int | None
    is_gap: bool
    is_edit: bool
    is_new_load: bool
    is_turn: bool
    since: str | None

    @property
    def is_due(self) -> bool:
        """Say whether a sample is due."""
        return self.missed is not None

    @property
    def is_fresh(self) -> bool:
        """Say whether there is anything to note, whatever comes of it."""
        return self.is_due or self.is_edit or self.is_new_load or self.is_turn

    @property
    def is_blind(self) -> bool:
        """Say whether nobody has told any load for so long that what was measured is no guide."""
        return self.since is not None and self.now_ms - parse_instant(self.since) >= _BLIND_MS


def _look(was: ScalingStatus, seen: ScalingSeen, now_ms: int) -> _Look:
    at_ms = parse_instant(was.at) if was.at is not None else None
    elapsed = now_ms - at_ms if at_ms is not None else -1
    is_gap = elapsed < 0 or 2 * elapsed > 5 * SAMPLE_MS
    slots = elapsed // SAMPLE_MS
    is_silent = bool(seen.missing) and not seen.loads
    return _Look(
        now_ms=now_ms,
        at_ms=now_ms if is_gap or at_ms is None else at_ms + slots * SAMPLE_MS,
        missed=0 if is_gap else slots - 1 if slots else None,
        is_gap=is_gap,
        is_edit=at_ms is not None and seen.total != was.users,
        is_new_load=at_ms is not None and seen.load != was.load,
        is_turn=bool(was.versions) and was.versions[0].revision != seen.versions[0].revision,
        since=(was.no_numbers_since or format_instant(now_ms)) if is_silent else None,
    )


def _demanded(status: ScalingStatus, seen: ScalingSeen, look: _Look) -> ScalingStatus:
    """Return *status* with what this look adds to the demand and its forecast."""
    demand, forecast = DemandStatus(), ForecastStatus()
    if seen.prediction and seen.known_ahead is not None:
        forecast = ForecastStatus(at=format_instant(look.at_ms + ahead_ms(status)), users=seen.known_ahead)
    elif seen.prediction:
        demand, forecast = observed_demand(
            status.demand,
            status.forecast,
            users=seen.demand,
            at_ms=look.at_ms,
            look_ahead_ms=seen.look_ahead_ms,
            is_edit=look.is_edit,
        )
    return status.model_copy(
        update={
            "at": format_instant(look.at_ms),
            "users": seen.total,
            "load": seen.load,
            "no_numbers_since": look.since,
            "demand": demand,
            "forecast": forecast,
        }
    )


def _with(
    status: ScalingStatus, was: ScalingStatus, version: VersionSeen, seen: ScalingSeen, look: _Look
) -> ScalingStatus:
    """Return *status* with the runners that *version* is to have, those before it being decided."""
    known = next((v for v in was.versions if v.revision == version.revision), None)
    most = _most(status, version, seen)
    old = _begun(was, version, known, seen, look, most)
    case = _case(status, version, old, seen, look, most)
    is_noisy = seen.known_ahead is None
    wanted, recommended = _paced(old, version, case, status.events, look, is_noisy=is_noisy)
    if known is not None and wanted == known.wanted and not look.is_fresh:
        return status
    reason, message = why(case, wanted)
    found = old.model_copy(
        update={
            "wanted": wanted,
            "needed": case.needed,
            "static": version.static,
            "users": max(case.users, case.ahead),
            "users_per_runner": case.milliusers // 1000,
            "recommended": recommended,
            "reason": reason,
            "message": message,
        }
    )
    others = tuple(v for v in status.versions if v.revision != version.revision)
    place = seen.versions.index(version)
    return status.model_copy(
        update={
            "versions": (*others[:place], found, *others[place:]),
            "events": noted(status.events, version.revision, wanted - old.wanted, look.now_ms),
        }
    )


def _most(status: ScalingStatus, version: VersionSeen, seen: ScalingSeen) -> int | None:
    """
    Return the most runners that *version* may have, None: any number.

        min(maxRunners, max(static, the policy's - those of all other versions))

    Those of the version that follows count as what it has or needs at least, so that the stable one does not take what
    a rollout was promised. The static size was judged when it was accepted: runners that stand beside for a while, or
    a policy that allows less by now, take none of it away.
    """
    limits = [] if seen.max_runners is None else [seen.max_runners]
    if seen.most_runners is not None:
        wanted = {v.revision: v.wanted for v in status.versions}
        beside = sum(max(v.static, wanted.get(v.revision, v.existing)) for v in seen.versions if v is not version)
        limits.append(max(1, version.static, seen.most_runners - seen.others - beside))
    return min(limits, default=None)


def _begun(
    was: ScalingStatus,
    version: VersionSeen,
    known: VersionScaling | None,
    seen: ScalingSeen,
    look: _Look,
    most: int | None,
) -> VersionScaling:
    """
    Return *version* with this look's sample, before anything is decided.

    Where there is no history (first sight, a gap in the looks) what there is was always needed; after the promotion
    what either version had, so that the new one is not taken runners away that the users needed a moment ago. After a
    pause there are those that it ended with, not those of before.
    """
    there = max(version.existing, version.static)
    there = there if most is None else min(there, most)
    if known is None:
        known = VersionScaling(revision=version.revision, wanted=there, recommended=seeded(there))
    elif seen.is_resumed and known.wanted != there:
        known = known.model_copy(update={"wanted": there, "recommended": seeded(there)})
    elif look.is_turn and seen.versions[0] is version:
        known = known.model_copy(update={"recommended": seeded(max(was.versions[0].wanted, known.wanted))})
    elif look.is_gap:
        known = known.model_copy(update={"recommended": seeded(known.wanted)})
    if look.is_new_load:
        known = known.model_copy(update={"samples": 0, "ceiling": 0, "strained": 0})
    if not look.is_due:
        return known
    # Subtle: not those that are due: users that a busy runner holds back would keep it from being measured, and more of
    # them asked for could leave fewer runners.
    return sampled(known, seen.loads, target=seen.target, active=0 if seen.missing else version.active)


def _case(
    status: ScalingStatus,
    version: VersionSeen,
    old: VersionScaling,
    seen: ScalingSeen,
    look: _Look,
    most: int | None,
) -> Case:
    """Return what the runners of *version* are decided by."""
    milliusers = milliusers_per_runner(old, target=seen.target, capacity=version.capacity)
    users, ahead, releasable = _share(seen.demand, version, seen), 0, 0
    source, span_ms = ScalingReason.PROFILE, ahead_ms(status)
    if seen.prediction and seen.known_ahead is not None:
        ahead = _share(seen.known_ahead, version, seen)
    elif seen.prediction and is_proven(status.forecast):
        source, span_ms = ScalingReason.FORECAST, seen.look_ahead_ms
        forecast, full = _share(status.forecast.users, version, seen), full_milliusers(old)
        ahead = raised(forecast, now=users, most=version.places, runners=old.wanted, full_milliusers=full)
        if is_releasable(forecast, runners=old.wanted, full_milliusers=full):
            releasable = max(0, old.wanted - max(version.static, runners_for_users(forecast, milliusers)))
    held = ScalingReason.ROLLOUT if seen.in_rollout else None
    held = ScalingReason.METRICS_MISSING if seen.missing else held
    return Case(
        users=users,
        ahead=ahead,
        ahead_ms=span_ms,
        source=source,
        milliusers=milliusers,
        need=need(users, ahead, milliusers=milliusers, there=old.wanted, static=version.static),
        there=old.wanted,
        most=most,
        held=ScalingReason.CONFLICT if version.conflict else held,
        missing=seen.missing,
        is_blind=look.is_blind,
        releasable=releasable,
    )


def _share(users: int, version: VersionSeen, seen: ScalingSeen) -> int:
    """Return how many of *users* at work *version* is to carry by its places: ⌈users · places ÷ T⌉."""
    return -(-users * version.places // seen.total) if seen.total else 0


def _paced(
    old: VersionScaling,
    version: VersionSeen,
    case: Case,
    events: tuple[ScaleEvent, ...],
    look: _Look,
    *,
    is_noisy: bool,
) -> tuple[int, tuple[int, ...]]:
    """
    Return the runners that *version* is to have, and the history with what was needed now.

    Users who are due by the profile are a number, not a measurement: once u* is one of three samples no rate holds
    their runners back. Where no profile tells them (*is_noisy*) they are counted at samples alone.
    """
    if case.held is ScalingReason.CONFLICT:
        return version.existing, seeded(version.existing)
    own = tuple(event for event in events if event.revision == version.revision)
    wanted, needed = old.wanted, case.needed
    if needed > wanted and (look.is_fresh or not is_noisy):
        wanted = up(wanted, needed, own, look.now_ms)
        if case.source is ScalingReason.PROFILE and old.samples >= _SURE:
            wanted = max(wanted, min(needed, case.need.ahead))
    recommended = old.recommended
    if look.missed is not None and not look.is_gap:
        counted = needed if case.held is None else max(needed, old.wanted)
        recommended = remembered(recommended, counted, missed=look.missed)
        if needed < wanted and case.held is None:
            wanted = down(wanted, recommended, own, look.now_ms)
    elif needed > max(recommended[-1:], default=0):
        recommended = (*recommended[:-1], needed)
    wanted = max(wanted, version.static)
    return wanted if case.most is None else min(wanted, case.most), recommended


def _is_off(seen: ScalingSeen) -> bool:
    limits = [limit for limit in (seen.max_runners, seen.most_runners) if limit is not None]
    return bool(limits) and min(limits) <= seen.min_runners


def _off(seen: ScalingSeen) -> ScalingStatus:
    """Return what is left where minRunners and maxRunners leave no choice: the static size, nothing measured."""
    versions = tuple(
        VersionScaling(
            revision=version.revision,
            wanted=version.static,
            needed=version.static,
            static=version.static,
            reason=ScalingReason.OFF,
            message=f"minRunners and the most that is allowed are {seen.min_runners}: nothing is scaled",
        )
        for version in seen.versions
    )
    return _told(ScalingStatus(), ScalingStatus(versions=versions))


def _told(was: ScalingStatus, status: ScalingStatus) -> ScalingStatus:
    """Return *status* with the reason of the version whose runners change, else of the stable one."""
    if status.versions == was.versions or not status.versions:
        return status
    before = {v.revision: v.wanted for v in was.versions}
    changed = [v for v in status.versions if before.get(v.revision, v.wanted) != v.wanted]
    said = (*changed, *status.versions)[0]
    return status.model_copy(update={"reason": said.reason, "message": said.message})
