"""
Serve HTTP/1.1: bytes in, one `Request` to the site, its `Reply` out after the reply's delay.

The site decides (`answer`) and keeps the account (`opened` … `closed`); this module owns parsing, order and framing.
Requests of one connection are answered one after the other, also when they came pipelined.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

import httptools

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
MAX_PIPELINED: Final = 128
_BODILESS: Final = frozenset({204, 304})
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Framing(StrEnum):
    """How the client learns where a body ends."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, fully read; *received* is the loop's time of its last byte, header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes
    received: float
    keep_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """
    What to send and when.

    The last byte is written *delay_s* seconds after the request was fully read. A chunked reply of n *pieces* writes
    piece i at delay_s · i / n, the first one together with the head. *headers* are whole lines, each with its CRLF.
    """

    status: int = 200
    headers: str = ""
    body: bytes = b""
    delay_s: float = 0.0
    framing: Framing = Framing.LENGTH
    pieces: int = 1
    keep_alive: bool = True


class Handle(Protocol):
    """Something scheduled that can be called off."""

    def cancel(self) -> None:
        """Call it off."""


CallAt = Callable[..., Handle]


class Site(Protocol):
    """What a connection asks for answers and tells what became of them."""

    def answer(self, request: Request) -> Reply:
        """Return the reply to *request*; called once per request, when it has been read."""

    def opened(self) -> None:
        """Note an accepted connection."""

    def closed(self) -> None:
        """Note the end of a connection."""

    def finished(self, request: Request, reply: Reply, written: float) -> None:
        """Note that *reply* was handed to the socket whole, at loop time *written*."""

    def abandoned(self, request: Request, reply: Reply) -> None:
        """Note that the client went away before *reply* was whole."""

    def malformed(self) -> None:
        """Note bytes that were no HTTP request."""


class Connection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_call_at",
        "_current",
        "_handles",
        "_head_bytes",
        "_headers",
        "_loop",
        "_parser",
        "_site",
        "_target",
        "_transport",
        "_waiting",
    )

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop, call_at: CallAt) -> None:
        self._site = site
        self._loop = loop
        self._call_at = call_at
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._current: tuple[Request, Reply] | None = None
        self._handles: list[Handle] = []
        self._head_bytes = 0
        self._body_bytes = 0
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._site.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is unanswered and say so."""
        self._transport = None
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()
        if self._current is not None:
            self._site.abandoned(*self._current)
            self._current = None
        self._waiting.clear()
        self._site.closed()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is no HTTP, or too much of it, is refused and the connection closed."""
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400)
            return
        if self._body_bytes > MAX_BODY_BYTES:
            self._refuse(413)
        elif self._head_bytes - self._body_bytes > MAX_HEAD_BYTES or len(self._waiting) > MAX_PIPELINED:
            self._refuse(431)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        """Start a new request."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in parts."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Invite the body of a client that asked first."""
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, up to the limit."""
        self._body_bytes += len(body)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, or queue it behind the one being answered."""
        path, _, query = self._target.partition(b"?")
        oversized = self._body_bytes > MAX_BODY_BYTES
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=path.decode("latin-1"),
            query=query.decode("latin-1"),
            headers=self._headers,
            body=b"".join(self._body),
            received=self._loop.time(),
            keep_alive=self._parser.should_keep_alive(),
        )
        if oversized:
            return
        self._head_bytes = 0
        self._body_bytes = 0
        if self._current is None:
            self._begin(request)
        else:
            self._waiting.append(request)

    # Replies.

    def _begin(self, request: Request) -> None:
        reply = self._site.answer(request)
        self._current = (request, reply)
        if reply.framing is Framing.CHUNKED and reply.pieces > 1 and _has_body(request, reply):
            self._begin_pieces(request, reply)
        elif reply.delay_s > 0:
            self._handles.append(self._call_at(request.received + reply.delay_s, self._send_whole))
        else:
            self._send_whole()

    def _begin_pieces(self, request: Request, reply: Reply) -> None:
        size = -(-len(reply.body) // reply.pieces) or 1
        parts = [_chunk(reply.body[at : at + size]) for at in range(0, len(reply.body), size)] or [b""]
        parts[0] = _head(request, reply) + parts[0]
        parts[-1] += b"0\r\n\r\n"
        for number, part in enumerate(parts, start=1):
            when = request.received + reply.delay_s * number / len(parts)
            self._handles.append(self._call_at(when, self._send_piece, part, number == len(parts)))

    def _send_piece(self, part: bytes, is_last: bool) -> None:
        if self._transport is None:
            return
        self._transport.write(part)
        if is_last:
            self._end()

    def _send_whole(self) -> None:
        if self._transport is None or self._current is None:
            return
        request, reply = self._current
        head = _head(request, reply)
        if not _has_body(request, reply):
            self._transport.write(head)
        elif reply.framing is Framing.CHUNKED:
            self._transport.write(head + (_chunk(reply.body) if reply.body else b"") + b"0\r\n\r\n")
        else:
            self._transport.write(head + reply.body)
        self._end()

    def _end(self) -> None:
        assert self._current is not None
        assert self._transport is not None
        request, reply = self._current
        self._current = None
        self._handles.clear()
        self._site.finished(request, reply, self._loop.time())
        if not _stays_open(request, reply):
            self._waiting.clear()
            self._transport.close()
        elif self._waiting:
            # Subtle: not a direct call, or a client's pipeline would become our recursion.
            self._loop.call_soon(self._begin_waiting)

    def _begin_waiting(self) -> None:
        if self._transport is not None and self._current is None and self._waiting:
            self._begin(self._waiting.popleft())

    def _refuse(self, status: int) -> None:
        self._site.malformed()
        if self._transport is not None:
            self._transport.write(f"{_STATUS_LINES[status]}content-length: 0\r\nconnection: close\r\n\r\n".encode())
            self._transport.close()


def _has_body(request: Request, reply: Reply) -> bool:
    return request.method != "HEAD" and reply.status not in _BODILESS


def _stays_open(request: Request, reply: Reply) -> bool:
    return request.keep_alive and reply.keep_alive and reply.framing is not Framing.CLOSE


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _head(request: Request, reply: Reply) -> bytes:
    """Return status line and headers; 204 and 304 announce no body, HEAD announces the one GET would send."""
    lines = _STATUS_LINES.get(reply.status) or f"HTTP/1.1 {reply.status} Status\r\n"
    lines += reply.headers
    if reply.status not in _BODILESS:
        match reply.framing:
            case Framing.LENGTH:
                lines += f"content-length: {len(reply.body)}\r\n"
            case Framing.CHUNKED:
                lines += "transfer-encoding: chunked\r\n"
            case Framing.CLOSE:
                pass
    if not _stays_open(request, reply):
        lines += "connection: close\r\n"
    return (lines + "\r\n").encode("latin-1")


async def listen(site: Site, host: str, port: int, *, call_at: CallAt | None = None, **options: Any) -> asyncio.Server:
    """
    Start serving *site* and return the server.

    *call_at* replaces the loop's timers; *options* go to `loop.create_server` (`ssl`, `backlog`).
    """
    loop = asyncio.get_running_loop()
    schedule: CallAt = call_at or loop.call_at
    options.setdefault("backlog", 4096)
    return await loop.create_server(lambda: Connection(site, loop, schedule), host, port, **options)
