"""Where a rollout meets the rest: policy at a retry, rows of one's own, a long absence, raises, teardown, events."""

from __future__ import annotations

import re
from typing import Any

import pytest

from driven.rollouts import (
    NEW,
    THIRD,
    a_document,
    a_world,
    ail,
    command,
    phase,
    rollout_of,
    running,
    some_looks,
    until,
)
from trafficsim_api.policy import LOCAL_DEFAULT, Policy
from trafficsim_api.status import Status
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.testing.fakes import FakeRunner, FakeWorld


async def a_running_world(**document: Any) -> FakeWorld:
    """Begin a run of the first version, all users on."""
    world = a_world()
    await running(world, **document)
    return world


def runners_of(world: FakeWorld, *, stable: bool) -> list[FakeRunner]:
    """Return the runners of the stable version, or all others."""
    assert world.status.stable is not None
    own = world.status.stable.revision
    return [runner for runner in world.fleet.runners.values() if (runner.revision == own) is stable]


def held_by(runners: list[FakeRunner]) -> int:
    """Return how many places *runners* were told to hold."""
    return sum(len(runner.assignment.held) for runner in runners if runner.assignment is not None)


def told(world: FakeWorld, reason: str) -> list[str]:
    """Return the messages of the events of *reason*."""
    return [happening.message for happening in world.record.happenings if happening.reason == reason]


async def test_retry_is_judged_by_policy_as_the_first_attempt_was() -> None:
    """
    Users were raised while a version is rejected: two runners beside two are more than three.

    The run is not ended by the retry: it is refused in words, and the rejection stands.
    """
    world = await a_running_world(users=200)
    world.policy = Policy(targets=LOCAL_DEFAULT.targets, max_runners=3)
    ail(world, failed_permille=400)
    world.record.put(a_document(NEW, users=200))
    await until(world, phase("Rejected"))
    world.record.put(a_document(NEW, users=1200))
    await until(world, lambda status: status.users.placed == 1200)
    command(world, "retry")
    status = await some_looks(world, 20)
    assert status.last_command is not None
    assert ("Running", "Rejected") == (status.phase, rollout_of(status).phase)
    assert "Refused" == status.last_command.result
    assert "4 runners are more than the policy's 3" in status.last_command.reason


UNIQUE = {
    "data": [{"name": "people", "mode": "unique", "from": {"inline": [{"n": str(n)} for n in range(40)]}}],
    "users": 40,
}


async def test_unique_rows_come_back_from_a_version_that_is_silent() -> None:
    """Its users may be at work with their rows: its runners go first, then blue has all. Its word is not waited for."""
    world = await a_running_world(**UNIQUE)
    world.record.put(a_document(NEW, **UNIQUE))
    await until(world, phase("Analyzing"))
    for runner in runners_of(world, stable=False):
        runner.silent = True
    command(world, "abort")
    await until(world, phase("Rejected"), 400)
    await some_looks(world)
    assert 40 == held_by(runners_of(world, stable=True))
    assert [] == runners_of(world, stable=False)


async def test_each_step_is_told_with_what_passed_it() -> None:
    """Not with what was said of it at the look before: the numbers that it was judged by, or that it was not judged."""
    world = await a_running_world()
    world.record.put(a_document(NEW))
    await until(world, phase("Shifting", 2))
    command(world, "skip-step")
    await until(world, phase("Analyzing", 3))
    command(world, "promote-full")
    await until(world, phase("Stable"))
    numbers = r"error_rate 0\.0% \(blue 0\.0%\), success 100\.0% \(blue 100\.0%\), p95 1ms \(blue 1ms\), n=\d+"
    expected = [
        f"rollout 1: 10% passed: {numbers}",
        f"rollout 1: 25% passed: {numbers}",
        "rollout 1: 50% passed: not judged, skip-step by command",
        "rollout 1: 75% passed: not judged, promote-full by command",
    ]
    passed = told(world, "StepPassed")
    assert [True] * 4 == [bool(re.fullmatch(*pair)) for pair in zip(expected, passed, strict=True)], passed


