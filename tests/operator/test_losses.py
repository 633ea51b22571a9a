"""What is lost with runners: told while the run goes on, borne with or not; load that may be double is never unsaid."""

from __future__ import annotations

from typing import Any

import pytest

from trafficsim_api.document import load_spec
from trafficsim_api.status import LostRunner, Run, Status
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import Evidence, Loss
from trafficsim_operator.plan.losses import (
    MOST_TOLD,
    ending_loss,
    fatal_losses,
    fresh_losses,
    losses_on,
    share_ms,
    short_on,
)
from trafficsim_operator.plan.verdict import judge
from trafficsim_operator.testing.fake_runner import FakeRunner
from trafficsim_operator.testing.fakes import FakeWorld

T0 = 1_700_000_000_000
HALF = [{"hold": {"for": "1ms"}}, {"steps": {"to": "50%", "count": 1, "every": "1ms"}}, {"hold": {"for": "1h"}}]


def a_document(**spec: Any) -> dict[str, Any]:
    flow = [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 400,
            "duration": "10m",
            "archetypes": [{"name": "a", "flow": flow}],
            **spec,
        },
    }


def a_spec(**spec: Any) -> Any:
    return load_spec(a_document(**spec)).spec


def a_run(**fields: Any) -> Run:
    usual = {
        "id": 1,
        "phase_since": format_instant(T0),
        "origin": format_instant(T0),
        "end": format_instant(T0 + 600_000),
        "planned_users": 400,
        "planned_since": format_instant(T0),
    }
    return Run(**usual | fields)


def a_loss(name: str = "shop-1", *, users: int = 100, since: int = 60_000, at: int = 62_000, **fields: Any) -> Loss:
    return Loss(name=name, users=users, since_ms=T0 + since, at_ms=T0 + at, **fields)


@pytest.mark.parametrize(
    ("users", "since", "until", "lost"),
    [
        pytest.param(100, 60_000, 62_000, 200_000, id="in a hold at 100 %"),
        pytest.param(400, 60_000, 62_000, 800_000, id="all of them"),
        pytest.param(500, 60_000, 62_000, 800_000, id="no more than there are"),
        pytest.param(100, 0, 30_000, 1_500_000, id="over the ramp"),
        pytest.param(100, -5_000, 0, 0, id="before the start"),
        pytest.param(100, 599_000, 605_000, 100_000, id="no longer than the run"),
        pytest.param(0, 0, 30_000, 0, id="nobody"),
    ],
)
def test_the_time_of_some_places(users: int, since: int, until: int, lost: int) -> None:
    """⌊users · ∫ u dt ÷ T⌋, of T = 400 that ramp up over 30 s."""
    assert lost == share_ms(a_run(), a_spec(), users, T0 + since, T0 + until)


def test_at_half_the_level_half_is_lost() -> None:
    """100 of 400 places at 50 %: 50 users on, for two seconds."""
    assert 100_000 == share_ms(a_run(), a_spec(profile=HALF), 100, T0 + 60_000, T0 + 62_000)


def test_fresh_losses_are_those_beyond_what_is_on_record() -> None:
    """The ledger counts on from the status, also after a restart."""
    evidence = Evidence(lost_runners=5, losses=(a_loss("d"), a_loss("e")))
    assert [(), ("e",), ("d", "e")] == [
        tuple(loss.name for loss in fresh_losses(evidence, known)) for known in (5, 4, 3)
    ]


def test_a_loss_is_on_record_with_its_time() -> None:
    """Name, users, from when on its numbers are missing; not twice."""
    evidence = Evidence(lost_runners=1, losses=(a_loss(),))
    run = losses_on(a_run(), evidence, a_spec(), on=True)
    assert (200_000, 1) == (run.lost_user_ms, run.lost_runners)
    (lost,) = run.lost
    assert ("shop-1", 100, format_instant(T0 + 60_000), format_instant(T0 + 62_000), False) == (
        lost.name, lost.users, lost.since, lost.at, lost.end_unseen
    )  # fmt: skip
    assert run == losses_on(run, evidence, a_spec(), on=True)
    assert 0 == losses_on(a_run(), evidence, a_spec(), on=False).lost_user_ms, "nobody was on"


