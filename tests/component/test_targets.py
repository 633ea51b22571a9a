"""The targets of other tests do what their names say; seen through plain sockets, not through our own client."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
import urllib.request

import pytest
import trustme

from targets.hostile import Behaviour, Hostile, Limits
from targets.scripted import Certificate, Route, Scripted

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def all_bytes(port: int, sent: bytes = GET, *, context: ssl.SSLContext | None = None, quiet_s: float = 2.0) -> bytes:
    """Return what a server says to *sent* until it closes or falls silent; a reset raises."""
    connection: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=quiet_s)
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
    with connection:
        connection.sendall(sent)
        return until_silence(connection)


def until_silence(connection: socket.socket) -> bytes:
    heard = b""
    try:
        while part := connection.recv(1 << 20):
            heard += part
    except TimeoutError:
        pass
    return heard


# Scripted.


def test_scripted_account_has_every_request_by_kind():
    """The account counts method, path, status and user; statuses are used in turn."""
    routes = [Route(path="/a", statuses=[200, 503]), Route(path="/b*", method="POST", body="b")]
    with Scripted(routes) as server:
        for user in ("1", "2", "2"):
            all_bytes(server.port, b"GET /a?x=1 HTTP/1.1\r\nx-user: %b\r\nconnection: close\r\n\r\n" % user.encode())
        all_bytes(server.port, b"POST /b/c HTTP/1.1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
        all_bytes(server.port, b"GET /b/c HTTP/1.1\r\nconnection: close\r\n\r\n")
        log = server.stop()
    assert (5, 5, 0) == (log.received, log.finished, log.abandoned)
    assert 2 == log.count(path="/a", status=200)
    assert 1 == log.count(path="/a", status=503)
    assert 2 == log.count(path="/a", user="2")
    assert 1 == log.count(method="POST", path="/b/c", status=200)
    assert 1 == log.count(path="/b/c", status=404)
    assert log == server.log


@pytest.mark.parametrize(
    ("framing", "expected"),
    [
        pytest.param("length", b"content-length: 2\r\n\r\nok", id="length"),
        pytest.param("chunked", b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="chunked"),
        pytest.param("close", b"connection: close\r\n\r\nok", id="until close"),
    ],
)
def test_scripted_framing(framing, expected):
    """A body ends in the way the script says."""
    with Scripted([Route(path="/", body="ok", headers={}, framing=framing)]) as server:
        assert b"HTTP/1.1 200 OK\r\n" + expected == all_bytes(server.port, quiet_s=0.3)


def test_scripted_without_keep_alive_closes():
    """A route can end the connection behind its reply."""
    with Scripted([Route(path="/", keep_alive=False)]) as server:
        assert b"connection: close" in all_bytes(server.port, quiet_s=60)


def test_scripted_echo_returns_the_request():
    """An echo says what arrived, so that a client's encoding can be seen."""
    with Scripted([Route(path="/*", echo=True)]) as server:
        request = urllib.request.Request(server.url + "/p?q=1", data=b"form=1", headers={"X-User": "7"}, method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            seen = json.load(answer)
    assert ("PUT", "/p", "q=1", "form=1") == (seen["method"], seen["path"], seen["query"], seen["body"])
    assert "7" == seen["headers"]["x-user"]


def test_scripted_lines_carry_the_monotonic_instant(tmp_path):
    """A line per request, its instant on the clock the client reads too."""
    before = time.monotonic()
    with Scripted([Route(path="/")], lines=tmp_path / "lines") as server:
        all_bytes(server.port, quiet_s=0.1)
    (line,) = [json.loads(text) for text in (tmp_path / "lines").read_text().splitlines()]
    assert before < line["at"] < time.monotonic()
    assert ("GET", "/", 200, "") == (line["method"], line["path"], line["status"], line["user"])


async def test_scripted_delay_is_kept_at_a_thousand_requests_a_second():
    """A reply is never early and, but for the machine's own hiccups, less than a millisecond late."""
    delay_s, users, each = 0.05, 50, 20
    with Scripted([Route(path="/", delay_s=delay_s)]) as server:

        async def user() -> float:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            shortest = 1.0
            for _ in range(each):
                sent = time.monotonic()
                writer.write(GET)
                await reader.readuntil(b"\r\n\r\n")
                shortest = min(shortest, time.monotonic() - sent)
                await reader.readexactly(len('{"ok":true}'))
            writer.close()
            return shortest

        shortest = await asyncio.gather(*(user() for _ in range(users)))
        log = server.stop()
    assert users * each == log.finished
    assert delay_s <= min(shortest)
    assert log.lateness["p50"] < 0.001


def test_scripted_tls(tmp_path):
    """The same over TLS, with the certificate the test gives."""
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(tmp_path / "key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "chain")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    with Scripted([Route(path="/")], tls=Certificate(chain=tmp_path / "chain", key=tmp_path / "key")) as server:
        assert b'{"ok":true}' in all_bytes(server.port, context=context, quiet_s=0.3)
        assert 1 == server.log.count(path="/")


def test_a_target_ends_with_its_parent():
    """Closing the child's standard input, as a parent's death does, ends it."""
    server = Scripted([Route(path="/")]).start()
    pid = server.pid
    assert 0 == server.stop().received
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# Hostile.


SAYS = {
    Behaviour.GOOD: b'content-length: 11\r\n\r\n{"ok":true}',
    Behaviour.GARBAGE: b"\x80\x81\x82",
    Behaviour.CLOSES_AFTER_REQUEST: b"",
    Behaviour.HANGS_MID_HEAD: b"content-",
    Behaviour.HANGS_MID_BODY: b"content-length: 8\r\n\r\nhalf",
    Behaviour.SHORT_BODY: b'content-length: 1000\r\n\r\n{"ok":true}',
    Behaviour.LONG_BODY: b'content-length: 11\r\n\r\n{"ok":true}and more',
    Behaviour.TRUNCATED_CHUNK: b"\r\n\r\n20\r\nonly this",
    Behaviour.BAD_CHUNK_SIZE: b"zz\r\n",
    Behaviour.TWO_RESPONSES: b'{"ok":true}HTTP/1.1 200 OK',
    Behaviour.UNSOLICITED_RESPONSE: b'{"ok":true}',
    Behaviour.BARE_LF: b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    Behaviour.LENGTH_AND_CHUNKED: b"content-length: 5\r\ntransfer-encoding: chunked",
    Behaviour.TWO_LENGTHS: b"content-length: 11\r\ncontent-length: 3\r\n",
    Behaviour.NEGATIVE_LENGTH: b"content-length: -5",
    Behaviour.BODY_AFTER_NO_CONTENT: b"204 No Content\r\n\r\nsurprise",
    Behaviour.BODY_AFTER_NOT_MODIFIED: b"\r\n\r\nsurprise",
    Behaviour.HTTP_2_PREFACE: b"\x00\x00\x12\x04",
    Behaviour.SWITCHES_PROTOCOLS: b"101 Switching",
    Behaviour.PLAIN_TEXT_FOR_TLS: b"400 Bad Request",
    Behaviour.CLOSE_DELIMITED: b'close\r\n\r\n{"ok":true}',
    Behaviour.HEAD_WITH_LENGTH: b'content-length: 11\r\n\r\n{"ok":true}',
    Behaviour.CONTINUE_THEN_OK: b"100 Continue\r\n\r\nHTTP/1.1 200 OK",
    Behaviour.KEEP_ALIVE_RACE: b"connection: keep-alive",
    Behaviour.SPLIT_HEAD: b'content-length: 11\r\n\r\n{"ok":true}',
}
UNFINISHED = {Behaviour.MANY_HEADERS: b"a:b\r\na:b\r\n", Behaviour.FAT_HEAD: b"HTTP/1.1 200 OK\r\n"}
ENDLESS = [
    Behaviour.ENDLESS_HEADERS,
    Behaviour.ENDLESS_BODY,
    Behaviour.ENDLESS_BODY_UNTIL_CLOSE,
    Behaviour.HUGE_CONTENT_LENGTH,
    Behaviour.INFORMATIONAL_STORM,
]
RESETS = [Behaviour.RESETS_AFTER_ACCEPT, Behaviour.RESETS_AFTER_REQUEST, Behaviour.RESETS_MID_BODY]
SILENT = [Behaviour.HANGS, Behaviour.HANGS_IN_TLS]
BAD_CERTIFICATES = {
    Behaviour.WRONG_HOST: "IP address mismatch",
    Behaviour.EXPIRED: "certificate has expired",
    Behaviour.UNKNOWN_CA: "unable to get local issuer|self-signed",
}
APART = {Behaviour.REFUSES, Behaviour.NEVER_ACCEPTS, Behaviour.SLOW_DRIP, Behaviour.GOOD_TLS}


def test_every_behaviour_is_seen_below():
    """A new behaviour needs a place in one of the tables."""
    assert set(Behaviour) == {*SAYS, *UNFINISHED, *ENDLESS, *RESETS, *SILENT, *BAD_CERTIFICATES, *APART}


@pytest.mark.parametrize("behaviour", SAYS)
def test_hostile_says(behaviour):
    """What a client hears from each behaviour that answers at all."""
    with Hostile(behaviour) as server:
        port = int(server.url.rpartition(":")[2])
        assert SAYS[behaviour] in all_bytes(port, quiet_s=0.3)
        server.stop()
        assert 1 == server.account["connections"]


@pytest.mark.parametrize("behaviour", ENDLESS)
def test_hostile_endless_ends_at_its_limit(behaviour):
    """Endless is bounded, so that a client without limits ends too."""
    limit = 2 * 1024 * 1024
    server = Hostile(behaviour, limits=Limits(bytes=limit))
    heard = all_bytes(server.start(), quiet_s=5)
    server.stop()
    assert limit // 2 < len(heard) <= limit


@pytest.mark.parametrize("behaviour", UNFINISHED)
def test_hostile_heads_never_end(behaviour):
    """Much of a head is said, its end never."""
    server = Hostile(behaviour, limits=Limits(seconds=0.5))
    heard = all_bytes(server.start(), quiet_s=5)
    server.stop()
    assert UNFINISHED[behaviour] in heard
    assert b"\r\n\r\n" not in heard


@pytest.mark.parametrize("behaviour", RESETS)
def test_hostile_resets(behaviour):
    """A reset is a reset, not an orderly end."""
    server = Hostile(behaviour)
    port = server.start()
    with pytest.raises(ConnectionResetError):
        all_bytes(port)
    server.stop()


@pytest.mark.parametrize("behaviour", SILENT)
def test_hostile_hangs_until_its_limit(behaviour):
    """Nothing is said, and the connection ends when its time is over."""
    server = Hostile(behaviour, limits=Limits(seconds=0.3))
    began = time.monotonic()
    assert b"" == all_bytes(server.start(), quiet_s=10)
    assert 0.3 <= time.monotonic() - began < 10
    server.stop()


@pytest.mark.parametrize("behaviour", BAD_CERTIFICATES)
def test_hostile_certificates(behaviour):
    """A client that verifies says what is wrong."""
    with Hostile(behaviour) as server, pytest.raises(ssl.SSLCertVerificationError, match=BAD_CERTIFICATES[behaviour]):
        all_bytes(int(server.url.rpartition(":")[2]), context=ssl.create_default_context(cafile=server.trust))


def test_hostile_good_tls_is_trusted():
    """The counterpart: with the given CA everything is in order."""
    with Hostile(Behaviour.GOOD_TLS) as server:
        context = ssl.create_default_context(cafile=server.trust)
        assert b'{"ok":true}' in all_bytes(int(server.url.rpartition(":")[2]), context=context, quiet_s=0.3)


def test_hostile_refuses():
    """Nobody listens on a port that stays ours."""
    server = Hostile(Behaviour.REFUSES)
    with pytest.raises(ConnectionRefusedError):
        all_bytes(server.start())
    server.stop()


def test_hostile_never_accepts():
    """Connecting takes until the client gives up."""
    server = Hostile(Behaviour.NEVER_ACCEPTS)
    port = server.start()
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.5)
    server.stop()


def test_hostile_drips():
    """A byte each 100 ms."""
    server = Hostile(Behaviour.SLOW_DRIP, limits=Limits(seconds=1.05))
    heard = all_bytes(server.start())
    server.stop()
    assert b"HTTP/1.1 200 OK".startswith(heard)
    assert 5 <= len(heard) <= 11
