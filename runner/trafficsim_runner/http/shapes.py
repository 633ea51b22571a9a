"""
Answers whose heads differ in what does not matter, told by the shape of their head: no parser is called for them.

A shape is learned from an answer that the parser took: the same status line and the same names in the same order, the
values of headers that mean nothing to us free. So a request id, a date or a trace may be another each time. Whatever
decides on the body's length, on the connection or on a check stays as it was, the length's digits excepted. A head that
has anything else in it fits no shape and goes to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from trafficsim_runner.stats.account import HeadRecord

__all__ = ["Shape", "parts_of", "shape_of"]

_Match: TypeAlias = Callable[[bytes], re.Match[bytes] | None]

# Their values stay as they were: they say what becomes of the connection, or how the body is to be read.
_FIXED: Final = frozenset({b"connection", b"proxy-connection", b"upgrade", b"content-encoding"})
# Set-Cookie changes the user's jar, Transfer-Encoding ends the body elsewhere: theirs is the parser's way.
_NEVER: Final = frozenset({b"set-cookie", b"transfer-encoding"})
_LENGTH: Final = b"content-length"
_DIGITS: Final = re.compile(rb"([ \t]*)[0-9]{1,12}([ \t]*)")
# What the parser takes for a value, too.
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
_END: Final = b"\r\n\r\n"
# A pattern takes about 1.5 µs a byte to make, and `re` keeps hundreds of them: this is 90 headers.
_KEY_LIMIT: Final = 4096


class Shape:
    """
    One shape of an action's answers: *match* says whether an answer has it, *record* counts those that did.

    The body is as long as in the answer it was learned from, and *match* looks at that, too. When *is_open*, bodies
    were seen to differ in length: the match ends with the head, and its first group has the digits of the length.
    *key* is the same for shapes that differ in the body's length alone.
    """

    __slots__ = ("is_open", "key", "match", "record")

    def __init__(self, match: _Match, record: HeadRecord, *, key: bytes, is_open: bool) -> None:
        self.match: _Match = match
        self.record = record
        self.key = key
        self.is_open = is_open


def shape_of(
    record: HeadRecord, names: Sequence[bytes], *, body: int | None, fixed: frozenset[bytes], known: Sequence[Shape]
) -> Shape | None:
    """
    Return the shape of an answer with *record*'s head; None when it has something that is the parser's to judge.

    *names* are those the parser found, in lower case; the values of *fixed* ones stay as they are. *body* is the body's
    length, None where the head announces none that comes (an answer to HEAD, 204, 304).
    """
    first, *lines = record.head[: -len(_END)].split(b"\r\n")
    if not first.startswith(b"HTTP/1.1 ") or len(lines) != len(names):
        return None
    parts = [re.escape(first)]
    for line, name in zip(lines, names, strict=True):
        written, _, value = line.partition(b":")
        if written.lower() != name or name in _NEVER:
            return None
        if name == _LENGTH:
            digits = _DIGITS.fullmatch(value)
            if digits is None:
                return None
            number = rb"[0-9]{1,12}" if body is None else rb"([0-9]{1,12})"
            parts.append(re.escape(written) + b":" + digits[1] + number + digits[2])
        elif name in fixed or name in _FIXED:
            parts.append(re.escape(line))
        else:
            parts.append(re.escape(written) + b":" + _VALUE)
    key = b"\r\n".join(parts) + _END
    if len(key) > _KEY_LIMIT:
        return None
    is_open = body is not None and any(shape.key == key for shape in known)
    # Pattern and number together are one call for the hot loop, which mostly meets bodies of one length.
    pattern = key if is_open else key.replace(rb"([0-9]{1,12})", b"0*%d" % (body or 0)) + rb"(?s:.{%d})\Z" % (body or 0)
    return Shape(re.compile(pattern).match, record, key=key, is_open=is_open)


def parts_of(data: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
    """Return the headers (names in lower case) and the body of an answer that fits a shape."""
    head, _, body = data.partition(_END)
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return tuple((name.lower(), value.strip(b" \t")) for name, _, value in lines), body