def test_of_many_losses_the_newest_are_told_and_those_whose_end_nobody_saw() -> None:
    """The verdict asks for these."""
    losses = (a_loss("first", end_unseen=True), *(a_loss(f"shop-{number}") for number in range(20)))
    run = losses_on(a_run(), Evidence(lost_runners=21, losses=losses), a_spec(), on=True)
    assert ["first", *(f"shop-{number}" for number in range(21 - MOST_TOLD, 20))] == [lost.name for lost in run.lost]
    assert 21 * 200_000 == run.lost_user_ms


def test_places_without_room_cost_time_until_they_have_it() -> None:
    """Told when their number changes or figures are written; in between nothing is."""
    spec = a_spec()
    run = short_on(a_run(), spec, 50, is_told=False, now_ms=T0 + 60_000)
    assert (50, format_instant(T0 + 60_000), 0) == (run.short_users, run.short_since, run.lost_user_ms)
    assert run == short_on(run, spec, 50, is_told=False, now_ms=T0 + 61_000)
    run = short_on(run, spec, 50, is_told=True, now_ms=T0 + 62_000)
    assert (50, format_instant(T0 + 62_000), 100_000) == (run.short_users, run.short_since, run.lost_user_ms)
    run = short_on(run, spec, 20, is_told=False, now_ms=T0 + 63_000)
    assert (20, format_instant(T0 + 63_000), 150_000) == (run.short_users, run.short_since, run.lost_user_ms)
    run = short_on(run, spec, 0, is_told=False, now_ms=T0 + 64_000)
    assert (0, None, 170_000) == (run.short_users, run.short_since, run.lost_user_ms)


@pytest.mark.parametrize(
    ("policy", "known", "at", "ends"),
    [
        pytest.param("end", 0, 62_000, "shop-1", id="it ends the run"),
        pytest.param("replace", 0, 62_000, "", id="it is replaced"),
        pytest.param("end", 1, 62_000, "", id="it was lost before"),
        pytest.param("end", 0, -10, "", id="it was lost before the run began"),
    ],
)
def test_whose_loss_ends_the_run(policy: str, known: int, at: int, ends: str) -> None:
    """A new one since the origin, where onRunnerLoss says so."""
    spec = a_spec(scaling={"onRunnerLoss": policy})
    assert ends == ending_loss(Evidence(lost_runners=1, losses=(a_loss(at=at),)), a_run(lost_runners=known), spec)


def test_whose_loss_the_spec_does_not_bear_with() -> None:
    """All since the origin, or none."""
    lost = tuple(
        LostRunner(name=name, since=format_instant(T0 + at), at=format_instant(T0 + at))
        for name, at in (("early", -5), ("late", 5))
    )
    run = a_run(lost=lost)
    assert [("late",), ()] == [
        fatal_losses(run, a_spec(scaling={"onRunnerLoss": policy})) for policy in ("end", "replace")
    ]


@pytest.mark.parametrize(
    ("found", "reason", "says"),
    [
        pytest.param(
            {"fatal": ("shop-1",)}, "RunnersLost", "shop-1 was lost, and scaling.onRunnerLoss is end", id="end"
        ),
        pytest.param(
            {"lost": (LostRunner(name="shop-2", users=40, since="", at="", end_unseen=True),)},
            "PossibleDoubleLoad",
            "nobody saw shop-2 (40 users) end",
            id="an end that nobody saw",
        ),
        pytest.param(
            {"lost": (LostRunner(name="shop-2", users=40, since="", at=""),)}, "Passed", "", id="an end that was seen"
        ),
    ],
)
def test_the_verdict_on_losses(found: dict[str, Any], reason: str, says: str) -> None:
    """Inconclusive, the runner named."""
    judgement = judge(Evidence(judged_requests=500), planned_user_ms=1000, lost_user_ms=0, **found)
    assert reason == judgement.reason
    assert ("Passed" if reason == "Passed" else "Inconclusive") == judgement.verdict
    assert says in judgement.message


