"""Beginning and going on where load asked for more runners than users, tier and capacity do: they hold nothing up."""

from __future__ import annotations

from typing import Any

import pytest

from driven.loaded import USERS, Loaded, a_loaded_world, scaling_of, wanted, with_wanted
from driven.rollouts import NEW, a_document, phase, running, some_looks, until
from trafficsim_api.phases import Phase
from trafficsim_api.status import Status
from trafficsim_operator.plan.autoscale import ahead_ms
from trafficsim_operator.testing.fakes import FakeWorld

HOLD = [{"hold": {"for": "3h"}}]
LOW_AFTER_4_MINUTES = [{"hold": {"for": "4m"}}, {"ramp": {"to": "20%", "over": "1s"}}, {"hold": {"for": "3h"}}]


def a_run(**spec: Any) -> dict[str, Any]:
    return {"users": USERS, "profile": HOLD, "duration": "3h"} | spec


def at_work(status: Status) -> bool:
    return status.phase is Phase.RUNNING and 0 < status.users.dealt == status.users.placed == status.users.target


async def paused(world: FakeWorld, **spec: Any) -> None:
    """Pause until its runners are let go."""
    world.record.put(a_document(**a_run(**spec), suspend=True))
    await until(world, lambda status: status.phase == "Suspended" and not sum(world.fleet.replicas.values()))
    world.fleet.runners.clear()


async def gone_on(world: FakeWorld, **spec: Any) -> int:
    """Go on after a pause, until all users are at work; return how many ms that took."""
    world.record.put(a_document(**a_run(**spec)))
    begun_ms = world.now_ms
    await until(world, lambda status: at_work(status) or status.phase == "Failed")
    assert at_work(world.status), world.status.message
    return world.now_ms - begun_ms


async def with_three() -> FakeWorld:
    """Begin a run whose 60 users take three runners, where the size is one."""
    world = a_loaded_world()
    await running(world, **a_run())
    await until(world, with_wanted(3))
    await until(world, lambda _: len(world.fleet.runners) == 3)
    await some_looks(world, 60)
    return world


async def test_a_pause_ends_with_the_runners_that_its_users_take() -> None:
    """Users that three runners carried come back to three, the slowest too: one would be late with all of them."""
    world = await with_three()
    await paused(world)
    world.record.put(a_document(**a_run()))
    await until(world, lambda _: len(world.fleet.runners) == 3)
    for runner, ready_after_ms in zip(world.fleet.runners.values(), (1_000, 4_000, 9_000), strict=True):
        runner.ready_after_ms = ready_after_ms
    await until(world, at_work)
    assert 3 == sum(bool(r.assignment and r.assignment.held) for r in world.fleet.runners.values())
    assert 3 == wanted(world.status)


@pytest.mark.parametrize(
    ("users", "room"),
    [
        pytest.param(USERS, 1, id="as many users, room for the size"),
        pytest.param(10 * USERS, 2, id="ten times as many, room for the size"),
        pytest.param(10 * USERS, 3, id="ten times as many, room for those of before"),
    ],
)
async def test_runners_that_do_not_come_keep_no_user_waiting(users: int, room: int) -> None:
    """The size has room for all: after as long as a runner takes to start they are at work on what there is."""
    world = await with_three()
    await paused(world, users=users)
    world.fleet.health = Loaded(room=room)
    spent_ms = await gone_on(world, users=users)
    assert spent_ms <= ahead_ms(scaling_of(world.status)) + 10_000
    status = await some_looks(world, 400)
    assert (Phase.RUNNING, users, users) == (status.phase, status.users.placed, status.users.active)
    assert wanted(status) > room
    said = next(c for c in status.conditions if c.type == "RunnersHealthy")
    assert ("False", f"{room} of {wanted(status)} runners are ready; Unschedulable: 0/1 nodes") == (
        said.status, said.message,
    )  # fmt: skip


async def test_on_one_machine_no_more_are_asked_for_than_have_cores() -> None:
    """Six cores are for three runners of two processes, whatever users who were edited in the pause would take."""
    world = a_loaded_world()
    world.fleet.cores = 6
    await running(world, **a_run())
    await until(world, with_wanted(3))
    await paused(world, users=10 * USERS)
    await gone_on(world, users=10 * USERS)
    assert {3} == {status.runners.wanted for status in world.record.writes if status.users.target == 10 * USERS}


