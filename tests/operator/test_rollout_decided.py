"""A rollout, look by look, in a world of fakes: pointers, runners, users, conditions and events."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from driven.rollouts import (
    NEW,
    OLD,
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
from trafficsim_operator.plan.bounds import LIMIT, size_of
from trafficsim_operator.testing.fakes import FakeWorld


def holding(world: FakeWorld) -> Counter[str]:
    """Return how many places each revision's runners hold."""
    found: Counter[str] = Counter()
    for runner in world.fleet.runners.values():
        if runner.assignment is not None:
            found[runner.revision] += len(runner.assignment.held)
    return found


def condition(status: Status, kind: str) -> tuple[str, str, str]:
    """Return status, reason and message of a condition."""
    return next((c.status, c.reason, c.message) for c in status.conditions if c.type == kind)


def events(world: FakeWorld) -> list[str]:
    """Return the reasons of the events so far."""
    return [happening.reason for happening in world.record.happenings]


async def test_a_good_version_is_promoted() -> None:
    """Preparing → 10 … 100 % → Promoting → Retiring → Stable: users go over without a dip, the old version goes."""
    world = a_world()
    old = await running(world)
    world.record.put(a_document(NEW))
    percents: list[int] = []

    def is_over(status: Status) -> bool:
        if status.rollout is not None:
            assert 400 <= sum(holding(world).values()) <= 440
            if percents[-1:] != [status.rollout.percent]:
                percents.append(status.rollout.percent)
        return phase("Stable")(status)

    status = await until(world, is_over)
    assert [0, 10, 25, 50, 75, 100, 0] == percents
    rollout = rollout_of(status)
    assert ("Promoted", 1) == (rollout.reason, rollout.attempt)
    assert status.stable is not None
    assert old != status.stable.revision
    assert (NEW, 400) == (status.stable.image, status.stable.places)
    assert (None, None) == (status.candidate, status.previous)
    assert {status.stable.revision} == set(world.fleet.replicas)


def revision_of_image(world: FakeWorld, image: str) -> str:
    """Return the revision that a document of *image* asks for, as status names it."""
    status = world.status
    found = (status.stable, status.candidate, status.previous)
    return next(version.revision for version in found if version is not None and version.image == image)


async def shifting(world: FakeWorld, image: str = NEW, step: int = 1, **document: Any) -> str:
    """Begin a run and roll *image* out until its step number *step* is analysed; return the new revision."""
    await running(world, **document)
    world.record.put(a_document(image, **document))
    await until(world, phase("Analyzing", step))
    return revision_of_image(world, image)


async def test_a_bad_version_is_rejected_at_its_first_step() -> None:
    """20 % of checks failing: all users go back, the condition has the numbers, the runners are kept for a while."""
    world = a_world()
    old = await running(world)
    ail(world, checks_failed_permille=200)
    world.record.put(a_document(NEW))
    status = await until(world, phase("Rejected"))
    rollout = rollout_of(status)
    assert re.match(r"rejected at 10%: success (79|8[0-2])\.\d% \(blue 100.0%\), n=\d+", rollout.message)
    assert status.stable is not None
    assert (old, 400) == (status.stable.revision, status.stable.places)
    assert status.candidate is not None
    assert rollout.rejected == status.candidate.revision
    assert rollout.windows
    assert all(window.blue.requests > window.green.requests for window in rollout.windows)
    ready, stalled = condition(status, "Ready"), condition(status, "Stalled")
    assert ("False", "RevisionRejected") == ready[:2]
    assert f"running {old}; spec asks {rollout.rejected}, {rollout.message}" == ready[2]
    assert ("True", "RevisionRejected") == stalled[:2]
    assert {old, rollout.rejected} == set(world.fleet.replicas)
    told = ["RolloutStarted", "RolloutStep", "RolloutAborted", "RevisionRejected"]
    assert told == [reason for reason in events(world) if reason.startswith(("Rollout", "Revision"))]
    until_ms = world.now_ms + 21_000
    await until(world, lambda _: world.now_ms > until_ms)
    assert {old} == set(world.fleet.replicas)
    writes = len(world.record.writes)
    attempt = rollout_of(world.status).attempt
    await until(world, lambda _: world.now_ms > until_ms + 60_000)
    assert attempt == rollout_of(world.status).attempt, "it is not tried again"
    assert len(world.record.writes) - writes <= 13, "figures every five seconds, nothing else"