@pytest.mark.parametrize(
    ("lost", "reason", "says"),
    [
        pytest.param(
            (LostRunner(name="shop-2", users=40, since="", at=""),),
            "RunnersLost",
            "1 % are tolerated",
            id="with a runner",
        ),
        pytest.param((), "UserTimeLost", "1 % are tolerated; no runner was lost", id="with none"),
    ],
)
def test_lost_user_time_is_laid_to_runners_only_where_one_was_lost(
    lost: tuple[LostRunner, ...], reason: str, says: str
) -> None:
    """Else nobody looks for a runner that was there all the time."""
    judgement = judge(Evidence(judged_requests=500), planned_user_ms=140_000, lost_user_ms=2000, lost=lost)
    assert ("Inconclusive", reason) == (judgement.verdict, judgement.reason)
    assert f"2 user-seconds were lost, 1.4 % of those planned; {says}" == judgement.message


# In a world of fakes.


async def running(**spec: Any) -> FakeWorld:
    world = FakeWorld()
    world.fleet.tells = True
    world.record.put(a_document(**{"users": 1200, "duration": "12m"} | spec))
    for _ in range(200):
        status = await world.look("n", "shop")
        if status.run is not None and status.run.origin and world.now_ms > _ms(status) + 40_000:
            return world
    raise AssertionError(world.status.message)


def _ms(status: Status) -> int:
    assert status.run is not None
    return parse_instant(status.run.origin or "")


async def ended(world: FakeWorld) -> Status:
    world.world.stop = "it was enough"
    for _ in range(100):
        if (await world.look("n", "shop")).phase == "Completed":
            return world.status
    raise AssertionError(world.status.message)


def the_first(world: FakeWorld) -> FakeRunner:
    return next(iter(world.fleet.runners.values()))


async def test_a_loss_is_told_while_the_run_goes_on() -> None:
    """The event names the runner, its users and what is lost so far; the status says it before the run has ended."""
    world = await running()
    gone = the_first(world)
    del world.fleet.runners[gone.name]
    while not world.status.run.lost_runners:
        await world.look("n", "shop")
    (lost,) = world.status.run.lost
    assert (gone.name, 600, False) == (lost.name, lost.users, lost.end_unseen)
    assert 0 < world.status.run.lost_user_ms <= 600 * 10_000
    (said,) = [h for h in world.record.happenings if h.reason == "RunnerLost"]
    assert said.warning
    assert f"{gone.name} was lost with 600 users" in said.message
    assert "user-seconds are known to be lost so far" in said.message
    so_far = world.status.run.lost_user_ms
    status = await ended(world)
    assert status.run.lost_user_ms >= so_far
    assert not [h for h in world.record.happenings if h.reason == "PossibleDoubleLoad"]


async def test_more_lost_at_once_than_the_status_names_are_said_all_the_same() -> None:
    """Eleven with their zone: eight are on record, each with an event of its own; one more says how many others."""
    world = await running(scaling={"minRunners": 11})
    world.fleet.runners.clear()
    while not world.status.run.lost_runners:
        await world.look("n", "shop")
    said = [h.message for h in world.record.happenings if h.reason == "RunnerLost"]
    assert (11, 8, 9) == (world.status.run.lost_runners, len(world.status.run.lost), len(said))
    assert said[-1].startswith("3 more runners were lost; ")


