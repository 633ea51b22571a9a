"""
A real client with one user on one end of a socket pair; the test is the server at the other end.

    with Wire(directory) as wire:
        outcome = wire.ask(b"HTTP/1.1 200 OK\\r\\n...")   # what came of a request that was answered so
"""

from __future__ import annotations

import json
import select
import socket
from dataclasses import dataclass, replace

from trafficsim_api.layout import Error, Layout
from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.client import Client
from trafficsim_runner.http.connection import IDLE, Connection
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.http.origin import Origin
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.users import User


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What came of a request.

    *came* is the status class, the reason of a failure, or "nothing yet". *size* are the bytes counted in, *missed* the
    checks missed, *kept* says whether the connection stays, *strangers* how often bytes came that nobody asked for.
    """

    came: str
    size: int
    missed: int = 0
    interim: int = 0
    kept: bool = True
    strangers: int = 0


class Walker:
    """Lets a user rest after its request."""

    def sent(self, user):
        pass

    def answered(self, user, now_ns):
        pass

    failed = refused = answered

    def broke(self, user, error):
        raise error


class Wire:
    """The client, its account and the server's end; *options* belong to the one request, *more* to its step."""

    def __init__(self, directory, verb="get", *, timed=False, options=None, **more):
        flow = [{"action": "a", "request": {verb: "/a", **(options or {})}, **more}, {"think": {"constant": "1s"}}]
        document = {"target": {"url": "http://127.0.0.1:1"}, "archetypes": [{"name": "one", "flow": flow}]}
        load = Load.model_validate_json(json.dumps(document))
        actions = actions_of(load.archetypes)
        self.layout = Layout(actions=actions)
        self.account = Account(SlabWriter(directory / "slab", self.layout, started_ns=0))
        self.now = 1_000_000
        self.client = Client(account=self.account, walker=Walker(), clock=self.clock, wall_s=lambda: 0.0)
        self.endpoint = self.client._endpoint = endpoint_of(load.target)
        self.client._home = Origin(self.endpoint, None, lambda _: None)
        self.client.allow((), connections=10, concurrency=10)
        numbers = {action: number for number, action in enumerate(actions)}
        self.step = compile_load(load, self.endpoint, numbers, self.account.tallies, {}).tops[0]
        if timed:
            self.step.time()
        self.user, self.server, self.connection = User(), None, None
        self.user.step = self.step

    def clock(self):
        self.now += 1000
        return self.now

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        if self.server is not None:
            self.server.close()

    def connect(self):
        if self.server is not None:
            self.server.close()
        ours, self.server = socket.socketpair()
        ours.setblocking(False)
        self.connection = Connection(ours, self.user, self.endpoint, self.now)
        self.connection.state = IDLE
        self.user.connection = self.client._connections[self.connection.fd] = self.connection
        self.client._epoll.register(self.connection.fd, select.EPOLLIN)

    def counts(self):
        self.account.fold()
        live, layout = self.account.slab.live, self.layout
        names = ["done", "bytes_in", "checks_failed", *(f"class_{n}xx" for n in range(1, 6))]
        names += [f"error_{kind}" for kind in Error]
        found = {name: live[layout.action(0, name)] for name in names}
        return {**found, "unsolicited": live[layout.worker("unsolicited")]}

    def ask(self, stream, *, ends=False, cuts=()):
        """Answer one request with *stream*, cut at *cuts*; return what came of it."""
        if self.user.connection is None:
            self.connect()
        before, rested = self.counts(), self.client.in_flight
        self.user.step = self.step
        self.client.request(self.user, self.step, self.step.render(self.user), self.now, self.now)
        self.server.recv(10_000)
        for first, stop in zip((0, *cuts), (*cuts, len(stream)), strict=True):
            try:
                self.server.sendall(stream[first:stop])
            except (BrokenPipeError, ConnectionResetError):
                break  # the client had enough
            self.handle()
        if ends:
            self.server.close()
            self.handle()
        after = self.counts()
        return self.outcome({name: after[name] - before[name] for name in after}, is_out=self.client.in_flight > rested)

    def handle(self):
        while self.client.handle_ready():
            pass

    def outcome(self, counts, *, is_out):
        came = [f"{n}xx" for n in range(2, 6) if counts[f"class_{n}xx"]]
        came += [str(kind) for kind in Error if counts[f"error_{kind}"] and kind != Error.STATUS]
        assert counts["done"] == len(came) == (not is_out)
        assert counts["class_5xx"] == counts[f"error_{Error.STATUS}"]
        return Outcome(
            came="".join(came) or "nothing yet", size=counts["bytes_in"], missed=counts["checks_failed"],
            interim=counts["class_1xx"], kept=self.user.connection is not None, strangers=counts["unsolicited"],
        )  # fmt: skip

    def went_around(self):
        """Return how many answers were told by a head or a shape that is still known."""
        records = [*self.step.heads.values(), *(shape.record for shape in self.step.shapes)]
        return sum(record.uses + record.count for record in records)


def alike(expected, found):
    """
    Compare outcomes of one stream cut in different ways.

    How many bytes of a broken answer are read before it is known to be broken, and whether bytes behind an answer are
    seen before the connection is closed, depends on the cuts.
    """
    if found.came.startswith("target_"):
        return replace(expected, size=0) == replace(found, size=0)
    if expected.strangers:
        return replace(expected, size=0, strangers=0) == replace(found, size=0, strangers=0)
    return expected == found
