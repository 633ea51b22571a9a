"""
Servers that misbehave, each in one named way, in a process of their own.

    with Hostile(Behaviour.RESETS_MID_BODY) as server:
        ...                     # load on server.url; server.trust is the CA file of a TLS one
    server.account              # {"connections": 12, "requests": 11}

Every connection ends by itself, after 60 s or 512 MiB (less where asked), so that a client without limits ends too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import signal
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import trustme

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from targets.spawned import Spawned, stop_at_end_of_input

MAX_BYTES = 512 * 1024 * 1024
MAX_SECONDS = 60.0
_BODY = b'{"ok":true}'


class Behaviour(StrEnum):
    """What a server does wrong; the ones in the last block are right but unusual, and a client must take them."""

    REFUSES = "refuses"  # nobody listens
    NEVER_ACCEPTS = "never-accepts"  # the accept queue is full: connecting times out
    RESETS_AFTER_ACCEPT = "resets-after-accept"
    RESETS_AFTER_REQUEST = "resets-after-request"
    RESETS_MID_BODY = "resets-mid-body"
    CLOSES_AFTER_REQUEST = "closes-after-request"  # in order, without an answer
    HANGS = "hangs"  # accepts and reads, never answers
    HANGS_MID_HEAD = "hangs-mid-head"
    HANGS_MID_BODY = "hangs-mid-body"
    HANGS_IN_TLS = "hangs-in-tls"
    GARBAGE = "garbage"
    ENDLESS_HEADERS = "endless-headers"
    ENDLESS_BODY = "endless-body"  # chunked
    ENDLESS_BODY_UNTIL_CLOSE = "endless-body-until-close"
    HUGE_CONTENT_LENGTH = "huge-content-length"  # announces 10^15 bytes, sends without end
    SHORT_BODY = "short-body"  # closes before content-length is reached
    LONG_BODY = "long-body"  # more bytes than content-length says
    TRUNCATED_CHUNK = "truncated-chunk"
    BAD_CHUNK_SIZE = "bad-chunk-size"
    INFORMATIONAL_STORM = "informational-storm"  # 1xx without end
    TWO_RESPONSES = "two-responses"  # to one request
    UNSOLICITED_RESPONSE = "unsolicited-response"  # before any request
    BARE_LF = "bare-lf"
    LENGTH_AND_CHUNKED = "length-and-chunked"
    TWO_LENGTHS = "two-lengths"
    NEGATIVE_LENGTH = "negative-length"
    BODY_AFTER_NO_CONTENT = "body-after-no-content"  # 204 with bytes behind it
    BODY_AFTER_NOT_MODIFIED = "body-after-not-modified"  # 304 likewise
    HTTP_2_PREFACE = "http-2-preface"
    SWITCHES_PROTOCOLS = "switches-protocols"  # 101 nobody asked for
    WRONG_HOST = "wrong-host"
    EXPIRED = "expired"
    UNKNOWN_CA = "unknown-ca"
    PLAIN_TEXT_FOR_TLS = "plain-text-for-tls"
    SLOW_DRIP = "slow-drip"  # a byte each 100 ms
    MANY_HEADERS = "many-headers"  # 12 000 headers of 3 bytes, then nothing
    FAT_HEAD = "fat-head"  # a head of 60 KB, its last header a byte each 100 ms

    GOOD = "good"
    GOOD_TLS = "good-tls"
    CLOSE_DELIMITED = "close-delimited"
    HEAD_WITH_LENGTH = "head-with-length"  # no body for HEAD, a body for the rest, both announce it
    CONTINUE_THEN_OK = "continue-then-ok"
    KEEP_ALIVE_RACE = "keep-alive-race"  # promises keep-alive, closes right behind each answer
    SPLIT_HEAD = "split-head"  # a right answer, one byte per segment


_TLS = frozenset({Behaviour.WRONG_HOST, Behaviour.EXPIRED, Behaviour.UNKNOWN_CA, Behaviour.GOOD_TLS})
_SAYS_HTTPS = _TLS | {Behaviour.HANGS_IN_TLS, Behaviour.PLAIN_TEXT_FOR_TLS}
_WITHOUT_PROCESS = frozenset({Behaviour.REFUSES, Behaviour.NEVER_ACCEPTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost."""

    bytes: int = MAX_BYTES
    seconds: float = MAX_SECONDS


