"""
A proxy between the operator and everybody it calls: the API server and its runners. It breaks the calls it is told to.

    operator ── http ──► FaultyServer ── https ──► API server
       └────── http ──► 127.P.a.b (here) ──────► 127.1.a.b, the runner's pod

The operator is given a kubeconfig that leads here. Runners it knows by the addresses in the pods that it lists: on
their way through they become addresses of this proxy, one for one. So nothing in the operator, the runner or the node
knows of it. Watches, and whatever kopf asks for, pass through.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web
from yarl import URL

from trafficsim_api.protocol import PORT

__all__ = ["KILLS", "Fault", "FaultyServer", "Point", "a_faulty_server", "kind_of"]

# Longer than any deadline of the operator's: 15 s for the API server, 5 s for a runner.
_HELD_S: Final = 25.0
_BODY: Final = 64 << 20
_OURS: Final = "trafficsim"
_POD: Final = re.compile(rb'"127\.1\.(\d+\.\d+)"')
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# What belongs to one connection, or is said anew of a body that is not packed here.
_HOP: Final = frozenset({"connection", "host", "content-length", "transfer-encoding", "accept-encoding"})


class Fault(StrEnum):
    """What happens to a call."""

    CONFLICT = "409"
    ERROR = "500"
    TIME_OUT = "time-out"
    """Held until the caller gives up; never forwarded."""
    RESET = "reset"
    """The connection is reset; never forwarded."""
    LOST = "lost answer"
    """Forwarded and done; the connection is reset in place of the answer."""
    KILL_BEFORE = "killed before"
    """The operator is killed; never forwarded."""
    KILL_AFTER = "killed after"
    """Forwarded and done; then the operator is killed."""


_DONE: Final = frozenset({Fault.LOST, Fault.KILL_AFTER})
KILLS: Final = frozenset({Fault.KILL_BEFORE, Fault.KILL_AFTER})


@dataclass(slots=True, kw_only=True)
class Point:
    """One fault at one call: the *number*-th of its *kind* from the moment that it is armed."""

    kind: str
    fault: Fault
    number: int = 1
    met: int = 0
    fired: asyncio.Event = field(default_factory=asyncio.Event)

    def __str__(self) -> str:
        return f"{self.fault} at call {self.number} of {self.kind}"

    def is_meant(self, kind: str) -> bool:
        """Say whether this call of *kind* is the one."""
        if kind != self.kind:
            return False
        self.met += 1
        return self.met == self.number


def kind_of(method: str, path: str, *, watch: bool = False) -> str:
    """
    Return the kind of a call to the API server, verb and resource.

        GET /api/v1/namespaces/n/pods is "list pods", GET …/pods/p "get pods", PATCH …/trafficsimulations/s/status
        "patch trafficsimulations/status", GET /apis/trafficsim.io/v1alpha1 "get discovery"
    """
    words = path.strip("/").split("/")
    rest = words[2:] if words[0] == "api" else words[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if not rest:
        return "get discovery"
    resource = "/".join([rest[0], *rest[2:]])
    if method == "GET":
        return f"{'watch' if watch else 'get' if len(rest) > 1 else 'list'} {resource}"
    return f"{_VERBS[method]} {resource}"


class FaultyServer:
    """One operator's way to the world."""

    def __init__(self, kubeconfig: Path, kill: Callable[[], None]) -> None:
        """Lead to where *kubeconfig* leads; *kill* ends the operator as a crash does."""
        self.counts: Counter[str] = Counter()
        """The operator's own calls by kind since the last `begin`."""
        self._document: dict[str, Any] = json.loads(kubeconfig.read_text())
        self._kill = kill
        self._point: Point | None = None
        self._cut = False
        self._expired: set[str] | None = None
        self._open: set[asyncio.Transport] = set()
        self._sites: dict[str, asyncio.Task[None]] = {}

    async def start(self, kubeconfig: Path) -> None:
        """Begin to serve, and write *kubeconfig*, which leads here."""
        cluster = self._document["clusters"][0]["cluster"]
        self._upstream = str(cluster["server"])
        self._tls = ssl.create_default_context(cafile=cluster.pop("certificate-authority"))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
        )
        self._api = _runner(self._answer_api)
        self._runners = _runner(self._answer_runner)
        await self._api.setup()
        await self._runners.setup()
        site = web.TCPSite(self._api, "127.0.0.1", 0)
        await site.start()
        host, port = self._api.addresses[0][:2]
        cluster["server"] = f"http://{host}:{port}"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(self._document))
        self._claim, self._prefix = _prefix()

    async def aclose(self) -> None:
        """End, with every connection."""
        self._drop_all()
        await self._api.cleanup()
        await self._runners.cleanup()
        await self._session.close()
        self._claim.close()

    def begin(self, point: Point | None = None) -> None:
        """Count anew, and break the call that *point* means; the one before is given up."""
        self.counts.clear()
        self._point = point

    def cut(self) -> None:
        """Part the operator from the API server: every connection is reset, and every new one."""
        self._cut = True
        self._drop_all()

    def mend(self, *, expired: bool = False) -> None:
        """
        Let it through again.

        *expired*: what happened meanwhile is no longer known, as after a long gap: the first watch of each kind is told
        so, and has to list anew.
        """
        self._cut = False
        self._expired = set() if expired else None

    def _drop_all(self) -> None:
        for transport in tuple(self._open):
            _reset(transport)

    async def _answer_api(self, request: web.Request) -> web.StreamResponse:
        with _tracked(request, self._open) as transport:
            if self._cut:
                return _dropped(transport)
            kind = kind_of(request.method, request.path, watch="watch" in request.query)
            if kind.startswith("watch ") and self._is_expired(kind, request):
                return web.Response(body=_GONE, content_type="application/json", headers=_CLOSE)
            try:
                return await self._answer(request, transport, kind, self._upstream)
            except (aiohttp.ClientError, OSError):  # the API server is away
                return _dropped(transport)

    async def _answer_runner(self, request: web.Request) -> web.StreamResponse:
        with _tracked(request, set()) as transport:
            address = transport.get_extra_info("sockname")[0]
            kind = f"{request.method.lower()} runner {request.path.rpartition('/')[2]}"
            upstream = f"http://{address.replace(f'127.{self._prefix}.', '127.1.')}:{PORT}"
            try:
                return await self._answer(request, transport, kind, upstream)
            except (aiohttp.ClientError, OSError):  # the runner is away
                return _dropped(transport)

    async def _answer(
        self, request: web.Request, transport: asyncio.Transport, kind: str, upstream: str
    ) -> web.StreamResponse:
        is_ours = "runner" in kind or request.headers.get("User-Agent", "") == _OURS
        point = None
        if is_ours and not kind.startswith("watch "):
            self.counts[kind] += 1
            point = self._point if self._point is not None and self._point.is_meant(kind) else None
        if point is None:
            return await self._forward(request, kind, upstream)
        if point.fault in _DONE:
            await self._forward(request, kind, upstream)
        if point.fault in KILLS:
            self._kill()
        if point.fault is Fault.TIME_OUT:
            try:
                await asyncio.sleep(_HELD_S)
            finally:  # cancelled when the caller gives up
                point.fired.set()
        point.fired.set()
        if point.fault in (Fault.CONFLICT, Fault.ERROR):
            return _said(int(point.fault))
        return _dropped(transport)

    async def _forward(self, request: web.Request, kind: str, upstream: str) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        async with self._session.request(
            request.method, URL(upstream + str(request.rel_url), encoded=True),
            headers=headers | {"Accept-Encoding": "identity"}, data=await request.read() or None,
        ) as answer:  # fmt: skip
            told = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            if kind.startswith("watch ") and answer.status == 200:
                return await _streamed(request, answer, told)
            body = await answer.read()
            if kind in ("list pods", "get pods"):
                body = await self._with_our_addresses(body)
            # No connection is used twice: a client may repeat by itself what breaks on a used one, and hide the fault.
            return web.Response(status=answer.status, body=body, headers=told | _CLOSE)

    async def _with_our_addresses(self, body: bytes) -> bytes:
        for rest in {match.decode() for match in _POD.findall(body)}:
            address = f"127.{self._prefix}.{rest}"
            if address not in self._sites:
                self._sites[address] = asyncio.create_task(web.TCPSite(self._runners, address, PORT).start())
            await asyncio.shield(self._sites[address])  # whoever asked may be killed meanwhile
        return _POD.sub(rb'"127.%d.\1"' % self._prefix, body)

    def _is_expired(self, kind: str, request: web.Request) -> bool:
        if self._expired is None or kind in self._expired or "resourceVersion" not in request.query:
            return False
        self._expired.add(kind)
        return True


