"""
What one look costs: its requests, over real connections, and its CPU, which is printed:

    pytest tests/operator/test_look_cost.py -rP

The API server and the runners are fakes, served over loopback by a thread of their own; CPU is that of the thread that
looks. Time is moved, as much from look to look as the operator lets pass.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import ClientTimeout, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kubernetes.aio.client import Configuration

from trafficsim_api.names import GROUP, KIND, VERSION
from trafficsim_api.phases import Phase
from trafficsim_api.policy import Policy
from trafficsim_operator import specs
from trafficsim_operator.fleet.kubernetes import KubernetesFleet
from trafficsim_operator.fleet.runners import Reply, Request, Runners
from trafficsim_operator.handlers import is_waited_for
from trafficsim_operator.keys import keys_of
from trafficsim_operator.kube import SIMULATIONS, KubeApi
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.reconcile import World, reconcile
from trafficsim_operator.store.kubernetes import KubernetesRecord
from trafficsim_operator.testing.fake_apiserver import FakeApiServer
from trafficsim_operator.testing.fake_cluster import FakeCluster, FakePods
from trafficsim_operator.testing.faults.scenarios import spec

TARGET = {"url": "http://127.0.0.1:9"}
POLICY = Policy.model_validate_json('{"targets": [{"cidr": "127.0.0.0/8"}]}')
LOOKS = 40
RESYNC_MS, STEADY_MS = 60_000, 5_000


@dataclass
class Served:
    """The fakes behind real connections; *calls* are told as they came, *opened* is how many connections were made."""

    now_ms: int = 1_700_000_000_000
    calls: list[str] = field(default_factory=list)
    opened: set[Any] = field(default_factory=set)
    port: int = 0

    def __post_init__(self) -> None:
        self.server = FakeApiServer(now_ms=lambda: self.now_ms, namespaces={"shop"})
        self.pods = FakePods(FakeCluster(server=self.server))

    async def answer(self, request: web.Request) -> web.Response:
        self.opened.add(request.transport)
        body = await request.read()
        status, content = await self._answered(request, body)
        return web.Response(status=status, body=content, content_type="application/json")

    async def _answered(self, request: web.Request, body: bytes) -> Reply:
        address, path = request.match_info.get("address"), request.path
        if address is not None:
            path = path.partition(address)[2]
            self.calls.append(f"{request.method} {path}")
            asked = Request(
                method=request.method,
                address=address,
                path=path,
                query=request.query,
                body=body,
                deadline=ClientTimeout(),
            )
            return await self.pods(asked)
        named = path.partition("/namespaces/shop/")[2].split("/")
        verb = "LIST" if request.method == "GET" and len(named) == 1 else request.method
        self.calls.append(f"{verb} {'/'.join((named[0], *named[2:]))}")
        given = json.loads(body) if body else None
        return self.server.answer(request.method, path, request.query, given, request.content_type)

    def run(self, ready: threading.Event, over: threading.Event) -> None:
        async def serve() -> None:
            app = web.Application()
            app.add_routes([web.route("*", "/of/{address}/{rest:.*}", self.answer)])
            app.add_routes([web.route("*", "/{rest:.*}", self.answer)])
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            ready.set()
            await asyncio.to_thread(over.wait)
            await runner.cleanup()

        asyncio.run(serve())


@pytest.fixture
def served() -> Iterator[Served]:
    served, ready, over = Served(), threading.Event(), threading.Event()
    thread = threading.Thread(target=served.run, args=(ready, over))
    thread.start()
    assert ready.wait(10)
    yield served
    over.set()
    thread.join(10)


@asynccontextmanager
async def a_world(served: Served) -> AsyncIterator[World]:
    """Yield the world of an operator whose clients are the real ones."""
    configuration = Configuration(host=f"http://127.0.0.1:{served.port}")
    configuration.client_session_kwargs = {"trust_env": False}
    keys, now_ms = keys_of(Ed25519PrivateKey.generate()), lambda: served.now_ms
    async with KubeApi(configuration) as api:
        runners = Runners(signer=keys.signer)

        async def by_way_of_the_thread(request: Request) -> Reply:
            path = f"/of/{request.address}{request.path}"
            return await runners._exchange(replace(request, address=f"127.0.0.1:{served.port}", path=path))

        runners.way = by_way_of_the_thread
        yield World(
            record=KubernetesRecord(api, identity="operator", now_ms=now_ms),
            fleet=KubernetesFleet(api, image="trafficsim/runner:1", keys=keys.public, now_ms=now_ms),
            runners=runners,
            ledgers=Ledgers(),
            policy=lambda: POLICY,
            now_ms=now_ms,
        )
        await runners.aclose()


def apply(served: Served, **changes: Any) -> None:
    asked = spec(6) | {"target": TARGET} | changes
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {}, "spec": asked}
    served.server.put(SIMULATIONS, "shop", "shop", body)


def body_of(served: Served) -> dict[str, Any]:
    [body] = served.server.of(SIMULATIONS)
    return body


async def until(served: Served, world: World, holds: Callable[[dict[str, Any], int | None], bool]) -> None:
    """Look as the operator does until *holds* of the document and of when to look again."""
    for _ in range(200):
        wish = await reconcile("shop", "shop", world)
        if holds(body_of(served), wish):
            return
        served.now_ms += wish or 1_000
    raise AssertionError(f"it did not come to rest: {body_of(served)['status']}")


async def looked(served: Served, world: World, every_ms: int) -> tuple[list[Counter[str]], float]:
    """Return the calls of each of many looks, and the CPU of one in ms, the median."""
    calls, costs = [], []
    for _ in range(LOOKS):
        served.now_ms += every_ms
        served.calls.clear()
        began = time.thread_time()
        await reconcile("shop", "shop", world)
        costs.append((time.thread_time() - began) * 1_000)
        calls.append(Counter(served.calls))
    return calls, sorted(costs)[LOOKS // 2]


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what specs are validated from now on."""
    seen: list[Any] = []
    load_spec = specs.load_spec
    monkeypatch.setattr(specs, "load_spec", lambda asked: seen.append(asked) or load_spec(asked))
    return seen


