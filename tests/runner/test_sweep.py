"""The sweep over time-outs goes in parts, and every connection has its turn in each round."""

from __future__ import annotations

import json
import os
import select
import socket

import pytest

from trafficsim_api.layout import Layout
from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.flow import compile_load
from trafficsim_runner.health.processes import descriptors
from trafficsim_runner.http.client import Client
from trafficsim_runner.http.connection import IDLE, Connection
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.users import User

LOAD = {
    "target": {"url": "http://127.0.0.1:1"},
    "archetypes": [{"name": "one", "flow": [{"action": "x", "request": {"get": "/"}}]}],
}
LATE = 10**12
USERS = 7


class Walker:
    """Knows who failed."""

    def __init__(self):
        self.failures = []

    def sent(self, user):
        user.begun = True

    def failed(self, user, now_ns):
        self.failures.append(user.place)


@pytest.fixture
def waiting(tmp_path):
    """Return a client with seven requests out, whom they belong to, and who is told."""
    load, walker = Load.model_validate_json(json.dumps(LOAD)), Walker()
    actions = actions_of(load.archetypes)
    account = Account(SlabWriter(tmp_path / "slab", Layout(actions=actions), started_ns=0))
    client = Client(account=account, walker=walker, clock=lambda: 1_000_000, wall_s=lambda: 0.0)
    client._endpoint = endpoint_of(load.target)
    client.allow((), connections=USERS, concurrency=USERS)
    step = compile_load(load, client._endpoint, {actions[0]: 0}, account.tallies, {}).tops[0]
    users, theirs = [], []
    for place in range(USERS):
        ours, other = socket.socketpair()
        ours.setblocking(False)
        user = User()
        user.place, user.step = place, step
        user.connection = connection = Connection(ours, user, client._endpoint, 1_000_000)
        connection.state = IDLE
        client._connections[connection.fd] = connection
        client._epoll.register(connection.fd, select.EPOLLIN)
        client.request(user, step, step.render(user), 1_000_000, 1_000_000)
        users.append(user)
        theirs.append(other)
    yield client, users, walker
    client.close()
    for other in theirs:
        other.close()


def test_a_round_comes_to_everybody_once(waiting):
    """Of seven in parts of three, the third part is the last."""
    client, _, walker = waiting
    assert [False, False, True] == [client.sweep(LATE, 3) for _ in range(3)]
    assert list(range(USERS)) == sorted(walker.failures)
    assert 0 == client.in_flight == client.open_connections


def test_who_left_since_the_round_began_is_passed_over(waiting):
    """A connection that is gone times out no more."""
    client, users, walker = waiting
    client.sweep(LATE, 3)
    left = next(user for user in users if user.place not in walker.failures)
    client.cut(left, LATE)
    assert client.sweep(LATE, USERS)
    assert sorted(set(range(USERS)) - {left.place}) == sorted(walker.failures)


def test_without_a_bound_all_are_looked_at(waiting):
    """One call is a whole round then."""
    client, _, walker = waiting
    assert client.sweep(LATE)
    assert list(range(USERS)) == sorted(walker.failures)


def test_descriptors_are_those_of_the_process_with_most():
    """One more open file is one more descriptor; a process that is gone has none."""
    before = descriptors([os.getpid()])
    with open(os.devnull, "rb"):
        assert before + 1 == descriptors([os.getpid(), 1 << 22])
    assert 0 == descriptors([1 << 22])
