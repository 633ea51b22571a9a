"""
An event loop without a single descriptor, whose time is only moved: it goes at once to whatever is due next.

So hours pass in milliseconds, two histories of the same calls are the same, and a process may fork in the midst of one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualLoop", "fork", "run"]

T = TypeVar("T")


class _Nothing:
    """A selector that has nothing to select from: waiting moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Move the loop's clock on by *timeout*."""
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        self._loop.elapsed += max(0.0, timeout)
        return []

    def close(self) -> None:
        """Do nothing."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop; *elapsed* are the seconds that have passed in it."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        self._selector = _Nothing(self)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self.elapsed

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        """Resolve every name to loopback."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port or 0)))]

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing: there are none."""

    def _write_to_self(self) -> None:
        """Do nothing: nobody else wakes this loop."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* in a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def fork() -> int:
    """Fork the process in the midst of a running loop, which goes on in both; return what os.fork does."""
    loop = asyncio.get_running_loop()
    pid = os.fork()
    if pid == 0:
        # Subtle: asyncio takes a loop for running only in the process in which it was started.
        asyncio._set_running_loop(loop)
    return pid