async def test_retry_and_a_changed_version() -> None:
    """A rejected version is tried again by command, a changed one by itself."""
    world = a_world()
    await running(world)
    ail(world, failed_permille=400)
    world.record.put(a_document(NEW))
    status = await until(world, phase("Rejected"))
    assert re.search(r"at 10%: error_rate (39|4[01])\.", rollout_of(status).message)
    command(world, "retry", attempt=1)
    status = await until(world, lambda status: rollout_of(status).attempt == 2)
    assert "Done" == status.last_command.result
    await until(world, phase("Rejected"))
    world.fleet.health = dict(world.fleet.health)
    world.record.put(a_document(THIRD))
    status = await until(world, phase("Stable"))
    assert status.stable is not None
    assert (THIRD, 3) == (status.stable.image, rollout_of(status).attempt)
    assert "True" == condition(status, "Ready")[0]


async def test_a_version_that_crashes_is_rejected_with_the_cause() -> None:
    """Long before the deadline; no user was ever on it."""
    world = a_world()
    await running(world)
    ail(world, problem="CrashLoopBackOff: back-off (last end: Error, exit code 3: no module named shop)")
    world.record.put(a_document(NEW))
    began = world.now_ms
    status = await until(world, phase("Rejected"))
    assert world.now_ms - began < 20_000
    assert "rejected before its first user: CrashLoopBackOff: back-off" in rollout_of(status).message
    assert "CandidateFailing" == rollout_of(status).reason
    assert ("True", "RunnersReady") == condition(status, "RunnersHealthy")[:2]


async def test_a_version_that_never_gets_ready_is_rejected_at_the_deadline() -> None:
    """What it waits for is told all along."""
    world = a_world()
    await running(world)
    ail(world, target="127.0.0.1:8080 refuses the connection")
    world.record.put(a_document(NEW))
    status = await until(world, phase("Rejected"))
    assert "PrepareTimeout" == rollout_of(status).reason
    assert "0 of 1 runners" in rollout_of(status).message


async def test_the_spec_goes_back_in_mid_rollout() -> None:
    """All users go back, nothing is rejected, the new version's runners go at once."""
    world = a_world()
    await shifting(world)
    world.record.put(a_document(OLD))
    status = await until(world, phase("Stable"))
    assert ("Withdrawn", "") == (rollout_of(status).reason, rollout_of(status).rejected)
    assert "True" == condition(status, "Ready")[0]
    status = await until(world, lambda status: status.candidate is None and len(world.fleet.replicas) == 1)
    assert 400 == status.users.placed
    assert 0 == status.run.lost_runners


async def test_a_third_version_supersedes() -> None:
    """Users go back first, then the third is prepared; no version is rejected."""
    world = a_world()
    second = await shifting(world)
    world.record.put(a_document(THIRD))
    status = await until(world, lambda status: rollout_of(status).attempt == 2)
    assert status.candidate is not None
    assert THIRD == status.candidate.image
    assert 0 == holding(world)[second]
    assert "Superseding" in {write.rollout.phase for write in world.record.writes if write.rollout}
    await until(world, lambda _: second not in world.fleet.replicas)
    status = await until(world, phase("Stable"))
    assert status.stable is not None
    assert THIRD == status.stable.image


