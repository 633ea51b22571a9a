"""What is remembered of a runner that was told something: until it says so, it may hold what it held and that too."""

from __future__ import annotations

from typing import Any

import pytest

from trafficsim_api.errors import Unavailable
from trafficsim_api.protocol import Acknowledgement, Assignment
from trafficsim_operator.fleet.runners import RunnerRefused
from trafficsim_operator.testing.fakes import FakeRunners, FakeWorld

DOCUMENT = {
    "apiVersion": "trafficsim.io/v1alpha1",
    "kind": "TrafficSimulation",
    "metadata": {"name": "shop", "namespace": "n"},
    "spec": {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 20,
        "profile": [{"hold": {"for": "1h"}}],
        "scaling": {"usersPerProcess": 20, "maxProcesses": 1, "minRunners": 2},
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
    },
}


class FrailRunners(FakeRunners):
    """Runners of which one may lose an answer, or refuse, when it is told its places."""

    fails: str = ""
    fault: Exception | None = None
    does: bool = True

    async def assign(self, address: str, assignment: Assignment) -> Acknowledgement:
        """Tell the runner, unless it refuses; the answer may be lost."""
        if self.fault is None or address != self.fails or not assignment.places:
            return await super().assign(address, assignment)
        if self.does:
            await super().assign(address, assignment)
        raise self.fault


def holding(world: FakeWorld) -> dict[str, Any]:
    """Return the places that each runner was told."""
    return {name: r.assignment.places for name, r in world.fleet.runners.items() if r.assignment is not None}


async def told(fault: Exception | None, *, does: bool) -> tuple[FakeWorld, str]:
    """Return a world whose runners were told their places just now, and the one that met the *fault*, silent since."""
    world = FakeWorld()
    runners = FrailRunners(world)
    world.world.runners = runners
    world.record.put(DOCUMENT)
    while len(world.fleet.runners) < 2:
        await world.look("n", "shop")
    first = min(world.fleet.runners)
    runners.fails, runners.fault, runners.does = first, fault, does
    for _ in range(60):
        if any(holding(world).values()):
            break
        await world.look("n", "shop")
    world.fleet.runners[first].silent = True
    return world, first


@pytest.mark.parametrize(
    ("fault", "does"),
    [
        pytest.param(None, True, id="it answered"),
        pytest.param(Unavailable("the answer was lost"), True, id="its answer was lost"),
        pytest.param(Unavailable("it did not hear"), False, id="it may not have heard"),
    ],
)
async def test_one_that_is_silent_since_keeps_the_places_it_was_told(fault: Exception | None, does: bool) -> None:
    """At the look after it was told: its users may be at work, and are started nowhere else."""
    world, first = await told(fault, does=does)
    others = {name: places for name, places in holding(world).items() if name != first}
    for _ in range(3):
        await world.look("n", "shop")
    assert others == {name: places for name, places in holding(world).items() if name != first}


async def test_one_that_refused_holds_nothing_of_it() -> None:
    """Its word counts: what it refused is dealt to others."""
    world, first = await told(RunnerRefused("422: not today"), does=False)
    for _ in range(3):
        await world.look("n", "shop")
    [other] = [places for name, places in holding(world).items() if name != first]
    assert ((0, 20),) == other
