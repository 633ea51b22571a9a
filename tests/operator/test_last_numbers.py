"""The last numbers of a runner that ends by our hand: it stays until they are read, for ten seconds at most."""

from __future__ import annotations

from trafficsim_api.errors import Unavailable
from trafficsim_api.statistics import Answer
from trafficsim_operator.testing.fakes import FakeRunners, FakeWorld


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
    assert any("it did not answer any more and was let go" in text for text in world.status.accounts.missing)
