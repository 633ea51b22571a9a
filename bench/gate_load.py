"""
What the instruction gate counts: the real engine and client, fed from memory (run by gate.py under callgrind).

64 users walk a flow of one request, each on a connection whose bytes come from a dict and go to `len`: no kernel, no
Python frame that is not the product's. First the answers are the same each time, then their heads differ, then the flow
logs in, keeps a token, looks users up with it and checks JSON. Each part ends with a call of getsid, which is where
callgrind cuts.
"""

from __future__ import annotations

import itertools
import os
import select
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from trafficsim_api.layout import Layout
from trafficsim_api.profile import Segment, Shape
from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.engine import Engine
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.client import READ
from trafficsim_runner.http.connection import IDLE, Connection
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.pacing import Pacer
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.slab import SlabWriter

USERS = 64
WARM = 20  # rounds until each action of the flow has met its head
SECOND_NS = 1_000_000_000
BODY = b'{"id": 4711, "name": "a thing", "price": 1999, "currency": "EUR", "token": "4c1c8e5f0"}'
ANSWER = b"HTTP/1.1 200 OK\r\nserver: nginx\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
DIFFERENT = [
    b"HTTP/1.1 200 OK\r\nserver: nginx\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"x-request-id: %032x\r\n\r\n%b" % (len(BODY), number, BODY)
    for number in range(1000)
]
LOAD = """{
    "target": {"url": "http://127.0.0.1:9"},
    "archetypes": [{"name": "one", "flow": [{"action": "read", "request": {"get": "/read"}}]}]
}"""
FLOW = """{
    "target": {"url": "http://127.0.0.1:9"},
    "archetypes": [{"name": "one", "flow": [
        {"action": "login", "request": {"post": "/login", "json": {"user": "user-{{user.id}}"}},
         "save": {"token": "json.token"}},
        {"repeat": {"times": 3, "flow": [
            {"action": "list", "request": {"get": "/users", "params": {"page": "{{user.id}}"}}},
            {"action": "look", "expect": {"status": 200, "json": {"currency": "EUR"}},
             "request": {"get": "/users/{{user.id}}", "headers": {"authorization": "Bearer {{token}}"}}}
        ]}}
    ]}]
}"""


class Memory:
    """A socket without a kernel: every read is a whole answer, every write is taken."""

    send = len

    def __init__(self, fd: int) -> None:
        self.fileno = lambda: fd
        self.recv = {READ: ANSWER, 65536: ANSWER}.__getitem__

    def close(self) -> None:
        """Nothing is open."""


class Ready:
    """An epoll in which everything is ready, always."""

    def __init__(self, fds: list[int]) -> None:
        self._events = [(fd, select.EPOLLIN) for fd in fds]

    def poll(self, _timeout: float, _most: int) -> list[tuple[int, int]]:
        return self._events


def engine_in(slab: Path, document: str) -> tuple[Engine, Any]:
    """Return an engine whose users are all connected and walk the flow of *document*, and its client."""
    load = Load.model_validate_json(document)
    actions = actions_of(load.archetypes)
    account = Account(SlabWriter(slab, Layout(actions=actions), started_ns=0))
    clock = itertools.count(SECOND_NS, 1000).__next__
    engine = Engine(account=account, clock=clock, wall_s=lambda: 0.0)
    client: Any = engine.client
    client._endpoint = endpoint = endpoint_of(load.target)
    client.allow((), connections=USERS, concurrency=USERS)
    numbers = {action: number for number, action in enumerate(actions)}
    engine.use_program(compile_load(load, endpoint, numbers, account.tallies, {}), [1], load.seed)
    shape = Shape((Segment(0, 1, 10_000, 10_000),))
    engine.follow(Pacer(users=USERS, ranges=[(0, USERS)], shape=shape, end_ms=10**9), SECOND_NS)
    for place, user in engine._users.items():
        memory: Any = Memory(1000 + place)
        connection = Connection(memory, user, endpoint, SECOND_NS)
        connection.state = IDLE
        user.connection = client._connections[connection.fd] = connection
    while engine.active < USERS:  # each reading of the clock is a microsecond
        for _ in range(1000):
            clock()
        engine.wake()
    client._epoll = Ready([1000 + place for place in range(USERS)])
    return engine, client


def reference(rounds: int) -> None:
    """Do in plain Python the least a loop over answers can do: the measure for this Python on this machine."""
    connections = {1000 + place: Memory(1000 + place) for place in range(USERS)}
    events = [(fd, select.EPOLLIN) for fd in connections]
    clock = itertools.count(SECOND_NS, 1000).__next__
    buckets, done, since = [0] * 4096, 0, 0
    for _ in range(rounds):
        for fd, mask in events:
            connection = connections.get(fd)
            if connection is None or mask != select.EPOLLIN:
                continue
            data = connection.recv(READ)
            now = clock()
            if len(data) == len(ANSWER) and data.startswith(b"HTTP/1.1 200 OK"):
                done += 1
                buckets[(now - since) & 4095] += 1
            since = now
            connection.send(b"GET /read")  # type: ignore[arg-type]


def let_differ(client: Any) -> None:
    """Let each answer have a head of its own from now on."""
    read: Any = partial(next, itertools.cycle(DIFFERENT))  # the size asked for is `next`'s default, never given
    for connection in client._connections.values():
        connection.recv = read


def done_of(engine: Engine) -> int:
    """Return how many answers were counted that lacked nothing."""
    engine._account.fold()
    layout, live = engine._account.slab.layout, engine._account.slab.live
    actions = range(len(layout.actions))
    return sum(live[layout.action(n, "done")] - live[layout.action(n, "checks_failed")] for n in actions)


def main() -> int:
    """Run all parts, *rounds* of 64 requests each; return 0 when every request was counted."""
    rounds = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        engine, client = engine_in(Path(directory) / "one", LOAD)
        for _ in range(5):  # heads are met, code is warm
            client.handle_ready()
        reference(5)
        os.getsid(0)
        reference(rounds)
        os.getsid(0)
        for _ in range(rounds):
            client.handle_ready()
        os.getsid(0)
        let_differ(client)
        for _ in range(5):  # that they differ is noticed
            client.handle_ready()
        os.getsid(0)
        for _ in range(rounds):
            client.handle_ready()
        os.getsid(0)
        flowing, client = engine_in(Path(directory) / "flow", FLOW)
        for _ in range(WARM):
            client.handle_ready()
        os.getsid(0)
        for _ in range(rounds):
            client.handle_ready()
        os.getsid(0)
        done, wanted = done_of(engine) + done_of(flowing), (2 * (rounds + 5) + rounds + WARM) * USERS
        if done != wanted:
            print(f"{done} requests were counted instead of {wanted}", file=sys.stderr)
            return 1
        os._exit(0)  # no farewell: it would only be counted
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