async def test_a_pause_that_is_aborted_does_not_go_on() -> None:
    """The events tell the pause and the way back, nothing in between."""
    world = await a_running_world()
    world.record.put(a_document(NEW))
    await until(world, phase("Analyzing", 1))
    command(world, "pause")
    await until(world, lambda status: rollout_of(status).pause is not None)
    command(world, "abort")
    await until(world, phase("Rejected"))
    assert (1, 1, 0) == tuple(len(told(world, f"Rollout{what}")) for what in ("Paused", "Aborted", "Resumed"))


async def test_a_pause_amid_a_shift_holds_the_step_and_not_its_users() -> None:
    """They get to that step's split; then nothing goes on."""
    world = await a_running_world()
    world.record.put(a_document(NEW))
    await until(world, phase("Shifting", 2))
    assert held_by(runners_of(world, stable=False)) < 200
    command(world, "pause")
    await until(world, lambda status: rollout_of(status).pause is not None)
    status = await some_looks(world, 60)
    assert ("Shifting", 2, 200) == (rollout_of(status).phase, rollout_of(status).step, rollout_of(status).green.users)
    assert (200, 200) == tuple(held_by(runners_of(world, stable=stable)) for stable in (True, False))


async def test_a_promotion_is_accepted_by_promote_alone() -> None:
    """A last step with a pause of its own, too, waits for it, and says by which numbers it was passed."""
    world = await a_running_world()
    rollout = {"autoPromote": False, "steps": [{"percent": 50}, {"percent": 100, "pause": True}]}
    world.record.put(a_document(NEW, rollout=rollout))
    status = await until(world, lambda status: rollout_of(status).pause is not None)
    assert "AwaitingPromotion" == rollout_of(status).pause
    assert re.match(r"100% is passed, it waits for promote: error_rate 0\.0%.*n=\d+", rollout_of(status).message)
    command(world, "resume")
    status = await some_looks(world)
    assert status.last_command is not None
    assert ("Refused", "Analyzing") == (status.last_command.result, rollout_of(status).phase)
    command(world, "promote")
    await until(world, phase("Stable"))


async def test_users_raised_at_the_last_step_wait_for_the_new_version_s_runners() -> None:
    """Capacity first: blue has no users there, so green's runners are what counts, and those start slowly."""
    world = await a_running_world()
    rollout = {"autoPromote": False}
    world.record.put(a_document(NEW, rollout=rollout))
    await until(world, lambda status: rollout_of(status).pause == "AwaitingPromotion")
    known = set(world.fleet.runners)
    world.record.put(a_document(NEW, users=2400, rollout=rollout))
    missing: list[int] = []

    def is_there(status: Status) -> bool:
        for runner in runners_of(world, stable=False):
            runner.ready_after_ms = 1_000 if runner.name in known else 20_000
        missing.append(status.users.dealt - status.users.placed)
        return status.users.placed == 2400

    await until(world, is_there, 200)
    assert {0} == set(missing)


async def test_what_the_spec_asks_for_while_suspended_is_said() -> None:
    """A third version, asked for after a rejection, waits until the simulation goes on: it is not the rejected one."""
    world = await a_running_world()
    ail(world, failed_permille=400)
    world.record.put(a_document(NEW))
    status = await until(world, phase("Rejected"))
    rejected = rollout_of(status).rejected
    world.record.put(a_document(THIRD, suspend=True))
    status = await until(world, lambda status: status.phase == "Suspended" and status.observed_generation == 3)
    status = await some_looks(world)
    assert status.stable is not None
    message = next(c.message for c in status.conditions if c.type == "Ready")
    told = rf"running {status.stable.revision}; spec asks (\w+); {rejected} was rejected at 10%: error_rate .*"
    match = re.fullmatch(told, message)
    assert match is not None, message
    assert match[1] not in (rejected, status.stable.revision)


