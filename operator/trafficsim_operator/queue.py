"""
A work queue of keys, as controllers have it: one worker at a time per key, and never twice for nothing.

    add() while waiting: nothing more     add() while being worked on: once more afterwards
    add_after(): the earliest time wins   a failure: again after min(cap, base·2ⁿ) with jitter; a success forgets n

A key that failed is not worked on before its time, whatever is added: children of a simulation that fails change often.

Who goes first: whoever asks for a key may have patience. One asked for without goes before all that are asked for with
patience, until that is over; from then on they get one turn in four. Among equals it goes by when they are due, or by
when their patience ends. Asked for twice, the earlier time and the lesser patience count: one that gives way and is
then asked for without stands in both lines, and goes when it is first in either.

    a key asked for without patience waits for those due before it, and a third as many others, however many there are
    one with patience has its turn at most patience + 4 · ⌈N ÷ W⌉ · L after it was due

with N keys and W workers, none of which takes longer than L: each of the others waits once.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from trafficsim_api.errors import Unavailable

__all__ = ["Backoff", "KeyedQueue"]

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)

_WORK_LIMIT_S: Final = 60.0
# So many turns go to keys that somebody waits for, then one to those whose patience is over.
_TURNS: Final = 3


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


class _Place(NamedTuple):
    """Where a key stands in its lane: when its patience is over, without any when it was due; then who came first."""

    until: float
    number: int
    is_hurried: bool


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
    _ready: dict[K, tuple[_Place, ...]] = field(default_factory=dict)
    """Keys that may be worked on now, and where they stand: in one lane or in each."""
    _hurried: list[tuple[_Place, K]] = field(default_factory=list)
    _patient: list[tuple[_Place, K]] = field(default_factory=list)
    _turns: int = 0
    """How many turns keys without patience have had since the last of one with it."""
    _running: dict[K, float] = field(default_factory=dict)
    _again: dict[K, float] = field(default_factory=dict)
    """Keys that were added while they are worked on, and with what patience."""
    _later: dict[K, tuple[float, float]] = field(default_factory=dict)
    """Keys that are not due yet: when they are, and the patience that they have then."""
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
            self._schedule(key, due, patience_s)
        else:
            self._enter(key, now, patience_s)

    def add_after(self, key: K, seconds: float, patience_s: float = 0.0) -> None:
        """Have *key* worked on in *seconds*, or earlier if it was to be earlier."""
        if seconds <= 0:
            self.add(key, patience_s)
            return
        due = asyncio.get_running_loop().time() + seconds
        self._schedule(key, max(due, self._not_before.get(key, due)), patience_s)

    def _enter(self, key: K, due: float, patience_s: float) -> None:
        """Let *key* be worked on from now on; what was asked of it for later is done with that, too."""
        patience_s = min(patience_s, self._later.pop(key, (due, math.inf))[1])
        self._count += 1
        place = _Place(until=due + patience_s, number=self._count, is_hurried=not patience_s)
        known = self._ready.get(key, ())
        if all(not other.is_hurried and (place.is_hurried or place < other) for other in known):
            # Subtle: where its patience is over, its old place may be the better one.
            self._ready[key] = (*known, place) if place.is_hurried else (place,)
            heapq.heappush(self._hurried if place.is_hurried else self._patient, (place, key))
            self._wake.set()

    def _schedule(self, key: K, due: float, patience_s: float) -> None:
        if key in self._ready:
            if not patience_s:
                self._enter(key, min(due, asyncio.get_running_loop().time()), patience_s)
            return
        known_due, known_patience_s = self._later.get(key, (math.inf, math.inf))
        self._later[key] = min(due, known_due), min(patience_s, known_patience_s)
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
        while (key := self._next()) is None:
            self._wake.clear()
            await self._wake.wait()
        self._running[key] = asyncio.get_running_loop().time()
        return key

    def _next(self) -> K | None:
        """Take the key whose turn it is out of those that are due, None when there are none."""
        hurried, patient = self._first(self._hurried), self._first(self._patient)
        if hurried is None and patient is None:
            return None
        is_over = patient is not None and patient.until <= asyncio.get_running_loop().time()
        if hurried is None or (is_over and self._turns >= _TURNS):
            self._turns = 0
            _, key = heapq.heappop(self._patient)
        else:
            self._turns += 1
            _, key = heapq.heappop(self._hurried)
        del self._ready[key]
        return key

    def _first(self, lane: list[tuple[_Place, K]]) -> _Place | None:
        """Return who is first in *lane*, None when nobody is there; who left it or has another place by now is out."""
        while lane and lane[0][0] not in self._ready.get(lane[0][1], ()):
            heapq.heappop(lane)
        return lane[0][0] if lane else None

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
        patience_s = self._later[key][1]
        if key in self._running or self._not_before.get(key, due) > due:
            del self._later[key]
            self.add(key, patience_s)
        else:
            self._enter(key, due, patience_s)


def _say(key: Hashable, again_s: float, error: BaseException) -> None:
    """Log a failure: the world's in one line, ours with its traceback."""
    told = {"key": str(key), "again_s": round(again_s, 1), "error": str(error) or type(error).__name__}
    if isinstance(error, Unavailable | TimeoutError):
        log.warning("a look failed", extra=told)
    else:
        log.error("a look failed", extra=told, exc_info=error)
