"""The target's addresses: asked for once, kept while fresh, asked for again after a failure."""

from __future__ import annotations

import asyncio
import socket

import pytest

from trafficsim_api.resource import Target
from trafficsim_runner.http import names as names_module
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.http.names import Names

SECOND = 1_000_000_000
HERE = (socket.AF_INET, ("127.0.0.1", 80))


class Resolver:
    """Stands for getaddrinfo; counts how often it is asked."""

    def __init__(self):
        self.asked, self.found = 0, [HERE]

    def __call__(self, host, port):
        self.asked += 1
        if self.found is None:
            raise RuntimeError("a resolver gone wrong")
        if not self.found:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return list(self.found)


@pytest.fixture
def resolver(monkeypatch):
    resolver = Resolver()
    monkeypatch.setattr(names_module, "look_up", resolver)
    return resolver


async def answered(names, event, now_ns):
    event.clear()
    names.ask(now_ns)
    await asyncio.wait_for(event.wait(), 5)


async def test_fresh_for_half_a_minute_and_a_second_after_a_failure(resolver):
    """No look-up while the addresses are fresh; a failed connect makes them old after a second."""
    event = asyncio.Event()
    names = Names(endpoint_of(Target(url="http://shop")), event.set)
    await answered(names, event, SECOND)
    assert ([HERE], 1) == (names.addresses, resolver.asked)
    names.ask(30 * SECOND)
    assert 1 == resolver.asked
    names.suspect()
    names.ask(SECOND + 1)
    assert 1 == resolver.asked
    await answered(names, event, 3 * SECOND)
    assert 2 == resolver.asked
    await answered(names, event, 40 * SECOND)
    assert 3 == resolver.asked


async def test_a_failed_look_up_keeps_the_old_addresses(resolver):
    """A hiccup of the name server is not the target's; without any address everybody who asks asks again."""
    event = asyncio.Event()
    names = Names(endpoint_of(Target(url="http://shop")), event.set)
    resolver.found = []
    await answered(names, event, SECOND)
    assert [] == names.addresses
    resolver.found = [HERE]
    await answered(names, event, SECOND + 1)
    resolver.found = []
    await answered(names, event, 60 * SECOND)
    assert [HERE] == names.addresses


async def test_a_resolver_gone_wrong_is_asked_again(resolver):
    """Whatever the look-up raises, those who wait hear of it, and the next one asks again."""
    event = asyncio.Event()
    names = Names(endpoint_of(Target(url="http://shop")), event.set)
    resolver.found = None
    await answered(names, event, SECOND)
    assert [] == names.addresses
    resolver.found = [HERE]
    await answered(names, event, SECOND + 1)
    assert [HERE] == names.addresses


async def test_an_address_in_the_url_is_never_looked_up_again(resolver):
    """It is its own answer, from the beginning."""
    names = Names(endpoint_of(Target(url="http://127.0.0.1:80")), lambda: None)
    asked = resolver.asked
    names.ask(10**15)
    assert (asked, [HERE]) == (resolver.asked, names.addresses)
