"""
Bodies that come compressed, unpacked where a check or a saved value needs them.

`Accept-Encoding` is sent only when the flow says so, as other load generators do; then the bytes counted are those on
the wire.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

__all__ = ["decoded"]

UNPACKED_LIMIT: Final = 8 * 1024 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_MEMBERS: Final = 64


def decoded(body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """
    Return *body* as it was before Content-Encoding, at most its first 8 MiB.

    What is broken yields nothing, what was cut yields what came; another coding than gzip and deflate stays as it is.
    """
    for name, _ in headers:
        if name == b"content-encoding":
            break
    else:
        return body
    codings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if codings in ([b"gzip"], [b"x-gzip"]):
        return _gunzipped(body)
    if codings == [b"deflate"]:
        # Some servers leave out the zlib head that the standard asks for; its first two bytes are a multiple of 31.
        is_zlib = len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _unpacked(body, zlib.MAX_WBITS if is_zlib else _RAW, UNPACKED_LIMIT)[0]
    return body


def _gunzipped(body: bytes) -> bytes:
    """Unpack the members of a gzip body, one after another, the first 64 at most: a body of tiny ones is an attack."""
    whole = b""
    for _ in range(_MEMBERS):
        if not body or len(whole) >= UNPACKED_LIMIT:
            break
        piece, body = _unpacked(body, _GZIP, UNPACKED_LIMIT - len(whole))
        whole += piece
    return whole


def _unpacked(body: bytes, window: int, room: int) -> tuple[bytes, bytes]:
    """Return what *body* unpacks to, at most *room* bytes, and what stands behind it."""
    unpacker = zlib.decompressobj(window)
    try:
        return unpacker.decompress(body, room), unpacker.unused_data
    except zlib.error:
        return b"", b""
