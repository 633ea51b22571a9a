"""
Timers that fire within a few dozen microseconds of their instant, and never before it.

The loop's own are up to 1 ms late: `selectors.EpollSelector` rounds every wait up to whole milliseconds. These use a
timerfd.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import os
from collections.abc import Callable
from typing import Any

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
_TFD_TIMER_ABSTIME = 1


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: interval, then first expiry."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class Entry:
    """A scheduled call."""

    __slots__ = ("call", "cancelled")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True


class ExactTimers:
    """
    A heap of calls and one timerfd, armed for the earliest.

    The loop's clock must be `time.monotonic`, as that of asyncio's own loops is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = loop
        self._heap: list[tuple[float, int, Entry]] = []
        self._number = 0
        self._armed_for = float("inf")
        loop.add_reader(self._fd, self._fire)

    def call_at(self, when: float, callback: Callable[..., Any], *arguments: Any) -> Entry:
        """Call *callback* at loop time *when*, as `loop.call_at` does."""
        entry = Entry((lambda: callback(*arguments)) if arguments else callback)
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, entry))
        if when < self._armed_for:
            self._arm(when)
        return entry

    def _arm(self, when: float) -> None:
        self._armed_for = when
        nanoseconds = max(1, int(when * 1e9) + 1)
        spec = _TimerSpec(0, 0, nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def _fire(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            pass  # re-armed since it fired
        self._armed_for = float("inf")
        while self._heap and self._heap[0][0] <= self._loop.time():
            _, _, entry = heapq.heappop(self._heap)
            if not entry.cancelled:
                entry.call()
        if self._heap:
            self._arm(self._heap[0][0])
