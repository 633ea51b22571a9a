"""The last accounts of runners that end: on record before they go, whatever fails on the way."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from trafficsim_api.errors import Unavailable
from trafficsim_api.names import COMMAND_ANNOTATION, Event
from trafficsim_api.statistics import Answer, total
from trafficsim_operator.actions import Retire
from trafficsim_operator.fleet import Owner
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.plan import bounds
from trafficsim_operator.store import Document, NotKept
from trafficsim_operator.testing.fakes import FakeFleet, FakeRecord, FakeWorld


@dataclass(slots=True)
class FrailRecord(FakeRecord):
    """Keeps no account for a while."""

    is_away: bool = True
    tries: int = 0

    async def keep_totals(self, document: Document, runner: str, answer: bytes) -> None:
        self.tries += 1
        if self.is_away:
            raise Unavailable("500 try again")
        await FakeRecord.keep_totals(self, document, runner, answer)


def a_document(users: int, runners: int) -> dict[str, Any]:
    scaling = {"minRunners": runners, "maxRunners": runners}
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {
            "users": users,
            "target": {"url": "http://127.0.0.1:9"},
            "warmUp": "0s",
            "scaling": scaling,
            "archetypes": [
                {"name": "a", "flow": [{"request": {"get": "/"}, "action": "list"}, {"think": {"constant": "1s"}}]}
            ],
        },
    }


async def at_work(record: FrailRecord) -> FakeWorld:
    """Return a world in which 20 users are at work on two runners."""
    world = FakeWorld(record=record)
    record.put(a_document(20, 2))
    for _ in range(30):
        await world.look("default", "shop")
    assert 2 == len(world.fleet.runners)
    return world


async def test_a_runner_goes_when_its_account_is_on_record() -> None:
    """Its numbers would be in this process alone, and nobody would miss them when that ends."""
    record = FrailRecord()
    world = await at_work(record)
    record.put(a_document(10, 1))
    for _ in range(20):
        await world.look("default", "shop")
    assert record.tries > 1
    assert 2 == len(world.fleet.runners)
    assert "are not on record yet" in world.world.ledgers.get("default", "shop").trouble  # type: ignore[union-attr]
    record.is_away = False
    for _ in range(10):
        await world.look("default", "shop")
    assert 1 == len(world.fleet.runners)
    assert 1 == len(record.kept)


async def test_an_account_that_was_not_kept_is_tried_again() -> None:
    """That of a lost runner, too: an operator that comes after this one knows of every request that was read."""
    record = FrailRecord()
    world = await at_work(record)
    lost = next(iter(world.fleet.runners))
    del world.fleet.runners[lost]
    await world.look("default", "shop")
    assert {} == record.kept
    record.is_away = False
    for _ in range(5):
        await world.look("default", "shop")
    [kept] = record.kept.values()
    before = world.status.accounts.requests
    assert total(Answer.decode(kept).layout, Answer.decode(kept).total, "done") > 0
    world.world.ledgers = Ledgers()
    world.fleet.runners.clear()
    after = await world.look("default", "shop")
    assert after.accounts.requests > 0
    assert before >= after.accounts.requests


# A record that says no for good.


@dataclass(slots=True)
class RefusingRecord(FrailRecord):
    """Nobody may keep an account there, until somebody gives the right to it."""

    async def keep_totals(self, document: Document, runner: str, answer: bytes) -> None:
        self.tries += 1
        if self.is_away:
            raise NotKept("configmaps is forbidden")
        await FakeRecord.keep_totals(self, document, runner, answer)


async def scaled_in(record: RefusingRecord, world: FakeWorld) -> None:
    """Look until one runner of two is left."""
    record.put(a_document(10, 1))
    began = world.now_ms
    while len(world.fleet.runners) > 1:
        assert world.now_ms - began < 20_000
        await world.look("default", "shop")


async def test_numbers_that_may_not_be_kept_are_told_before_their_runner_goes(monkeypatch):
    """They hold it up no longer: one event, one entry in the status, and a try a minute, not one at each look."""
    record = RefusingRecord()
    world = await at_work(record)
    apply, told = FakeFleet.apply, []

    async def noted(fleet: FakeFleet, owner: Owner, action: Any) -> None:
        if isinstance(action, Retire):
            told.append(world.status.accounts.unkept)
        await apply(fleet, owner, action)

    monkeypatch.setattr(FakeFleet, "apply", noted)
    await scaled_in(record, world)
    [[share]] = told
    assert "configmaps is forbidden" == share.reason
    assert share.requests > 0
    tries, began = record.tries, world.now_ms
    while world.now_ms - began < 300_000:
        await world.look("default", "shop")
    assert 4 <= record.tries - tries <= 6
    assert (share,) == world.status.accounts.unkept
    assert () == world.status.accounts.missing
    events = [happening for happening in record.happenings if happening.reason == Event.NUMBERS_NOT_KEPT]
    assert [True] == [happening.warning for happening in events]
    assert share.runner in events[0].message
    assert "configmaps is forbidden" in events[0].message


async def test_numbers_that_may_be_kept_at_last_are_told_no_more():
    """Somebody gave the right: within a minute they are on record, and outlive the operator."""
    record = RefusingRecord()
    world = await at_work(record)
    await scaled_in(record, world)
    record.is_away, began = False, world.now_ms
    while world.status.accounts.unkept:
        assert world.now_ms - began < 70_000
        await world.look("default", "shop")
    before = world.status.accounts.requests
    world.world = replace(world.world, ledgers=Ledgers())
    await world.look("default", "shop")
    assert () == world.status.accounts.missing
    assert before <= world.status.accounts.requests


async def test_numbers_that_went_with_the_operator_are_missed():
    """With the reason that they were not on record; only what is really gone, and once."""
    record = RefusingRecord()
    world = await at_work(record)
    await scaled_in(record, world)
    [share] = world.status.accounts.unkept
    world.world = replace(world.world, ledgers=Ledgers())
    for _ in range(5):
        await world.look("default", "shop")
    [text] = world.status.accounts.missing
    assert text.startswith(f"{share.runner}, {share.requests} requests: ")
    assert "configmaps is forbidden" in text
    assert () == world.status.accounts.unkept


@pytest.mark.parametrize("is_ended", [False, True], ids=["until it answers", "until the run ends"])
async def test_what_was_told_is_told_while_a_runner_is_silent(is_ended):
    """Whoever takes over then, and over again, can't say yet what is gone: it is told as it was, and missed at last."""
    record = RefusingRecord()
    world = await at_work(record)
    await scaled_in(record, world)
    [silent], before, first = world.fleet.runners.values(), world.status.accounts, len(record.writes)
    silent.silent = True
    for _ in range(2):
        world.world, world.waits = replace(world.world, ledgers=Ledgers()), 5_000
        for _ in range(5):
            await world.look("default", "shop")
    assert {before.unkept} == {status.accounts.unkept for status in record.writes[first:]}
    assert {before.requests} == {status.accounts.requests for status in record.writes[first:]}
    assert () == world.status.accounts.missing
    silent.silent = is_ended
    if is_ended:
        stop = json.dumps({"id": "stop", "action": "stop"})
        document = record.documents["default", "shop"]
        record.put(document | {"metadata": {"name": "shop", "annotations": {COMMAND_ANNOTATION: stop}}})
    began, world.waits = world.now_ms, 0
    while not (world.status.accounts.missing if not is_ended else world.status.phase == "Completed"):
        assert world.now_ms - began < 120_000
        await world.look("default", "shop")
    [share], [text, *others] = before.unkept, world.status.accounts.missing
    assert text.startswith(f"{share.runner}, {share.requests} requests: ")
    assert [f"{silent.name} from its start on: it did not answer when the run ended"] * is_ended == others
    assert () == world.status.accounts.unkept


