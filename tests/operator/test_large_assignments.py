"""Assignments of some megabytes, over a real connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api.protocol import Acknowledgement, Assignment, verify
from trafficsim_operator.fleet.runners import Runners, Signer
from trafficsim_operator.testing.fakes import FakeWorld

ROWS = "r" * (2 << 20)
DOCUMENT = {
    "apiVersion": "trafficsim.io/v1alpha1",
    "kind": "TrafficSimulation",
    "metadata": {"name": "shop", "namespace": "n"},
    "spec": {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 2,
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
    },
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Return what serves assignments on loopback, and the address it does so at."""
    servers: list[web.AppRunner] = []

    async def begin(handler: Handler) -> str:
        app = web.Application(client_max_size=16 << 20)
        app.add_routes([web.put("/v1/assignment", handler)])
        server = web.AppRunner(app)
        servers.append(server)
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        return site.name.removeprefix("http://")

    yield begin
    for server in servers:
        await server.cleanup()


async def large() -> Assignment:
    """Return an assignment with two mebibytes of rows."""
    world = FakeWorld()
    world.record.put(DOCUMENT)
    while not (told := [r.assignment for r in world.fleet.runners.values() if r.assignment is not None]):
        await world.look("n", "shop")
    return told[0].model_copy(update={"rows": {"digest": ROWS}})


async def test_two_mebibytes_of_rows_arrive_whole(serve: Callable[[Handler], Awaitable[str]]) -> None:
    """Also where the connection that was kept for them breaks: then they are sent once more from the beginning."""
    bodies: list[bytes] = []

    async def assign(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.read())
        if len(bodies) == 2:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(text=Acknowledgement(boot="b").model_dump_json())

    signer = Signer(kid="k", key=Ed25519PrivateKey.generate())
    address, assignment, runners = await serve(assign), await large(), Runners(signer=signer)
    try:
        for _ in range(2):
            assert "b" == (await runners.assign(address, assignment)).boot
    finally:
        await runners.aclose()
    assert 3 == len(bodies)
    for body in bodies:
        read = verify(body, {"k": signer.key.public_key()}, assignment.simulation, assignment.runner)
        assert {"digest": ROWS} == read.rows
