"""The last accounts of runners that end: on record before they go, whatever fails on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trafficsim_api.errors import Unavailable
from trafficsim_api.statistics import Answer, total
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.store import Document
from trafficsim_operator.testing.fakes import FakeRecord, FakeWorld


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