async def test_the_size_is_waited_for() -> None:
    """Where not even those come there is nobody to give users to: it gives up after five minutes, and says why."""
    world = await with_three()
    await paused(world)
    world.fleet.health = Loaded(room=0)
    world.record.put(a_document(**a_run()))
    status = await until(world, lambda status: status.phase == "Failed")
    assert "gave up after 300 s: 0 of 1 runners are ready; Unschedulable: 0/1 nodes" == status.message


async def test_what_the_users_before_took_is_not_asked_for_again() -> None:
    """Paused a moment after most have left: nobody comes back whom the three runners of before were for."""
    world = a_loaded_world()
    await running(world, **a_run(profile=LOW_AFTER_4_MINUTES))
    await until(world, with_wanted(3))
    await until(world, lambda status: status.users.wanted == USERS // 5)
    assert 3 == wanted(world.status)
    await paused(world, profile=LOW_AFTER_4_MINUTES)
    await gone_on(world, profile=LOW_AFTER_4_MINUTES)
    assert 1 == wanted(world.status)
    await some_looks(world, 200)
    assert 1 == len(world.fleet.runners)


async def test_what_users_take_that_nobody_knows_ahead() -> None:
    """In the open model as many are at work as it takes: those of before the pause."""
    open_model = {"arrivals": {"rate": "60/s"}, "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}]}
    world = a_loaded_world()
    await running(world, **a_run(**open_model))
    await until(world, with_wanted(3))
    await paused(world, **open_model)
    world.fleet.health = Loaded(room=2)
    await gone_on(world, **open_model)
    assert (2, 3) == (world.status.runners.ready, world.status.runners.wanted)


async def test_a_rollout_goes_on_with_the_runners_that_it_had() -> None:
    """Of neither version there are fewer while it lasts: the way back never waits for a node."""
    spec = a_run(profile=LOW_AFTER_4_MINUTES, rollout={"steps": [{"percent": 50}, {"percent": 100}], "dwell": "10m"})
    world = a_loaded_world()
    old = await running(world, **spec)
    await until(world, with_wanted(3))
    world.record.put(a_document(NEW, **spec))
    await until(world, phase("Analyzing", 0))
    await until(world, lambda status: status.users.wanted == USERS // 5)
    before = dict(world.fleet.replicas)
    world.record.put(a_document(NEW, **spec, suspend=True))
    await until(world, lambda status: status.phase == "Suspended" and not sum(world.fleet.replicas.values()))
    world.record.put(a_document(NEW, **spec))
    await until(world, lambda status: status.phase == "Running" and phase("Analyzing", 0)(status))
    assert 3 == world.fleet.replicas[old]
    assert before == world.fleet.replicas


async def test_a_short_pause_keeps_the_runners() -> None:
    """They stand for a minute; those that are there when it is over are taken away one by one, as ever."""
    world = await with_three()
    world.record.put(a_document(**a_run(), suspend=True))
    await until(world, lambda status: status.phase == "Suspended")
    await some_looks(world, 40)
    names = set(world.fleet.runners)
    await gone_on(world)
    await some_looks(world, 60)
    assert (3, names) == (wanted(world.status), set(world.fleet.runners))


async def test_a_run_begins_with_its_size_whatever_its_profile_asks_for() -> None:
    """Nothing is measured yet, and what will be is started while its users are at work."""
    world = a_loaded_world()
    world.fleet.health = Loaded(room=1)
    world.record.put(a_document(**a_run(profile=[{"ramp": {"to": "100%", "over": "90s"}}, *HOLD])))
    await until(world, at_work)
    assert 1 == wanted(world.status)
    status = await until(world, lambda status: wanted(status) > 1)
    assert (Phase.RUNNING, USERS) == (status.phase, status.users.placed)
    status = await some_looks(world, 400)
    assert (Phase.RUNNING, USERS) == (status.phase, status.users.active)
