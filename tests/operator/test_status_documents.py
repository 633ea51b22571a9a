"""The status document, whole, at the stations of a run: goldens. `--update` rewrites them; review the difference."""

import json
from typing import Any

import pytest

from trafficsim_api.policy import LOCAL_DEFAULT, Policy
from trafficsim_operator.testing.fakes import FakeWorld

FLOW = [{"action": "look", "request": {"get": "/"}}, {"think": {"constant": "1s"}}]


def a_document(**spec: Any) -> dict[str, Any]:
    """Build a document: 1200 users for two minutes, two rules."""
    full = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 1200,
        "duration": "2m",
        "archetypes": [{"name": "a", "flow": FLOW}],
        "thresholds": [{"rule": "error_rate < 1%"}, {"rule": "p95(look) < 1ms", "abort": False}],
    } | spec
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": full,
    }


async def preflight(world: FakeWorld) -> None:
    """Pods are starting."""
    world.record.put(a_document())
    await world.look("n", "shop")


async def running(world: FakeWorld) -> None:
    """Twenty looks on, the run is under way."""
    world.record.put(a_document())
    for _ in range(20):
        await world.look("n", "shop")


async def completed(world: FakeWorld) -> None:
    """The whole run: one rule holds, one is broken."""
    world.record.put(a_document())
    while world.status.phase != "Completed":
        await world.look("n", "shop")


async def suspended(world: FakeWorld) -> None:
    """Suspended in mid-run."""
    await running(world)
    world.record.put(a_document(suspend=True))
    world.waits = 0
    await world.look("n", "shop")
    await world.look("n", "shop")


async def refused(world: FakeWorld) -> None:
    """Too many users for the policy."""
    world.policy = Policy(targets=LOCAL_DEFAULT.targets, max_users=100)
    world.record.put(a_document())
    await world.look("n", "shop")


async def edit_refused(world: FakeWorld) -> None:
    """A wrong edit of a run that goes on."""
    await running(world)
    world.record.put(a_document(archetypes=[]))
    world.waits = 0
    await world.look("n", "shop")


@pytest.mark.parametrize("station", [preflight, running, completed, suspended, refused, edit_refused])
async def test_status(station: Any, golden: Any) -> None:
    """Phase, intent, figures and conditions at once, complete at every write."""
    world = FakeWorld()
    await station(world)
    document = json.loads(world.status.model_dump_json(by_alias=True, exclude_none=True))
    golden(
        f"status-{station.__name__.replace('_', '-')}.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    )
