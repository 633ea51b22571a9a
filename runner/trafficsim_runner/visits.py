"""
The open model in one worker: which arrival is due next, and who is free to take it.

An arrival is one iteration of a flow, begun when it is due whether others are done or not. It belongs to a place
(trafficsim_api/arrivals.py); that place's user takes it, else any user of this worker that is free; with all at work it
is dropped. Archetype, draws and iteration follow from the arrival's number alone, and it begins without cookies and
saved values: a new visitor, on a connection that is kept.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from trafficsim_api.arrivals import Course, Evenly, Owned, Poisson
from trafficsim_runner.draws import key_of
from trafficsim_runner.users import ACTED, User

__all__ = ["NEVER_NS", "Piece", "Schedule", "Slots", "dress"]

NEVER_NS: Final = 1 << 62
_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The arrivals of one assignment: the *course* of the work due, which arrivals there are, and which are *owned*."""

    course: Course
    works: Evenly | Poisson
    owned: Owned
    users: int


class Schedule:
    """
    The arrivals of a worker in order of time: the next one's *number*, *place* and *due_ns* (from the run's start).

    A new piece counts from its course's beginning or from now on, whichever is later; until then, and for what is
    overdue, the one before it does. So a change told a second ahead leaves no gap and does nothing twice.
    """

    __slots__ = ("_coming", "_pieces", "due_ns", "end_ns", "number", "place")

    def __init__(self) -> None:
        self._pieces: list[tuple[Piece, int]] = []  # each with the instant it counts after
        self._coming: Iterator[tuple[int, int]] = iter(())
        self.end_ns = NEVER_NS
        self.due_ns = NEVER_NS
        self.number = self.place = -1

    def follow(self, piece: Piece, at_ns: int) -> None:
        """Go by *piece* from its beginning on, or from *at_ns*, which is now."""
        begin = max(at_ns, piece.course.since_ms * _MS)
        kept = [(older, after) for older, after in self._pieces if after < begin]
        first = kept[0] if kept else None
        self._pieces = [*kept, (piece, begin)]
        if first is None:
            self._open()
        elif self.due_ns > begin:
            self._next()

    def take(self) -> None:
        """Go on to the arrival after this one."""
        self._next()

    def _open(self) -> None:
        piece, after = self._pieces[0]
        due = piece.course.due(max(0, after) // _MS)
        self._coming = piece.owned.since(piece.works.first_after(due))
        self._next()

    def _next(self) -> None:
        piece, after = self._pieces[0]
        until = self._pieces[1][1] if len(self._pieces) > 1 else NEVER_NS
        for number, place in self._coming:
            due_ns = piece.course.instant_ns(piece.works.work(number))
            if due_ns is None or due_ns > until:
                break
            if due_ns > after:
                self.number, self.place, self.due_ns = number, place, due_ns
                return
        self.due_ns = NEVER_NS
        if len(self._pieces) > 1:
            del self._pieces[0]
            self._open()

    @property
    def next_ns(self) -> int:
        """Return when the next arrival is due, NEVER_NS when none is before the run's end."""
        return self.due_ns if self.due_ns < self.end_ns else NEVER_NS


class Slots:
    """Which users are free: those that came and wait for their next arrival, and *held* places nobody came to yet."""

    __slots__ = ("_spare", "free", "held")

    def __init__(self) -> None:
        self.free: dict[int, User] = {}
        self.held: frozenset[int] = frozenset()
        self._spare: list[int] = []

    def hold(self, places: Sequence[int]) -> None:
        """Take arrivals with the users of *places*."""
        self.held = frozenset(places)
        self._spare = list(reversed(places))

    def choose(self, place: int, present: Container[int]) -> int | None:
        """
        Return the place whose user takes an arrival of *place*: its own, else one that is there, else a new one.

        *present* are the places whose users are there, free or not. None: all are at work.
        """
        if place in self.free or (place in self.held and place not in present):
            return place
        if self.free:
            return next(reversed(self.free))  # it came last: its connection is the least likely to be closed
        while self._spare:
            spare = self._spare.pop()
            if spare not in present:
                return spare
        return None


def dress(user: User, *, number: int, users: int, seed: int, archetype: int) -> None:
    """Make *user* the visitor of arrival *number*."""
    user.archetype = archetype
    user.key = key_of(seed, number)
    user.draws = 0
    user.iteration = number // users
    user.backoff_ms = 0
    user.marks &= ~ACTED
    user.loops = user.saved = user.cookie_line = None
