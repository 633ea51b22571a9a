"""
An event loop without a single descriptor, whose time is only moved: it goes at once to whatever is due next.

So hours pass in milliseconds, two histories of the same calls are the same, and a process may fork in the midst of one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["VirtualLoop", "fork", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Resolve every name to loopback, at once: there are no threads here, and host look-ups alone ask for one."""
        asked: object = func
        if asked is not socket.getaddrinfo:
            raise RuntimeError(f"{asked} on a thread: there are none")
        found: asyncio.Future[Any] = self.create_future()
        found.set_result([(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))])
        return found

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
