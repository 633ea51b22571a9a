"""
The life of a run: which phase comes next, one step at a time, by guards over what was seen.

`live` steps until nothing changes; phases.TRANSITIONS says which steps exist, an illegal one raises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from trafficsim_api.names import Reason
from trafficsim_api.phases import TRANSITIONS, Phase
from trafficsim_api.status import Barrier, Run
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.plan.barrier import Start, measured, moved_on
from trafficsim_operator.plan.once import Chore, advanced, broken_off, ordered, teardown_is_due, undone

__all__ = ["DAY_MS", "DEADLINE_MS", "NEVER_MS", "Life", "Seen", "live", "next_run", "start_at"]

DAY_MS: Final = 24 * 3_600_000
# The year 2100: before a run has its origin, its profile has not begun and its end is not near.
NEVER_MS: Final = 4_102_444_800_000
_RENEW_MS: Final = 3_600_000
# From "all runners are ready" to instant 0 of the profile: time enough for every runner to have heard of it.
_LEAD_MS: Final = 500
DEADLINE_MS: Final = {Phase.PENDING: 300_000, Phase.PREFLIGHT: 300_000, Phase.STARTING: 300_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a step is decided by: plain facts of this look."""

    now_ms: int
    generation: int
    request: str | None
    suspend: bool
    duration_ms: int | None
    runners_wanted: int
    runners_ready: int
    runners_up: int
    """Those ready whose workers are up: they have done what they were told last."""
    target: str
    """What a runner says of the target: "" nothing yet, "reachable", or what was wrong."""
    waiting: str
    cause: str
    """Why runners don't start, as the pods say."""
    stop: str
    drained: bool
    drain_ms: int
    """How long a drain may take."""
    highest_run: int
    """The highest run that any runner knows of: after a lost status runs are numbered from there."""
    restart: bool
    """A command or a new runRequest asks for the next run."""
    setup: Chore | None = None
    teardown: Chore | None = None
    missing: str = ""
    """What of its data is not there."""
    lead_ms: int = 0
    """How far ahead the start is set that all runners begin by at once; 0: they begin as they hear of it."""
    untold: tuple[str, ...] = ()
    """The runners that have not acknowledged their places."""
    starts: tuple[Start, ...] = ()
    """When the first users of runners began."""
    attended_ms: int | None = None
    """For how long somebody has looked on in this phase; None: all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """Where a simulation stands: phase, its run, and why."""

    phase: Phase
    run: Run | None
    reason: str
    message: str = ""


def live(life: Life, seen: Seen) -> Life:
    """Return where *life* stands after everything that can happen at this look has happened."""
    life = _with_tasks(life, seen)
    for _ in range(len(Phase)):
        following = _step(life, seen)
        if following.phase is life.phase:
            return following
        if following.phase not in TRANSITIONS[life.phase]:
            raise AssertionError(f"there is no way from {life.phase} to {following.phase}")
        if following.run is not None:
            following = replace(
                following, run=following.run.model_copy(update={"phase_since": format_instant(seen.now_ms)})
            )
        life = following
    return life


def next_run(before: Run | None, seen: Seen) -> Run:
    """Return the run that follows *before*; runs are numbered from 1."""
    return Run(
        id=max(before.id if before else 0, seen.highest_run) + 1,
        phase_since=format_instant(seen.now_ms),
        generation=seen.generation,
        request=seen.request,
    )


def start_at(run: Run) -> int:
    """Return instant 0 of the run's profile in wall-clock ms; 0 while it has not begun."""
    return parse_instant(run.origin) if run.origin else 0