async def test_a_look_at_an_idle_simulation(served: Served, validated: list[Any]) -> None:
    """Two reads and nothing else: the document, and whether it has Deployments."""
    apply(served, suspend=True)
    async with a_world(served) as world:
        await until(served, world, lambda body, wish: wish is None)
        assert not is_waited_for(body_of(served))
        connections, known = len(served.opened), len(validated)
        calls, cpu_ms = await looked(served, world, RESYNC_MS)
        print(f"a look at an idle simulation: {cpu_ms:.2f} ms of CPU, {calls[0].total()} requests")
    assert [{"GET trafficsimulations": 1, "LIST deployments": 1}] * LOOKS == calls
    assert (connections, known) == (len(served.opened), len(validated))


async def test_a_look_at_a_running_simulation(served: Served, validated: list[Any]) -> None:
    """What exists is read, each runner asked twice, figures are written; over the connections that there are."""
    apply(served)
    async with a_world(served) as world:
        await until(served, world, lambda body, wish: (body["status"]["phase"], wish) == (Phase.RUNNING, STEADY_MS))
        await looked(served, world, STEADY_MS)
        assert is_waited_for(body_of(served))
        connections, known = len(served.opened), len(validated)
        calls, cpu_ms = await looked(served, world, STEADY_MS)
        print(f"a look at a running simulation of 2 runners: {cpu_ms:.2f} ms of CPU, {calls[0].total()} requests")
    reads = Counter(f"GET {name}" for name in ("trafficsimulations", "configmaps"))
    reads += Counter(f"LIST {name}" for name in ("deployments", "replicasets", "pods"))
    asked = Counter({"GET /v1/acknowledgement": 2, "GET /v1/statistics": 2})
    written = Counter({"PATCH trafficsimulations/status": 1})
    assert all(seen - written == reads + asked for seen in calls)
    assert (connections, known) == (len(served.opened), len(validated))


async def test_an_edit_is_seen_at_the_next_look(served: Served, validated: list[Any]) -> None:
    """What was read before counts for the same text only; also where only its name changed hands."""
    apply(served, suspend=True)
    async with a_world(served) as world:
        await until(served, world, lambda body, wish: wish is None)
        for changes in ({"users": 7}, {"users": -1}, {"users": 8}):
            apply(served, suspend=True, **changes)
            known = len(validated)
            await reconcile("shop", "shop", world)
            assert 1 == len(validated) - known
            [accepted] = [c for c in body_of(served)["status"]["conditions"] if c["type"] == "Accepted"]
            assert ("True" if changes["users"] > 0 else "False") == accepted["status"]
