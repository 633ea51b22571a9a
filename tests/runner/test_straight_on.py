"""Flows whose requests follow each other at once: the client sends them without asking the engine."""

from __future__ import annotations

import itertools
import json
import select

from trafficsim_api.layout import Layout
from trafficsim_api.profile import Segment, Shape
from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.engine import Engine
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.connection import IDLE, Connection
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.pacing import Pacer
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.slab import SlabWriter

SECOND_NS = 1_000_000_000
LOGIN = {"action": "login", "request": {"post": "/login"}, "save": {"token": "json.token"}}
USE = {
    "action": "use",
    "request": {"get": "/use/{{user.iteration}}", "headers": {"x-token": "{{token}}"}},
    "expect": {"json": {"city": "Oslo"}},
}


class Server:
    """The other end of a connection, without a kernel: *answer* says what comes back."""

    def __init__(self, answer):
        self.answer, self.wires = answer, []

    def fileno(self):
        return 1000

    def send(self, wire):
        self.wires.append(bytes(wire))
        return len(wire)

    def recv(self, _):
        body = self.answer(self.wires[-1])
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    def close(self):
        pass


class Ready:
    def poll(self, _timeout, _most):
        return [(1000, select.EPOLLIN)]

    def modify(self, fd, mask):
        pass


class Walk:
    """One user on its way through *flow*."""

    def __init__(self, tmp_path, flow, answer):
        document = {"target": {"url": "http://shop"}, "archetypes": [{"name": "one", "flow": flow}]}
        load = Load.model_validate_json(json.dumps(document))
        actions = actions_of(load.archetypes)
        self.account = Account(SlabWriter(tmp_path / "slab", Layout(actions=actions), started_ns=0))
        clock = itertools.count(SECOND_NS, 1000).__next__
        self.faults = []
        self.engine = Engine(account=self.account, clock=clock, wall_s=lambda: 0.0, on_fault=self.faults.append)
        client = self.engine.client
        client._endpoint = endpoint = endpoint_of(load.target)
        client.allow((), connections=1, concurrency=1)
        numbers = {action: number for number, action in enumerate(actions)}
        self.engine.use_program(compile_load(load, endpoint, numbers, self.account.tallies, {}), [1], load.seed)
        shape = Shape((Segment(0, 1, 10_000, 10_000),))
        self.engine.follow(Pacer(users=1, ranges=[(0, 1)], shape=shape, end_ms=10**9), SECOND_NS)
        self.user, self.server = self.engine._users[0], Server(answer)
        connection = Connection(self.server, self.user, endpoint, SECOND_NS)
        connection.state = IDLE
        self.user.connection = client._connections[1000] = connection
        while not self.server.wires:
            for _ in range(1000):
                clock()
            self.engine.wake()
        client._epoll.close()
        client._epoll = Ready()

    def answers(self, count):
        for _ in range(count):
            self.engine.client.handle_ready()
        assert not self.faults

    @property
    def paths(self):
        return [wire.split(b" ")[1].decode() for wire in self.server.wires]

    def count(self, action, counter):
        self.account.fold()
        layout = self.account.slab.layout
        return self.account.live[layout.action(layout.actions.index((action, "user")), counter)]

    def worker_count(self, counter):
        self.account.fold()
        return self.account.live[self.account.slab.layout.worker(counter)]


def numbered(wire):
    token = b'{"token": "t%d"}'
    return token % next(numbered.logins) if b"/login" in wire else b'{"city": "Oslo"}'


def test_loops_and_iterations_are_those_of_the_engine(tmp_path):
    """login, three times use, and again: every round has the iteration's number and the token of its login."""
    numbered.logins = itertools.count()
    walk = Walk(tmp_path, [LOGIN, {"repeat": {"times": 3, "flow": [USE]}}], numbered)
    walk.answers(12)
    assert ["/login", *["/use/0"] * 3, "/login", *["/use/1"] * 3, "/login", *["/use/2"] * 3, "/login"] == walk.paths
    tokens = [wire.split(b"x-token: ")[1].split(b"\r\n")[0] for wire in walk.server.wires if b"/use" in wire]
    assert [b"t0"] * 3 + [b"t1"] * 3 + [b"t2"] * 3 == tokens
    assert (4, 3) == (walk.worker_count("iterations"), walk.worker_count("iterations_done"))
    assert (4, 3, 0) == tuple(walk.count("login", counter) for counter in ("sent", "done", "checks_failed"))
    assert (9, 9, 9, 0) == tuple(walk.count("use", c) for c in ("sent", "done", "checks", "checks_failed"))
    assert sum(map(len, walk.server.wires)) == walk.count("login", "bytes_out") + walk.count("use", "bytes_out")


def test_a_missing_value_drops_its_request_and_nothing_else(tmp_path):
    """Without a token the uses are dropped, and the next login is of the next iteration."""
    walk = Walk(tmp_path, [LOGIN, USE, {"action": "end", "request": {"get": "/end"}}], lambda wire: b"{}")
    walk.answers(4)
    assert ["/login", "/end", "/login", "/end", "/login"] == walk.paths
    assert (2, 0) == (walk.worker_count("drop_template"), walk.count("use", "sent"))
    assert 2 == walk.count("login", "checks_failed")
    assert (3, 2) == (walk.worker_count("iterations"), walk.worker_count("iterations_done"))


def test_a_new_iteration_that_lacks_a_value_is_the_engines(tmp_path):
    """With its first request missing a variable, an iteration is counted once, and the request dropped once."""
    first = {"action": "first", "request": {"get": "/first/{{env.NOBODY_HAS_IT}}"}}
    second = {"action": "second", "request": {"get": "/second/{{user.iteration}}"}}
    walk = Walk(tmp_path, [first, second], lambda wire: b"{}")
    walk.answers(3)
    assert ["/second/0", "/second/1", "/second/2", "/second/3"] == walk.paths
    assert (4, 3) == (walk.worker_count("iterations"), walk.worker_count("iterations_done"))
    assert 4 == walk.worker_count("drop_template")


def test_a_check_of_the_body_is_missed_where_it_is(tmp_path):
    """An answer that is not what was expected is counted, and the flow goes on."""
    numbered.logins = itertools.count()
    walk = Walk(tmp_path, [LOGIN, USE], lambda wire: numbered(wire).replace(b"Oslo", b"Rome"))
    walk.answers(4)
    assert (2, 2, 2) == tuple(walk.count("use", counter) for counter in ("done", "checks", "checks_failed"))