def _step(life: Life, seen: Seen) -> Life:
    run = life.run
    if run is None:
        raise AssertionError("a run is needed")
    match life.phase:
        case Phase.COMPLETED | Phase.FAILED if seen.restart:
            return Life(phase=Phase.PENDING, run=next_run(run, seen), reason=Reason.PENDING)
        case Phase.COMPLETED | Phase.FAILED:
            return life
        case Phase.DRAINING:
            return _draining(life, run, seen)
        case _ if seen.stop:
            setup = broken_off(run.setup, seen.stop, seen.now_ms)
            return Life(
                phase=Phase.DRAINING,
                run=run.model_copy(update={"stop": seen.stop, "setup": setup}),
                reason=Reason.DRAINING,
                message=seen.stop,
            )
        case _ if run.setup is not None and run.setup.state == "Failed" and run.origin is None:
            failed = f"setup failed: {run.setup.message}"
            return Life(phase=Phase.FAILED, run=run, reason=Reason.SETUP_FAILED, message=failed)
        case Phase.SUSPENDED:
            return _suspended(life, run, seen)
        case _ if seen.suspend:
            # Suspended again before it went on: the first pause is not over.
            at = (run.suspended_at or format_instant(seen.now_ms)) if run.origin else None
            return Life(phase=Phase.SUSPENDED, run=run.model_copy(update={"suspended_at": at}), reason=Reason.SUSPENDED)
        case Phase.RUNNING:
            return _running(life, run, seen)
        case _:
            return _starting(life, run, seen)


def _starting(life: Life, run: Run, seen: Seen) -> Life:
    """Take Pending, Preflight and Starting on, or to their deadline."""
    waiting = _waits_for(life.phase, seen)
    if not waiting:
        following = {Phase.PENDING: Phase.PREFLIGHT, Phase.PREFLIGHT: Phase.STARTING, Phase.STARTING: Phase.RUNNING}[
            life.phase
        ]
        if following is not Phase.RUNNING:
            return Life(phase=following, run=run, reason=Reason.STARTING)
        run, waiting = _set_up(run, seen)
        if not waiting:
            return Life(phase=following, run=_begun(run, seen), reason=Reason.RUNNING)
    is_at_setup = run.setup is not None and run.setup.state == "Running"
    since = max(run.phase_since, (run.setup and run.setup.ended) or "")
    if not is_at_setup and seen.now_ms - parse_instant(since) >= DEADLINE_MS[life.phase]:
        about_target = life.phase is Phase.PREFLIGHT and seen.target not in ("", "reachable")
        reason = Reason.TARGET_UNREACHABLE if about_target or seen.waiting else Reason.START_TIMEOUT
        return Life(
            phase=Phase.FAILED,
            run=run,
            reason=reason,
            message=f"gave up after {DEADLINE_MS[life.phase] // 1000} s: {waiting}",
        )
    return Life(phase=life.phase, run=run, reason=Reason.STARTING, message=waiting)


def _with_tasks(life: Life, seen: Seen) -> Life:
    """Take on what is done once."""
    run = life.run
    for name, chore in (("setup", seen.setup), ("teardown", seen.teardown)):
        if run is not None and chore is not None:
            run = run.model_copy(update={name: advanced(getattr(run, name), chore, seen.now_ms)})
    return replace(life, run=run)


def _set_up(run: Run, seen: Seen) -> tuple[Run, str]:
    """Order setup before the run's first user; return the run, and what is waited for."""
    chore = seen.setup
    if run.origin is not None or (run.setup is not None and run.setup.state != "Running"):
        return run, ""
    if run.setup is None:
        if chore is None or chore.once is None:
            return run, ""
        if chore.ready is None:
            return run, "setup waits for a runner: there is none without users"
        run = run.model_copy(update={"setup": ordered(chore, seen.now_ms)})
    assert run.setup is not None
    return run, f"{run.setup.runner} is at setup"


def _waits_for(phase: Phase, seen: Seen) -> str:
    """Return what *phase* waits for, "" when for nothing."""
    if seen.waiting or seen.missing:
        return seen.waiting or seen.missing
    ready = f"{seen.runners_ready} of {seen.runners_wanted} runners are ready" + (
        f"; {seen.cause}" if seen.cause else ""
    )
    match phase:
        case Phase.PREFLIGHT if seen.runners_wanted and not seen.runners_ready:
            return ready
        case Phase.PREFLIGHT if seen.runners_wanted and seen.target != "reachable":
            return (
                f"the target's health: {seen.target}" if seen.target else "a runner is asking the target for its health"
            )
        case Phase.STARTING if seen.runners_ready < seen.runners_wanted:
            return ready
        case Phase.STARTING if seen.runners_up < seen.runners_wanted:
            up = f"the workers of {seen.runners_up} of {seen.runners_wanted} runners are up"
            return f"{up}; {seen.cause}" if seen.cause else up
        case _:
            return ""


