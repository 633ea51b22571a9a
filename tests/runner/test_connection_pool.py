"""Who gets a pooled connection, who waits, which ones go: a table for each rule, and what holds whatever happens."""

from __future__ import annotations

import itertools
import json
import socket
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trafficsim_api.connections import Connections, pools_of
from trafficsim_api.layout import Layout
from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.checks import checks_of
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.client import Client
from trafficsim_runner.http.connection import IDLE, Connection
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.http.pool import Pools, Waiter
from trafficsim_runner.program import RequestStep
from trafficsim_runner.stats.account import Account, Tally
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.users import User

S = 1_000_000_000
STEP = RequestStep(action=0, tally=Tally(0), verb="get", head=(), body=None, checks=checks_of(None, 0), saves=(),
                   own_cookie=False)  # fmt: skip


def a_pool(name="user", **given):
    return pools_of(Connections.model_validate_json(json.dumps({"mode": "pooled", "groups": {name: given}})), [name])[
        name
    ]


class Bench:
    """Pools whose connections are numbers; the test is who opens and closes them."""

    def __init__(self, limit=1000, **groups):
        self.pools = Pools({name: a_pool(name, **given) for name, given in groups.items()}, a_pool())
        self.limit, self.made, self.on = limit, 0, {}
        self.served: list[str] = []
        self.closed: list[int] = []

    @property
    def open(self):
        return sum(group.size for group in self.pools.groups.values())

    def ask(self, user, group, now=0, **more):
        self.pools.queue(self.pools.group(group), Waiter(user, STEP, b"", since_ns=now, due_ns=now, **more))
        return self.serve()

    def serve(self, now=0):
        """Do as pooling.py does; return who was served."""
        before = len(self.served)
        while (group := self.pools.turn(self.open < self.limit)) is not None:
            waiter, has_room = group.first, self.open < self.limit
            if (waiter.again or not group.idle) and not (has_room and group.size < group.most):
                self.close(self.pools.victim(group))
                continue
            self.pools.forget(waiter.user)
            if group.idle and not waiter.again:
                connection, _ = group.idle.popitem()
            else:
                group.opening()
                self.made += 1
                connection = self.made
            self.on[waiter.user] = group, connection
            self.served.append(waiter.user)
        return self.served[before:]

    def done(self, user, now=0, *, closes=False):
        group, connection = self.on.pop(user)
        if closes or not group.keeps():
            group.size -= 1
        else:
            group.idle[connection] = now
        return self.serve()

    def close(self, connection):
        group = next(group for group in self.pools.groups.values() if connection in group.idle)
        del group.idle[connection]
        group.size -= 1
        self.closed.append(connection)


