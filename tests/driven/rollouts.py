"""A simulation in a world of fakes, whose runner version is changed: how tests write it, look at it and wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from trafficsim_api.status import RolloutStatus, Status
from trafficsim_operator.testing.fakes import FakeHealth, FakeWorld

__all__ = [
    "NEW",
    "OLD",
    "THIRD",
    "Check",
    "a_document",
    "a_world",
    "ail",
    "command",
    "look",
    "phase",
    "rollout_of",
    "running",
    "some_looks",
    "until",
]

OLD, NEW, THIRD = "shop:1", "shop:2", "shop:3"
QUICK: Final = {
    "dwell": "10s",
    "warmUp": "3s",
    "window": "2s",
    "scaleDownDelay": "5s",
    "abortScaleDownDelay": "20s",
    "deadline": "60s",
}
Check = Callable[[Status], bool]


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


async def running(world: FakeWorld, **document: Any) -> str:
    """Begin a run of the old version, all users on; return its revision."""
    world.record.put(a_document(**document))
    status = await until(world, lambda status: status.phase == "Running" and status.users.placed == status.users.target)
    assert status.stable is not None
    return status.stable.revision


async def look(world: FakeWorld) -> Status:
    """Look once, at most a second after the last time."""
    world.waits = min(world.waits if world.waits is not None else 1_000, 1_000)
    return await world.look("n", "shop")


async def some_looks(world: FakeWorld, looks: int = 10) -> Status:
    """Look some times more."""
    for _ in range(looks):
        await look(world)
    return world.status


async def until(world: FakeWorld, is_there: Check, looks: int = 2_000) -> Status:
    """Look until the status is as asked for."""
    for _ in range(looks):
        status = await look(world)
        if is_there(status):
            return status
    raise AssertionError(f"not there after {looks} looks: {world.status.phase} {world.status.rollout}")


def phase(name: str, step: int | None = None) -> Check:
    """Return whether the rollout is in phase *name* (at *step*)."""

    def check(status: Status) -> bool:
        rollout = status.rollout
        return rollout is not None and rollout.phase == name and step in (None, rollout.step)

    return check


def rollout_of(status: Status) -> RolloutStatus:
    """Return the rollout that the status tells of."""
    assert status.rollout is not None
    return status.rollout


def ail(world: FakeWorld, **health: Any) -> None:
    """Have the runners of every version that is made from now on ail."""
    known = set(world.fleet.health)

    class Ailing(dict[str, FakeHealth]):
        def setdefault(self, revision: str, default: FakeHealth | None = None) -> FakeHealth:
            if revision not in known and revision not in self:
                self[revision] = FakeHealth(tells=True, **health)
            assert default is not None
            return super().setdefault(revision, default)

    world.fleet.health = Ailing(world.fleet.health)


def command(world: FakeWorld, action: str, attempt: int | None = None) -> None:
    """Write a command into the annotation."""
    document = world.record.documents["n", "shop"]
    text = json.dumps({"id": f"{action}-{world.now_ms}", "action": action} | ({"attempt": attempt} if attempt else {}))
    metadata = {**document["metadata"], "annotations": {"trafficsim.io/command": text}}
    world.record.put({**document, "metadata": metadata})
    world.waits = 0