async def test_back_to_the_old_version_is_fast_while_its_runners_stand() -> None:
    """One step that is not held: the old version's runners are the ones it had."""
    world = a_world()
    await running(world, rollout={"scaleDownDelay": "10m"})
    first = set(world.fleet.runners)
    world.record.put(a_document(NEW, rollout={"scaleDownDelay": "10m"}))
    await until(world, phase("Retiring"))
    world.record.put(a_document(OLD, rollout={"scaleDownDelay": "10m"}))
    began = world.now_ms
    status = await until(world, lambda status: phase("Retiring")(status) and rollout_of(status).attempt == 2)
    assert world.now_ms - began < 15_000
    assert status.stable is not None
    assert (OLD, 400) == (status.stable.image, status.stable.places)
    assert first <= set(world.fleet.runners)
    assert sum(holding(world).values()) == 400
    await some_looks(world)
    assert "True" == condition(world.status, "Ready")[0]


async def test_a_lost_blue_is_rebuilt_though_the_spec_asks_for_green() -> None:
    """Somebody deletes the stable version's Deployment in mid-rollout: status.stable has what it takes to make it."""
    world = a_world()
    await shifting(world)
    stable = world.status.stable
    assert stable is not None
    del world.fleet.replicas[stable.revision]
    for name in [name for name, runner in world.fleet.runners.items() if runner.revision == stable.revision]:
        del world.fleet.runners[name]
    await some_looks(world, 2)
    assert 400 == sum(holding(world).values()), "what green has room for is on at once"
    status = await until(world, lambda _: stable.revision in world.fleet.replicas)
    assert 1 == status.run.lost_runners
    status = await until(world, phase("Stable"))
    assert status.stable is not None
    assert NEW == status.stable.image


async def test_a_green_runner_lost_at_a_step_voids_its_windows() -> None:
    """Its places are dealt at once, the split comes back, and the step is judged by windows from then on."""
    world = a_world()
    await shifting(world, step=2)
    revision = revision_of_image(world, NEW)
    from_ms = rollout_of(world.status).windows_from_ms
    for name in [name for name, runner in world.fleet.runners.items() if runner.revision == revision]:
        del world.fleet.runners[name]
    await some_looks(world, 3)
    assert 400 == sum(holding(world).values())
    status = await until(world, phase("Analyzing", 2))
    status = await until(world, lambda status: rollout_of(status).settled == 2)
    assert rollout_of(status).windows_from_ms > from_ms
    assert phase("Stable")(await until(world, phase("Stable")))


async def test_green_that_goes_silent_is_written_off() -> None:
    """After the 50 % step: blue has all users within seconds of the verdict, the silent runners are let go at once."""
    world = a_world()
    revision = await shifting(world, step=2)
    for runner in world.fleet.runners.values():
        runner.silent = runner.revision == revision
    status = await until(world, phase("Rejected"))
    assert "CandidateSilent" == rollout_of(status).reason
    assert status.stable is not None
    assert 400 == holding(world)[status.stable.revision]
    assert 400 == status.stable.places
    await until(world, lambda _: set(world.fleet.replicas) == {world.status.stable.revision})
    status = await until(world, lambda status: bool(status.accounts.missing), 20)
    assert 0 == status.run.lost_runners
    assert [True] == ["it did not answer any more and was let go" in text for text in status.accounts.missing]


async def test_a_silent_blue_is_not_moved_from() -> None:
    """The split is kept for as long as it takes, and it goes on when it answers again."""
    world = a_world()
    revision = await shifting(world, step=0)
    blue = [runner for runner in world.fleet.runners.values() if runner.revision != revision]
    await until(world, phase("Shifting", 1))
    for runner in blue:
        runner.silent = True
    began = world.now_ms
    status = await until(world, lambda _: world.now_ms > began + 100_000)
    assert "Shifting" == rollout_of(status).phase
    assert "does not answer: the split is kept" in rollout_of(status).message
    for runner in blue:
        runner.silent = False
    await until(world, phase("Stable"))
    assert 400 == sum(holding(world).values())


async def test_abort_while_green_is_dead() -> None:
    """All users are back on blue whatever green does."""
    world = a_world()
    revision = await shifting(world, step=1)
    for name in [name for name, runner in world.fleet.runners.items() if runner.revision == revision]:
        del world.fleet.runners[name]
    command(world, "abort", attempt=1)
    status = await until(world, phase("Rejected"))
    assert ("Aborted", "Done") == (rollout_of(status).reason, status.last_command.result)
    assert status.stable is not None
    assert {status.stable.revision: 400} == {name: n for name, n in holding(world).items() if n}