def test_the_seeds_groups():
    """auth 50, user 200, bulk 100; min a tenth; any other group as user."""
    pools = Pools(pools_of(Connections(mode="pooled"), ["auth", "user", "bulk"]), a_pool())
    found = {
        name: (g.most, g.least, g.idle_ns // S, g.keep_alive, g.rank, g.connect_ns // S, g.wait_ns // S, g.heartbeat_s)
        for name, g in ((name, pools.group(name)) for name in ("auth", "user", "bulk", "mine"))
    }
    assert {
        "auth": (50, 5, 30, True, 0, 1, 3, 60),
        "user": (200, 20, 60, True, 1, 1, 3, 60),
        "bulk": (100, 10, 120, False, 2, 1, 3, 0),
        "mine": (200, 20, 60, True, 1, 1, 3, 60),
    } == found


def test_a_connection_used_last_is_used_first():
    """So those that are not needed grow old and close."""
    bench = Bench(user={"max": 3})
    for user in "abc":
        bench.ask(user, "user")
    for at, user in enumerate("bac"):
        bench.done(user, at)
    bench.ask("d", "user")
    assert 3 == bench.on["d"][1]
    assert [2, 1] == list(bench.pools.group("user").idle)


def test_first_come_first_served():
    """Beyond max one waits; whoever waits longest gets the connection that becomes free."""
    bench = Bench(user={"max": 2})
    for user in "abcd":
        bench.ask(user, "user")
    assert ["a", "b"] == bench.served
    assert (["c"], ["d"]) == (bench.done("b"), bench.done("a"))


def test_the_higher_priority_goes_first_where_the_limit_is_reached():
    """Within a priority the older request; each group keeps to its max meanwhile."""
    bench = Bench(limit=2, auth={"max": 2}, user={"max": 2}, bulk={"max": 2, "keepAlive": True})
    bench.ask("b1", "bulk")
    bench.ask("b2", "bulk")
    for user, group in (("b3", "bulk"), ("u1", "user"), ("a1", "auth"), ("u2", "user")):
        assert [] == bench.ask(user, group)
    assert (["a1"], ["u1"]) == (bench.done("b1"), bench.done("b2"))
    assert [1, 2] == bench.closed
    assert (["u2"], ["b3"]) == (bench.done("a1"), bench.done("u1"))
    assert [1, 2, 3, 4] == bench.closed


def test_another_groups_idle_connection_makes_room():
    """First of a group with more than its min, then of low priority, the one unused for longest."""
    bulk = {"max": 3, "min": 1, "keepAlive": True}
    bench = Bench(limit=3, auth={"max": 3, "min": 0}, user={"max": 3, "min": 1}, bulk=bulk)
    for user, group in (("u", "user"), ("b1", "bulk"), ("b2", "bulk")):
        bench.ask(user, group)
    for at, user in enumerate(("u", "b2", "b1")):
        bench.done(user, at)
    assert ["a1"] == bench.ask("a1", "auth")
    assert ["a2"] == bench.ask("a2", "auth")
    assert ["a3"] == bench.ask("a3", "auth")
    assert [3, 2, 1] == bench.closed
    bench = Bench(limit=2, auth={"max": 2, "min": 0}, bulk={"max": 1, "min": 1, "keepAlive": True}, user={"max": 1})
    for user, group in (("a", "auth"), ("b", "bulk")):
        bench.ask(user, group)
        bench.done(user)
    assert ["u"] == bench.ask("u", "user")
    assert [1] == bench.closed


def test_who_was_begun_before_goes_in_front_on_a_fresh_connection():
    """Another hop of a redirect, or another try: its own connection was closed for it."""
    bench = Bench(user={"max": 2})
    for user in "abc":
        bench.ask(user, "user")
    bench.pools.queue(bench.pools.group("user"), Waiter("d", STEP, b"", since_ns=0, due_ns=0, again=True))
    assert ["d"] == bench.done("a", closes=True)
    assert 3 == bench.on["d"][1]
    assert ["c"] == bench.done("b")


@pytest.mark.parametrize(
    ("is_used", "at_s", "closed"),
    [
        pytest.param(True, 59, [], id="not yet"),
        pytest.param(True, 61, [1, 2, 3], id="all but the min, the longest unused first"),
        pytest.param(False, 61, [1, 2, 3, 4, 5], id="nobody is there: the min as well"),
    ],
)
def test_unused_connections_close(is_used, at_s, closed):
    """After idle, but for the min of a group that is used."""
    bench = Bench(user={"max": 20})
    group = bench.pools.group("user")
    group.is_used = is_used
    for user in "abcde":
        bench.ask(user, "user")
    for user in "abcde":
        bench.done(user)
    assert 2 == group.least
    assert closed == group.stale(at_s * S)


def test_a_wait_ends():
    """After more than wait; those behind came later. Who was begun before stands in front and holds nobody up."""
    bench = Bench(user={"max": 1, "wait": "2s"})
    group = bench.pools.group("user")
    for at, user in enumerate("abcd"):
        bench.ask(user, "user", at * S)
    bench.pools.queue(group, Waiter("z", STEP, b"", since_ns=3 * S, due_ns=0, again=True))
    assert [] == [waiter.user for waiter in group.expired(3 * S)]
    assert ["b", "c"] == [waiter.user for waiter in group.expired(4 * S + 1)]
    assert ["z", "b", "c", "d"] == [waiter.user for waiter in group.expired(5 * S + 1)]


def test_an_edit_is_live():
    """A smaller max closes what is too much, idle ones at once; a group that is gone serves who waits, then ends."""
    bench = Bench(user={"max": 3}, mine={"max": 1})
    pools = bench.pools
    for user in "abc":
        bench.ask(user, "user")
    bench.done("a")
    bench.ask("x", "mine")
    bench.ask("y", "mine")
    pools.adopt({"user": replace(a_pool(max=3), most=1)}, a_pool())
    user, mine = pools.groups["user"], pools.groups["mine"]
    assert [1] == user.stale(0)
    bench.close(1)
    bench.done("b")
    assert (1, 0) == (user.size, len(user.idle))
    bench.done("c")
    assert (1, 1) == (user.size, len(user.idle))
    assert mine.is_gone
    assert ["y"] == bench.done("x")
    bench.done("y")
    pools.prune()
    assert ["user"] == list(pools.groups)


def test_what_is_missing_to_the_min():
    """Only of a group that is used."""
    group = Bench(user={"max": 50}).pools.group("user")
    assert 0 == group.missing
    group.is_used = True
    assert 5 == group.missing
    group.opening()
    assert 4 == group.missing


class Traffic(RuleBasedStateMachine):
    """Users who ask, are answered, give up and time out; connections that close; groups that are edited."""

    names = ("auth", "user", "bulk", "mine")

    def __init__(self):
        super().__init__()
        groups = {name: {"max": 3, "min": 1} for name in self.names}
        self.bench = Bench(limit=5, **groups)
        self.now, self.number, self.here = 0, 0, {}
        self.begun = self.ended = self.dropped = self.left = 0

    def note(self, served):
        """First come, first served within a priority: nobody served overtook one that waited in the same group."""
        for user in served:
            group = self.here[user]
            behind = [w for w in self.bench.pools.waiters() if self.here[w.user] == group and not w.again]
            assert all(user < w.user for w in behind)

    @rule(name=st.sampled_from(names))
    def ask(self, name):
        self.number += 1
        self.begun += 1
        self.here[self.number] = name
        self.note(self.bench.ask(self.number, name, self.now))

    @precondition(lambda self: self.bench.on)
    @rule(data=st.data(), closes=st.booleans())
    def answer(self, data, closes):
        user = data.draw(st.sampled_from(sorted(self.bench.on)))
        self.ended += 1
        self.note(self.bench.done(user, self.now, closes=closes))

    @precondition(lambda self: self.bench.pools.waiting)
    @rule(data=st.data())
    def leave(self, data):
        user = data.draw(st.sampled_from(sorted(w.user for w in self.bench.pools.waiters())))
        assert self.bench.pools.forget(user).user == user
        self.left += 1
        self.note(self.bench.serve())

    @rule(seconds=st.integers(1, 100))
    def time(self, seconds):
        self.now += seconds * S
        for group in self.bench.pools.groups.values():
            for waiter in group.expired(self.now):
                self.bench.pools.forget(waiter.user)
                self.dropped += 1
            for connection in group.stale(self.now):
                self.bench.close(connection)
        self.note(self.bench.serve())

    @rule(name=st.sampled_from(names), most=st.integers(1, 4))
    def edit(self, name, most):
        pools = self.bench.pools
        settings_ = {other: replace(a_pool(other), most=group.most, least=1) for other, group in pools.groups.items()}
        settings_[name] = replace(settings_[name], most=most)
        pools.adopt(settings_, a_pool())
        for group in pools.groups.values():
            for connection in group.stale(self.now):
                self.bench.close(connection)
        self.bench.serve()

    @invariant()
    def nothing_is_lost(self):
        """Each request has a connection, waits, had its answer, was dropped or left."""
        waiting = self.bench.pools.waiting
        assert self.begun == len(self.bench.on) + waiting + self.ended + self.dropped + self.left

    @invariant()
    def bounds_hold(self):
        """Never above the limit; above max only what an edit has not ended yet, and none of it idle."""
        assert self.bench.open <= self.bench.limit
        for group in self.bench.pools.groups.values():
            assert group.size <= group.most or not group.idle
            assert group.size == len(group.idle) + sum(on is group for on, _ in self.bench.on.values())

    @invariant()
    def nobody_waits_beside_a_free_connection(self):
        for group in self.bench.pools.groups.values():
            assert not (group.waiters and group.idle)
            assert not group.waiters or group.size >= group.most or self.bench.open >= self.bench.limit


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_those_served_together_are_timed_by_their_own_sends(tmp_path):
    """Three wait and three connections become free at once: what the first took to send is lag of the others."""
    flow = [{"action": "get", "request": {"get": "/"}}]
    document = {"target": {"url": "http://127.0.0.1:1"}, "archetypes": [{"name": "a", "flow": flow}]}
    load = Load.model_validate_json(json.dumps(document))
    layout = Layout(actions=actions_of(load.archetypes))
    account, clock = Account(SlabWriter(tmp_path / "slab", layout, started_ns=0)), itertools.count(S, 1000).__next__
    client = Client(account=account, walker=None, clock=clock, wall_s=lambda: 0.0)
    client._endpoint = endpoint = endpoint_of(load.target)
    client.allow((), connections=10, concurrency=10)
    client.share({"user": a_pool(max=3)}, a_pool())
    [step] = [s for s in compile_load(load, endpoint, {("get", "user"): 0}, account.tallies, {}).steps if s.ready]
    group = client._pools.group("user")
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, _ in pairs:
        connection = Connection(ours, client._nobody, endpoint, S)
        connection.state, connection.group = IDLE, group
        client._connections[connection.fd] = connection
        group.opening()
        group.idle[connection] = S
    users = [User() for _ in pairs]
    for user in users:
        user.begun, user.step = True, step
        client._pools.queue(group, Waiter(user, step, step.render(user), since_ns=S, due_ns=S))
    client._serve(S + 500)
    assert 3 == len({user.connection.since_ns for user in users})
    assert 0 == client._pools.waiting
    client._connections.clear()
    client.close()
    for pair in pairs:
        for end in pair:
            end.close()
