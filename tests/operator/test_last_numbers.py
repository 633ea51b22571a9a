"""
The last numbers of a runner that ends by our hand, and of a run: they are waited for, and never missing unsaid.

An operator may be killed at any of its calls, and the one that comes after it may come late.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from trafficsim_api.errors import Unavailable
from trafficsim_api.phases import Phase
from trafficsim_api.statistics import Answer
from trafficsim_operator.actions import EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.fleet import Owner
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.testing.fakes import FakeFleet, FakeRunner, FakeRunners, FakeWorld


class UnreadRunners(FakeRunners):
    """Runners of which some answer everything but reads of their account."""

    unread: frozenset[str] = frozenset()

    async def statistics(self, address: str, boot: str, since: int) -> Answer:
        """Return the account, or fail."""
        if address in self.unread:
            raise Unavailable("500")
        return await super().statistics(address, boot, since)


def a_document(users: int) -> dict[str, object]:
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": users,
            "profile": [{"hold": {"for": "1h"}}],
            "scaling": {"usersPerProcess": 20, "maxProcesses": 1},
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
        },
    }


async def until_gone(world: FakeWorld, count: int, within_ms: int) -> int:
    """Look until only *count* runners are left; return how long that took."""
    began = world.now_ms
    while len(world.fleet.runners) > count:
        assert world.now_ms - began < within_ms, f"{sorted(world.fleet.runners)} are there after {within_ms} ms"
        world.waits = min(world.waits or 1_000, 1_000)
        await world.look("n", "shop")
    return world.now_ms - began


async def a_world() -> tuple[FakeWorld, UnreadRunners]:
    """Return a world in which 40 users are at work on two runners, and twenty of them are wanted no more."""
    world = FakeWorld()
    runners = UnreadRunners(world)
    world.world.runners = runners
    world.record.put(a_document(40))
    while world.status.users.active < 40:
        await world.look("n", "shop")
    world.record.put(a_document(20))
    return world, runners


async def test_a_runner_stays_until_its_last_numbers_are_read() -> None:
    world, runners = await a_world()
    plain = await until_gone(world, 1, 30_000)
    world, runners = await a_world()
    runners.unread = frozenset(world.fleet.runners)
    began = world.now_ms
    while world.now_ms - began < plain + 3_000:
        world.waits = min(world.waits or 1_000, 1_000)
        await world.look("n", "shop")
    assert 2 == len(world.fleet.runners)
    runners.unread = frozenset()
    await until_gone(world, 1, 2_000)
    assert not any("was let go" in text for text in world.status.accounts.missing)


async def test_it_goes_after_ten_seconds_and_what_is_missing_is_told() -> None:
    """An account that can't be read holds nothing up for ever."""
    world, runners = await a_world()
    runners.unread = frozenset(world.fleet.runners)
    assert await until_gone(world, 1, 40_000) >= 10_000
    runners.unread = frozenset()
    for _ in range(10):
        await world.look("n", "shop")
    assert any("could not be read, and it was let go" in text for text in world.status.accounts.missing)


# An operator that comes when another one was killed.


async def killed_as_it_ends(world: FakeWorld) -> list[FakeRunner]:
    """Have the run stopped by an operator that dies when that is on record, before any runner hears of it."""
    record = world.record
    document = record.documents["n", "shop"]
    stop = json.dumps({"id": "stop", "action": "stop"})
    record.put(document | {"metadata": document["metadata"] | {"annotations": {"trafficsim.io/command": stop}}})

    async def dies(address: str, assignment: object) -> None:
        raise asyncio.CancelledError

    world.world.runners.assign = dies  # type: ignore[assignment, method-assign]
    world.waits = 0
    with pytest.raises(asyncio.CancelledError):
        await world.look("n", "shop")
    del world.world.runners.assign
    assert Phase.DRAINING is world.status.phase
    world.world = replace(world.world, ledgers=Ledgers())
    return list(world.fleet.runners.values())