class Hostile:
    """One misbehaving server, as the test sees it."""

    def __init__(self, behaviour: Behaviour, *, limits: Limits | None = None) -> None:
        self.behaviour = behaviour
        self.account: dict[str, Any] = {}
        self.trust: Path | None = None
        self._limits = limits or Limits()
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._child: Spawned | None = None
        self._sockets: list[socket.socket] = []
        self._port = 0

    @property
    def url(self) -> str:
        """Return the URL without a path."""
        scheme = "https" if self.behaviour in _SAYS_HTTPS else "http"
        return f"{scheme}://127.0.0.1:{self._port}"

    def start(self) -> int:
        """Start misbehaving and return the port."""
        if self.behaviour in _WITHOUT_PROCESS:
            self._port = self._occupy()
            return self._port
        arguments = [self.behaviour.value, str(self._limits.bytes), str(self._limits.seconds)]
        if self.behaviour in _TLS:
            arguments += self._certify()
        self._child = Spawned(Path(__file__), *arguments).start()
        self._port = self._child.port
        return self._port

    def stop(self) -> None:
        """Stop, and keep the account of connections and requests."""
        if self._child is not None:
            self.account = self._child.stop()
            self._child = None
        for owned in self._sockets:
            owned.close()
        self._sockets.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _occupy(self) -> int:
        """Hold a port on which nobody listens, or one that listens and has no room left in its queue."""
        listener = socket.socket()
        self._sockets.append(listener)
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        if self.behaviour is Behaviour.NEVER_ACCEPTS:
            listener.listen(0)
            for _ in range(4):  # Linux queues one more than asked; the rest stay in SYN_SENT
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                self._sockets.append(filler)
        return port

    def _certify(self) -> list[str]:
        self._directory = tempfile.TemporaryDirectory(prefix="hostile-")
        directory = Path(self._directory.name)
        ca, other = trustme.CA(), trustme.CA()
        host = "other.example" if self.behaviour is Behaviour.WRONG_HOST else "127.0.0.1"
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        expiry = yesterday if self.behaviour is Behaviour.EXPIRED else None
        names = [host] if self.behaviour is Behaviour.WRONG_HOST else [host, "localhost"]
        leaf = (other if self.behaviour is Behaviour.UNKNOWN_CA else ca).issue_cert(*names, not_after=expiry)
        chain, key, self.trust = directory / "chain.pem", directory / "key.pem", directory / "ca.pem"
        leaf.private_key_pem.write_to_path(key)
        chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        ca.cert_pem.write_to_path(self.trust)
        return [str(chain), str(key)]


# From here on: the child.


class _Peer:
    """One connection, with what the behaviours need and an end to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: _Server) -> None:
        self._reader = reader
        self._writer = writer
        self._server = server
        self._left = server.limits.bytes

    async def request(self) -> str:
        """Read one request with its body and return its method; ends the connection when there is none."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        self._server.requests += 1
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await self._reader.readexactly(int(line.split(b":")[1]))
        return head.split(b" ", 1)[0].decode("latin-1")

    async def send(self, data: bytes) -> None:
        """Send, within the limit of bytes."""
        self._left -= len(data)
        if self._left < 0:
            raise ConnectionAbortedError("enough")
        self._writer.write(data)
        await self._writer.drain()

    async def forever(self, data: bytes) -> None:
        """Send *data* again and again until the client leaves or the limits end it."""
        while True:
            await self.send(data)

    async def anything(self) -> None:
        """Read whatever comes first."""
        await self._reader.read(65536)

    async def nothing(self) -> None:
        """Read, and say nothing, until the client leaves."""
        while await self._reader.read(65536):
            pass

    def reset(self) -> None:
        """Close with a RST."""
        owned = self._writer.get_extra_info("socket")
        owned.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def requests(self) -> AsyncIterator[str]:
        """Yield the method of each request until the client leaves."""
        while True:
            yield await self.request()