_CLOSE: Final = {"Connection": "close"}
_GONE: Final = json.dumps(
    {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
).encode()


def _runner(handler: Callable[[web.Request], Any]) -> web.AppRunner:
    app = web.Application(client_max_size=_BODY)
    app.router.add_route("*", "/{path:.*}", handler)
    return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)


def _prefix() -> tuple[socket.socket, int]:
    """Return a second byte of addresses that no other proxy of this machine uses, and the socket that holds it."""
    for number in random.sample(range(16, 250), k=234):
        claim = socket.socket()
        try:
            claim.bind((f"127.{number}.255.254", PORT))
        except OSError:
            claim.close()
            continue
        return claim, number
    raise OSError("no free addresses for a proxy")


@contextmanager
def _tracked(request: web.Request, among: set[asyncio.Transport]) -> Iterator[asyncio.Transport]:
    """Yield the request's connection, and keep it in *among* while it is being answered."""
    transport = request.transport
    assert transport is not None
    among.add(transport)
    try:
        yield transport
    finally:
        among.discard(transport)


def _reset(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _dropped(transport: asyncio.Transport) -> web.Response:
    """Reset the connection; what is returned reaches nobody."""
    _reset(transport)
    return web.Response()


def _said(status: int) -> web.Response:
    reason = "Conflict" if status == 409 else "InternalError"
    body = {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": "an injected fault"}
    return web.json_response(body, status=status, headers=_CLOSE)


async def _streamed(request: web.Request, answer: aiohttp.ClientResponse, told: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=told | _CLOSE)
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


@asynccontextmanager
async def a_faulty_server(
    kubeconfig: Path, directory: Path, kill: Callable[[], None]
) -> AsyncIterator[tuple[FaultyServer, Path]]:
    """Yield a proxy to where *kubeconfig* leads, and the kubeconfig that leads to it."""
    server, own = FaultyServer(kubeconfig, kill), directory / "faulty.kubeconfig"
    await server.start(own)
    try:
        yield server, own
    finally:
        await server.aclose()