async def test_users_without_room_are_counted_as_lost_while_it_lasts() -> None:
    """Both runners gone: nobody has room until their replacements are there."""
    world = await running()
    world.fleet.health[the_first(world).revision].problem = "ImagePullBackOff: it takes a while"
    world.fleet.runners.clear()
    for _ in range(12):
        await world.look("n", "shop")
    assert 1200 == world.status.run.short_users
    told = world.status.run.lost_user_ms
    assert told > 0
    for runner in world.fleet.runners.values():
        runner.health.problem = ""
    for _ in range(30):
        await world.look("n", "shop")
    assert (0, None) == (world.status.run.short_users, world.status.run.short_since)
    assert world.status.run.lost_user_ms > told


async def test_on_runner_loss_end() -> None:
    """The run is ended at once and judged Inconclusive; reason and event name the runner; nothing is replaced."""
    world = await running(scaling={"onRunnerLoss": "end"})
    gone = the_first(world)
    del world.fleet.runners[gone.name]
    for _ in range(20):
        status = await world.look("n", "shop")
    assert f"{gone.name} was lost, and scaling.onRunnerLoss is end" == status.run.stop
    assert ("Inconclusive", status.run.stop) == (status.verdict, status.verdict_reason)
    assert "RunnersLost" == next(c.reason for c in status.conditions if c.type == "Passed")
    assert any(gone.name in h.message for h in world.record.happenings if h.reason == "RunnerLost")
    assert parse_instant(status.run.finished_at or "") < _ms(status) + 100_000


async def test_an_edit_to_end_does_not_end_a_run_for_an_earlier_loss() -> None:
    """What was replaced was borne with then; the run goes on, and is judged by what its spec says in the end."""
    world = await running()
    gone = the_first(world)
    del world.fleet.runners[gone.name]
    while not world.status.run.lost_runners:
        await world.look("n", "shop")
    world.record.put(a_document(users=1200, duration="12m", scaling={"onRunnerLoss": "end"}))
    for _ in range(10):
        await world.look("n", "shop")
    assert "Running" == world.status.phase
    status = await ended(world)
    assert "it was enough" == status.run.stop
    assert f"{gone.name} was lost, and scaling.onRunnerLoss is end" == status.verdict_reason


async def cut_off(world: FakeWorld) -> FakeRunner:
    """Take the node of a runner away, and let its pod be deleted there."""
    runner = the_first(world)
    runner.node_lost = runner.silent = runner.leaving = True
    for _ in range(20):
        await world.look("n", "shop")
    return runner


def held_by_others(world: FakeWorld, runner: FakeRunner) -> int:
    others = (r.assignment for r in world.fleet.runners.values() if r is not runner)
    return sum(len(a.held) for a in others if a is not None)


async def test_a_runner_on_a_node_that_is_not_ready_keeps_its_users_until_its_grace_is_over() -> None:
    """
    It may be at work: nobody takes its users. Then it counts as lost though nobody saw it end, and its users go.

    That is an event, and the run is Inconclusive: they may have been at work twice.
    """
    world = await running(scaling={"minRunners": 2, "maxRunners": 2})
    runner = await cut_off(world)
    assert runner.assignment is not None
    assert 600 == len(runner.assignment.held)
    assert 600 == held_by_others(world, runner)
    assert 0 == world.status.run.lost_runners
    runner.is_overdue = True
    for _ in range(20):
        await world.look("n", "shop")
    assert 1200 == held_by_others(world, runner)
    (lost,) = world.status.run.lost
    assert (runner.name, 600, True) == (lost.name, lost.users, lost.end_unseen)
    (said,) = [h for h in world.record.happenings if h.reason == "PossibleDoubleLoad"]
    assert said.warning
    assert runner.name in said.message
    status = await ended(world)
    assert 1 == status.run.lost_runners
    assert "Inconclusive" == status.verdict
    assert "PossibleDoubleLoad" == next(c.reason for c in status.conditions if c.type == "Passed")
    assert runner.name in status.verdict_reason


async def test_a_pod_that_is_gone_with_its_node_was_not_seen_to_end() -> None:
    """Removed by force, or by the cluster since the node is gone: nobody asked the process."""
    world = await running()
    runner = await cut_off(world)
    del world.fleet.runners[runner.name]
    while not world.status.run.lost_runners:
        await world.look("n", "shop")
    assert [True] == [lost.end_unseen for lost in world.status.run.lost]