def _begun(run: Run, seen: Seen) -> Run:
    """Return the run with origin and end set, or moved on by the time it was suspended."""
    origin = seen.now_ms + (seen.lead_ms or _LEAD_MS)
    if run.origin is None:
        run = run.model_copy(update={"barrier": Barrier() if seen.lead_ms else None})
    else:
        pause = seen.now_ms - parse_instant(run.suspended_at) if run.suspended_at else 0
        origin = parse_instant(run.origin) + pause
    end = seen.now_ms + DAY_MS if seen.duration_ms is None else origin + seen.duration_ms
    return run.model_copy(update={"origin": format_instant(origin), "end": format_instant(end), "suspended_at": None})


def _running(life: Life, run: Run, seen: Seen) -> Life:
    told = run.origin
    run = moved_on(run, seen.untold, seen.lead_ms, seen.now_ms)
    run = measured(run, seen.starts, seen.runners_wanted, seen.now_ms)
    end = parse_instant(run.end) if run.end else seen.now_ms
    if seen.duration_ms is not None:
        end = start_at(run) + seen.duration_ms
        if seen.now_ms >= end:
            return Life(phase=Phase.DRAINING, run=run, reason=Reason.DRAINING, message="the duration is over")
    elif end - seen.now_ms < DAY_MS - _RENEW_MS:
        end = seen.now_ms + DAY_MS
    message = (
        f"{seen.runners_ready} of {seen.runners_wanted} runners are ready"
        if seen.runners_ready < seen.runners_wanted
        else seen.missing
    )
    if run.origin != told:
        late = f"{len(seen.untold)} of {seen.runners_wanted} runners had not acknowledged it"
        message = f"the start is moved on to {run.origin}: {late} ({', '.join(seen.untold[:5])})"
    return Life(
        phase=Phase.RUNNING,
        run=run.model_copy(update={"end": format_instant(end)}),
        reason=Reason.RUNNING,
        message=message,
    )


def _suspended(life: Life, run: Run, seen: Seen) -> Life:
    if seen.suspend:
        return life
    return Life(phase=Phase.STARTING if run.origin else Phase.PENDING, run=run, reason=Reason.STARTING)


def _draining(life: Life, run: Run, seen: Seen) -> Life:
    # Subtle: while nobody looked nobody was told to drain. An operator that comes late begins to wait when it comes.
    drains_ms = seen.now_ms - parse_instant(run.phase_since)
    late = min(drains_ms, drains_ms if seen.attended_ms is None else seen.attended_ms) >= seen.drain_ms
    if run.teardown is None and not (seen.drained or late):
        return life
    teardown = seen.teardown.once if seen.teardown is not None else None
    if seen.teardown is not None and teardown is not None and teardown_is_due(run, teardown):
        patience = seen.now_ms - parse_instant(run.phase_since) < seen.drain_ms + DEADLINE_MS[Phase.STARTING]
        if seen.teardown.ready is not None:
            run = run.model_copy(update={"teardown": ordered(seen.teardown, seen.now_ms)})
        elif patience:
            return replace(life, message="teardown waits for a runner")
        else:
            run = run.model_copy(update={"teardown": undone(teardown, seen.now_ms, "no runner was there to do it")})
    if run.teardown is not None and run.teardown.state == "Running":
        return replace(life, run=run, message=f"{run.teardown.runner} is at teardown")
    done = run.model_copy(update={"finished_at": format_instant(seen.now_ms)})
    return Life(
        phase=Phase.COMPLETED,
        run=done,
        reason=Reason.COMPLETED,
        message="" if seen.drained else "not every runner drained in time",
    )
