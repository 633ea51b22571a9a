"""The client on socket pairs: partial sends, the hot loop's own decisions, time-outs, closes."""

from __future__ import annotations

import gzip
import json
import select
import socket

import pytest

from trafficsim_api.layout import Layout
from trafficsim_api.protocol import Allowed, Load
from trafficsim_api.resource import actions_of
from trafficsim_api.statistics import action_counter
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.client import Client
from trafficsim_runner.http.connection import AWAIT, IDLE, READING, Connection
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.http.origin import Origin
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.stats.slab_reader import Slab
from trafficsim_runner.users import User

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Walker:
    """Remembers what it is told; a user that was answered goes on with its next request when *goes_on*."""

    def __init__(self, bench):
        self.bench, self.told, self.goes_on = bench, [], False

    def sent(self, user):
        user.begun = True
        self.told.append("sent")

    def answered(self, user, now_ns):
        self.told.append("answered")
        if self.goes_on:
            step = user.step.next if user.step.kind else user.step
            user.step = step
            self.bench.client.request(user, step, step.render(user), now_ns, now_ns)

    def failed(self, user, now_ns):
        self.told.append("failed")

    def refused(self, user, now_ns):
        self.told.append("refused")

    def broke(self, user, error):
        self.told.append(type(error).__name__)
        self.bench.client.give_up(user)


class Bench:
    """A client with one user on one end of a socket pair; the test is the server at the other end."""

    def __init__(self, tmp_path, flow):
        document = {"target": {"url": "http://127.0.0.1:1"}, "archetypes": [{"name": "one", "flow": flow}]}
        load = Load.model_validate_json(json.dumps(document))
        actions = actions_of(load.archetypes)
        self.layout = Layout(actions=actions)
        self.account = Account(SlabWriter(tmp_path / "slab", self.layout, started_ns=0))
        self.now = 1_000_000
        self.walker = Walker(self)
        self.client = Client(account=self.account, walker=self.walker, clock=self.clock, wall_s=lambda: 0.0)
        self.endpoint = endpoint_of(load.target)
        self.client._endpoint = self.endpoint
        self.client.allow((), connections=10, concurrency=10)
        numbers = {action: n for n, action in enumerate(actions)}
        self.step = compile_load(load, self.endpoint, numbers, self.account.tallies, {}).tops[0]
        self.user = User()
        self.user.step = self.step
        self.connect()

    def clock(self):
        self.now += 1000
        return self.now

    def connect(self):
        ours, self.server = socket.socketpair()
        ours.setblocking(False)
        self.server.settimeout(2)
        self.connection = Connection(ours, self.user, self.endpoint, self.now)
        self.connection.state = IDLE
        self.user.connection = self.connection
        self.client._connections[self.connection.fd] = self.connection
        self.client._epoll.register(self.connection.fd, select.EPOLLIN)

    def send(self):
        self.client.request(self.user, self.step, self.step.render(self.user), self.now, self.now)

    def answer(self, data=OK):
        self.server.recv(100_000)
        self.server.sendall(data)
        self.client.handle_ready()

    def count(self, counter):
        self.account.fold()
        vector = Slab.open(self.account.slab.path).final().vector
        return sum(action_counter(self.layout, vector, n, counter) for n in range(len(self.layout.actions)))

    def worker_count(self, counter):
        return int(Slab.open(self.account.slab.path).final().vector[self.layout.worker(counter)])

    def close(self):
        self.client.close()
        self.server.close()


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path, [{"action": "a", "request": {"get": "/a"}}, {"action": "b", "request": {"get": "/b"}}])
    yield bench
    bench.close()


def test_known_answers_take_the_hot_way_and_count_the_same(bench):
    """The first answer of each step is parsed, the others matched; nothing is counted twice or forgotten."""
    bench.walker.goes_on = True
    bench.send()
    for _ in range(9):
        bench.answer()
    assert ["sent", "answered", "answered"] == bench.walker.told[:3]
    assert 9 == bench.count("done") == bench.count("class_2xx") == bench.count("checks")
    assert 10 == bench.count("sent")
    assert 9 * len(OK) == bench.count("bytes_in")
    assert 2 == bench.worker_count("head_records")
    assert 1 == bench.client.in_flight


@pytest.mark.parametrize("piece", [1, 7, 50])
def test_a_request_taken_in_parts_arrives_whole(bench, piece):
    """Only then the answer is waited for; it counts as sent once."""
    send = bench.connection.send
    bench.connection.send = lambda data: send(data[:piece])
    bench.send()
    assert READING == bench.connection.state
    received = bench.server.recv(10_000)
    for _ in range(200):
        if bench.client.handle_ready() and len(received) < len(bench.step.wire):
            received += bench.server.recv(10_000)
    assert AWAIT == bench.connection.state
    assert bench.step.wire == received
    bench.server.sendall(OK)
    bench.client.handle_ready()
    assert "answered" == bench.walker.told[-1]
    assert (1, 1) == (bench.count("sent"), bench.count("done"))


