"""What a standby serves: its own health and metrics, and everything else of the holder's."""

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api.phases import Phase
from trafficsim_api.status import Status, Users
from trafficsim_operator.elector import Elector, Mandate
from trafficsim_operator.fleet.runners import Signer
from trafficsim_operator.handlers import Key, Watched
from trafficsim_operator.main import _Parts, _resync, _work
from trafficsim_operator.observability import Health, Metrics, ObservedRunners, Office, serve
from trafficsim_operator.queue import KeyedQueue
from trafficsim_operator.settings import Settings
from trafficsim_operator.standby import FORWARDED, Standby
from trafficsim_operator.store import Document
from trafficsim_operator.testing.ports import free_ports

DOCUMENT = Document(namespace="shop", name="web", uid="u1", generation=1, version="1", body={})


async def nothing(key):
    return None


@dataclass
class Replica:
    """One operator's pages; *holder* is the address it knows from the Lease."""

    address: str
    leads: bool = False
    holder: str = ""
    refused: str = ""
    metrics: Metrics = field(default_factory=Metrics)
    http: httpx.AsyncClient = field(init=False)

    async def get(self, path, **options):
        return await self.http.get(path, **options)


@asynccontextmanager
async def a_replica():
    [port] = free_ports(1)
    replica = Replica(address=f"127.0.0.1:{port}")
    health = Health(
        queue=KeyedQueue(work=nothing, draw=lambda: 0.0), watched=Watched(), stuck_s=1, behind_s=1, listed=lambda: True
    )
    runners = ObservedRunners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate()))
    standby = Standby(lambda: replica.holder, replica.address)
    office = Office(
        leads=lambda: replica.leads, transitions=lambda: 3, refused=lambda: replica.refused, standby=standby
    )
    server = await serve(replica.metrics, health, runners, "127.0.0.1", port, office)
    async with httpx.AsyncClient(base_url=f"http://{replica.address}", trust_env=False) as replica.http:
        yield replica
    await standby.aclose()
    await server.cleanup()


@pytest.fixture
async def replicas():
    """Yield the holder, and a standby that knows it."""
    async with AsyncExitStack() as stack:
        holder, standby = [await stack.enter_async_context(a_replica()) for _ in range(2)]
        holder.leads = True
        holder.holder = standby.holder = holder.address
        yield holder, standby


async def test_the_holders_table_is_the_same_from_both(replicas):
    holder, _ = replicas
    holder.metrics.wrote(DOCUMENT, Status(phase=Phase.RUNNING, users=Users(active=1200)))
    expected = {"simulations": [{"namespace": "shop", "name": "web", "phase": "Running", "users": 1200}]}
    for replica in replicas:
        answer = await replica.get("/simulations")
        assert (200, expected) == (answer.status_code, answer.json())


async def test_health_and_metrics_are_ones_own(replicas):
    holder, standby = replicas
    for replica, leads in ((holder, "1.0"), (standby, "0.0")):
        for path in ("/healthz", "/readyz"):
            assert 200 == (await replica.get(path)).status_code
        text = (await replica.get("/metrics")).text
        assert f"trafficsim_operator_leader {leads}" in text
        assert "trafficsim_lease_transitions 3.0" in text


async def test_one_that_can_never_work_is_not_ready(replicas):
    """Alive, but an upgrade to it does not go on."""
    _, standby = replicas
    standby.refused = "403: it may not get leases"
    answer = await standby.get("/readyz")
    assert (503, "the Lease is refused: 403: it may not get leases\n") == (answer.status_code, answer.text)
    assert 200 == (await standby.get("/healthz")).status_code


async def test_what_the_holder_does_not_have_is_not_there(replicas):
    for replica in replicas:
        answer = await replica.get("/nowhere?x=1")
        assert (404, "there is no such page\n") == (answer.status_code, answer.text)


async def test_path_query_method_and_body_are_handed_on(replicas):
    """And its status, type and body back; the connection's own headers are not."""
    _, standby = replicas
    seen = []

    async def echo(request):
        seen.append((request.method, str(request.rel_url), await request.text(), request.headers[FORWARDED]))
        return web.Response(status=418, body=b"x" * 100_000, headers={"X-Kind": "tea"})

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", echo)])
    server = web.AppRunner(app)
    await server.setup()
    [port] = free_ports(1)
    await web.TCPSite(server, "127.0.0.1", port).start()
    standby.holder = f"127.0.0.1:{port}"
    answer = await standby.http.post("/a%20b/c?q=%C3%A4", content=b"body")
    assert (418, "tea", b"x" * 100_000) == (answer.status_code, answer.headers["x-kind"], answer.content)
    assert [("POST", "/a%20b/c?q=%C3%A4", "body", standby.address)] == seen
    await server.cleanup()


