"""The start barrier: one instant for all runners, moved on once, and how far apart they began."""

from __future__ import annotations

from typing import Any

import pytest

from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.status import Barrier, Run
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan.barrier import Start, is_open, lead_ms, measured, moved_on, starts, untold
from trafficsim_operator.plan.tiers import TIERS
from trafficsim_operator.testing.fakes import FakeWorld

T0 = 1_700_000_000_000


def a_run(origin: int = 3_000, *, barrier: Barrier | None = None) -> Run:
    return Run(
        id=1,
        phase_since=format_instant(T0),
        origin=format_instant(T0 + origin),
        end=format_instant(T0 + origin + 60_000),
        planned_since=format_instant(T0 + origin),
        barrier=Barrier() if barrier is None else barrier,
    )


def a_runner(*, offset: int = 0, error: int = 0, started: int = 0, answered: bool = True, **ack: Any) -> Runner:
    said = Acknowledgement(boot="b", epoch=2, **{"run": 1, "users": 2001, "places": ((0, 700),)} | ack)
    return Runner(
        name="a",
        uid="a",
        revision="r",
        state=RunnerState.READY,
        acknowledgement=said,
        answered=answered,
        clock_offset_ms=offset,
        clock_error_ms=error,
        started_ms=T0 + started,
    )


def test_which_tiers_begin_at_one_instant() -> None:
    """From large on, where there are three runners and more."""
    assert ["large", "xlarge"] == [tier.name for tier in TIERS if tier.barrier]


@pytest.mark.parametrize(("runners", "lead"), [(3, 3_030), (12, 3_120), (60, 3_600)])
def test_how_far_ahead_the_start_is(runners: int, lead: int) -> None:
    """3 s and 10 ms for each runner that is to be told."""
    assert lead == lead_ms(runners)


@pytest.mark.parametrize(
    ("now", "late", "barrier", "origin"),
    [
        pytest.param(1_999, ("a",), Barrier(), 3_000, id="there is time yet"),
        pytest.param(2_000, ("a",), Barrier(), 5_000, id="a second is left, and one has not acknowledged"),
        pytest.param(2_999, ("a",), Barrier(), 5_999, id="in the last instant"),
        pytest.param(2_000, (), Barrier(), 3_000, id="all have"),
        pytest.param(3_000, ("a",), Barrier(), 3_000, id="it has come: others have begun"),
        pytest.param(2_000, ("a",), Barrier(moved=True), 3_000, id="it was moved on before"),
    ],
)
def test_moved_on(now: int, late: tuple[str, ...], barrier: Barrier, origin: int) -> None:
    """Once, while nobody can have begun; the end goes with it, and planned user time counts from there."""
    before = a_run(barrier=barrier)
    found = moved_on(before, late, 3_000, T0 + now)
    assert origin == parse_instant(found.origin or "") - T0
    assert origin + 60_000 == parse_instant(found.end or "") - T0
    assert found.barrier is not None
    is_moved = origin != 3_000
    assert (is_moved or barrier.moved) == found.barrier.moved
    assert (None if is_moved else before.planned_since) == found.planned_since


def test_without_a_barrier_nothing_is_moved() -> None:
    """A run of a small tier begins when it was to."""
    run = a_run().model_copy(update={"barrier": None})
    assert run == moved_on(run, ("a",), 3_000, T0 + 2_500)
    assert run == measured(run, [Start(off_us=0, error_ms=0)], 1, T0 + 4_000)
    assert not is_open(run, T0)


@pytest.mark.parametrize(
    ("ack", "names"),
    [
        pytest.param({}, (), id="it holds places of T"),
        pytest.param({"users": 0, "places": ()}, ("a",), id="it was told before the start was set"),
        pytest.param({"run": 2}, ("a",), id="it is at another run"),
        pytest.param({"answered": False, "settled": True}, (), id="it had, and is silent now"),
        pytest.param({"answered": False}, ("a",), id="it was told, and nobody knows whether it heard"),
    ],
)
def test_who_has_not_acknowledged(ack: dict[str, Any], names: tuple[str, ...]) -> None:
    """Before the start is set nobody has a place."""
    assert names == untold([a_runner(**ack)], 1)


@pytest.mark.parametrize(
    ("runner", "offs"),
    [
        pytest.param(a_runner(start_at_ms=T0 + 3_000, late_us=1_200), [1_200], id="by its own clock"),
        pytest.param(a_runner(start_at_ms=T0 + 3_000), [], id="nobody has begun"),
        pytest.param(a_runner(late_us=1_200), [], id="it does not tell of its start"),
        pytest.param(a_runner(start_at_ms=T0 + 3_000, late_us=5, started=4_000), [], id="it came later"),
        pytest.param(
            a_runner(start_at_ms=T0 + 3_000, late_us=0, offset=40, error=2), [-40_000], id="a clock that is ahead"
        ),
        pytest.param(
            a_runner(start_at_ms=T0 + 3_000, late_us=7, offset=2, error=2), [7], id="an offset within its error"
        ),
        pytest.param(
            a_runner(start_at_ms=T0 + 3_900, late_us=7, offset=900, error=2), [7], id="it was told in its own time"
        ),
        pytest.param(a_runner(start_at_ms=T0 + 1_000, late_us=0), [-2_000_000], id="it never heard of the move"),
    ],
)
def test_when_a_runner_began(runner: Runner, offs: list[int]) -> None:
    """Off the origin: the start it was told, less its clock's offset, and what its first user was late."""
    assert offs == [start.off_us for start in starts([runner], a_run())]


