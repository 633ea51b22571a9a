"""What a runner says of a target's health, asked over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trustme

from trafficsim_api.flow import Archetype
from trafficsim_api.protocol import Allowed, Load
from trafficsim_api.resource import TLS, Target, Timeouts
from trafficsim_runner.health import target as health
from trafficsim_runner.health.target import REACHABLE

LOOPBACK = (Allowed(network="127.0.0.0/8"),)
FLOW = Archetype.model_validate({"name": "a", "flow": ({"request": {"get": "/"}},)})
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


async def ask(target, ca, allowed):
    return await health.ask(Load(target=target, archetypes=(FLOW,), ca=ca), allowed)


@asynccontextmanager
async def a_target(answer, context=None):
    """Serve *answer* to every request; yield the port and the request lines heard."""
    heard = []

    async def serve(reader, writer):
        try:
            heard.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
            writer.write(answer)
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


def a_target_at(port, scheme="http", **changes):
    timeouts = Timeouts(connect=timedelta(milliseconds=200), request=timedelta(milliseconds=300))
    return Target(url=f"{scheme}://127.0.0.1:{port}/shop/", timeouts=timeouts, **changes)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(OK, REACHABLE, id="fine"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\n\r\n", REACHABLE, id="below 500 is health"),
        pytest.param(b"HTTP/1.1 503 Down\r\n\r\n", "answered with 503", id="broken"),
        pytest.param(b"SSH-2.0-x\r\n", "not HTTP/1.1", id="another protocol"),
        pytest.param(b"x" * 20_000, "", id="an endless line"),
        pytest.param(b"", "no answer", id="silence"),
    ],
)
async def test_what_the_target_answers(answer, words):
    """Reachable below 500; everything else is named."""
    async with a_target(answer) as (port, heard):
        found = await ask(a_target_at(port, health_path="/up"), None, LOOPBACK)
    assert words in found
    assert (words == REACHABLE) == (found == REACHABLE)
    assert ["GET /shop/up HTTP/1.1"] == heard


async def test_nobody_listens():
    """The connection is refused."""
    async with a_target(OK) as (port, _):
        pass
    assert f"127.0.0.1:{port} refuses the connection: nothing listens there" == (
        await ask(a_target_at(port), None, LOOPBACK)
    )


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param((Allowed(network="10.0.0.0/8"),), id="another network"),
        pytest.param((Allowed(network="127.0.0.0/8", ports=(1,)),), id="another port"),
        pytest.param((), id="nothing"),
    ],
)
async def test_only_what_is_allowed_is_asked(allowed):
    """No connection is made to an address that policy does not allow."""
    async with a_target(OK) as (port, heard):
        assert "not among the addresses allowed" in await ask(a_target_at(port), None, allowed)
    assert [] == heard


async def test_a_name_nobody_knows():
    """The name is said."""
    found = await ask(Target(url="http://nowhere.invalid"), None, LOOPBACK)
    assert "nowhere.invalid cannot be resolved" in found


async def test_certificates_are_verified():
    """By the CA given and the server's name, whatever the URL's host is."""
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("shop.example").configure_cert(context)
    ca = authority.cert_pem.bytes().decode()
    async with a_target(OK, context) as (port, _):
        named = a_target_at(port, "https", tls=TLS(server_name="shop.example"))
        assert REACHABLE == await ask(named, ca, LOOPBACK)
        assert "certificate" in await ask(named, stranger.cert_pem.bytes().decode(), LOOPBACK)
        assert "certificate" in await ask(a_target_at(port, "https"), ca, LOOPBACK)


async def test_every_address_is_asked(monkeypatch):
    """One that refuses is passed over; what the last one said is said when none answers."""
    async with a_target(OK) as (port, heard):
        refuses = (socket.AF_INET, ("127.1.7.7", port))
        answers = (socket.AF_INET, ("127.0.0.1", port))
        monkeypatch.setattr(health, "look_up", lambda host, port: [refuses, answers])
        assert REACHABLE == await ask(a_target_at(port), None, LOOPBACK)
        assert 1 == len(heard)
        monkeypatch.setattr(health, "look_up", lambda host, port: [answers, refuses])
        assert REACHABLE == await ask(a_target_at(port), None, LOOPBACK)
        monkeypatch.setattr(health, "look_up", lambda host, port: [refuses, refuses])
        assert "127.1.7.7" in await ask(a_target_at(port), None, LOOPBACK)


async def test_an_address_mapped_into_ipv6_is_the_ipv4_address():
    """The probe connects to what the load may connect to, by the same rule."""
    async with a_target(OK) as (port, heard):
        target = Target(url=f"http://[::ffff:127.0.0.1]:{port}", timeouts=a_target_at(port).timeouts)
        assert REACHABLE == await ask(target, None, LOOPBACK)
        assert "not among" in await ask(target, None, (Allowed(network="::/0"),))
    assert 1 == len(heard)