async def test_a_runner_that_can_be_reached_on_such_a_node_gives_its_users_away() -> None:
    """Nobody there tells it to end, so we do: its users move without a dip, then it drains. Nothing is lost."""
    world = await running()
    runner = the_first(world)
    runner.node_lost = runner.leaving = True
    assert runner.assignment is not None
    for _ in range(200):
        await world.look("n", "shop")
        assert 1200 <= len(runner.assignment.held) + held_by_others(world, runner) <= 1320
        if runner.assignment.retire:
            break
    for _ in range(20):
        await world.look("n", "shop")
    assert (0, True) == (len(runner.assignment.held), runner.assignment.retire)
    assert 1200 == held_by_others(world, runner)
    runner.is_overdue = True
    status = await ended(world)
    assert (0, ()) == (status.run.lost_runners, status.run.lost)
    assert "Passed" == status.verdict, status.verdict_reason
    assert runner.uid in world.record.kept


async def test_a_new_operator_counts_an_overdue_runner_it_never_heard() -> None:
    """It may have users, and its account was never read; one that the status tells of is not counted again."""
    world = await running()
    runner = await cut_off(world)
    runner.is_overdue = True
    world.world.ledgers = Ledgers()
    for _ in range(10):
        await world.look("n", "shop")
    assert [(runner.name, True)] == [(lost.name, lost.end_unseen) for lost in world.status.run.lost]
    world.world.ledgers = Ledgers()
    for _ in range(10):
        await world.look("n", "shop")
    assert 1 == world.status.run.lost_runners


async def test_a_new_operator_counts_a_runner_that_it_never_heard_once_it_is_overdue() -> None:
    """It saw the pod, and not what the runner holds: that one keeps whatever it has until then."""
    world = await running(scaling={"minRunners": 2, "maxRunners": 2})
    runner = await cut_off(world)
    world.world.ledgers = Ledgers()
    for _ in range(30):
        await world.look("n", "shop")
    assert (600, 0) == (held_by_others(world, runner), world.status.run.lost_runners)
    runner.is_overdue = True
    for _ in range(10):
        await world.look("n", "shop")
    assert [(runner.name, True)] == [(lost.name, lost.end_unseen) for lost in world.status.run.lost]
    assert 1200 == held_by_others(world, runner)


async def test_a_loss_is_not_hidden_by_users_that_were_on_twice() -> None:
    """Planned less given would be less than what is known to be lost; the larger of the two stands."""
    world = await running()
    gone = the_first(world)
    del world.fleet.runners[gone.name]
    while not world.status.run.lost_runners:
        await world.look("n", "shop")
    so_far = world.status.run.lost_user_ms
    for runner in world.fleet.runners.values():
        runner.wanted_user_ms += 100_000_000
    status = await ended(world)
    assert so_far <= status.run.lost_user_ms <= so_far + 600 * 5_000
    assert status.run.lost_user_ms > 0


async def test_an_edit_of_users_keeps_what_was_lost() -> None:
    """Planned time folds at the edit, what was lost is added up over it."""
    world = await running(scaling={"minRunners": 2, "maxRunners": 3})
    gone = the_first(world)
    del world.fleet.runners[gone.name]
    for _ in range(12):
        await world.look("n", "shop")
    so_far = world.status.run.lost_user_ms
    assert so_far > 0
    world.record.put(a_document(users=600, duration="12m", scaling={"minRunners": 2, "maxRunners": 3}))
    for _ in range(12):
        await world.look("n", "shop")
    assert (600, 600) == (world.status.users.dealt, world.status.users.placed)
    assert (so_far, 1) == (world.status.run.lost_user_ms, len(world.status.run.lost))
    assert so_far <= (await ended(world)).run.lost_user_ms