async def at_work(users: int = 40) -> FakeWorld:
    world = FakeWorld()
    world.record.put(a_document(users))
    while world.status.users.active < users or world.status.accounts.requests < 200:
        await world.look("n", "shop")
    return world


async def ended(world: FakeWorld, within_ms: int) -> None:
    """Look until the run is judged."""
    began = world.now_ms
    while world.status.phase is not Phase.COMPLETED:
        assert world.now_ms - began < within_ms, world.status.message
        await world.look("n", "shop")


@pytest.mark.parametrize("away_ms", [2_000, 46_000, 600_000], ids=["soon", "when users should have left", "late"])
async def test_an_operator_that_comes_late_first_lets_users_leave(away_ms):
    """Nobody had told them to: to judge the run at once would leave out what they go on to do."""
    world = await at_work()
    runners = await killed_as_it_ends(world)
    world.waits = away_ms
    await world.look("n", "shop")
    assert Phase.DRAINING is world.status.phase
    await ended(world, 10_000)
    assert sum(runner.done for runner in runners) == world.status.accounts.requests
    assert () == world.status.accounts.missing


async def test_whom_a_new_operator_has_not_heard_is_waited_for():
    """Its first call to a runner fails: that runner's numbers are not as good as read."""
    world = await at_work()
    runners = await killed_as_it_ends(world)
    for runner in runners:
        runner.silent = True
    world.waits = 2_000
    for _ in range(3):
        await world.look("n", "shop")
    assert Phase.DRAINING is world.status.phase
    for runner in runners:
        runner.silent = False
    await ended(world, 10_000)
    assert sum(runner.done for runner in runners) == world.status.accounts.requests
    assert () == world.status.accounts.missing


@pytest.mark.parametrize("is_known", [True, False], ids=["it was read before", "it was never heard"])
async def test_what_could_not_be_read_until_the_run_is_judged_is_told(is_known):
    """A runner that is out of reach holds the end up for as long as a request may take; then its share is missing."""
    world = await at_work()
    runners = await killed_as_it_ends(world)
    if is_known:
        world.waits = 2_000
        await world.look("n", "shop")
    silent, *others = runners
    silent.silent = True
    await ended(world, 60_000)
    for runner in runners:
        runner.count(world.now_ms)
    told = world.status.accounts.requests
    assert is_known is (sum(runner.done for runner in runners) == told), "it had heard that it was to drain"
    assert sum(runner.done for runner in others) <= told
    [text] = world.status.accounts.missing
    assert text.startswith(f"{silent.name} from {'' if is_known else 'its start'}")
    assert text.endswith("it did not answer when the run ended")


async def test_what_a_retired_runner_had_not_told_when_it_went_is_said():
    """Its users had been given away, so that it is no loss; what it counted since its last read is missing."""
    world, runners = await a_world()
    runners.unread = frozenset(world.fleet.runners)
    while not any(r.assignment is not None and r.assignment.retire for r in world.fleet.runners.values()):
        await world.look("n", "shop")
    [gone] = [r.name for r in world.fleet.runners.values() if r.assignment is not None and r.assignment.retire]
    await world.look("n", "shop")
    del world.fleet.runners[gone]
    runners.unread = frozenset()
    for _ in range(3):
        await world.look("n", "shop")
    assert world.status.run is not None
    assert 0 == world.status.run.lost_runners
    [text] = world.status.accounts.missing
    assert text.startswith(f"{gone} from ")
    assert " on: it was seen gone at " in text


async def test_what_is_missing_is_on_record_before_the_runner_goes(monkeypatch):
    """An operator that is killed in between has said so."""
    world, runners = await a_world()
    runners.unread = frozenset(world.fleet.runners)
    apply, told = FakeFleet.apply, []

    async def noted(fleet: FakeFleet, owner: Owner, action: EnsureRevision | Retire | RemoveRevision) -> None:
        told.append((type(action), len(world.status.accounts.missing)))
        await apply(fleet, owner, action)

    monkeypatch.setattr(FakeFleet, "apply", noted)
    await until_gone(world, 1, 40_000)
    assert [(Retire, 1)] == told
    said = {c.message for status in world.record.writes for c in status.conditions if c.type == "RunnersHealthy"}
    assert not [text for text in said if "some will be missing" in text], "one look later is no trouble"


