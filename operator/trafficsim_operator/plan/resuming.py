"""
Going on after a pause: with how many runners, and which of them are waited for.

    again     = max(size, ⌈users due ÷ u*⌉), u* as measured before the pause
    awaited   = again, until a runner that was asked for at its end could be ready (start-up + 15 s); then the size

600 users at u* = 200 whose size is 1 runner go on with 3, whatever there were before. If only one of them has come
after 8 s + 15 s, it gets all 600: users, tier and capacity say that it holds them, and runners that load asks for are
no reason to keep anybody from work. Nor is it given them before: all come back at once, and one runner that is late
with them, since the other two take a second longer, costs the run its verdict.

At the beginning of a run nothing is measured, so only the size counts.
"""

from __future__ import annotations

from trafficsim_api.phases import Phase
from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import Run, ScalingStatus, Status, VersionScaling
from trafficsim_api.units import milliseconds, parse_instant
from trafficsim_operator.plan.acceptance import Accepted
from trafficsim_operator.plan.autoscale import ahead_ms
from trafficsim_operator.plan.lifecycle import start_at
from trafficsim_operator.plan.need import runners_for_users
from trafficsim_operator.plan.sizing import most_here
from trafficsim_operator.plan.split import is_rolling
from trafficsim_operator.plan.utilisation import milliusers_per_runner

__all__ = ["again", "asked_for", "due", "within"]


def asked_for(status: Status, accepted: Accepted, now_ms: int, *, cores: int | None) -> int:
    """
    Return the runners of the stable version that a look waits for, or misses, by the *status* before it.

    *cores* are those of the machine where all runners share one.
    """
    if status.phase in (Phase.SUSPENDED, Phase.STARTING):
        return _awaited(status, accepted, now_ms, cores=cores)
    version = _stable(status, accepted)
    return within(accepted, version.revision, version.wanted) if version is not None else accepted.sizing.runners


def again(status: Status, accepted: Accepted, *, cores: int | None) -> int:
    """
    Return the runners of the stable version to go on with, by what *status* says of the time before the pause.

    In a rollout none is taken away: those that it had.
    """
    size, version, run = accepted.sizing, _stable(status, accepted), status.run
    if version is None or status.scaling is None or run is None or not run.origin:
        return size.runners
    needed = version.wanted
    if not is_rolling(status):
        target = accepted.spec.scaling.target_utilisation // 10
        milliusers = milliusers_per_runner(version, target=target, capacity=size.capacity)
        needed = runners_for_users(_users(accepted.spec, run, status.scaling, version), milliusers)
    here = most_here(size, cores)
    return within(accepted, version.revision, needed if here is None else min(needed, here))


def within(accepted: Accepted, revision: str, runners: int) -> int:
    """Return the *runners* that a version had, as an edit in a pause lets it have them."""
    sizing = accepted.sizings.get(revision, accepted.sizing)
    most = sizing.max_runners if sizing.max_runners is not None else runners
    return max(sizing.runners, min(runners, most)) if revision == accepted.revision.revision else runners


def due(spec: TrafficSimulationSpec, elapsed_ms: int, until_ms: int) -> tuple[int, int]:
    """Return the users wanted now, and the most that are due within *until_ms* and before the run ends."""
    profile = shape(spec.profile)
    end_ms = elapsed_ms + until_ms
    if spec.duration is not None:
        end_ms = max(elapsed_ms, min(end_ms, milliseconds(spec.duration)))
    return profile.users_at(spec.users, elapsed_ms), profile.peak(spec.users, elapsed_ms, end_ms)


def _awaited(status: Status, accepted: Accepted, now_ms: int, *, cores: int | None) -> int:
    """Return the runners that are waited for before the users go on."""
    run = status.run
    if run is None or status.scaling is None:
        return accepted.sizing.runners
    spent_ms = now_ms - parse_instant(run.phase_since) if status.phase is Phase.STARTING else 0
    is_late = spent_ms >= ahead_ms(status.scaling)
    return accepted.sizing.runners if is_late else again(status, accepted, cores=cores)


def _users(spec: TrafficSimulationSpec, run: Run, scaling: ScalingStatus, version: VersionScaling) -> int:
    """Return the users who come back: those due where the profile was left; in the open model those of before."""
    if spec.arrivals is not None:
        return min(spec.users, version.users)
    paused_ms = parse_instant(run.suspended_at) if run.suspended_at else start_at(run)
    now, ahead = due(spec, paused_ms - start_at(run), ahead_ms(scaling))
    return max(now, ahead) if spec.scaling.prediction else now


def _stable(status: Status, accepted: Accepted) -> VersionScaling | None:
    versions = status.scaling.versions if status.scaling is not None else ()
    return next((version for version in versions if version.revision == accepted.revision.revision), None)
