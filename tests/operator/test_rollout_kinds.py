"""Rollouts of simulations with unique rows, with arrivals, with profiles and with setup: what holds beside users."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from trafficsim_api.status import Status
from trafficsim_operator.testing.fakes import FakeWorld

FLOW = [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]


def a_document(image: str, **spec: Any) -> dict[str, Any]:
    """Build a document of 40 users whose rollouts are quick."""
    rollout = {"dwell": "6s", "warmUp": "2s", "window": "2s", "minSamples": 20, "scaleDownDelay": "3s"}
    full = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 40,
        "duration": "1h",
        "archetypes": [{"name": "a", "flow": FLOW}],
        "scaling": {"usersPerProcess": 10, "maxProcesses": 1},
        "runner": {"image": image},
        "rollout": rollout,
    } | spec
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": full,
    }


class Rolling:
    """A world in which a second version is rolled out; *held* is what every look saw of places."""

    def __init__(self, **spec: Any) -> None:
        self.world, self.spec = FakeWorld(), spec
        self.world.fleet.tells = True
        self.held: list[Counter[int]] = []

    async def look(self) -> Status:
        """Look once, at most every second."""
        self.world.waits = min(self.world.waits if self.world.waits is not None else 1_000, 1_000)
        status = await self.world.look("n", "shop")
        told = (r.assignment for r in self.world.fleet.runners.values())
        self.held.append(Counter(place for a in told if a is not None for place in a.held))
        return status

    async def until_promoted(self) -> Status:
        """Begin with the first version, roll the second out to its end."""
        self.world.record.put(a_document("shop:1", **self.spec))
        for _ in range(30):
            await self.look()
        self.held = []
        self.world.record.put(a_document("shop:2", **self.spec))
        for _ in range(1500):
            status = await self.look()
            if status.rollout is not None and status.rollout.phase == "Stable":
                assert status.stable is not None
                assert "shop:2" == status.stable.image
                return status
        raise AssertionError(f"not promoted: {self.world.status.rollout}")


async def test_a_row_of_its_own_is_never_two_users() -> None:
    """The giver goes first: no place is ever held twice, and at most c of them are off at a time."""
    rows = [{"name": f"u{number}"} for number in range(40)]
    rolling = Rolling(data=[{"name": "user", "mode": "unique", "from": {"inline": rows}}])
    status = await rolling.until_promoted()
    assert 1 == max(max(held.values()) for held in rolling.held)
    assert 36 == min(len(held) for held in rolling.held)
    assert 40 == status.users.placed


async def test_arrivals_go_over_with_their_places() -> None:
    """In the open model too; a place is held by one or, for a moment, by both."""
    rolling = Rolling(arrivals={"rate": "40/s"}, archetypes=[{"name": "a", "flow": FLOW[:1]}])
    status = await rolling.until_promoted()
    assert 40 == min(len(held) for held in rolling.held)
    assert max(held.total() for held in rolling.held) <= 44
    assert 40 == status.users.placed


async def test_a_profile_that_asks_for_half_of_the_users() -> None:
    """Places are split, whoever of them is on: users that are on are split with them."""
    rolling = Rolling(profile=[{"ramp": {"to": "50%", "over": "0s"}}, {"hold": {"for": "1h"}}])
    status = await rolling.until_promoted()
    assert (20, 40) == (status.users.wanted, status.users.placed)
    assert 40 == min(len(held) for held in rolling.held)


@pytest.mark.parametrize("kind", ["setup", "teardown"])
async def test_what_is_done_once_is_not_done_again(kind: str) -> None:
    """The new version's runners are not at setup again; teardown is done by whoever is there at the end."""
    rolling = Rolling(**{kind: {"flow": FLOW[:1]}})
    await rolling.until_promoted()
    document = rolling.world.record.documents["n", "shop"]
    command = {"trafficsim.io/command": '{"id": "1", "action": "stop"}'}
    rolling.world.record.put({**document, "metadata": {**document["metadata"], "annotations": command}})
    for _ in range(60):
        status = await rolling.look()
        if status.phase == "Completed":
            break
    assert "Completed" == rolling.world.status.phase
    begun = rolling.world.fleet.begun
    assert [f"1-{kind}"] == [text.partition(" ")[0] for text in begun]