async def test_commands() -> None:
    """pause holds, resume lets go on, skip-step passes unjudged, promote-full goes to the end; others are refused."""
    world = a_world()
    await shifting(world, step=0)
    command(world, "abort", attempt=7)
    status = await some_looks(world, 1)
    assert "it is meant for rollout 7, the present one is 1" == status.last_command.reason
    command(world, "resume")
    assert "it is not paused" == (await some_looks(world, 1)).last_command.reason
    command(world, "pause")
    status = await some_looks(world, 1)
    assert ("True", "PausedByCommand") == condition(status, "RolloutPaused")[:2]
    began = world.now_ms
    await until(world, lambda _: world.now_ms > began + 60_000)
    assert ("Analyzing", 0) == (rollout_of(world.status).phase, rollout_of(world.status).step)
    command(world, "skip-step")
    status = await until(world, phase("Shifting", 1))
    assert ("False", "NotPaused") == condition(status, "RolloutPaused")[:2]
    command(world, "promote-full", attempt=1)
    status = await until(world, phase("Retiring"))
    assert "not judged" in rollout_of(status).message
    command(world, "abort")
    assert "no rollout is in progress" == (await some_looks(world, 1)).last_command.reason


async def test_paused_by_the_spec() -> None:
    """It holds where it is; resume can't override it and says so; taken out of the spec, it goes on."""
    world = a_world()
    await shifting(world, step=1)
    world.record.put(a_document(NEW, rollout={"paused": True}))
    status = await some_looks(world, 2)
    assert ("True", "PausedBySpec") == condition(status, "RolloutPaused")[:2]
    command(world, "resume")
    assert "spec.rollout.paused" in (await some_looks(world, 1)).last_command.reason
    world.record.put(a_document(NEW))
    await until(world, phase("Stable"))


async def test_promotion_that_waits_for_somebody() -> None:
    """autoPromote false: all users are on the new version, the old one stands, until `promote`."""
    world = a_world()
    rollout = {"autoPromote": False, "steps": [{"percent": 50, "pause": True}, {"percent": 100}]}
    await shifting(world, step=0, rollout=rollout)
    status = await until(world, lambda status: rollout_of(status).pause is not None)
    assert "PausedAfterStep" == rollout_of(status).pause
    told = {it.reason: it.message for it in world.record.happenings if it.reason in ("StepPassed", "RolloutPaused")}
    assert told["StepPassed"].startswith("rollout 1: 50% passed: error_rate ")
    assert told["RolloutPaused"].startswith(
        "rollout 1: PausedAfterStep: 50% is passed, it waits for promote: error_rate "
    )
    command(world, "promote")
    status = await until(world, lambda status: rollout_of(status).pause == "AwaitingPromotion")
    assert status.candidate is not None
    assert 400 == status.candidate.places
    command(world, "promote")
    await until(world, phase("Retiring"))


STATIONS = {
    "Preparing": phase("Preparing"),
    "Shifting": phase("Shifting", 1),
    "Analyzing": phase("Analyzing", 1),
    "Retiring": phase("Retiring"),
    "Aborting": phase("Aborting"),
    "Rejected": phase("Rejected"),
    "Superseding": phase("Superseding"),
}


async def at_station(station: str) -> tuple[FakeWorld, dict[str, Any]]:
    """Bring a rollout to *station*; return the document that asks for it."""
    world = a_world()
    await running(world)
    await some_looks(world, 20)
    if station in ("Aborting", "Rejected"):
        ail(world, checks_failed_permille=200)
    document = a_document(NEW)
    world.record.put(document)
    if station == "Superseding":
        await until(world, phase("Analyzing", 1))
        document = a_document(THIRD)
        world.record.put(document)
    await until(world, STATIONS[station])
    return world, document


