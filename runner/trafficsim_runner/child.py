"""A worker process as its supervisor sees it: started, spoken to in JSON lines, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

__all__ = ["Child", "worker_command"]

NICE: Final = 5
LINE_LIMIT: Final = 1024 * 1024
PR_SET_PDEATHSIG: Final = 1
# After its end of the channel closed, a worker gets this long to be gone.
CLOSING_S: Final = 1.0


def worker_command(fd: int, index: int, slab: Path) -> list[str]:
    """Return the command of worker number *index*, which speaks over *fd* and counts in *slab*."""
    module = "trafficsim_runner.worker"
    return [sys.executable, "-m", module, "--fd", str(fd), "--index", str(index), "--slab", str(slab)]


class Child:
    """A running worker process."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._gone = asyncio.get_running_loop().create_future()
        self._watch()

    @classmethod
    async def start(cls, command: Callable[[int], Sequence[str]], environ: Mapping[str, str] | None = None) -> Self:
        """
        Start *command* (given the number of the channel's descriptor) as a child that dies with this process.

        It runs at nice 5 and in a process group of its own: a terminal's Ctrl-C is for the supervisor, which drains.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            ours.setblocking(False)
            try:
                process = subprocess.Popen(
                    command(theirs.fileno()),
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                    preexec_fn=_die_with_parent(os.getpid()),
                )
            except BaseException:
                ours.close()
                raise
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
            return cls(process, reader, writer)
        except BaseException:
            process.kill()
            process.wait()
            raise

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Say whether the process runs."""
        return not self._gone.done()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send *message*; to a worker that is gone nothing is sent."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the worker says until it closes the channel; raise ValueError for what is no JSON line."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError("a worker speaks in JSON objects")
                yield message

    async def ended(self, within_s: float = CLOSING_S) -> int:
        """Return the exit code (negative: the signal) once the process is gone; kill it after *within_s*."""
        self._writer.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._gone), within_s)
        except TimeoutError:
            self.kill()
            await self._gone
        return self._process.wait()

    def kill(self) -> None:
        """Kill the process at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        handle = os.pidfd_open(self.pid)

        def gone() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            if not self._gone.done():
                self._gone.set_result(None)

        loop.add_reader(handle, gone)


def _die_with_parent(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the call above: then no signal will come.
        if os.getppid() != parent:
            os._exit(1)
        os.nice(NICE)

    return prepare
