"""
The corners of HTTP/1.1 as a table of byte streams, each through the parser and through both ways around it.

A stream has one outcome, however it is cut into reads, and whether the client meets it for the first time, knows its
head, or knows the shape of its head. TRAFFICSIM_FUZZ says how many streams nobody thought of are tried beside.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trafficsim_runner.http.parser import ParserPool
from trafficsim_runner.http.shapes import parts_of, shape_of
from trafficsim_runner.stats.account import HeadRecord
from wires.corner_cases import CHUNKED, LARGE, LENGTH, OK, TABLE, WHOLE
from wires.wire import Wire, alike

PIECES = 150
FUZZ = int(os.environ.get("TRAFFICSIM_FUZZ", "400"))


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
    if not asked.outcome.came.startswith("target_"):
        assert [asked.outcome] * 3 == outcomes
    assert outcomes[:1] * 3 == outcomes
    assert 2 * may_go_around(asked, way) == wire.went_around()


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
