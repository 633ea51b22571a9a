"""
The corners of HTTP/1.1 as a table of byte streams, each through the parser and through both ways around it.

A stream has one outcome, however it is cut into reads, and whether the client meets it for the first time, knows its
head, or knows the shape of its head.
"""

from __future__ import annotations

import json
import os
import select
import socket
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trafficsim_api.layout import Error, Layout
from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.client import Client
from trafficsim_runner.http.connection import IDLE, Connection
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.http.parser import ParserPool
from trafficsim_runner.http.shapes import parts_of, shape_of
from trafficsim_runner.stats.account import Account, HeadRecord
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.users import User

PIECES = 150
FUZZ = int(os.environ.get("TRAFFICSIM_FUZZ", "400"))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """*stream* answers a request with *verb*; *ends*: then the server closes."""

    stream: bytes
    outcome: Outcome
    verb: str = "get"
    ends: bool = False


def case(
    name, stream, came, *, size=None, missed=0, interim=0, kept=True, strangers=0, verb="get", ends=False
):  # fmt: skip
    """Return a row: unless said otherwise every byte of the stream is counted."""
    size = len(stream) if size is None else size
    outcome = Outcome(came=came, size=size, missed=missed, interim=interim, kept=kept, strangers=strangers)
    return pytest.param(Case(stream=stream, outcome=outcome, verb=verb, ends=ends), id=name)


def answered(name, stream, **more):
    return case(name, stream, "2xx", **more)


def failed(name, stream, kind=Error.PROTOCOL, **more):
    return case(name, stream, str(kind), missed=1, kept=False, **more)


OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"content-length: 5\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = OK + LENGTH + b"\r\nhello"

