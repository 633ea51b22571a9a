"""Simulations as an API server has them, at every station: the golden statuses, and those that a short run writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trafficsim_api.names import API_VERSION, KIND
from trafficsim_api.status import Status
from trafficsim_operator.testing.fakes import FakeWorld

_GOLDEN = Path(__file__).parents[1] / "operator" / "golden"
_HOOK = "argocd.argoproj.io/hook"


def an_object(status: dict[str, Any] | None, *, generation: int | None = None, **metadata: Any) -> dict[str, Any]:
    """Build a simulation with *status*, of the *generation* that it was observed at unless told otherwise."""
    seen = status["observedGeneration"] if status else 1
    meta = {"name": "shop", "namespace": "shop", "generation": seen if generation is None else generation}
    found = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta | metadata, "spec": {}}
    return found | ({"status": status} if status else {})


def as_hook(found: dict[str, Any]) -> dict[str, Any]:
    """Return *found* as a resource that Argo CD applies after a sync."""
    return found | {"metadata": found["metadata"] | {"annotations": {_HOOK: "PostSync"}}}


def golden() -> dict[str, dict[str, Any]]:
    """Return the golden statuses by their names, such as `running` and `rollout-paused`."""
    files = sorted(_GOLDEN.glob("status-*.json"))
    return {file.stem.removeprefix("status-"): json.loads(file.read_text()) for file in files}


async def written() -> dict[str, dict[str, Any]]:
    """Return the stations for which there is no golden: the newest status that a run wrote there."""
    return {
        "pending": await _at("Pending", _unresolved),
        "starting": await _at("Starting", setup={"flow": [{"request": {"post": "/login"}}]}),
        "draining": await _at("Draining"),
        "silent": await _silent(),
        "passed": await _at("Completed"),
        "inconclusive": await _at("Completed", users=1, duration="15s"),
        "gave-up": await _at("Failed", _unresolved),
    }


async def objects() -> dict[str, dict[str, Any]]:
    """Return a simulation for each station, also before the first look at it, after an edit, and while it goes."""
    found = {name: an_object(status) for name, status in (golden() | await written()).items()}
    running = found["running"]["status"]
    return found | {
        "applied": an_object(None),
        "edited": an_object(running, generation=running["observedGeneration"] + 1),
        "deleted": an_object(running, deletionTimestamp="2026-01-01T00:00:00Z"),
    }


def _unresolved(world: FakeWorld) -> None:
    world.fleet.unresolved = "no Service shop"


async def _at(phase: str, prepare: Callable[[FakeWorld], None] | None = None, **spec: Any) -> dict[str, Any]:
    """Look until *phase* is written."""
    world = _world(**spec)
    if prepare is not None:
        prepare(world)
    for _ in range(600):
        if (await world.look("n", "shop")).phase == phase:
            return _document(world.status)
    raise AssertionError(f"{world.status.phase}: {world.status.message}")


async def _silent() -> dict[str, Any]:
    """Look at a run one of whose runners does not answer any more."""
    world = _world()
    while world.status.phase != "Running":
        await world.look("n", "shop")
    next(iter(world.fleet.runners.values())).silent = True
    world.waits = 20_000
    await world.look("n", "shop")
    return _document(world.status)


def _world(**spec: Any) -> FakeWorld:
    whole = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 1200,
        "duration": "1m",
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
    }
    world = FakeWorld()
    meta = {"name": "shop", "namespace": "n"}
    world.record.put({"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": whole | spec})
    return world


def _document(status: Status) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(status.model_dump_json(by_alias=True, exclude_none=True))
    return found