@pytest.mark.parametrize(
    ("offs", "wanted", "now", "barrier"),
    [
        pytest.param(
            [400, 12_600, -100], 3, 3_500, Barrier(runners=3, skew_ms=13, offset_error_ms=3), id="all have told"
        ),
        pytest.param([400, 12_600], 3, 3_500, Barrier(), id="one has not"),
        pytest.param(
            [400, 12_600], 3, 13_000, Barrier(runners=2, skew_ms=13, offset_error_ms=2), id="nor after ten seconds"
        ),
        pytest.param([], 3, 13_000, Barrier(), id="nobody has begun"),
        pytest.param([700], 1, 3_500, Barrier(runners=1, skew_ms=0, offset_error_ms=2), id="one is never apart"),
    ],
)
def test_the_skew(offs: list[int], wanted: int, now: int, barrier: Barrier) -> None:
    """Max less min, in whole ms upwards, with the largest error of the clocks."""
    told = [Start(off_us=off, error_ms=error) for off, error in zip(offs, (2, 1, 3), strict=False)]
    assert barrier == measured(a_run(), told, wanted, T0 + now).barrier


def test_what_was_measured_stays() -> None:
    """A runner that comes later does not change it."""
    run = a_run(barrier=Barrier(runners=3, skew_ms=13))
    assert run == measured(run, [Start(off_us=9_000_000, error_ms=1)] * 4, 4, T0 + 60_000)


# In a world of fakes.


def a_document(users: int, **spec: Any) -> dict[str, Any]:
    flow = [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": users,
            "duration": "1m",
            "archetypes": [{"name": "a", "flow": flow}],
            **spec,
        },
    }


async def running(users: int) -> FakeWorld:
    world = FakeWorld()
    world.record.put(a_document(users))
    for _ in range(100):
        if (await world.look("n", "shop")).phase == "Running":
            return world
    raise AssertionError(world.status.message)


async def ahead(users: int) -> int:
    world = await running(users)
    assert world.status.run is not None
    return parse_instant(world.status.run.origin or "") - world.now_ms


async def test_small_tiers_begin_at_once() -> None:
    """Half a second ahead, without a barrier; from 2001 users on with one."""
    assert [500, 3_030] == [await ahead(2000), await ahead(2001)]


async def test_all_runners_are_told_before_and_the_skew_is_in_the_status() -> None:
    """Each holds its places before the start; when all have told of their first user, the event says how far apart."""
    world = await running(2001)
    for number, runner in enumerate(world.fleet.runners.values()):
        runner.late_us = 2_500 * number
        runner.clock_ahead_ms = 0
    while world.now_ms < parse_instant(world.status.run.origin or ""):
        assert not world.status.run.barrier.runners
        assert 0 == world.status.users.active
        await world.look("n", "shop")
    told = [runner.assignment for runner in world.fleet.runners.values()]
    assert {parse_instant(world.status.run.origin or "")} == {a.start_at_ms for a in told if a is not None}
    assert 2001 == sum(len(a.held) for a in told if a is not None)
    for _ in range(10):
        await world.look("n", "shop")
    assert Barrier(runners=3, skew_ms=5, offset_error_ms=1) == world.status.run.barrier
    (said,) = [h for h in world.record.happenings if h.reason == "StartMeasured"]
    assert "3 runners began within 5 ms of each other; their clocks are known to 1 ms" == said.message


async def test_the_start_waits_once_for_a_runner_that_did_not_hear_of_it() -> None:
    """It is moved on, and said; the run keeps its length, and its users' time is planned from there."""
    world = await running(2001)
    first = parse_instant(world.status.run.origin or "")
    late = list(world.fleet.runners.values())[-1]
    told, late.silent = late.assignment, True
    assert told is not None
    late.assignment = told.model_copy(update={"users": 0, "places": (), "digest": ""})
    while not world.status.run.barrier.moved:
        assert world.now_ms < first
        await world.look("n", "shop")
    second = parse_instant(world.status.run.origin or "")
    assert world.now_ms + 3_030 == second
    assert second + 60_000 == parse_instant(world.status.run.end or "")
    (said,) = [h for h in world.record.happenings if h.reason == "StartMoved"]
    assert said.warning
    assert f"1 of 3 runners had not acknowledged it ({late.name})" in said.message
    late.silent = False
    for _ in range(60):
        await world.look("n", "shop")
    assert 3 == world.status.run.barrier.runners
    assert second == parse_instant(world.status.run.origin or "")
    while world.status.phase != "Completed":
        await world.look("n", "shop")
    assert 2001 * 45_000 == world.status.run.planned_user_ms
    assert "Passed" == world.status.verdict, world.status.verdict_reason