@pytest.mark.parametrize("station", STATIONS)
async def test_suspended_in_mid_rollout(station: str) -> None:
    """Nobody is on, clocks stand, the runners go after a minute; resumed, it ends as it would have."""
    world, document = await at_station(station)
    attempt = rollout_of(world.status).attempt
    world.record.put({**document, "spec": {**document["spec"], "suspend": True}})
    await until(world, lambda status: status.phase == "Suspended")
    await until(world, lambda _: not any(r.active(world.now_ms) for r in world.fleet.runners.values()), 20)
    if station in ("Preparing", "Shifting", "Analyzing"):
        since = rollout_of(world.status).phase
        await until(world, lambda _: not world.fleet.runners)
        assert since == rollout_of(world.status).phase
    began = world.now_ms
    await until(world, lambda _: world.now_ms > began + 120_000)
    world.record.put(document)
    await until(world, lambda status: status.phase == "Running")
    last = phase("Rejected") if station in ("Aborting", "Rejected") else phase("Stable")
    status = await until(world, last)
    assert attempt + (station == "Superseding") == rollout_of(status).attempt
    await until(world, lambda _: 400 == sum(r.active(world.now_ms) for r in world.fleet.runners.values()))
    assert 0 == status.run.lost_runners


@pytest.mark.parametrize("station", STATIONS)
async def test_ended_in_mid_rollout(station: str) -> None:
    """Both versions drain, there is a verdict on the run and none on the version, no runner is left or lost."""
    world, _ = await at_station(station)
    promoted = station == "Retiring"
    command(world, "stop")
    status = await until(world, lambda status: status.phase == "Completed")
    assert "Passed" == status.verdict, status.verdict_reason
    assert status.stable is not None
    ended_with = status.stable.revision
    await some_looks(world)
    assert {} == world.fleet.runners
    assert world.status.stable is not None
    assert ended_with == world.status.stable.revision, "the next run's version is not stable before there is one"
    rollout = rollout_of(world.status)
    if station not in ("Rejected", "Retiring", "Aborting"):
        assert ("Stable", "SimulationEnded", "") == (rollout.phase, rollout.reason, rollout.rejected)
    assert bool(rollout.rejected) == (station in ("Aborting", "Rejected"))
    assert promoted == (rollout.reason == "Promoted")
    writes = len(world.record.writes)
    world.waits = 0
    await some_looks(world)
    assert writes == len(world.record.writes), "a finished run costs nothing"


@pytest.mark.parametrize("station", STATIONS)
async def test_an_operator_that_forgot_everything_goes_on(station: str) -> None:
    """Status and runners hold all that is needed, in every phase."""
    world, _ = await at_station(station)
    world.world.ledgers = Ledgers()
    attempt = rollout_of(world.status).attempt
    last = phase("Rejected") if station in ("Aborting", "Rejected") else phase("Stable")
    status = await until(world, last)
    assert attempt + (station == "Superseding") == rollout_of(status).attempt
    assert 400 == sum(holding(world).values())
    assert 0 == status.run.lost_runners


async def test_users_edited_in_mid_rollout() -> None:
    """They are split anew at the same percentage in the same attempt: 100 of 400, then 250 of 1000."""
    world = a_world()
    revision = await shifting(world, step=1)
    assert 100 == holding(world)[revision]
    world.record.put(a_document(NEW, users=1000))
    status = await until(world, lambda _: 1000 == sum(holding(world).values()) and holding(world)[revision] == 250)
    assert (1, 1) == (rollout_of(status).attempt, rollout_of(status).step)
    status = await until(world, phase("Stable"))
    assert 1000 == status.users.placed


async def test_the_target_edited_in_mid_rollout() -> None:
    """It is no new version: both get it at once, and windows count anew."""
    world = a_world()
    await shifting(world, step=1)
    status = await until(world, lambda status: len(rollout_of(status).windows) == 1)
    from_ms = rollout_of(status).windows_from_ms
    world.record.put(a_document(NEW, target={"url": "http://127.0.0.1:8080/other"}))
    await until(world, lambda status: phase("Analyzing", 1)(status) and rollout_of(status).windows_from_ms != from_ms)
    urls = {r.assignment.load.target.url for r in world.fleet.runners.values() if r.assignment}
    assert {"http://127.0.0.1:8080/other"} == urls