async def test_a_runner_that_is_there_still_has_its_numbers(monkeypatch):
    """An operator that was killed between what it told and the runner's end lost nothing."""
    record = RefusingRecord()
    world = await at_work(record)

    async def dies(fleet: FakeFleet, owner: Owner, action: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
        patch.setattr(FakeFleet, "apply", dies)
        await scaled_in(record, world)
    assert 1 == len(world.status.accounts.unkept)
    assert 2 == len(world.fleet.runners)
    world.world = replace(world.world, ledgers=Ledgers())
    await world.look("default", "shop")
    assert () == world.status.accounts.missing


async def test_what_was_spoilt_on_record_is_missed():
    record = RefusingRecord(is_away=False)
    world = await at_work(record)
    await scaled_in(record, world)
    [uid] = record.kept
    record.kept[uid] = b""
    world.world = replace(world.world, ledgers=Ledgers())
    await world.look("default", "shop")
    assert f"what was kept of {uid}: it can't be read any more" in world.status.accounts.missing


async def test_what_a_status_has_no_room_for_is_not_told_anew_at_each_look(monkeypatch):
    """Of four shares that are not kept and four that are missing two are named: figures are due as ever."""
    monkeypatch.setattr(bounds, "LIMIT", 0)
    record = RefusingRecord()
    world = FakeWorld(record=record)
    record.put(a_document(40, 10))
    for _ in range(30):
        await world.look("default", "shop")
    ledger = world.world.ledgers.get("default", "shop")
    for number in range(4):
        ledger.restore(f"uid-of-{number}", b"", world.now_ms)
    record.put(a_document(40, 6))
    began = world.now_ms
    while len(world.fleet.runners) > 6 or "and 2 more" not in world.status.accounts.missing:
        assert world.now_ms - began < 60_000
        await world.look("default", "shop")
    await world.look("default", "shop")
    assert 4 == len(ledger.unkept)
    assert 2 == len(world.status.accounts.unkept)
    began, first = world.now_ms, len(record.writes)
    while world.now_ms - began < 30_000:
        world.waits = 1_000
        await world.look("default", "shop")
    assert len({status.figures.at for status in record.writes[first:]}) <= 30 // 5 + 1


async def test_the_end_of_a_run_tells_all_that_was_counted():
    """What is in memory counts; when it is told, nothing is left that an operator could lose."""
    record = RefusingRecord()
    world = await at_work(record)
    runners = list(world.fleet.runners.values())
    await scaled_in(record, world)
    stop = json.dumps({"id": "stop", "action": "stop"})
    document = record.documents["default", "shop"]
    record.put(document | {"metadata": {"name": "shop", "annotations": {COMMAND_ANNOTATION: stop}}})
    began = world.now_ms
    while world.fleet.runners:
        assert world.now_ms - began < 30_000
        await world.look("default", "shop")
    assert "Completed" == world.status.phase
    assert sum(runner.done for runner in runners) == world.status.accounts.requests
    assert ((), ()) == (world.status.accounts.unkept, world.status.accounts.missing)