async def test_numbers_that_were_told_and_that_nobody_has_any_more_are_missed():
    """Somebody takes the record of ended runners away while no operator is there to see it."""
    world, _ = await a_world()
    await until_gone(world, 1, 30_000)
    for _ in range(3):
        await world.look("n", "shop")
    before = world.status.accounts
    assert () == before.missing
    world.record.kept.clear()
    world.world = replace(world.world, ledgers=Ledgers())
    await world.look("n", "shop")
    [text] = world.status.accounts.missing
    assert "requests that were told of before" in text
    assert before.requests > world.status.accounts.requests
    for _ in range(3):
        await world.look("n", "shop")
    assert (text,) == world.status.accounts.missing


async def test_a_suspended_runner_is_not_let_go_before_it_has_heard_of_it():
    """The operator that put the suspension on record was killed; the next one comes an hour later."""
    world = await at_work()
    document = world.record.documents["n", "shop"]
    world.record.put(document | {"spec": document["spec"] | {"suspend": True}})

    async def dies(address: str, assignment: object) -> None:
        raise asyncio.CancelledError

    world.world.runners.assign = dies  # type: ignore[assignment, method-assign]
    world.waits = 0
    with pytest.raises(asyncio.CancelledError):
        await world.look("n", "shop")
    del world.world.runners.assign
    world.world = replace(world.world, ledgers=Ledgers())
    runners, world.waits = list(world.fleet.runners.values()), 3_600_000
    await world.look("n", "shop")
    assert len(runners) == len(world.fleet.runners)
    await until_gone(world, 0, 90_000)
    for _ in range(3):
        await world.look("n", "shop")
    assert world.status.run is not None
    assert (0, ()) == (world.status.run.lost_runners, world.status.accounts.missing)
    ledger = world.world.ledgers.get("n", "shop")
    assert ledger is not None
    assert sum(runner.done for runner in runners) == ledger.report().requests


@pytest.mark.parametrize("gap_ms", [13_000, 60_000])
async def test_an_operator_that_is_slow_at_every_look_ends_a_run_all_the_same(gap_ms):
    """Of each break some seconds count: a silent runner holds the end up for longer, and not for ever."""
    world = await at_work()
    silent, *_ = await killed_as_it_ends(world)
    silent.silent = True
    began = world.now_ms
    while world.status.phase is not Phase.COMPLETED:
        assert world.now_ms - began < 450_000, "ten times as long as a drain may take"
        world.waits = gap_ms
        await world.look("n", "shop")
    assert [text for text in world.status.accounts.missing if text.startswith(silent.name)]


async def test_an_operator_that_stands_still_as_a_run_ends_has_waited_for_nobody():
    """It goes on ten minutes later, and first lets users leave, as one that comes late."""
    world = await at_work()
    ledgers = world.world.ledgers
    runners = await killed_as_it_ends(world)
    world.world, world.waits = replace(world.world, ledgers=ledgers), 600_000
    await world.look("n", "shop")
    assert Phase.DRAINING is world.status.phase
    await ended(world, 10_000)
    assert sum(runner.done for runner in runners) == world.status.accounts.requests
    assert () == world.status.accounts.missing


@pytest.mark.parametrize("gap_ms", [13_000, 60_000])
async def test_an_operator_that_is_slow_at_every_look_lets_go_of_suspended_runners_all_the_same(gap_ms):
    world = await at_work()
    document = world.record.documents["n", "shop"]
    world.record.put(document | {"spec": document["spec"] | {"suspend": True}})
    began = world.now_ms
    while world.fleet.runners:
        assert world.now_ms - began < 600_000
        world.waits = gap_ms
        await world.look("n", "shop")
    assert world.now_ms - began >= 60_000
