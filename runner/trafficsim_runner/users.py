"""
Virtual users: slotted records, taken from a pool and given back without a trace of who they were.

A parked user is one record of about 200 bytes; cookies, saved values and loop counters exist only while they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trafficsim_runner.http.connection import Connection
    from trafficsim_runner.program import Step

__all__ = ["PARKED", "STARTING", "THINKING", "WORKING", "User", "UserPool"]

# Where a user is. Whole numbers, since they are compared on every step.
PARKED: Final = 0  # in the pool
STARTING: Final = 1  # on, its first action is due soon
THINKING: Final = 2  # waits in the wheel: think time, back-off or a retry
WORKING: Final = 3  # connecting, sending or waiting for an answer


class User:
    """
    One virtual user.

    *place* is its number, *key* the source of its draws, *draws* how many it made, *step* what it does next. *due_ms*
    is for the wheel. *begun*: it made its first send (or its first try failed). *acted*: it tried a request in this
    iteration. *due_ns*: when the request it is in was due.
    """

    __slots__ = (
        "acted", "archetype", "backoff_ms", "begun", "connection", "cookie_line", "cookies", "draws", "due_ms",
        "due_ns", "iteration", "key", "leaving", "loops", "place", "saved", "state", "step",
    )  # fmt: skip

    def __init__(self) -> None:
        self.due_ms = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next user of this record is somebody else."""
        self.place = -1
        self.archetype = -1
        self.key = 0
        self.draws = 0
        self.due_ns = 0
        self.iteration = 0
        self.backoff_ms = 0
        self.state = PARKED
        self.leaving = False
        self.begun = False
        self.acted = False
        self.step: Step | None = None
        self.connection: Connection | None = None
        self.loops: list[int] | None = None
        self.saved: dict[str, str] | None = None
        self.cookies: dict[str, str] | None = None
        self.cookie_line: bytes | None = None
        self.due_ms = 0

    def next_draw(self) -> int:
        """Return the number of the next draw, and count it."""
        n = self.draws
        self.draws = n + 1
        return n


class UserPool:
    """
    Records of users for reuse: 100 at first, 100 more whenever it runs empty; up to *limit* are kept for later.

    The pool never refuses: places assigned decide how many users there are, *limit* only how many idle records stay.
    """

    __slots__ = ("_free", "_limit", "made")

    FIRST: Final = 100
    GROWTH: Final = 100
    KEPT: Final = 1000

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._free = [User() for _ in range(self.FIRST)]
        self.made = self.FIRST

    @property
    def pooled(self) -> int:
        """Return how many records wait for a user."""
        return len(self._free)

    def acquire(self, place: int, archetype: int, key: int) -> User:
        """Return a clean record for user number *place*."""
        if not self._free:
            self._free = [User() for _ in range(self.GROWTH)]
            self.made += self.GROWTH
        user = self._free.pop()
        user.place = place
        user.archetype = archetype
        user.key = key
        return user

    def release(self, user: User) -> None:
        """Take a record back; nothing of its user stays."""
        user.reset()
        if len(self._free) < self._limit:
            self._free.append(user)
