"""
A work queue of keys, as controllers have it: one worker at a time per key, and never twice for nothing.

    add() while waiting: nothing more     add() while being worked on: once more afterwards
    add_after(): the earliest time wins   a failure: again after min(cap, base·2ⁿ) with jitter; a success forgets n

A key that failed is not worked on before its time, whatever is added: children of a simulation that fails change often.

Who goes first: a key is due at an instant, and whoever asks for it may have patience. Of those that are due the one
with the least due + patience goes first.

    due at 10 with a patience of 30: after one without that is due at 39, before one that is due at 41

So a key gives way for its patience and no longer. With N keys and W workers, none of which takes longer than L, it goes

    at most patience + ⌈N ÷ W⌉ · L after it was due

since who is due later than that patience goes behind it, and each of the others is waiting or worked on once.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from trafficsim_api.errors import Unavailable

__all__ = ["Backoff", "KeyedQueue"]

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)

_WORK_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """
    How long to wait after the n-th failure in a row: min(cap, base·2ⁿ⁻¹), of which up to *jitter* is taken off.

    base 1, cap 60, jitter 0.5 gives 0.5–1, 1–2, 2–4 … 30–60 s.
    """

    base_s: float = 0.5
    cap_s: float = 60.0
    jitter: float = 0.5

    def delay(self, failures: int, draw: float) -> float:
        """Return the seconds to wait after *failures* in a row; *draw* in [0, 1) spreads them."""
        longest = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 32))
        return longest * (1 - self.jitter * draw)


@dataclass(slots=True, kw_only=True)
class KeyedQueue(Generic[K]):
    """
    Keys waiting for *work*, which returns the seconds until it wants to see the key again (None: no wish).

    *draw* gives numbers in [0, 1) for jitter. *done* hears of every finished piece of work: seconds taken, the error.
    """

    work: Callable[[K], Awaitable[float | None]]
    draw: Callable[[], float]
    backoff: Backoff = Backoff()
    limit_s: float = _WORK_LIMIT_S
    done: Callable[[K, float, BaseException | None], None] = lambda *_: None
    _ready: dict[K, float] = field(default_factory=dict)
    """Keys that may be worked on now, and the instant by which they go: due + patience."""
    _order: list[tuple[float, int, K]] = field(default_factory=list)
    _running: dict[K, float] = field(default_factory=dict)
    _again: dict[K, float] = field(default_factory=dict)
    """Keys that were added while they are worked on, and with what patience."""
    _later: dict[K, tuple[float, float]] = field(default_factory=dict)
    """Keys that are not due yet: when they are, and the instant by which they go then."""
    _heap: list[tuple[float, int, K]] = field(default_factory=list)
    _failures: dict[K, int] = field(default_factory=dict)
    _not_before: dict[K, float] = field(default_factory=dict)
    _count: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _timer_wake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, key: K, patience_s: float = 0.0) -> None:
        """Have *key* worked on soon; one that failed, when its time has come."""
        if key in self._running:
            self._again[key] = min(patience_s, self._again.get(key, math.inf))
            return
        now = asyncio.get_running_loop().time()
        if (due := self._not_before.get(key, 0.0)) > now:
            self._schedule(key, due, due + patience_s)
        else:
            self._enter(key, now + patience_s)

    def add_after(self, key: K, seconds: float, patience_s: float = 0.0) -> None:
        """Have *key* worked on in *seconds*, or earlier if it was to be earlier."""
        if seconds <= 0:
            self.add(key, patience_s)
            return
        due = asyncio.get_running_loop().time() + seconds
        due = max(due, self._not_before.get(key, due))
        self._schedule(key, due, due + patience_s)

    def _enter(self, key: K, by: float) -> None:
        """Let *key* be worked on from now on; what was asked of it for later is done with that, too."""
        by = min(by, self._later.pop(key, (0.0, math.inf))[1])
        if by < self._ready.get(key, math.inf):
            self._ready[key] = by
            self._count += 1
            heapq.heappush(self._order, (by, self._count, key))
            self._wake.set()

    def _schedule(self, key: K, due: float, by: float) -> None:
        if key in self._ready:
            self._enter(key, by)
            return
        known_due, known_by = self._later.get(key, (math.inf, math.inf))
        self._later[key] = min(due, known_due), min(by, known_by)
        if due < known_due:
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, key))
            self._timer_wake.set()

    @property
    def depth(self) -> int:
        """Return how many keys wait to be worked on now."""
        return len(self._ready)

    @property
    def failing(self) -> int:
        """Return how many keys failed at their last look."""
        return len(self._failures)

    def oldest_s(self) -> float:
        """Return for how many seconds the oldest piece of work has been going on, 0 when none is."""
        now = asyncio.get_running_loop().time()
        return max((now - since for since in self._running.values()), default=0.0)

    async def serve(self, workers: int) -> None:
        """Work until cancelled, on at most *workers* keys at a time."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._timer(), name="queue timer")
            for number in range(workers):
                group.create_task(self._worker(), name=f"queue worker {number}")

    async def _worker(self) -> None:
        while True:
            key = await self._take()
            await self._work_on(key)

    async def _take(self) -> K:
        while True:
            while self._order:
                by, _, key = heapq.heappop(self._order)
                if self._ready.get(key) == by:  # else it went already, or an earlier instant took its place
                    del self._ready[key]
                    self._running[key] = asyncio.get_running_loop().time()
                    return key
            self._wake.clear()
            await self._wake.wait()

    async def _work_on(self, key: K) -> None:
        error: BaseException | None = None
        wish: float | None = None
        try:
            async with asyncio.timeout(self.limit_s):
                wish = await self.work(key)
        except Exception as raised:  # noqa: BLE001 - whatever it is, the other keys go on, and this one is tried again
            error = raised
        finally:
            began = self._running.pop(key)
        self.done(key, asyncio.get_running_loop().time() - began, error)
        if error is not None:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            wish = self.backoff.delay(failures, self.draw())
            self._not_before[key] = asyncio.get_running_loop().time() + wish
            _say(key, wish, error)
        else:
            self._failures.pop(key, None)
            self._not_before.pop(key, None)
        if (patience_s := self._again.pop(key, None)) is not None:
            # Something changed meanwhile. After a failure it waits its turn all the same: changes must not defeat it.
            self.add(key, patience_s)
        if wish is not None:
            self.add_after(key, wish)

    async def _timer(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._heap and self._heap[0][0] <= loop.time():
                due, _, key = heapq.heappop(self._heap)
                if key in self._later and self._later[key][0] == due:  # else an earlier time took its place
                    self._come(key, due)
            self._timer_wake.clear()
            wait = self._heap[0][0] - loop.time() if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._timer_wake.wait()
            except TimeoutError:
                pass

    def _come(self, key: K, due: float) -> None:
        """Let *key* in, whose time *due* has come."""
        by = self._later[key][1]
        if key in self._running or self._not_before.get(key, due) > due:
            del self._later[key]
            self.add(key, max(0.0, by - due))
        else:
            self._enter(key, by)


def _say(key: Hashable, again_s: float, error: BaseException) -> None:
    """Log a failure: the world's in one line, ours with its traceback."""
    told = {"key": str(key), "again_s": round(again_s, 1), "error": str(error) or type(error).__name__}
    if isinstance(error, Unavailable | TimeoutError):
        log.warning("a look failed", extra=told)
    else:
        log.error("a look failed", extra=told, exc_info=error)
