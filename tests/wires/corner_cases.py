"""The corners of HTTP/1.1: a table of byte streams and what is to come of each."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from trafficsim_api.layout import Error
from wires.wire import Outcome


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
