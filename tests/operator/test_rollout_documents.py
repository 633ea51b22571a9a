"""The status document, whole, at the stations of a rollout: goldens. `--update` rewrites them; review what differs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import Status
from trafficsim_operator.plan.bounds import LIMIT, size_of
from trafficsim_operator.testing.fakes import FakeHealth, FakeWorld

GOOD = FakeHealth(tells=True)


def a_document(version: int, **rollout: Any) -> dict[str, Any]:
    """Build a document of 400 users, a request each a second; steps of ten seconds."""
    quick = {"dwell": "10s", "warmUp": "3s", "window": "2s", "scaleDownDelay": "30s"}
    spec = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 400,
        "duration": "1h",
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
        "runner": {"image": f"shop:{version}"},
        "rollout": quick | rollout,
    }
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": spec,
    }


async def until(world: FakeWorld, is_there: Callable[[Status], bool]) -> None:
    """Look, at most every second, until the status is as asked for."""
    for _ in range(1000):
        if is_there(world.status):
            return
        world.waits = min(world.waits if world.waits is not None else 1_000, 1_000)
        await world.look("n", "shop")
    raise AssertionError(f"not there: {world.status.rollout}")


async def begun(world: FakeWorld, **rollout: Any) -> None:
    """Begin a run of version 1 and ask for version 2."""
    world.fleet.tells = True
    world.record.put(a_document(1, **rollout))
    await until(world, lambda status: status.phase == "Running" and status.users.placed == 400)
    world.record.put(a_document(2, **rollout))
    await until(world, lambda status: status.rollout is not None)


async def to(world: FakeWorld, phase: RolloutPhase, *, step: int = 0, windows: int = 0) -> None:
    """Go on until the rollout is in *phase*, at *step* at least, judged by so many *windows*."""
    await until(
        world,
        lambda status: (
            status.rollout is not None
            and status.rollout.phase is phase
            and status.rollout.step >= step
            and len(status.rollout.windows) >= windows
        ),
    )


async def preparing(world: FakeWorld) -> None:
    """The new version's runners are starting."""
    await begun(world)


async def analyzing(world: FakeWorld) -> None:
    """The second step, after three windows."""
    await begun(world)
    await to(world, RolloutPhase.ANALYZING, step=1, windows=3)


async def paused(world: FakeWorld) -> None:
    """Passed, and waiting for somebody."""
    await begun(world, steps=[{"percent": 50, "pause": True}, {"percent": 100}])
    await until(world, lambda status: status.rollout is not None and status.rollout.pause is not None)


async def rejected(world: FakeWorld) -> None:
    """A fifth of its checks fail."""
    known = {**world.fleet.health}

    class Ailing(dict[str, FakeHealth]):
        def setdefault(self, revision: str, default: FakeHealth | None = None) -> FakeHealth:
            health = FakeHealth(tells=True, checks_failed_permille=200) if self else GOOD
            return super().setdefault(revision, health)

    world.fleet.health = Ailing(known)
    await begun(world)
    await to(world, RolloutPhase.REJECTED)


async def retiring(world: FakeWorld) -> None:
    """Promoted; the old version's runners still stand."""
    await begun(world)
    await to(world, RolloutPhase.RETIRING)


@pytest.mark.parametrize("station", [preparing, analyzing, paused, rejected, retiring])
async def test_status(station: Callable[[FakeWorld], Awaitable[None]], golden: Any) -> None:
    """Pointers, plan, both versions' users and windows, conditions and words at once; within its bounds."""
    world = FakeWorld()
    await station(world)
    assert size_of(world.status) <= LIMIT // 2
    document = json.loads(world.status.model_dump_json(by_alias=True, exclude_none=True))
    name = f"status-rollout-{station.__name__}.json"
    golden(name, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
