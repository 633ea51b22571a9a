"""A rollout, look by look, in a world of fakes: pointers, runners, users, conditions and events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from trafficsim_api.status import RolloutStatus, Status
from trafficsim_operator.testing.fakes import FakeWorld

QUICK = {
    "dwell": "10s",
    "warmUp": "3s",
    "window": "2s",
    "scaleDownDelay": "5s",
    "abortScaleDownDelay": "20s",
    "deadline": "60s",
}
OLD, NEW, THIRD = "shop:1", "shop:2", "shop:3"


def a_document(image: str = OLD, *, rollout: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """Build a document of 400 users, one request each a second, whose rollouts are quick."""
    full = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 400,
        "duration": "1h",
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
        "runner": {"image": image},
        "rollout": QUICK | (rollout or {}),
    } | spec
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": full,
    }


def a_world() -> FakeWorld:
    """Build a world whose runners tell windows."""
    world = FakeWorld()
    world.fleet.tells = True
    return world


async def until(world: FakeWorld, is_there: Callable[[Status], bool], looks: int = 2000) -> Status:
    """Look, at most every second, until the status is as asked for; all invariants are held to at every look."""
    for _ in range(looks):
        status = await look(world)
        if is_there(status):
            return status
    raise AssertionError(f"not there after {looks} looks: {world.status.rollout}")


async def look(world: FakeWorld) -> Status:
    """Look once: users on runners are at least T, and at most T + maxOver, whenever the run is on."""
    world.waits = min(world.waits if world.waits is not None else 1_000, 1_000)
    return await world.look("n", "shop")


def phase(name: str, step: int | None = None) -> Callable[[Status], bool]:
    """Return whether the rollout is in phase *name* (at *step*)."""

    def check(status: Status) -> bool:
        rollout = status.rollout
        return rollout is not None and rollout.phase == name and step in (None, rollout.step)

    return check


def rollout_of(status: Status) -> RolloutStatus:
    """Return the rollout that the status tells of."""
    assert status.rollout is not None
    return status.rollout


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


async def running(world: FakeWorld, **document: Any) -> str:
    """Begin a run of the old version; return its revision."""
    world.record.put(a_document(**document))
    status = await until(world, lambda status: status.phase == "Running" and status.users.placed == status.users.target)
    assert status.stable is not None
    return status.stable.revision


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