def test_a_send_the_kernel_refuses_for_now_is_tried_again(bench):
    """Would block: wait until it can be written."""
    send, calls = bench.connection.send, []

    def reluctant(data):
        calls.append(data)
        if len(calls) < 3:
            raise BlockingIOError
        return send(data)

    bench.connection.send = reluctant
    bench.send()
    for _ in range(5):
        bench.client.handle_ready()
    assert bench.step.wire == bench.server.recv(10_000)
    assert 1 == bench.count("sent")


def test_an_answer_before_the_request_is_out_ends_the_connection(bench):
    """The answer counts; the rest of the request is not sent."""
    send = bench.connection.send
    bench.connection.send = lambda data: send(data[:5]) if len(data) == len(bench.step.wire) else 0
    bench.send()
    bench.answer()
    assert "answered" == bench.walker.told[-1]
    assert bench.user.connection is None
    assert 0 == bench.client.in_flight


def test_time_out_counts_from_the_send(bench):
    """At the request time-out the request fails and the connection is closed."""
    bench.send()
    bench.client.sweep(bench.now + bench.endpoint.request_ns - 10_000)
    assert ["sent"] == bench.walker.told
    bench.client.sweep(bench.now + bench.endpoint.request_ns + 10_000)
    assert ["sent", "failed"] == bench.walker.told
    assert 1 == bench.count("error_network_request_timeout")
    assert (0, 0) == (bench.client.in_flight, bench.client.open_connections)


@pytest.mark.parametrize("idle", [True, False])
def test_a_close_while_idle_is_no_failure(bench, idle):
    """A kept connection may go at any time; with a request out and nothing answered it is an early close."""
    bench.send()
    if idle:
        bench.answer()
    else:
        bench.server.recv(10_000)
    bench.server.close()
    bench.client.handle_ready()
    assert 0 == bench.client.open_connections
    assert (0 if idle else 1) == bench.count("error_target_closed_early")


def test_bytes_while_idle_are_unsolicited(bench):
    """They close the connection and are no answer to anything."""
    bench.send()
    bench.answer()
    bench.server.sendall(OK)
    bench.client.handle_ready()
    assert (1, 1) == (bench.count("done"), bench.worker_count("unsolicited"))
    assert 0 == bench.client.open_connections


def test_a_leaving_user_is_not_sent_on(bench):
    """The hot way ends where the user leaves: its answer counts, its next request is not sent."""
    bench.walker.goes_on = True
    bench.send()
    for _ in range(4):
        bench.answer()
    bench.walker.goes_on = False
    bench.user.leaving = True
    bench.answer()
    assert "answered" == bench.walker.told[-1]
    assert (5, 5) == (bench.count("sent"), bench.count("done"))
    assert 0 == bench.client.in_flight


def test_limits_refuse_without_touching_anything(bench):
    """No slot: the drop is counted, the request is not begun."""
    bench.client.allow((), connections=10, concurrency=0)
    bench.send()
    assert ["refused"] == bench.walker.told
    assert (0, 1) == (bench.count("sent"), bench.worker_count("drop_no_slot"))


def test_the_longest_answers_are_slow_but_right(bench):
    """An answer longer than one read is never matched by its head alone."""
    bench.walker.goes_on = True
    long = b"HTTP/1.1 200 OK\r\ncontent-length: 40000\r\n\r\n" + b"x" * 40_000
    bench.send()
    for _ in range(4):
        bench.server.recv(100_000)
        bench.server.sendall(long)
        for _ in range(10):
            bench.client.handle_ready()
    assert 4 == bench.count("done") == bench.count("class_2xx")
    assert 4 * len(long) == bench.count("bytes_in")