TABLE = [
    # How an answer's end is found.
    answered("a-length", WHOLE),
    answered("no-body", OK + b"content-length: 0\r\n\r\n"),
    answered("zeros-before-the-length", OK + b"content-length: 0005\r\n\r\nhello"),
    answered("blanks-around-the-length", OK + b"content-length: \t5 \r\n\r\nhello"),
    answered("a-name-in-capitals", OK + b"CONTENT-LENGTH:5\r\n\r\nhello"),
    answered("a-body-that-looks-like-an-answer", OK + b"content-length: %d\r\n\r\n" % len(WHOLE) + WHOLE),
    answered("chunks", CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
    answered("chunk-extensions", CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n'),
    answered("trailers", CHUNKED + b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-b: 2\r\n\r\n"),
    answered("sizes-in-capitals", CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n"),
    answered("chunks-that-are-packed", OK + b"transfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
    answered("until-the-close", OK + b"\r\nhello", kept=False, ends=True),
    answered("nothing-until-the-close", OK + b"\r\n", kept=False, ends=True),
    answered("packed-until-the-close", OK + b"transfer-encoding: gzip\r\n\r\nabc", kept=False, ends=True),
    answered("said-to-close", OK + b"connection: close\r\n" + LENGTH + b"\r\nhello", kept=False),
    answered("said-to-close-among-others", OK + b"connection: x, Close\r\n" + LENGTH + b"\r\nhello", kept=False),
    answered("a-proxys-close", OK + b"proxy-connection: close\r\n" + LENGTH + b"\r\nhello", kept=False),
    answered("said-to-stay", OK + b"Connection: Keep-Alive\r\n" + LENGTH + b"\r\nhello"),
    answered("old-version", b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\nhello", kept=False),
    answered("old-version-that-stays", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + LENGTH + b"\r\nhello"),
    # Answers without a body.
    answered("no-content", b"HTTP/1.1 204 No Content\r\n\r\n"),
    answered("no-content-of-a-length", b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"\r\n"),
    answered("no-content-in-chunks", b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n"),
    case("not-modified", b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", "3xx"),
    case("not-modified-of-a-length", b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\n", "3xx"),
    answered("head", OK + LENGTH + b"\r\n", verb="head"),
    answered("head-without-a-length", OK + b"\r\n", verb="head"),
    answered("head-of-chunks", CHUNKED, verb="head"),
    answered("head-that-closes", OK + b"connection: close\r\n" + LENGTH + b"\r\n", verb="head", kept=False),
    # Interim answers.
    answered("continue", b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, interim=1),
    answered("early-hints", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3 + WHOLE, interim=3),
    answered("continue-then-no-content", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", interim=1),
    answered("continue-then-head", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + LENGTH + b"\r\n", verb="head", interim=1),
    failed("too-many", b"HTTP/1.1 100 Continue\r\n\r\n" * 33),
    failed("another-protocol", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
    # Statuses.
    case("a-check-is-missed", b"HTTP/1.1 404 Not Found\r\n" + LENGTH + b"\r\nhello", "4xx", missed=1),
    case("the-server-failed", b"HTTP/1.1 503 Busy\r\n" + LENGTH + b"\r\nhello", "5xx", missed=1),
    answered("no-reason", b"HTTP/1.1 200\r\n" + LENGTH + b"\r\nhello"),
    answered("a-reason-beyond-ascii", b"HTTP/1.1 200 \xc3\xbc\r\n" + LENGTH + b"\r\nhello"),
    failed("status-below-all", b"HTTP/1.1 099 Low\r\n" + LENGTH + b"\r\nhello"),
    failed("status-above-all", b"HTTP/1.1 600 High\r\n" + LENGTH + b"\r\nhello"),
    failed("status-of-two-digits", b"HTTP/1.1 20 Short\r\n" + LENGTH + b"\r\nhello"),
    failed("no-version", b"HTTP 200 OK\r\n" + LENGTH + b"\r\nhello"),
    failed("a-version-to-come", b"HTTP/2.0 200 OK\r\n" + LENGTH + b"\r\nhello"),
    failed("another-protocols-greeting", b"SSH-2.0-OpenSSH_9.2\r\n"),
    # Bytes nobody asked for.
    answered("a-second-answer", WHOLE + WHOLE, kept=False, strangers=1),
    answered("a-byte-too-many", WHOLE + b"x", kept=False, strangers=1),
    answered("more-after-no-content", b"HTTP/1.1 204 No Content\r\n\r\nhello", kept=False, strangers=1),
    answered("more-after-chunks", CHUNKED + b"0\r\n\r\nx", kept=False, strangers=1),
    answered("a-body-for-head", WHOLE, verb="head", kept=False, strangers=1),
    case("more-after-not-modified", b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\nhello", "3xx", kept=False,
         strangers=1),
    # Headers.
    answered("nothing-in-a-value", OK + b"x-a:\r\nx-b: \r\n" + LENGTH + b"\r\nhello"),
    answered("a-value-beyond-ascii", OK + b"x-a: \xc3\xbc\xff\t~\r\n" + LENGTH + b"\r\nhello"),
    answered("a-name-of-every-kind", OK + b"!#$%&'*+-.^_`|~09azAZ: 1\r\n" + LENGTH + b"\r\nhello"),
    failed("a-bare-lf", OK + b"x-a: 1\n" + LENGTH + b"\r\nhello"),
    failed("bare-lfs-alone", b"HTTP/1.1 200 OK\ncontent-length: 5\n\nhello"),
    failed("a-bare-lf-at-the-end", OK + LENGTH + b"\nhello"),
    failed("a-bare-cr", OK + b"x-a: 1\rx\r\n" + LENGTH + b"\r\nhello"),
    failed("a-null", OK + b"x-a: \0\r\n" + LENGTH + b"\r\nhello"),
    failed("a-control", OK + b"x-a: \x7f\r\n" + LENGTH + b"\r\nhello"),
    failed("a-folded-value", OK + b"x-a: 1\r\n 2\r\n" + LENGTH + b"\r\nhello"),
    failed("a-blank-before-the-colon", OK + b"x-a : 1\r\n" + LENGTH + b"\r\nhello"),
    failed("no-colon", OK + b"x-a\r\n" + LENGTH + b"\r\nhello"),
    failed("no-name", OK + b": 1\r\n" + LENGTH + b"\r\nhello"),
    failed("a-length-twice", OK + LENGTH + LENGTH + b"\r\nhello"),
    failed("a-list-of-lengths", OK + b"content-length: 5, 5\r\n\r\nhello"),
    failed("a-length-with-a-sign", OK + b"content-length: +5\r\n\r\nhello"),
    failed("a-length-that-is-none", OK + b"content-length: x\r\n\r\n"),
    failed("a-length-nobody-can-count", OK + b"content-length: 99999999999999999999\r\n\r\n"),
    failed("length-and-chunks", OK + LENGTH + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    failed("chunks-and-length", OK + b"transfer-encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n"),
    failed("a-length-among-the-trailers", CHUNKED + b"0\r\n" + LENGTH + b"\r\n"),
    failed("a-size-that-is-none", CHUNKED + b"x\r\n"),
    failed("a-size-nobody-can-count", CHUNKED + b"fffffffffffffffff\r\n"),
    failed("a-chunk-without-its-end", CHUNKED + b"1\r\nxy\r\n0\r\n\r\n"),
    failed("a-bare-lf-after-a-size", CHUNKED + b"1\nx\r\n0\r\n\r\n"),
    # Cut off.
    failed("in-the-head", OK + b"content-len", Error.CLOSED, ends=True),
    failed("before-the-body", OK + LENGTH + b"\r\n", Error.CLOSED, ends=True),
    failed("in-the-body", WHOLE[:-1], Error.CLOSED, ends=True),
    failed("in-the-chunks", CHUNKED + b"5\r\nhel", Error.CLOSED, ends=True),
    failed("before-the-last-chunk", CHUNKED + b"5\r\nhello\r\n", Error.CLOSED, ends=True),
    failed("after-an-interim-answer", b"HTTP/1.1 100 Continue\r\n\r\n", Error.CLOSED, ends=True),
    case("more-is-to-come", WHOLE[:-1], "nothing yet", size=0),
    answered("whole-and-closed", WHOLE, kept=False, ends=True),
]  # fmt: skip

LARGE = [
    answered("a-long-value", OK + b"x-a: %b\r\n" % (b"v" * 60_000) + LENGTH + b"\r\nhello"),
    answered("many-headers", OK + b"x-a: 1\r\n" * 255 + LENGTH + b"\r\nhello"),
    answered("a-long-body", OK + b"content-length: 100000\r\n\r\n" + b"b" * 100_000),
    failed("a-value-too-long", OK + b"x-a: %b\r\n" % (b"v" * 70_000) + LENGTH + b"\r\nhello"),
    failed("a-first-line-too-long", b"HTTP/1.1 200 %b\r\n" % (b"O" * 150_000) + LENGTH + b"\r\nhello"),
    failed("a-name-too-long", OK + b"x" * 150_000 + b": 1\r\n" + LENGTH + b"\r\nhello"),
    failed("too-many-headers", OK + b"x-a: 1\r\n" * 256 + LENGTH + b"\r\nhello"),
    failed("an-extension-too-long", CHUNKED + b"1;" + b"e" * 150_000 + b"\r\nx\r\n0\r\n\r\n"),
    failed("trailers-too-long", CHUNKED + b"0\r\nt: " + b"t" * 70_000 + b"\r\n\r\n"),
]


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
    """A client with one user; the test is the server at the other end of a socket pair."""

    def __init__(self, directory, verb="get", *, timed=False):
        flow = [{"action": "a", "request": {verb: "/a"}}, {"think": {"constant": "1s"}}]
        document = {"target": {"url": "http://127.0.0.1:1"}, "archetypes": [{"name": "one", "flow": flow}]}
        load = Load.model_validate_json(json.dumps(document))
        actions = actions_of(load.archetypes)
        self.layout = Layout(actions=actions)
        self.account = Account(SlabWriter(directory / "slab", self.layout, started_ns=0))
        self.now = 1_000_000
        self.client = Client(account=self.account, walker=Walker(), clock=self.clock, wall_s=lambda: 0.0)
        self.endpoint = self.client._endpoint = endpoint_of(load.target)
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


@pytest.mark.parametrize("asked", TABLE + LARGE)
@pytest.mark.parametrize("timed", [False, True], ids=["closed-model", "open-model"])
def test_a_stream_that_comes_whole(tmp_path, asked, timed):
    """The outcome is the table's."""
    with Wire(tmp_path, asked.verb, timed=timed) as wire:
        found = wire.ask(asked.stream, ends=asked.ends)
    is_fault = asked.outcome.came.startswith("target_")
    assert asked.outcome == (replace(found, size=asked.outcome.size) if is_fault else found)


@pytest.mark.parametrize("asked", TABLE)
def test_a_stream_in_two_pieces(tmp_path, asked):
    """Wherever it is cut, the outcome is the same."""
    with Wire(tmp_path, asked.verb) as wire:
        for cut in range(1, min(len(asked.stream), PIECES)):
            found = wire.ask(asked.stream, ends=asked.ends, cuts=(cut,))
            assert alike(asked.outcome, found), (cut, found)
            if wire.user.connection is not None and asked.outcome.came == "nothing yet":
                wire.client.give_up(wire.user)


@pytest.mark.parametrize("asked", TABLE)
def test_a_stream_byte_by_byte(tmp_path, asked):
    """Each byte in a read of its own: the outcome is the same."""
    with Wire(tmp_path, asked.verb) as wire:
        found = wire.ask(asked.stream, ends=asked.ends, cuts=tuple(range(1, len(asked.stream))))
    assert alike(asked.outcome, found), found


@pytest.mark.parametrize("asked", TABLE)
@pytest.mark.parametrize("timed", [False, True], ids=["closed-model", "open-model"])
@pytest.mark.parametrize("way", ["heads", "shapes"])
def test_a_stream_whose_like_was_met(tmp_path, way, asked, timed):
    """Around the parser the outcome is the same, the third time as the first; answers that may, do go around it."""
    with Wire(tmp_path, asked.verb, timed=timed) as wire:
        wire.step.differs = way == "shapes"
        outcomes = []
        for _ in range(3):
            outcomes.append(wire.ask(asked.stream, ends=asked.ends))
            if outcomes[-1].came == "nothing yet":
                wire.client.give_up(wire.user)
        around = sum(record.uses + record.count for record in (*wire.step.heads.values(), *shapes_of(wire.step)))
    if not asked.outcome.came.startswith("target_"):
        assert [asked.outcome] * 3 == outcomes
    assert outcomes[:1] * 3 == outcomes
    assert around == 2 * may_go_around(asked, way)


def shapes_of(step):
    return (shape.record for shape in step.shapes)


def may_go_around(asked, way):
    """Say whether the parser is to be spared: the answer came whole and alone, and says itself where it ends."""
    kept = asked.outcome.kept or (asked.ends and asked.stream == WHOLE)
    is_whole = kept and asked.outcome.came.endswith("xx") and not asked.outcome.interim
    is_new = asked.stream.startswith(b"HTTP/1.1")
    return is_whole and b"transfer-encoding" not in asked.stream and (is_new or way == "heads")


# Streams nobody thought of.

HEADERS = b"Server: x\r\nDate: Tue, 24 Nov 2026 13:31:07 GMT\r\nX-Request-Id: 6f1d\r\n"
MET = [
    ("get", WHOLE),
    ("get", OK + HEADERS + b"Content-Type: text/plain\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"),
    ("get", OK + b"content-encoding: br\r\nContent-Length:\t05 \r\n" + HEADERS + b"\r\nhello"),
    ("get", b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\nkeep-alive: timeout=5\r\n\r\n"),
    ("get", b"HTTP/1.1 204 No Content\r\n" + HEADERS + b"\r\n"),
    ("get", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n" + LENGTH + b"\r\n"),
    ("head", OK + HEADERS + LENGTH + b"\r\n"),
    ("head", OK + b"x-a: 1\r\n\r\n"),
]
CHUNKS = [
    ("get", CHUNKED + b"3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nx-sum: 1\r\n\r\n"),
    ("get", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + WHOLE),
    ("head", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + LENGTH + b"\r\n"),
]
PARTS = [
    b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\0", b"\x7f", b"\xff", b"0", b"1", b"6", b",", b"-",
    b"99999999999999", b"5, 5", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0", b"HTTP/1.1 100 Continue\r\n\r\n", b"204", b"304",
    b"100", b"hello", b"\r\ncontent-length: 5", b"\r\nTransfer-Encoding: chunked", b"\r\nconnection: close",
    b"\r\nset-cookie: a=b", b"\r\nupgrade: x", b"\r\nProxy-Connection: close", b"\r\n\tfolded",
]  # fmt: skip
edits = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 6), st.sampled_from(PARTS) | st.binary(max_size=3)), max_size=4
)


def edited(stream, changes):
    """Return *stream* with some bytes replaced, for each of the changes: where, how many, by what."""
    for where, many, part in changes:
        where %= len(stream) + 1
        stream = stream[:where] + part + stream[where + many :]
    return stream


def longer(verb, stream):
    """Return an answer of the same shape with a body of 12 bytes; the same answer where there is no body."""
    if verb == "head" or b" 200 " not in stream:
        return stream
    head, *_ = stream.partition(b"\r\n\r\n")
    return head.replace(b"5\r\n", b"12\r\n").replace(b"05 ", b"12 ") + b"\r\n\r\nhello, world"


def shapes_learned(verb, streams):
    """Return what a step knows that met *streams*."""
    learned = []
    for stream in streams:
        parser = ParserPool().acquire(is_head=verb == "head", want_body=True)
        assert parser.feed(stream)
        end = stream.find(b"\r\n\r\n") + 4
        record = HeadRecord(head=stream[:end], total=0, status=parser.status, headers=())
        names = [name for name, _ in parser.headers]
        body = None if verb == "head" or parser.status in (204, 304) else len(stream) - end
        learned.append(shape_of(record, names, body=body, fixed=frozenset(), known=learned))
    return learned


def fits(shape, data):
    found = shape.match(data)
    return found is not None and (not shape.is_open or len(data) == found.end() + int(found[1]))


@settings(max_examples=FUZZ)
@given(met=st.sampled_from(MET), changes=edits, is_open=st.booleans())
@example(met=MET[2], changes=[], is_open=False)  # blanks behind a value
@example(met=MET[5], changes=[(54, 1, b"x")], is_open=False)  # a length that is none where none is needed
def test_what_fits_a_shape_is_what_the_parser_makes_of_it(met, changes, is_open):
    """Whole, alone, of the same status, headers and body, and on a connection that stays."""
    verb, stream = met
    shape = shapes_learned(verb, [stream, longer(verb, stream)])[is_open]
    data = edited(stream, changes)
    if not fits(shape, data):
        return
    parser = ParserPool().acquire(is_head=verb == "head", want_body=True)
    assert parser.feed(data)
    assert (True, False, 0) == (parser.keep_alive, parser.unsolicited, parser.interim)
    assert (shape.record.status, (tuple(parser.headers), parser.body)) == (parser.status, parts_of(data))


@settings(max_examples=FUZZ // 4)
@given(met=st.sampled_from(MET), changes=edits, way=st.sampled_from(["heads", "shapes"]))
def test_a_stream_nobody_thought_of(tmp_path_factory, met, changes, way):
    """Its outcome does not depend on what the client met before."""
    verb, stream = met
    data = edited(stream, changes) or b"x"
    directory = tmp_path_factory.mktemp("wire")
    with Wire(directory, verb) as wire:
        expected = wire.ask(data)
    with Wire(directory, verb) as wire:
        wire.step.differs = way == "shapes"
        wire.ask(stream)
        wire.ask(longer(verb, stream))
        assert expected == wire.ask(data)


@settings(max_examples=FUZZ // 4)
@given(met=st.sampled_from([*MET, *CHUNKS]), changes=edits, cuts=st.sets(st.integers(1, 400), max_size=3))
@example(met=CHUNKS[2], changes=[], cuts=set())  # the end of the interim head is not that of the head
@example(met=CHUNKS[2], changes=[(25, 0, b"\r\n")], cuts={25})  # nor are empty lines before it
def test_a_stream_nobody_thought_of_in_pieces(tmp_path_factory, met, changes, cuts):
    """Its outcome does not depend on how it is cut."""
    verb, stream = met
    data = edited(stream, changes) or b"x"
    directory = tmp_path_factory.mktemp("wire")
    with Wire(directory, verb) as wire:
        expected = wire.ask(data)
    with Wire(directory, verb) as wire:
        found = wire.ask(data, cuts=sorted(cut for cut in cuts if cut < len(data)))
    assert alike(expected, found), found
