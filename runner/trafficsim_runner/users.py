"""
Virtual users: slotted records, taken from a pool and given back without a trace of who they were.

A parked user is one record of less than 250 bytes, with its numbers and its entry in the wheel; saved values and loop
counters exist only while they are used, cookies only as the line that is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trafficsim_runner.http.connection import Connection
    from trafficsim_runner.program import Step

__all__ = ["ACTED", "BEGUN", "COUNTED", "PARKED", "STARTING", "THINKING", "WORKING", "User", "UserPool"]

# Where a user is. Whole numbers, since they are compared on every step.
PARKED: Final = 0  # in the pool
STARTING: Final = 1  # on, its first action is due soon
THINKING: Final = 2  # waits in the wheel: think time, back-off or a retry
WORKING: Final = 3  # connecting, sending or waiting for an answer

# Marks of a user, kept in one number: a slot for each would be 8 bytes a user.
BEGUN: Final = 1
ACTED: Final = 2
COUNTED: Final = 4


class User:
    """
    One virtual user.

    *place* is its number, *key* the source of its draws, *draws* how many it made, *step* what it does next. *due_ms*
    is for the wheel. *marks*: BEGUN, it made its first send (or its first try failed); ACTED, it tried a request in
    this iteration; COUNTED, its arrival counts as started. *cookie_line*: the request's header line with its cookies,
    which is all that is kept of them.
    """

    __slots__ = (
        "archetype", "backoff_ms", "connection", "cookie_line", "draws", "due_ms", "iteration", "key", "leaving",
        "loops", "marks", "place", "saved", "state", "step",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next user of this record is somebody else."""
        self.place = -1
        self.archetype = -1
        self.key = 0
        self.draws = 0
        self.iteration = 0
        self.backoff_ms = 0
        self.state = PARKED
        self.leaving = False
        self.marks = 0
        self.step: Step | None = None
        self.connection: Connection | None = None
        self.loops: list[int] | None = None
        self.saved: dict[str, str] | None = None
        self.cookie_line: bytes | None = None
        self.due_ms = 0

    @property
    def begun(self) -> bool:
        """Say whether the user made its first send, or its first try failed."""
        return bool(self.marks & BEGUN)

    @begun.setter
    def begun(self, value: bool) -> None:
        self.marks = self.marks | BEGUN if value else self.marks & ~BEGUN

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