class FixedNames:
    """Addresses without a resolver."""

    def __init__(self, *ports):
        self.addresses = [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

    def ask(self, now_ns):
        return False

    def close(self):
        pass


def home(bench):
    """Give the client its target, whose names the test puts in."""
    bench.client._home = Origin(bench.endpoint, None, lambda origin: None)
    return bench.client._home


def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize(("place", "connects"), [(0, 2), (1, 1), (2, 3)])
def test_an_address_that_refuses_is_passed_over(bench, place, connects):
    """The next address is tried, and nothing counts as failed; with none left the request fails once."""
    bench.client._close(bench.connection)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(2)
        home(bench).names = FixedNames(closed_port(), listener.getsockname()[1], closed_port())
        bench.client.allow([Allowed(network="127.0.0.0/8")], connections=10, concurrency=10)
        bench.user.place = place
        bench.send()
        wait_for(bench, lambda: bench.walker.told)
        assert ["sent"] == bench.walker.told
        assert 1 == bench.client.in_flight == bench.client.open_connections
        assert connects == bench.worker_count("connects")
        listener.accept()[0].close()
    wait_for(bench, lambda: "failed" in bench.walker.told)
    bench.send()
    wait_for(bench, lambda: bench.walker.told.count("failed") == 2)
    assert 1 == bench.count("error_network_refused")
    assert (0, 0) == (bench.client.in_flight, bench.client.open_connections)


def wait_for(bench, claim):
    poller = select.poll()
    poller.register(bench.client.fileno(), select.POLLIN)
    for _ in range(100):
        if claim():
            return
        poller.poll(100)
        bench.client.handle_ready()
    raise AssertionError(bench.walker.told)


def test_a_mistake_of_ours_costs_one_user_its_request(bench):
    """What one user's step raises neither ends the batch nor stays in flight; it is counted as the generator's."""
    other = User()
    other.step = bench.step
    mine, theirs = bench.connection, bench.server
    bench.user = other
    bench.connect()
    bench.send()
    bench.client.request(mine.user, bench.step, bench.step.render(mine.user), bench.now, bench.now)
    mine.recv = lambda size: int("a mistake")
    for server in (theirs, bench.server):
        server.recv(100_000)
        server.sendall(OK)
    assert 2 == bench.client.handle_ready()
    assert ["sent", "sent", "ValueError", "answered"] == bench.walker.told
    assert (2, 1, 1) == (bench.count("done"), bench.count("error_generator_internal"), bench.count("class_2xx"))
    assert 0 == bench.client.in_flight
    assert mine.user.connection is None
    theirs.close()


def test_a_mistake_after_the_answer_was_counted_is_no_failed_request(bench, monkeypatch):
    """An answer counts once: what goes wrong afterwards is work that was not sent."""
    monkeypatch.setattr(bench.walker, "answered", lambda user, now_ns: 1 // 0)
    for known in (False, True):
        bench.user.leaving = known  # a known head takes the hot way unless the user leaves
        bench.send()
        bench.answer()
        assert "ZeroDivisionError" == bench.walker.told[-1]
        bench.server.close()
        bench.connect()
    assert (2, 2, 0) == (bench.count("done"), bench.count("class_2xx"), bench.count("failed"))
    assert (0, 2) == (bench.client.in_flight, bench.worker_count("drop_internal"))


def test_a_time_out_that_goes_wrong_does_not_keep_the_others(bench, monkeypatch):
    """Every connection is looked at."""
    bench.send()
    monkeypatch.setattr(bench.walker, "failed", lambda user, now_ns: 1 // 0)
    bench.client.sweep(bench.now + 31_000_000_000)
    assert "ZeroDivisionError" == bench.walker.told[-1]
    assert 0 == bench.client.in_flight


def test_who_waits_for_an_address_goes_on_when_the_target_changes(bench):
    """The look-up of the old name is given up: its users get their step back instead of waiting for ever."""
    bench.client._close(bench.connection)
    home(bench).names = NoAnswer()
    bench.send()
    assert (1, []) == (bench.client.in_flight, bench.walker.told)
    bench.client.aim(bench.endpoint, None)
    assert (0, ["refused"]) == (bench.client.in_flight, bench.walker.told)
    assert {} == bench.client._waiting


class NoAnswer:
    """Names whose look-up takes for ever."""

    def __init__(self, *ports):
        self.addresses = [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

    def ask(self, now_ns):
        return True

    def close(self):
        pass


@pytest.mark.parametrize("known", [True, False])
def test_a_look_up_that_takes_too_long_is_its_own_failure(bench, known):
    """It counts towards the connect time-out. Then the addresses known so far are used; without any it is DNS."""
    bench.client._close(bench.connection)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        home(bench).names = NoAnswer(*([listener.getsockname()[1]] if known else []))
        bench.client.allow([Allowed(network="127.0.0.0/8")], connections=10, concurrency=10)
        bench.send()
        bench.client.sweep(bench.now + 900_000_000)
        assert (1, []) == (bench.client.in_flight, bench.walker.told)
        bench.client.sweep(bench.now + 1_100_000_000)
        wait_for(bench, lambda: bench.walker.told)
    assert ["sent" if known else "failed"] == bench.walker.told
    assert (not known, known) == (bench.count("error_network_dns"), bench.client.in_flight)


@pytest.mark.parametrize("is_broken", [False, True])
def test_checks_and_saves_see_a_compressed_body_unpacked(tmp_path, is_broken):
    """The bytes counted are those that came; what does not unpack fails the check, and there is nothing to save."""
    request = {"get": "/", "headers": {"accept-encoding": "gzip"}}
    bench = Bench(tmp_path, [{"request": request, "expect": {"json": {"a": 1}}, "save": {"b": "json.b"}}])
    body = gzip.compress(b'{"a": 1, "b": "two"}')
    body = body[:-9] + b"!" * 9 if is_broken else body
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    try:
        for _ in range(3):  # parsed, then memoised
            bench.send()
            bench.answer(answer)
        assert (3, 6 * is_broken, 3 * len(answer)) == tuple(map(bench.count, ("done", "checks_failed", "bytes_in")))
        assert ({} if is_broken else {"b": "two"}) == bench.user.saved
    finally:
        bench.close()
