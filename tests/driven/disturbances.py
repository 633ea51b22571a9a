"""What may go wrong around a run: readers that do not read, a disk that is full, a clock that is set."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

HOUR_S: Final = 3600
_MNT_DETACH: Final = 2
_SITE: Final = '''\
"""Sets the wall clock of the process it is started in ahead by the seconds in the file that STEPPED_CLOCK names."""

import os
import time

_now, _now_ns = time.time, time.time_ns


def _ahead():
    with open(os.environ["STEPPED_CLOCK"]) as file:
        return int(file.read() or 0)


time.time = lambda: _now() + _ahead()
time.time_ns = lambda: _now_ns() + 1_000_000_000 * _ahead()
'''


@contextlib.asynccontextmanager
async def slow_readers(addresses: Sequence[str], *, each: int) -> AsyncIterator[list[int]]:
    """Let *each* readers ask every address for its statistics and take one byte a second; yield what each one got."""
    got: list[int] = []

    async def read(address: str) -> None:
        host, _, port = address.rpartition(":")
        loop, number = asyncio.get_running_loop(), len(got)
        got.append(0)
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            raw.setblocking(False)
            await loop.sock_connect(raw, (host, int(port)))
            await loop.sock_sendall(raw, f"GET /v1/statistics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            while await loop.sock_recv(raw, 1):
                got[number] += 1
                await asyncio.sleep(1)

    tasks = [asyncio.create_task(read(address)) for address in addresses for _ in range(each)]
    try:
        yield got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def small_disk(directory: Path, *, size: int) -> Iterator[Path]:
    """Make *directory* a file system of *size* bytes in memory; skip where that is not allowed."""
    directory.mkdir(parents=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, f"size={size}".encode()):
        pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield directory
    finally:
        libc.umount2(os.fsencode(directory), _MNT_DETACH)


def fill(directory: Path) -> int:
    """Write a file until not a byte fits any more; return how many did."""
    handle, written = os.open(directory / "filler", os.O_WRONLY | os.O_CREAT), 0
    try:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    written += os.write(handle, b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    finally:
        os.close(handle)
    return written


class SteppedClock:
    """A wall clock for processes started with *environ*, that the test sets."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "ahead"
        site = directory / "site"
        site.mkdir(parents=True)
        (site / "sitecustomize.py").write_text(_SITE)
        self.set(0)
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
        self.environ: Mapping[str, str] = {"PYTHONPATH": path, "STEPPED_CLOCK": str(self._file)}

    def set(self, ahead_s: int) -> None:
        """Set the clock to *ahead_s* ahead of the machine's."""
        draft = self._file.with_suffix(".new")
        draft.write_text(str(ahead_s))
        os.replace(draft, self._file)