@pytest.mark.parametrize("users", [0, 1, 2])
async def test_few_users(users: int) -> None:
    """0: there is nothing to judge; 1: 10 % is nobody, the one step is 100 %; 2: one and one."""
    world = a_world()
    think = [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}]
    rollout = {"minSamples": 20, "dwell": "30s"}
    await running(world, users=users, archetypes=think, rollout=rollout)
    world.record.put(a_document(NEW, users=users, archetypes=think, rollout=rollout))
    status = await until(world, phase("Stable"))
    assert status.stable is not None
    assert (NEW, users) == (status.stable.image, status.stable.places)


async def test_the_policy_counts_the_runners_of_both_versions() -> None:
    """Two and two are more than three: the edit is refused, the run goes on as it was."""
    world = a_world()
    world.policy = Policy(targets=LOCAL_DEFAULT.targets, max_runners=3)
    old = await running(world, users=1200)
    world.record.put(a_document(NEW, users=1200))
    status = await some_looks(world)
    said = condition(status, "Accepted")
    assert ("False", "Refused") == said[:2]
    assert "runner: a rollout of 2 runners beside 2: 4 runners are more than the policy's 3" in said[2]
    assert "maxRunners: 4" in said[2]
    assert {old} == set(world.fleet.replicas)
    world.policy = Policy(targets=LOCAL_DEFAULT.targets, max_runners=4)
    await until(world, phase("Stable"))


async def test_a_rejected_version_is_not_started_by_the_next_run() -> None:
    """It begins with the version that was stable, and says why; a changed version is started as it is."""
    world = a_world()
    old = await running(world)
    ail(world, failed_permille=400)
    world.record.put(a_document(NEW))
    await until(world, phase("Rejected"))
    command(world, "stop")
    await until(world, lambda status: status.phase == "Completed")
    command(world, "rerun")
    status = await until(world, lambda status: status.phase == "Running")
    status = await some_looks(world)
    assert status.stable is not None
    assert (2, old) == (status.run.id, status.stable.revision)
    assert ("False", "RevisionRejected") == condition(status, "Ready")[:2]
    assert {old} == set(world.fleet.replicas)
    command(world, "stop")
    await until(world, lambda status: status.phase == "Completed")
    world.record.put(a_document(THIRD, runRequest="again"))
    status = await until(world, lambda status: status.phase == "Running")
    assert status.stable is not None
    assert (3, THIRD) == (status.run.id, status.stable.image)
    status = await some_looks(world)
    assert ("Stable", "True") == (rollout_of(status).phase, condition(status, "Ready")[0])


async def test_an_image_taken_out_of_the_spec_again_leads_back() -> None:
    """The installation's image is the one that the run began with, whatever the installation's is by now."""
    world = a_world()
    unnamed = a_document()
    del unnamed["spec"]["runner"]
    world.record.put(unnamed)
    status = await until(world, lambda status: status.phase == "Running")
    assert status.stable is not None
    first = status.stable.revision
    world.fleet.image = "trafficsim/runner:9"
    await some_looks(world)
    assert world.status.rollout is None, "an upgrade of the operator restarts nobody"
    world.record.put(a_document(NEW))
    await until(world, phase("Retiring"))
    world.record.put(unnamed)
    status = await until(world, lambda status: rollout_of(status).attempt == 2)
    status = await until(world, phase("Stable"))
    assert status.stable is not None
    assert (2, first) == (rollout_of(status).attempt, status.stable.revision)


async def test_nothing_is_written_while_nothing_changes() -> None:
    """Of a held step the windows are written when there is one more, and figures at their pace."""
    world = a_world()
    await shifting(world, step=0, rollout={"paused": False})
    command(world, "pause")
    await some_looks(world, 8)
    writes, began = len(world.record.writes), world.now_ms
    await until(world, lambda _: world.now_ms > began + 60_000)
    assert len(world.record.writes) - writes <= 62
    assert max(size_of(write) for write in world.record.writes) <= LIMIT
