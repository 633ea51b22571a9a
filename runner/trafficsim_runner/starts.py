"""
Bounded starts: how many requests of a worker may be out before the next flow has to wait, and which flow goes first.

    limit = min(configured, 50 000, descriptors)          while load is high: 60 % of it

A start is the first request of an iteration: in the closed model a user beginning anew, in the open one an arrival.
What an iteration does after it is never held back. Load is the worker's CPU ÷ what it can have of the quota, over a
second: above 80 % the cut begins, and it ends after three seconds in a row at or below 70 %, so that it doesn't flap
when it has brought the load down itself.

In the cut a start that finds the limit reached, or others waiting, waits: first who has the lowest

    queued at + priority · 1 s          priority 0 … 9, 5 unless told

That is one level of priority for every second waited: lower first, within one level who came first, and nobody is
overtaken by who comes more than 9 s later. Pure.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trafficsim_runner.users import User

__all__ = ["PRIORITY", "Starts", "limit_of"]

MOST: Final = 50_000
PRIORITY: Final = 5
LEVEL_NS: Final = 1_000_000_000
_CUT_PERMILLE: Final = 600
_BUSY_PERMILLE: Final = 800
_CALM_PERMILLE: Final = 700
_CALM_LOOKS: Final = 3


def limit_of(configured: int, descriptors: int, *, is_cut: bool = False) -> int:
    """
    Return how many requests may be out when a flow begins; at least 1 where any may.

    Of 50 000 configured with 1024 descriptors: 1024, and 614 in the cut.
    """
    most = min(configured, MOST, descriptors)
    return max(min(1, most), most * _CUT_PERMILLE // 1000) if is_cut else most


class Starts:
    """The starts of one worker: *is_cut*, the *limit* in force, and those that wait."""

    __slots__ = ("_calm", "_configured", "_count", "_descriptors", "_heap", "_waiting", "is_cut", "limit")

    def __init__(self) -> None:
        self._configured = self._descriptors = MOST
        self._heap: list[tuple[int, int, User, int]] = []  # key, number, who, when it was due
        self._waiting: dict[User, int] = {}  # with the number of its entry: others of it are out of date
        self._count = 0
        self._calm = 0
        self.is_cut = False
        self.limit = MOST

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, user: User) -> bool:
        return user in self._waiting

    def bound(self, configured: int, descriptors: int) -> None:
        """Take the limit from what is *configured* and from the *descriptors* there are."""
        self._configured, self._descriptors = configured, descriptors
        self.limit = limit_of(configured, descriptors, is_cut=self.is_cut)

    def measure(self, load_permille: int) -> bool:
        """Hear the load of the last second; say whether the cut began or ended."""
        was_cut = self.is_cut
        self._calm = self._calm + 1 if load_permille <= _CALM_PERMILLE else 0
        if load_permille > _BUSY_PERMILLE:
            self.is_cut = True
        elif self._calm >= _CALM_LOOKS:
            self.is_cut = False
        self.limit = limit_of(self._configured, self._descriptors, is_cut=self.is_cut)
        return self.is_cut != was_cut

    def holds_back(self, out: int) -> bool:
        """Say whether a flow has to wait that would begin with *out* requests out."""
        return self.is_cut and (out >= self.limit or bool(self._waiting))

    def push(self, user: User, priority: int, now_ns: int, due_ns: int) -> None:
        """Let *user* wait, whose first request is due at *due_ns*."""
        self._count += 1
        self._waiting[user] = self._count
        heappush(self._heap, (now_ns + priority * LEVEL_NS, self._count, user, due_ns))

    def pop(self, out: int) -> tuple[User, int] | None:
        """
        Return who begins next, and when that was due; None when nobody waits or *out* requests are enough.

        When the cut is over all of them begin: outside of it nobody waits.
        """
        while self._heap and (out < self.limit or not self.is_cut):
            _, number, user, due_ns = heappop(self._heap)
            if self._waiting.get(user) == number:
                del self._waiting[user]
                return user, due_ns
        return None

    def drop(self, user: User) -> bool:
        """Forget *user*, who leaves; say whether it waited."""
        return self._waiting.pop(user, None) is not None