async def deaf_runner(world: FakeWorld) -> list[FakeRunner]:
    """Have a second runner of the new version be ready and never answer, from its first moment on; return blue's."""
    world.record.put(a_document(NEW, users=800, rollout={"dwell": "5m"}))
    await until(world, phase("Analyzing", 0))
    await some_looks(world, 30)
    (green,) = {runner.revision for runner in runners_of(world, stable=False)}
    known = set(world.fleet.runners)
    world.fleet.replicas[green] += 1

    def is_made(status: Status) -> bool:
        for name in world.fleet.runners.keys() - known:
            world.fleet.runners[name].silent = True
        return len(world.fleet.runners) > len(known)

    await until(world, is_made)
    return runners_of(world, stable=True)


async def test_a_runner_of_the_new_version_that_was_never_heard_holds_nothing_up_for_long() -> None:
    """It was made under this operator's eyes and never told anything: what a lost runner had is dealt after ten s."""
    world = await a_running_world(users=800)
    blue = await deaf_runner(world)
    del world.fleet.runners[blue[0].name]
    lost_ms = world.now_ms
    status = await until(world, lambda status: status.users.placed == 800, 60)
    assert world.now_ms - lost_ms <= 15_000
    await until(world, lambda _: world.now_ms >= lost_ms + 60_000)
    assert 800 <= held_by(list(world.fleet.runners.values())) <= 880
    assert ("Analyzing", 0) == (rollout_of(status).phase, rollout_of(status).step)


async def test_one_that_an_operator_finds_silent_may_hold_places() -> None:
    """After a restart of the operator: what it was told before nobody knows, so nothing is dealt in its place."""
    world = await a_running_world(users=800)
    blue = await deaf_runner(world)
    await some_looks(world, 20)
    world.world.ledgers = Ledgers()
    del world.fleet.runners[blue[0].name]
    status = await some_looks(world, 60)
    assert status.users.placed < 800


async def test_a_rejected_version_that_falls_silent_is_no_fault_of_the_run() -> None:
    """Its runners have no users and stand for their logs; one with users that falls silent is told as ever."""
    world = await a_running_world()
    ail(world, failed_permille=400)
    world.record.put(a_document(NEW))
    await until(world, phase("Rejected"))
    for runner in runners_of(world, stable=False):
        runner.silent = True
    status = await some_looks(world, 3)
    assert "RunnersReady" == reason_of(status, "RunnersHealthy")
    for runner in runners_of(world, stable=True):
        runner.silent = True
    status = await some_looks(world, 3)
    assert "Unreachable" == reason_of(status, "RunnersHealthy")


async def test_a_silent_runner_of_the_new_version_with_users_is_told() -> None:
    """Both versions have users in mid-rollout, and on the way back until they are gone."""
    world = await a_running_world()
    world.record.put(a_document(NEW))
    await until(world, phase("Analyzing", 1))
    for runner in runners_of(world, stable=False):
        runner.silent = True
    status = await some_looks(world, 2)
    assert "Unreachable" == reason_of(status, "RunnersHealthy")
    command(world, "abort")
    status = await until(world, phase("Aborting"))
    assert "Unreachable" == reason_of(status, "RunnersHealthy")


def reason_of(status: Status, kind: str) -> str:
    """Return the reason of a condition."""
    return next(condition.reason for condition in status.conditions if condition.type == kind)


@pytest.mark.parametrize("station", ["Preparing", "Shifting"])
async def test_a_deadline_does_not_count_the_operator_s_absence(station: str) -> None:
    """It died before it could do what it had put on record, and comes back ten deadlines later: nobody is to blame."""
    world = await a_running_world()
    world.record.put(a_document(NEW))
    await until(world, phase(station, None if station == "Preparing" else 1))
    if station == "Preparing":
        own = runners_of(world, stable=True)
        world.fleet.replicas = {own[0].revision: len(own)}
        world.fleet.runners = {runner.name: runner for runner in own}
    world.world.ledgers = Ledgers()
    world.now_ms += 600_000
    await until(world, lambda status: rollout_of(status).phase not in (station, "Shifting", "Analyzing"), 800)
    assert ("Promoted", 1) == (rollout_of(world.status).reason, rollout_of(world.status).attempt)


