"""
A raw record of every finished request, for tests that compare the histograms with the truth. Off by default.

    action u32 · user u32 · sent u64 ns · done u64 ns · status u16 (0: no answer)      little-endian, 26 bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["RawLog", "RawRecord", "read_raw"]

_RECORD: Final = struct.Struct("<IIQQH")


class RawRecord(NamedTuple):
    """One finished request; instants are CLOCK_MONOTONIC ns."""

    action: int
    user: int
    sent_ns: int
    done_ns: int
    status: int


class RawLog:
    """Writes records, buffered; `flush` once a second and at the end."""

    __slots__ = ("_file",)

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=1 << 20)

    def add(self, action: int, user: int, sent_ns: int, done_ns: int, status: int) -> None:
        """Record one finished request."""
        self._file.write(_RECORD.pack(action, user, sent_ns, done_ns, status))

    def flush(self) -> None:
        """Hand what is buffered to the kernel."""
        self._file.flush()

    def close(self) -> None:
        """Write the rest and close."""
        self._file.close()


def read_raw(path: Path) -> Iterator[RawRecord]:
    """Yield the records in *path*; a record cut short at the end is left out."""
    data = path.read_bytes()
    for record in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]):
        yield RawRecord._make(record)
