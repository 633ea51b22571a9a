"""A name's addresses: asked for at each connect, once a second at most; kept when nobody answers."""

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


async def test_users_who_connect_within_a_second_share_a_look_up(resolver):
    """While it is under way everybody waits for it; an answer holds for a second, then the next connect asks again."""
    event = asyncio.Event()
    names = Names(endpoint_of(Target(url="http://shop")), event.set)
    assert names.ask(SECOND) and names.ask(SECOND + 1)
    await asyncio.wait_for(event.wait(), 5)
    assert ([HERE], 1) == (names.addresses, resolver.asked)
    assert not names.ask(2 * SECOND - 1)
    assert 1 == resolver.asked
    await answered(names, event, 2 * SECOND)
    assert 2 == resolver.asked


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
    assert not names.ask(10**15)
    assert (asked, [HERE]) == (resolver.asked, names.addresses)