def _ok(body: bytes = _BODY, length: int | None = None, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (
        len(body) if length is None else length,
        headers,
        body,
    )


_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
_BIG = b"x" * 65536
_CHUNK = b"10000\r\n" + _BIG + b"\r\n"

# Behaviours that answer each request with fixed bytes.
_ANSWERS: dict[Behaviour, bytes] = {
    Behaviour.GOOD: _ok(),
    Behaviour.GOOD_TLS: _ok(),
    Behaviour.WRONG_HOST: _ok(),
    Behaviour.EXPIRED: _ok(),
    Behaviour.UNKNOWN_CA: _ok(),
    Behaviour.GARBAGE: bytes(range(128, 256)) * 8 + b"\r\n\r\n",
    Behaviour.LONG_BODY: _ok(_BODY + b"and more", length=len(_BODY)),
    Behaviour.BAD_CHUNK_SIZE: _CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    Behaviour.TWO_RESPONSES: _ok() + _ok(),
    Behaviour.BARE_LF: b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    Behaviour.LENGTH_AND_CHUNKED: (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    ),
    Behaviour.TWO_LENGTHS: _ok(headers=b"content-length: 3\r\n"),
    Behaviour.NEGATIVE_LENGTH: b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
    Behaviour.BODY_AFTER_NO_CONTENT: b"HTTP/1.1 204 No Content\r\n\r\nsurprise",
    Behaviour.BODY_AFTER_NOT_MODIFIED: b"HTTP/1.1 304 Not Modified\r\ncontent-length: 8\r\n\r\nsurprise",
    Behaviour.HTTP_2_PREFACE: b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00\x03\x00\x00\x00\x64" * 3,
    Behaviour.SWITCHES_PROTOCOLS: b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n",
    Behaviour.CONTINUE_THEN_OK: b"HTTP/1.1 100 Continue\r\n\r\n" + _ok(),
}

# Behaviours that answer the first request with fixed bytes and close in order.
_LAST_WORDS: dict[Behaviour, bytes] = {
    Behaviour.CLOSES_AFTER_REQUEST: b"",
    Behaviour.SHORT_BODY: _ok(_BODY, length=1000),
    Behaviour.TRUNCATED_CHUNK: _CHUNKED + b"20\r\nonly this",
    Behaviour.CLOSE_DELIMITED: _UNTIL_CLOSE + _BODY,
    Behaviour.KEEP_ALIVE_RACE: _ok(headers=b"connection: keep-alive\r\n"),
}

# Behaviours that answer the first request with a beginning and go on without end.
_ENDLESS: dict[Behaviour, tuple[bytes, bytes]] = {
    Behaviour.ENDLESS_HEADERS: (b"HTTP/1.1 200 OK\r\n", b"x-more: " + b"y" * 4086 + b"\r\n"),
    Behaviour.ENDLESS_BODY: (_CHUNKED, _CHUNK),
    Behaviour.ENDLESS_BODY_UNTIL_CLOSE: (_UNTIL_CLOSE, _BIG),
    Behaviour.HUGE_CONTENT_LENGTH: (_ok(b"", length=10**15), _BIG),
    Behaviour.INFORMATIONAL_STORM: (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 64),
}

# Behaviours that answer the first request with a beginning and then say nothing.
_FALLS_SILENT: dict[Behaviour, bytes] = {
    Behaviour.HANGS: b"",
    Behaviour.HANGS_MID_HEAD: b"HTTP/1.1 200 OK\r\ncontent-",
    Behaviour.HANGS_MID_BODY: _ok(b"half", length=8),
    Behaviour.MANY_HEADERS: b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 12_000,
}


async def _resets_after_accept(peer: _Peer) -> None:
    peer.reset()


async def _resets_after_request(peer: _Peer) -> None:
    await peer.request()
    peer.reset()


async def _resets_mid_body(peer: _Peer) -> None:
    await peer.request()
    await peer.send(_ok(b"half", length=1000))
    # Subtle: a RST discards what the client has not read yet; give it the half body first.
    await asyncio.sleep(0.02)
    peer.reset()


async def _hangs_in_tls(peer: _Peer) -> None:
    await peer.nothing()


async def _plain_text_for_tls(peer: _Peer) -> None:
    await peer.anything()  # an answer to bytes left unread would be lost to a RST
    await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


async def _unsolicited_response(peer: _Peer) -> None:
    await peer.send(_ok())
    await peer.nothing()


async def _slow_drip(peer: _Peer) -> None:
    async for _ in peer.requests():
        for byte in _ok(b"z" * 1000):
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0.1)


