"""Looking up a target's host: who waits for whom."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from trafficsim_operator.fleet import lookup as module
from trafficsim_operator.fleet.lookup import HostLookups


class NameServer:
    """Answers names that begin with "good", fails for "bad" ones, and leaves all others without an answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.over = threading.Event()

    def __call__(self, host: str, *_: Any) -> Any:
        self.asked.append(host)
        if host.startswith("bad"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if not host.startswith("good"):
            self.over.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 0))] * 2


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.over.set()


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        pytest.param("127.0.0.1", ("127.0.0.1",), id="IPv4"),
        pytest.param("fe80::1", ("fe80::1",), id="IPv6"),
        pytest.param("good.example", ("10.0.0.7",), id="a name"),
    ],
)
async def test_what_a_host_means(server: NameServer, host: str, addresses: tuple[str, ...]) -> None:
    """Every address once; one that is written is not asked for."""
    facts = await HostLookups(server).resolve(host, 8080)
    assert (host, 8080, addresses, "") == (facts.host, facts.port, facts.addresses, facts.problem)
    assert server.asked == ([host] if host == "good.example" else [])


async def test_a_host_without_addresses(server: NameServer) -> None:
    facts = await HostLookups(server).resolve("bad.example", 80)
    assert ((), "bad.example cannot be resolved: Name or service not known") == (facts.addresses, facts.problem)


async def test_however_many_ask_a_host_is_looked_up_once(server: NameServer) -> None:
    """As long as there is no answer; afterwards anew."""
    hosts = HostLookups(server)
    for times in (1, 2):
        found = await asyncio.gather(*(hosts.resolve("good.example", port) for port in range(20)))
        assert {("10.0.0.7",)} == {facts.addresses for facts in found}
        assert ["good.example"] * times == server.asked


async def test_a_name_server_that_does_not_answer(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody waits longer than the deadline, a name keeps one thread however often it is asked for, others are answered,
    and with all threads gone the loop's own are still there.
    """
    monkeypatch.setattr(module, "_DEADLINE_S", 0.05)
    hosts = HostLookups(server, threads=2)
    for _ in range(3):
        facts = await hosts.resolve("hangs.example", 80)
        assert "hangs.example could not be resolved within 0s" == facts.problem
    assert ["hangs.example"] == server.asked
    assert ("10.0.0.7",) == (await hosts.resolve("good.example", 80)).addresses
    assert (await hosts.resolve("hangs-too.example", 80)).problem
    assert "good.example could not be resolved within 0s" == (await hosts.resolve("good.example", 80)).problem
    assert "done" == await asyncio.to_thread(lambda: "done")
    server.over.set()
    async with asyncio.timeout(10):
        while not (await hosts.resolve("good.example", 80)).addresses:
            pass
