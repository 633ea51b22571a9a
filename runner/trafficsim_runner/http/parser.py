"""
Answers the memoised heads do not cover, parsed by llhttp (httptools) in pooled parsers.

What llhttp leaves to its host is done here: limits on heads and trailers, interim answers (1xx do not end a request),
HEAD (its Content-Length announces no body), bodies that end with the connection, and bytes past the answer's end.
"""

from __future__ import annotations

from typing import Final

import httptools

__all__ = ["AnswerParser", "ParserPool", "ProtocolFault"]

HEAD_LIMIT: Final = 64 * 1024
HEADERS_LIMIT: Final = 256
# What a kept header takes beyond its bytes: two bytes objects, a tuple and a place in the list.
HEADER_COST: Final = 160
HEADS_KEPT: Final = 16 * 1024 * 1024
BODY_KEPT: Final = 8 * 1024 * 1024
ALL_KEPT: Final = 32 * 1024 * 1024
INTERIM_LIMIT: Final = 32
_BODILESS: Final = (204, 304)


class ProtocolFault(Exception):
    """The target's bytes are not an HTTP/1.1 answer we accept; the message says why."""


class AnswerParser:
    """
    Parses one answer at a time; `begin`, then `feed` until it says True.

    After that *status*, *headers*, *body* (kept only when asked for, at most 8 MiB), *keep_alive*, *unsolicited* (bytes
    came after the end), *interim* (1xx answers before) and *length* (body bytes as they came) tell what came.
    """

    __slots__ = (
        "_chunks", "_head_done", "_headers_held", "_is_begun", "_is_head", "_lines", "_overhead", "_parser", "_pool",
        "_tail", "_until_close", "_want_body", "complete", "headers", "held", "interim", "is_spent", "keep_alive",
        "kept", "length", "status", "unsolicited",
    )  # fmt: skip

    def __init__(self, pool: ParserPool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self.is_spent = False
        self.begin(is_head=False, want_body=False)

    def begin(self, *, is_head: bool, want_body: bool) -> None:
        """Make ready for the answer to one request."""
        self._is_head = is_head
        self._want_body = want_body
        self._chunks: list[bytes] = []
        self.kept = 0
        self.held = 0
        self._headers_held = 0
        self._lines = 0
        self._overhead = 0
        self._tail = b""
        self._head_done = self._is_begun = False
        self._until_close = False
        self.complete = False
        self.keep_alive = False
        self.unsolicited = False
        self.interim = 0
        self.length = 0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def body(self) -> bytes:
        """Return the body as far as it was kept."""
        return b"".join(self._chunks)

    def feed(self, data: bytes) -> bool:
        """Take *data*; say whether the answer is complete; raise ProtocolFault when it is none."""
        before, interim, is_begun = self.length, self.interim, self._is_begun
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self.is_spent = True
            if not self.complete:
                raise ProtocolFault(str(error.__context__ or error)) from error
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.is_spent = True
            if not self.complete:
                raise ProtocolFault(str(error)) from error
            self.unsolicited = True
        if self._is_head and self.complete:
            self._look_behind_head(data, self.interim - interim, is_begun=is_begun)
        self._tail = data[-3:]
        # Heads, trailers and chunk extensions bring no body: together they are bounded.
        self._overhead = 0 if self.length > before else self._overhead + len(data)
        if self._overhead > HEAD_LIMIT and not self.complete:
            self.is_spent = True
            raise ProtocolFault("the head is longer than 64 KiB")
        self._hold()
        return self.complete

    def _hold(self) -> None:
        """Count what the head takes: its headers, and before its end what llhttp may hold of the next one."""
        held = self._headers_held + (0 if self._head_done else self._overhead)
        self._pool.held += held - self.held
        self.held = held
        if self._pool.held > HEADS_KEPT and not self.complete:
            self.is_spent = True
            raise ProtocolFault("the heads that are not answered to the end are longer than 16 MiB together")

    def end(self) -> bool:
        """The connection ended: say whether that completes the answer (a body delimited by close)."""
        self.is_spent = True
        if self._until_close:
            self.complete = True
        return self.complete

    def _look_behind_head(self, data: bytes, interim: int, *, is_begun: bool) -> None:
        # llhttp would take what follows for the body that a HEAD's Content-Length announces. *interim* heads ended in
        # these bytes before the one that counts; empty lines may stand before each.
        self.is_spent = True
        rest = self._tail + data if is_begun else data.lstrip(b"\r\n")
        for _ in range(interim):
            rest = rest.partition(b"\r\n\r\n")[2].lstrip(b"\r\n")
        self.unsolicited = bool(rest.partition(b"\r\n\r\n")[2])

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """A message begins: the answer, one after an interim answer, or one nobody asked for."""
        if self.complete:
            self.unsolicited = True
            self.is_spent = True
        if not self.complete:
            self._is_begun = True
            self._forget_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header; trailers are not kept."""
        self._lines += len(name) + len(value) + len(b": \r\n")
        if self._lines > HEAD_LIMIT:
            raise ProtocolFault("the headers are longer than 64 KiB")
        if self._head_done or self.complete:
            return
        if len(self.headers) >= HEADERS_LIMIT:
            raise ProtocolFault("more than 256 headers")
        self.headers.append((name.lower(), value.rstrip(b" \t")))  # llhttp leaves what stands behind a value
        self._headers_held += len(name) + len(value) + HEADER_COST

    def _forget_headers(self) -> None:
        self.headers = []
        self._headers_held = self._lines = 0

    def on_headers_complete(self) -> None:
        """Decide how the body ends."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if not 100 <= status <= 599 or self._parser.get_http_version() not in ("1.0", "1.1"):
            raise ProtocolFault("the first line is not that of an HTTP/1.1 answer")
        if status < 200:
            return
        self.status = status
        self._head_done = True
        if self._is_head:
            # Without a length llhttp would wait for the end of a body that a HEAD's answer does not have.
            says_close = any(name == b"connection" and b"close" in value.lower() for name, value in self.headers)
            self.keep_alive = self._parser.get_http_version() == "1.1" and not says_close
            self.complete = True
            raise _HeadIsAll
        names = {name for name, _ in self.headers}
        coding = b",".join(value for name, value in self.headers if name == b"transfer-encoding")
        is_chunked = coding.rpartition(b",")[2].strip().lower() == b"chunked"
        self._until_close = not (b"content-length" in names or is_chunked or status in _BODILESS)

    def on_body(self, data: bytes) -> None:
        """Count the body, and keep what is wanted of it."""
        self.length += len(data)
        room = min(BODY_KEPT - self.kept, ALL_KEPT - self._pool.kept)
        if self._want_body and room > 0 and not self.complete:
            piece = data[:room]
            self._chunks.append(piece)
            self.kept += len(piece)
            self._pool.kept += len(piece)

    def on_message_complete(self) -> None:
        """Note the end; an interim answer is none."""
        if self.complete:
            return
        if not self._head_done:
            self.interim += 1
            self._is_begun = False
            self._forget_headers()
            if self.interim > INTERIM_LIMIT:
                raise ProtocolFault("more than 32 interim answers")
            return
        self.complete = True
        self.keep_alive = self._parser.should_keep_alive()


class _HeadIsAll(Exception):
    """Stops llhttp after the head of an answer to HEAD."""


class ParserPool:
    """
    Parsers that stand at the beginning of a message; a spent one (after an error or a close) is thrown away.

    *kept* counts the bytes of all bodies kept at the moment: at most 32 MiB, what comes beyond is only counted. *held*
    is what all heads take: at most 16 MiB, an answer that would need more is at fault.
    """

    __slots__ = ("_free", "held", "kept")

    IDLE: Final = 256

    def __init__(self) -> None:
        self.kept = self.held = 0
        self._free: list[AnswerParser] = []

    def acquire(self, *, is_head: bool, want_body: bool) -> AnswerParser:
        """Return a parser for the answer to one request."""
        parser = self._free.pop() if self._free else AnswerParser(self)
        parser.begin(is_head=is_head, want_body=want_body)
        return parser

    def release(self, parser: AnswerParser) -> None:
        """Take a parser back once its answer is complete (or was given up)."""
        self.kept -= parser.kept
        self.held -= parser.held
        if parser.complete and not parser.is_spent and parser.keep_alive and len(self._free) < self.IDLE:
            parser.begin(is_head=False, want_body=False)
            self._free.append(parser)
