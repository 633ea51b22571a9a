"""Edits of pooled connections under a run, look by look in a world of fakes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from trafficsim_api.status import Status
from trafficsim_operator.testing.fakes import FakeWorld


def a_simulation(**connections: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 400,
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
            "connections": connections,
        },
    }


async def looks(world: FakeWorld, count: int = 20) -> Status:
    status = Status()
    for _ in range(count):
        status = await world.look("n", "shop")
    return status


def accepted(status: Status) -> tuple[str, str]:
    return next((c.status, c.message) for c in status.conditions if c.type == "Accepted")


async def test_an_edit_reaches_the_runners_without_a_rollout() -> None:
    """Mode and groups are of the load: the same runner is told, under a new epoch."""
    world = FakeWorld()
    document = a_simulation(mode="perUser")
    world.record.put(deepcopy(document))
    assert "Running" == (await looks(world)).phase
    (before,) = world.fleet.runners.values()
    assert before.assignment is not None
    epoch = before.assignment.epoch
    document["spec"]["connections"] = {"mode": "pooled", "groups": {"user": {"max": 30}}}
    world.record.put(deepcopy(document))
    assert "Running" == (await looks(world)).phase
    (after,) = world.fleet.runners.values()
    assert after.assignment is not None
    assert before is after
    assert epoch < after.assignment.epoch
    connections = after.assignment.load.connections
    assert "pooled" == connections.mode
    assert connections.groups is not None
    assert 30 == connections.groups["user"].max


@pytest.mark.parametrize(("users", "most"), [(400, 1), (5, 1)])
async def test_a_max_below_the_processes_is_refused(users: int, most: int) -> None:
    """Those that the runner has count, also when fewer would do by now; the run goes on as it was."""
    world = FakeWorld()
    document = a_simulation(mode="pooled", groups={"user": {"max": 30}})
    world.record.put(deepcopy(document))
    assert "Running" == (await looks(world)).phase
    document["spec"] |= {"users": users, "connections": {"mode": "pooled", "groups": {"user": {"max": most}}}}
    world.record.put(deepcopy(document))
    status = await looks(world)
    state, message = accepted(status)
    assert "False" == state
    assert "connections.groups.user.max: 1 is less than one for each of a runner's 2 worker processes" in message
    assert "Running" == status.phase
    (runner,) = world.fleet.runners.values()
    assert runner.assignment is not None
    assert runner.assignment.load.connections.groups is not None
    assert 30 == runner.assignment.load.connections.groups["user"].max


async def test_the_processes_of_a_version_that_was_replaced_do_not_count() -> None:
    """Its runners stand for the way back, with more processes: what fits those of the version that runs is accepted."""
    world = FakeWorld()
    world.fleet.tells = True
    document = a_simulation(mode="pooled", groups={"user": {"max": 30}})
    quick = {"dwell": "10s", "warmUp": "3s", "window": "2s", "scaleDownDelay": "10m"}
    document["spec"] |= {"runner": sized(2), "rollout": quick}
    world.record.put(deepcopy(document))
    assert "Running" == (await looks(world)).phase
    document["spec"]["runner"] = sized(1)
    world.record.put(deepcopy(document))
    for _ in range(1_000):
        rollout = world.status.rollout
        if rollout is not None and rollout.phase == "Retiring":
            break
        world.waits = min(world.waits or 0, 1_000)
        await world.look("n", "shop")
    told = {r.revision: r.assignment.processes for r in world.fleet.runners.values() if r.assignment is not None}
    assert world.status.stable is not None
    assert {1: 1, 2: 1} == {count: list(told.values()).count(count) for count in told.values()}
    assert 1 == told[world.status.stable.revision]
    document["spec"]["connections"] = {"mode": "pooled", "groups": {"user": {"max": 1}}}
    world.record.put(deepcopy(document))
    assert ("True", "") == accepted(await looks(world))


def sized(cores: int) -> dict[str, Any]:
    resources = {"limits": {"cpu": str(cores), "memory": "1Gi"}}
    return {"image": "shop:1", "resources": resources}
