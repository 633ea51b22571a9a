"""The open model's course: what an edit of rate, profile or T does to it, and that nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trafficsim_api.arrivals import UNIT
from trafficsim_api.phases import Phase
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import Run
from trafficsim_api.units import format_instant
from trafficsim_operator.plan.arrivals import course_of, course_on, planned_arrivals
from trafficsim_operator.plan.lifecycle import Life

ORIGIN = 1_800_000_000_000


def a_spec(rate: str | None = "100/s", **more: Any) -> TrafficSimulationSpec:
    """Build a spec at full level from the start; without a rate it is of the closed model."""
    flow = [{"request": {"get": "/"}}]
    document = {
        "target": {"url": "http://t"},
        "archetypes": [{"name": "a", "flow": flow}],
        "profile": [{"hold": {"for": "1s"}}],
        **({"arrivals": {"rate": rate}} if rate else {}),
        **more,
    }
    return TrafficSimulationSpec.model_validate_json(json.dumps(document))


def a_run(**more: Any) -> Run:
    """Build a run that began at ORIGIN."""
    return Run(id=1, phase_since=format_instant(ORIGIN), origin=format_instant(ORIGIN), **more)


def stepped(run: Run, before: TrafficSimulationSpec | None, spec: TrafficSimulationSpec, at_ms: int, total: int = 10,
            phase: Phase = Phase.RUNNING) -> Run:  # fmt: skip
    """Return the run after a look *at_ms* after the origin."""
    return course_on(Life(phase=phase, run=run, reason=""), before, spec, total, ORIGIN + at_ms)


def test_nothing_changes_without_an_edit() -> None:
    """The first course counts from the origin; looks later say the same."""
    spec = a_spec()
    run = stepped(a_run(), None, spec, 0)
    assert (0, 0, 10) == (run.arrivals_since_ms, run.arrivals_before, run.arrivals_users)
    assert run == stepped(run, spec, spec, 5_000) == stepped(run, None, spec, 9_000)


@pytest.mark.parametrize("change", [{"rate": "200/s"}, {"profile": [{"ramp": {"to": "50%", "over": "1s"}}]}])
def test_an_edit_counts_from_a_second_ahead(change: dict[str, Any]) -> None:
    """At 5 s: from 6 s on, and 600 arrivals were due until then. It is folded once, whatever was forgotten."""
    old, new = a_spec(), a_spec(**change)
    run = stepped(stepped(a_run(), None, old, 0), old, new, 5_000)
    assert (6_000, 600 * UNIT) == (run.arrivals_since_ms, run.arrivals_before)
    assert run == stepped(run, old, new, 5_250) == stepped(run, new, new, 6_000) == stepped(run, None, new, 7_000)


def test_a_second_edit_before_the_first_counts() -> None:
    """Both count in their turn: 100/s until 6 s, 200/s until 6.5 s, then 300/s."""
    first, second, third = a_spec(), a_spec("200/s"), a_spec("300/s")
    run = stepped(stepped(stepped(a_run(), None, first, 0), first, second, 5_000), second, third, 5_500)
    assert (6_500, 700 * UNIT) == (run.arrivals_since_ms, run.arrivals_before)
    course = course_of(run, third)
    assert course is not None
    assert 1000 * UNIT == course.due(7_500)


def test_other_users_begin_a_course_of_the_same_rate() -> None:
    """Another T changes who owns an arrival: all change over at one instant."""
    spec = a_spec()
    run = stepped(stepped(a_run(), None, spec, 0), spec, spec, 2_000, total=20)
    assert (3_000, 300 * UNIT, 20) == (run.arrivals_since_ms, run.arrivals_before, run.arrivals_users)


def test_suspended_the_timeline_stands() -> None:
    """An edit while suspended counts from where the run stands, at once."""
    old, new = a_spec(), a_spec("10/s")
    run = stepped(a_run(), None, old, 0).model_copy(update={"suspended_at": format_instant(ORIGIN + 4_000)})
    run = stepped(run, old, new, 60_000, total=10, phase=Phase.SUSPENDED)
    assert (4_000, 400 * UNIT) == (run.arrivals_since_ms, run.arrivals_before)


def test_from_one_model_to_the_other() -> None:
    """The open model begins a second ahead with nothing due before; back in the closed one nothing is planned."""
    closed, opened = a_spec(None), a_spec()
    run = stepped(a_run(), None, closed, 0)
    assert run == a_run()
    run = stepped(run, closed, opened, 3_000)
    assert (4_000, 0) == (run.arrivals_since_ms, run.arrivals_before)
    run = stepped(run, opened, closed, 9_000)
    assert "" == run.arrivals_course
    assert course_of(run, closed) is None


def test_from_closed_to_open_while_no_operator_looked() -> None:
    """Another operator finds a run without a course: it begins now, and nothing was due before."""
    run = stepped(a_run(), a_spec(None), a_spec(None), 4_000)
    run = stepped(run, None, a_spec(), 5_000)
    assert (6_000, 0) == (run.arrivals_since_ms, run.arrivals_before)
    assert 100 == planned_arrivals(run, a_spec(), ORIGIN + 7_001)


def test_what_was_due_is_known_from_the_drain_on() -> None:
    """Stopped at 12.5 s: 1249 (the 1250th is due right then, so not sent); ended at 12 s: 1199; Poisson by seed."""
    spec = a_spec()
    run = stepped(a_run(), None, spec, 0).model_copy(update={"phase_since": format_instant(ORIGIN + 12_500)})
    assert 1249 == stepped(run, spec, spec, 13_000, phase=Phase.DRAINING).arrivals_planned
    ended = run.model_copy(update={"end": format_instant(ORIGIN + 12_000)})
    assert 1199 == stepped(ended, spec, spec, 13_000, phase=Phase.DRAINING).arrivals_planned
    random = a_spec(arrivals={"rate": "100/s", "process": "poisson"}, seed=4)
    assert 0 < abs(planned_arrivals(run, random, ORIGIN + 100_000) - 10_000) < 500