async def _fat_head(peer: _Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n" + (b"x-fat: " + b"y" * 290 + b"\r\n") * 200 + b"x-more: ")
    while True:
        await peer.send(b"z")
        await asyncio.sleep(0.1)


async def _split_head(peer: _Peer) -> None:
    async for _ in peer.requests():
        for byte in _ok():
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0)


async def _head_with_length(peer: _Peer) -> None:
    async for method in peer.requests():
        await peer.send(_ok(b"", length=len(_BODY)) if method == "HEAD" else _ok())


_OTHERS: dict[Behaviour, Callable[[_Peer], Awaitable[None]]] = {
    Behaviour.RESETS_AFTER_ACCEPT: _resets_after_accept,
    Behaviour.RESETS_AFTER_REQUEST: _resets_after_request,
    Behaviour.RESETS_MID_BODY: _resets_mid_body,
    Behaviour.HANGS_IN_TLS: _hangs_in_tls,
    Behaviour.PLAIN_TEXT_FOR_TLS: _plain_text_for_tls,
    Behaviour.UNSOLICITED_RESPONSE: _unsolicited_response,
    Behaviour.SLOW_DRIP: _slow_drip,
    Behaviour.FAT_HEAD: _fat_head,
    Behaviour.SPLIT_HEAD: _split_head,
    Behaviour.HEAD_WITH_LENGTH: _head_with_length,
}


async def _behave(behaviour: Behaviour, peer: _Peer) -> None:
    if behaviour in _OTHERS:
        await _OTHERS[behaviour](peer)
    elif behaviour in _ANSWERS:
        async for _ in peer.requests():
            await peer.send(_ANSWERS[behaviour])
    elif behaviour in _LAST_WORDS:
        await peer.request()
        await peer.send(_LAST_WORDS[behaviour])
    elif behaviour in _ENDLESS:
        beginning, rest = _ENDLESS[behaviour]
        await peer.request()
        await peer.send(beginning)
        await peer.forever(rest)
    else:
        await peer.request()
        await peer.send(_FALLS_SILENT[behaviour])
        await peer.nothing()


class _Server:
    """The listening half: every connection behaves the same, within its limits."""

    def __init__(self, behaviour: Behaviour, limits: Limits) -> None:
        self.limits = limits
        self.connections = 0
        self.requests = 0
        self._behaviour = behaviour

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        expected = (
            TimeoutError,
            OSError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            asyncio.CancelledError,
        )
        # Suppressing a cancellation is right here and only here: this is the connection's outermost frame.
        with contextlib.suppress(*expected):
            async with asyncio.timeout(self.limits.seconds):
                await _behave(self._behaviour, _Peer(reader, writer, self))
        writer.close()


async def _run(behaviour: Behaviour, limits: Limits, certificate: tuple[str, str] | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stop_at_end_of_input(loop, stop)
    # A client that hangs up mid-handshake is the point of these servers, not news.
    loop.set_exception_handler(lambda loop, context: None)
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    server = _Server(behaviour, limits)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    listener.close()
    print(json.dumps({"connections": server.connections, "requests": server.requests}), flush=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Misbehave in one named way; prints the port.")
    parser.add_argument("behaviour", type=Behaviour)
    parser.add_argument("bytes", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("certificate", nargs="*")
    given = parser.parse_args()
    certificate = tuple(given.certificate) if given.certificate else None
    asyncio.run(_run(given.behaviour, Limits(bytes=given.bytes, seconds=given.seconds), certificate))


if __name__ == "__main__":
    _main()
