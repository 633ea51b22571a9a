"""
The open model's course: what Λ is now, and how it goes on after an edit.

An edit of rate, process or profile, and another T, begin a new course a second from now on the run's timeline:

    since = elapsed + 1 s (suspended: where the run stands)      before = work due by the old course until since

The runners hear of it within that second and change over at the same instant; arrivals go on being numbered. What was
folded stays in `status.run`, so that every operator says the same.
"""

from __future__ import annotations

from typing import Final

from trafficsim_api.arrivals import Course, works_of
from trafficsim_api.names import hash8
from trafficsim_api.phases import Phase
from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import Run
from trafficsim_api.units import parse_instant
from trafficsim_operator.plan.handover import Turning
from trafficsim_operator.plan.lifecycle import Life

__all__ = ["course_of", "course_on", "planned_arrivals", "turning_of"]

LEAD_MS: Final = 1_000


def course_of(run: Run, spec: TrafficSimulationSpec) -> Course | None:
    """Return the course of *run* under *spec*, None in the closed model."""
    if spec.arrivals is None:
        return None
    return Course(
        shape=shape(spec.profile), rate=spec.arrivals.rate, since_ms=run.arrivals_since_ms, before=run.arrivals_before
    )


def course_on(
    life: Life, before: TrafficSimulationSpec | None, spec: TrafficSimulationSpec, total: int, now_ms: int
) -> Run:
    """
    Return the run with a new course where one is needed; *before* is the spec accepted until now, None if unknown.

    *total* is T as places are dealt for it now; the first T of a run begins no new course.
    """
    run = life.run
    assert run is not None
    if life.phase is Phase.DRAINING and not run.arrivals_planned:
        return run.model_copy(update={"arrivals_planned": planned_arrivals(run, spec, parse_instant(run.phase_since))})
    if life.phase not in (Phase.RUNNING, Phase.SUSPENDED, Phase.STARTING) or run.origin is None:
        return run
    name = _name_of(spec)
    if spec.arrivals is None and not run.arrivals_course:
        return run
    elapsed = _elapsed(run, now_ms)
    is_late = not run.arrivals_course and _is_late(before, spec, elapsed)
    is_edited = is_late or run.arrivals_course not in ("", name)
    is_resized = bool(total) and run.arrivals_users not in (0, total)
    changes: dict[str, int | str] = {"arrivals_course": name}
    if total:
        changes["arrivals_users"] = total
    if is_edited or is_resized:
        # An operator that never saw the old rate reckons by the new one: the numbers jump, no instant does.
        is_known = before is not None and _name_of(before) == run.arrivals_course
        old = None if is_late else course_of(run, before if before is not None and is_known else spec)
        since = max(
            run.arrivals_since_ms, elapsed + (LEAD_MS if life.phase is Phase.RUNNING and elapsed >= 0 else 0), 0
        )
        changes |= {"arrivals_since_ms": since, "arrivals_before": old.due(since) if old else run.arrivals_before}
    return run.model_copy(update=changes)


def _name_of(spec: TrafficSimulationSpec) -> str:
    """Return a hash over what a course is made of, "" in the closed model."""
    if spec.arrivals is None:
        return ""
    return hash8(spec.arrivals.model_dump(mode="json"), [piece.model_dump(mode="json") for piece in spec.profile or ()])


def _is_late(before: TrafficSimulationSpec | None, spec: TrafficSimulationSpec, elapsed_ms: int) -> bool:
    """
    Say whether the closed model went before: the open one begins in mid-run.

    An operator that never saw it knows by the time: an open run has its course before its origin has come.
    """
    was_closed = before.arrivals is None if before is not None else elapsed_ms > 0
    return was_closed and spec.arrivals is not None


def planned_arrivals(run: Run, spec: TrafficSimulationSpec, now_ms: int) -> int:
    """Return how many arrivals were due before *now_ms*, the run's end at most: one due right then is not sent."""
    course = course_of(run, spec)
    if course is None or spec.arrivals is None or run.origin is None:
        return 0
    until = min(now_ms, parse_instant(run.end)) if run.end else now_ms
    works, elapsed = works_of(spec.arrivals.process, spec.seed), _elapsed(run, until)
    count = works.first_after(course.due(elapsed))
    last_ns = course.instant_ns(works.work(count - 1)) if count else None
    return count - 1 if last_ns is not None and last_ns >= elapsed * 1_000_000 else count


def turning_of(run: Run, spec: TrafficSimulationSpec, now_ms: int) -> Turning | None:
    """Return where the arrivals of *run* stand, for handing them over; None in the closed model, or not begun."""
    course = course_of(run, spec)
    if course is None or spec.arrivals is None or run.origin is None:
        return None
    return Turning(
        course=course, process=spec.arrivals.process, seed=spec.seed, elapsed_ms=max(0, _elapsed(run, now_ms))
    )


def _elapsed(run: Run, now_ms: int) -> int:
    """Return where the run's timeline stands: it stands still while the run is suspended."""
    assert run.origin is not None
    at = parse_instant(run.suspended_at) if run.suspended_at else now_ms
    return at - parse_instant(run.origin)
