"""The slow path's parser: the same answer however it is cut up, and every oddity told for what it is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists

from trafficsim_runner.http.parser import ALL_KEPT, BODY_KEPT, HEADER_COST, HEADS_KEPT, ParserPool, ProtocolFault

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\ntrailer: t\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"


def a_parser(*, is_head=False, want_body=True, pool=None):
    return (pool or ParserPool()).acquire(is_head=is_head, want_body=want_body)


def fed(parser, data, cuts=()):
    """Feed *data* in pieces; return whether the last piece completed it."""
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    complete = False
    for first, stop in itertools.pairwise(edges):
        if first < stop:
            assert not complete
            complete = parser.feed(data[first:stop])
    return complete


@pytest.mark.parametrize("answer", [OK, CHUNKED, INTERIM + OK, INTERIM + CHUNKED])
@given(cuts=lists(integers(0, 500), max_size=5))
def test_cuts_do_not_matter(answer, cuts):
    """Whole or in pieces, the answer is the same."""
    parser = a_parser()
    assert fed(parser, answer, cuts)
    assert (200, b"hello", 5, True, False) == (
        parser.status,
        parser.body,
        parser.length,
        parser.keep_alive,
        parser.unsolicited,
    )
    assert (2 if answer.startswith(INTERIM) else 0) == parser.interim
    assert not any(name in (b"link", b"trailer") for name, _ in parser.headers)


@given(cuts=lists(integers(0, 500), max_size=3))
def test_an_answer_to_head_ends_with_its_head(cuts):
    """Its Content-Length announces no body; what follows is unsolicited."""
    head = OK[:-5]
    parser = a_parser(is_head=True)
    assert fed(parser, head, cuts)
    assert (200, True, False) == (parser.status, parser.keep_alive, parser.unsolicited)
    parser = a_parser(is_head=True)
    assert parser.feed(OK)
    assert parser.unsolicited


@pytest.mark.parametrize(
    ("data", "unsolicited"),
    [
        (OK, False),
        (OK + OK, True),
        (OK + b"x", True),
        (b"HTTP/1.1 204 No Content\r\n\r\nsurprise", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\nmore", True),
    ],
)
def test_bytes_past_the_end_are_unsolicited(data, unsolicited):
    """The answer counts all the same."""
    parser = a_parser()
    assert parser.feed(data)
    assert unsolicited == parser.unsolicited
    assert parser.status in (200, 204)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x81\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40,
    ],
)
def test_what_is_no_answer_is_a_fault(data):
    """Nothing of it is guessed at."""
    parser = a_parser()
    with pytest.raises(ProtocolFault):
        parser.feed(data)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-more: " + b"y" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 4096),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"t: " + b"y" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x" * 4096),
        (b"HTTP/1.1 ", b"1" * 4096),
    ],
)
def test_heads_trailers_and_extensions_are_bounded(start, more):
    """An endless one ends in a fault within 64 KiB and a little."""
    parser = a_parser()
    total = len(start)
    parser.feed(start)
    try:
        while total < 200_000:
            parser.feed(more)
            total += len(more)
    except ProtocolFault:
        pass
    assert total < 80_000


def test_a_body_without_a_length_ends_with_the_connection():
    """Close completes it; close within any other answer does not."""
    parser = a_parser()
    assert not parser.feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    assert not parser.feed(b"lo")
    assert parser.end()
    assert (b"hello", False) == (parser.body, parser.keep_alive)
    for cut in (OK[:-1], CHUNKED[:-4], OK[:10], b""):
        parser = a_parser()
        if cut:
            assert not parser.feed(cut)
        assert not parser.end()


def test_what_is_kept_is_bounded_for_one_and_for_all():
    """A body beyond 8 MiB, or bodies beyond 32 MiB together, are counted and not kept."""
    pool = ParserPool()
    piece = b"x" * (1 << 20)
    parsers = [a_parser(pool=pool) for _ in range(6)]
    for parser in parsers:
        parser.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(10):
            parser.feed(piece)
    assert BODY_KEPT == len(parsers[0].body)
    assert ALL_KEPT == pool.kept == sum(len(parser.body) for parser in parsers)
    assert {10 << 20} == {parser.length for parser in parsers}
    for parser in parsers:
        pool.release(parser)
    assert 0 == pool.kept


@given(lists(binary(max_size=40), max_size=6))
def test_no_bytes_break_the_parser(pieces):
    """Whatever comes, the parser completes, waits or says fault; and the pool gives out a clean one after it."""
    pool = ParserPool()
    parser = a_parser(pool=pool)
    try:
        for piece in pieces:
            if parser.feed(piece):
                break
    except ProtocolFault:
        pass
    pool.release(parser)
    assert a_parser(pool=pool).feed(OK)


def test_parsers_are_used_again():
    """One that stands at a message's beginning goes back; one that saw a close does not."""
    pool = ParserPool()
    first = a_parser(pool=pool)
    assert first.feed(OK)
    pool.release(first)
    assert first is pool.acquire(is_head=False, want_body=False)
    assert first.feed(CHUNKED)
    assert b"" == first.body
    closing = a_parser(pool=pool)
    closing.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    pool.release(closing)
    assert closing is not pool.acquire(is_head=False, want_body=False)


def test_an_answer_has_at_most_256_headers():
    """Each costs far more than its bytes; the trailers of a chunked body are not kept and do not count."""
    assert a_parser().feed(b"HTTP/1.1 204 No\r\n" + b"a:b\r\n" * 256 + b"\r\n")
    with pytest.raises(ProtocolFault, match="more than 256 headers"):
        a_parser().feed(b"HTTP/1.1 204 No\r\n" + b"a:b\r\n" * 257 + b"\r\n")
    trailers = b"a:b\r\n" * 300
    assert a_parser().feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n")


def test_the_heads_of_all_answers_together_are_bounded():
    """What is held is counted with what Python takes for it, and given back; whole answers are always taken."""
    pool = ParserPool()
    head = b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 200
    parsers = []
    with pytest.raises(ProtocolFault, match="16 MiB together"):
        for _ in range(HEADS_KEPT // (200 * HEADER_COST)):
            parsers.append(a_parser(pool=pool))
            parsers[-1].feed(head)
    assert a_parser(pool=pool).feed(OK)
    for parser in parsers:
        pool.release(parser)
    assert pool.held < 1000


@given(cuts=lists(integers(0, 500), max_size=5))
def test_what_was_held_is_given_back(cuts):
    """Whatever the pieces were."""
    pool = ParserPool()
    for answer in (OK, CHUNKED, INTERIM + OK):
        parser = a_parser(pool=pool)
        fed(parser, answer, cuts)
        pool.release(parser)
    assert (0, 0) == (pool.held, pool.kept)