async def test_a_deadline_counts_from_when_the_operator_is_back() -> None:
    """A version that does not start is not waited for for ever by an operator that was away."""
    world = await a_running_world()
    ail(world, problem="Unschedulable: no node")
    world.record.put(a_document(NEW))
    await until(world, phase("Preparing"))
    world.world.ledgers = Ledgers()
    world.now_ms += 600_000
    back = world.now_ms
    await until(world, phase("Aborting"), 400)
    assert 60_000 <= world.now_ms - back <= 63_000
    assert "PrepareTimeout" == rollout_of(world.status).reason


async def test_teardown_is_done_by_the_version_that_runs() -> None:
    """Not by one that was rejected, whose runners stand for their logs and whose name comes first."""
    once = {"teardown": {"flow": [{"request": {"post": "/reset"}}]}}
    world = await a_running_world(**once)
    ail(world, failed_permille=400)
    world.record.put(a_document(NEW, **once))
    status = await until(world, phase("Rejected"))
    assert status.stable is not None
    assert min(world.fleet.runners) == runners_of(world, stable=False)[0].name
    command(world, "stop")
    status = await until(world, lambda status: status.phase == "Completed")
    assert status.run is not None
    assert status.run.teardown is not None
    assert ("Done", True) == (status.run.teardown.state, status.stable.revision in status.run.teardown.runner)


@pytest.mark.parametrize("problem", ["ErrImagePull: no such image", ""])
async def test_a_version_changed_before_the_run_begins_takes_the_other_s_place(problem: str) -> None:
    """There is no user to move: a mended image is begun with at once, and given the time that any has to start."""
    world = FakeWorld()
    ail(world, problem=problem, target="refused")
    world.record.put(a_document())
    await until(world, lambda status: status.phase == "Preflight")
    began = world.now_ms
    await until(world, lambda _: world.now_ms >= began + 280_000)
    assert "Preflight" == world.status.phase
    world.fleet.health = {}
    world.record.put(a_document(NEW))
    await until(world, lambda status: status.phase == "Running", 100)
    status = await some_looks(world)
    assert status.stable is not None
    assert (None, "shop:2", 400) == (status.rollout, status.stable.image, status.users.placed)
    assert {status.stable.revision} == set(world.fleet.replicas)


async def test_both_versions_of_a_local_run_have_processes_for_all_users() -> None:
    """Each by itself within the machine's cores: neither is judged by what it has less of than the other."""
    world = FakeWorld()
    world.fleet.tells, world.fleet.cores = True, 2
    world.record.put(a_document())
    await until(world, lambda status: status.phase == "Running" and status.users.placed == 400)
    world.record.put(a_document(NEW))
    await until(world, phase("Analyzing", 1))
    told = [runner.assignment.processes for runner in world.fleet.runners.values() if runner.assignment is not None]
    assert [2, 2] == told


async def test_a_version_whose_users_the_profile_lets_begin_later_is_not_silent() -> None:
    """Of its three users the ramp has the first begin long after blue's; nothing is held against it from before."""
    ramp = {"users": 12, "profile": [{"ramp": {"to": "100%", "over": "2m"}}]}
    rollout = {"steps": [{"percent": 25}, {"percent": 100}], "window": "1s", "minSamples": 50}
    world = await a_running_world(**ramp, rollout=rollout)
    world.record.put(a_document(NEW, **ramp, rollout=rollout))
    said: set[str] = set()

    def is_over(status: Status) -> bool:
        said.add(rollout_of(status).message.partition(" for ")[0] if status.rollout is not None else "")
        return status.rollout is not None and status.rollout.phase in ("Stable", "Rejected")

    status = await until(world, is_over)
    assert ("Promoted", 1) == (rollout_of(status).reason, rollout_of(status).attempt)
    assert "no user of the new version was active" in said
