"""Asking a runner that does not answer."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api.errors import Unavailable
from trafficsim_api.protocol import Acknowledgement, Assignment
from trafficsim_operator.fleet import runners as module
from trafficsim_operator.fleet.runners import Runners, Signer

pytestmark = pytest.mark.component


async def test_one_that_was_silent_is_not_waited_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look waits for all runners: the second time in vain is short, and an answer makes it long again."""
    monkeypatch.setattr(module, "_DEADLINE", aiohttp.ClientTimeout(sock_read=0.6))
    monkeypatch.setattr(module, "_SILENT_DEADLINE", aiohttp.ClientTimeout(sock_read=0.1))
    answers = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if answers:
                    body = Acknowledgement(boot="b").model_dump_json().encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has given up
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    runners = Runners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate()))

    async def in_vain() -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await runners.acknowledgement(address)
        return time.monotonic() - began

    assert await in_vain() >= 0.6
    assert await in_vain() < 0.6
    assert {address} == runners.silent
    answers = True
    assert "b" == (await runners.acknowledgement(address)).boot
    assert set() == runners.silent
    answers = False
    assert await in_vain() >= 0.6
    await runners.aclose()
    server.close()


async def test_nothing_is_assigned_by_who_may_not() -> None:
    """Not even a connection is opened: what is sent might arrive after another operator's word."""
    runners = Runners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate()), may_assign=lambda: False)
    with pytest.raises(Unavailable, match="does not hold the Lease"):
        await runners.assign("127.0.0.1:9", Assignment.model_construct())
    assert runners._session is None