async def test_a_request_is_handed_on_once(replicas):
    """While the Lease changes hands two standbys may take each other for the holder."""
    holder, standby = replicas
    holder.leads, holder.holder = False, standby.address
    answer = await standby.get("/simulations")
    assert (503, "2") == (answer.status_code, answer.headers["retry-after"])


@pytest.mark.parametrize("address", ["", "own", "not an address", "user@host:80", "127.0.0.1:9/evil?"])
async def test_without_a_holder_it_says_so(replicas, address):
    """Nobody's name in the Lease, its own, or something that is no address."""
    _, standby = replicas
    standby.holder = standby.address if address == "own" else address
    answer = await standby.get("/simulations")
    assert 503 == answer.status_code
    assert "no operator holds the Lease" in answer.text


async def test_an_answer_that_breaks_off_breaks_off(replicas):
    """A holder that dies in the midst of an answer leaves no whole one."""
    _, standby = replicas

    async def half(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    standby.holder = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(httpx.RemoteProtocolError):
        await standby.get("/simulations")
    server.close()
    await server.wait_closed()


async def test_a_holder_that_is_gone_is_said(replicas):
    _, standby = replicas
    [port] = free_ports(1)
    standby.holder = f"127.0.0.1:{port}"
    answer = await standby.get("/simulations")
    assert 502 == answer.status_code
    assert standby.holder in answer.text


def parts_of(api, look, **more):
    """An operator's parts, with a resync of a minute, that lists by *api* and looks by *look*."""
    return _Parts(
        settings=Settings.from_env({"TRAFFICSIM_RESYNC": "60"}),
        api=api,
        world=None,
        runners=ObservedRunners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate())),
        queue=KeyedQueue(work=look, draw=lambda: 0.0),
        watched=Watched(),
        metrics=Metrics(),
        **more,
    )


@pytest.mark.looptime
async def test_a_standby_tells_no_sums_until_it_works():
    """What it lists is compared with the watch; simulations are told and looked at by the one that works."""
    body = {"metadata": {"uid": "u1", "generation": 2, "namespace": "shop", "name": "web"}}
    looked, mandate = [], Mandate(lambda: 0.0)

    class Api:
        async def list(self, *_):
            return (body,)

    async def look(key):
        looked.append((key.name, asyncio.get_running_loop().time()))

    parts = parts_of(
        Api(),
        look,
        mandate=mandate,
        elector=Elector(
            None, namespace="n", name="l", identity="me", mandate=mandate, wall=lambda: None, draw=lambda: 0.0
        ),
    )
    resync = asyncio.create_task(_resync(parts))
    await asyncio.sleep(30)
    assert parts.listed, "it is ready"
    assert b'trafficsim_simulations{phase="Pending"} 0.0' in parts.metrics.text()
    parts.watched.changed(next(iter(parts.watched.behind_since)), body)
    mandate.until_s = 1e9
    work = asyncio.create_task(_work(parts))
    await asyncio.sleep(1)
    assert ("web", 30.0) == looked[0]
    assert b'trafficsim_simulations{phase="Pending"} 1.0' in parts.metrics.text()
    for task in (work, resync):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.looptime
async def test_who_takes_over_begins_with_those_that_run(monkeypatch):
    """
    Three run, a hundred are at rest, one of which has a runner that is to go: those four at once, the others evenly in
    the course of a resync.
    """
    monkeypatch.setattr("trafficsim_operator.main.random", random.Random(1))
    began = {}

    async def look(key):
        began[key.name] = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)

    items = [a_simulation(f"idle-{n}", "Suspended") for n in range(100)]
    items += [a_simulation(f"run-{n}", "Running") for n in range(3)]

    class Api:
        async def list(self, resource, namespace, labels, keep):
            return [keep(item) for item in items]

    parts = parts_of(Api(), look)
    for item in items:
        parts.watched.changed(Key("shop", item["metadata"]["name"]), item)
    parts.watched.child(Key("shop", "idle-7"), "pod", is_there=True)
    tasks = [asyncio.create_task(_work(parts)), asyncio.create_task(_resync(parts))]
    await asyncio.sleep(0.3)
    assert {"run-0", "run-1", "run-2", "idle-7"} == {name for name, at in began.items() if at < 0.05}
    assert len(began) < 10
    await asyncio.sleep(60)
    assert len(items) == len(began)
    for task in tasks:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def a_simulation(name, phase):
    meta = {"namespace": "shop", "name": name, "uid": name, "generation": 1}
    return {"metadata": meta, "status": {"phase": phase, "observedGeneration": 1}}
