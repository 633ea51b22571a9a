"""What is remembered of a runner that was told something: until it says so, it may hold what it held and that too."""

from __future__ import annotations

from typing import Any

import pytest

from trafficsim_api.errors import Unavailable
from trafficsim_api.protocol import Acknowledgement, Assignment
from trafficsim_operator.actions import Assign, Decision
from trafficsim_operator.fleet.runners import RunnerRefused
from trafficsim_operator.testing.fakes import FakeRunners, FakeWorld

DOCUMENT: dict[str, Any] = {
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


@pytest.mark.parametrize(
    ("fails", "is_told"),
    [
        pytest.param("", True, id="all were reached"),
        pytest.param("giver", False, id="the giver was not: what it has is not to be on twice"),
        pytest.param("other", True, id="one that neither gives nor takes was not"),
    ],
)
async def test_takers_wait_for_givers_alone(fails: str, is_told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one look one runner gives four places, one takes them, and one is told what it holds."""
    world = FakeWorld()
    world.world.runners = runners = FrailRunners(world)
    world.record.put({**DOCUMENT, "spec": {**DOCUMENT["spec"], "scaling": {"minRunners": 3}}})
    for _ in range(40):
        await world.look("n", "shop")
    names = dict(zip(("giver", "taker", "other"), world.fleet.runners, strict=True))
    told = {role: world.fleet.runners[name].assignment for role, name in names.items()}
    before = {role: assignment for role, assignment in told.items() if assignment is not None}
    held = {role: assignment.held for role, assignment in before.items()}
    kept = held["giver"].below(min(start for start, _ in held["giver"].ranges) + 3)
    places = held | {"giver": kept, "taker": held["taker"] | (held["giver"] - kept)}
    actions = tuple(
        Assign(
            name=names[role],
            address=names[role],
            assignment=was.model_copy(update={"epoch": was.epoch + 50, "places": places[role].ranges}),
        )
        for role, was in before.items()
    )
    runners.fails, runners.fault, runners.does = names.get(fails, ""), Unavailable("not reached"), False
    monkeypatch.setattr(
        "trafficsim_operator.reconcile.decide",
        lambda desired, observed, now_ms: Decision(status=desired.status, actions=actions, next_look_ms=1000),
    )
    await world.look("n", "shop")
    taker = world.fleet.runners[names["taker"]].assignment
    assert taker is not None
    assert is_told is (taker.held == places["taker"])
