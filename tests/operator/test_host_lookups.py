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
    """
    Answers names that begin with "good", fails for "bad" ones, and leaves all others without an answer until it is
    *over*; of "nowhere" there is none then.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.over = threading.Event()

    def __call__(self, host: str, *_: Any) -> Any:
        self.asked.append(host)
        if host.startswith("bad"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if not host.startswith("good"):
            self.over.wait()
        if host.startswith("nowhere"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
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


@pytest.mark.parametrize(("kept_s", "times"), [(10.0, 1), (0.0, 2)], ids=["for ten seconds", "then anew"])
async def test_however_many_ask_a_host_is_looked_up_once(server, monkeypatch, kept_s: float, times: int) -> None:
    """As long as there is no answer, and as long as it is good."""
    monkeypatch.setattr(module, "_KEPT_S", kept_s)
    hosts = HostLookups(server)
    for _ in range(2):
        found = await asyncio.gather(*(hosts.resolve("good.example", port) for port in range(20)))
        assert {("10.0.0.7",)} == {facts.addresses for facts in found}
    assert ["good.example"] * times == server.asked


async def until_answered(hosts: HostLookups) -> None:
    """Wait until no look-up is going on."""
    async with asyncio.timeout(10):
        while hosts._asked:
            await asyncio.wait(hosts._asked.values())


async def test_a_name_server_that_does_not_answer(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody waits longer than the deadline, a name keeps one thread however often it is asked for, others are answered,
    and with all threads gone the loop's own are still there. An answer that comes late is one all the same.
    """
    monkeypatch.setattr(module, "_DEADLINE_S", 0.05)
    hosts = HostLookups(server, threads=2)
    for _ in range(3):
        facts = await hosts.resolve("hangs.example", 80)
        assert "hangs.example could not be resolved within 0s; it is looked up again 30s later" == facts.problem
    assert ["hangs.example"] == server.asked
    assert ("10.0.0.7",) == (await hosts.resolve("good.example", 80)).addresses
    assert (await hosts.resolve("hangs-too.example", 80)).problem
    facts = await hosts.resolve("good-too.example", 80)
    assert "good-too.example could not be resolved within 0s: 2 others without an answer are before it" == facts.problem
    assert "done" == await asyncio.to_thread(lambda: "done")
    server.over.set()
    await until_answered(hosts)
    for host in ("hangs.example", "hangs-too.example", "good-too.example"):
        assert ("10.0.0.7",) == (await hosts.resolve(host, 80)).addresses
        assert 1 == server.asked.count(host)


@pytest.mark.parametrize(
    ("waited_s", "silent_s", "times"),
    [
        pytest.param(30.0, 30.0, 1, id="for half a minute"),
        pytest.param(0.0, 30.0, 1, id="which counts from when the resolver gave up"),
        pytest.param(0.0, 0.0, 2, id="then anew"),
    ],
)
async def test_a_name_that_leads_nowhere_leaves_its_thread_to_others(
    server: NameServer, monkeypatch: pytest.MonkeyPatch, waited_s: float, silent_s: float, times: int
) -> None:
    """
    It is not looked up again at once when the resolver has given up: that is said, without a wait.

    Half a minute is over *waited_s* after it was given up here, and *silent_s* after the resolver did.
    """
    hosts = HostLookups(server, threads=1)
    with monkeypatch.context() as short:
        short.setattr(module, "_DEADLINE_S", 0.05)
        short.setattr(module, "_SILENT_S", waited_s)
        first = await hosts.resolve("nowhere.example", 80)
    assert first.problem
    monkeypatch.setattr(module, "_SILENT_S", silent_s)
    server.over.set()
    await until_answered(hosts)
    again = await hosts.resolve("nowhere.example", 80)
    assert ["nowhere.example"] * times == server.asked
    told = "could not be resolved within 5s; it is looked up again 30s later"
    why = told if times == 1 else "cannot be resolved: Temporary failure in name resolution"
    assert f"nowhere.example {why}" == again.problem
    assert ("10.0.0.7",) == (await hosts.resolve("good.example", 80)).addresses


async def test_the_end_of_the_process_waits_for_no_answer(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DEADLINE_S", 0.05)
    before = set(threading.enumerate())
    await HostLookups(server).resolve("hangs.example", 80)
    [thread] = set(threading.enumerate()) - before
    assert thread.daemon
