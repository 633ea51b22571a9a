"""
The open model in one worker: which arrival is due next, and who is free to take it.

An arrival is one iteration of a flow, begun when it is due whether others are done or not. It belongs to a place
(trafficsim_api/arrivals.py); that place's user takes it, else any user of this worker that is free; with all at work it
is dropped. Archetype, draws and iteration follow from the arrival's number alone, and it begins without cookies and
saved values: a new visitor, on a connection that is kept.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from trafficsim_api.arrivals import Course, Evenly, Owned, Poisson
from trafficsim_api.places import Places, position
from trafficsim_runner.draws import key_of
from trafficsim_runner.users import ACTED, COUNTED, User

__all__ = ["NEVER_NS", "Piece", "Schedule", "Slots", "dress"]

NEVER_NS: Final = 1 << 62
_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """
    The arrivals of one assignment: the *course* of the work due, which arrivals there are, and whose: of *places*.

    *takes*: the arrival from which a place gained counts. *gives*: places no longer held, with the arrival until which
    they count (see trafficsim_api/turns.py).
    """

    course: Course
    works: Evenly | Poisson
    places: Places
    users: int
    takes: Mapping[int, int] = field(default_factory=dict)
    gives: Mapping[int, int] = field(default_factory=dict)
    owned: Owned = field(init=False)
    owned_at_first: Owned = field(init=False)
    """With the places that are given away."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "owned", owned := Owned(self.users, self.places.ranges))
        given = [(place, place + 1) for place in self.gives]
        both = Owned(self.users, (*self.places.ranges, *given)) if given else owned
        object.__setattr__(self, "owned_at_first", both)

    @property
    def given_at(self) -> int:
        """Return the number from which on no place counts that is given away."""
        return max(self.gives.values(), default=0)

    def counts(self, number: int, place: int) -> bool:
        """Say whether arrival *number* of *place*, held or given away, is to be begun here."""
        return self.takes.get(place, 0) <= number < self.gives.get(place, NEVER_NS)

    def without(self, gives: Mapping[int, int]) -> Piece:
        """Return the piece with the places of *gives* given away: what was told before goes on until then alone."""
        now = {place: number for place, number in gives.items() if place in self.places}
        if not now:
            return self
        given = Places.of((place, place + 1) for place in now)
        return replace(self, places=self.places - given, gives={**self.gives, **now})

    def after(self, before: Piece | None, begin_ns: int) -> Piece:
        """
        Return the piece as it is in force from *begin_ns* on: a place gained counts from the first arrival after that.

        One that *before* had already counts from where it did, also when it is given away before it began to count.
        """
        if not self.takes and not (before is not None and before.takes):
            return self
        first, takes = self.first_after(begin_ns), dict(self.takes)
        for place in (*self.takes, *self.gives):
            had = before is not None and (place in before.places or place in before.gives)
            is_new = place not in self.gives and not (before is not None and place in before.places)
            bound = first if is_new else before.takes.get(place, 0) if before is not None and had else 0
            if bound or place in takes:
                takes[place] = max(bound, takes.get(place, 0))
        return replace(self, takes=takes)

    def first_after(self, at_ns: int) -> int:
        """Return the first arrival, anybody's, that is due after *at_ns*."""
        number = self.works.first_after(self.course.due(max(0, at_ns) // _MS))
        while (due_ns := self.course.instant_ns(self.works.work(number))) is not None and due_ns <= at_ns:
            number += 1
        return number


class Schedule:
    """
    The arrivals of a worker in order of time: the next one's *number*, *place* and *due_ns* (from the run's start).

    A new piece counts from its course's beginning or from now on, whichever is later; until then, and for what is
    overdue, the one before it does. So a change told a second ahead leaves no gap and does nothing twice.
    """

    __slots__ = ("_at", "_coming", "_given_at", "_pieces", "due_ns", "end_ns", "number", "place")

    def __init__(self) -> None:
        self._pieces: list[tuple[Piece, int]] = []  # each with the instant it counts after
        self._coming: Iterator[tuple[int, int]] = iter(())
        self._at = 0  # the next arrival to look at: this worker has begun what it had to of those before
        self._given_at = NEVER_NS
        self.end_ns = NEVER_NS
        self.due_ns = NEVER_NS
        self.number = self.place = -1

    def follow(self, piece: Piece, at_ns: int) -> int:
        """
        Go by *piece* from its beginning on, or from *at_ns*, which is now.

        Return how many arrivals of places given away were begun here already though another has them: it was told late.
        """
        begin = max(at_ns, piece.course.since_ms * _MS)
        last = self._pieces[-1][0] if self._pieces else None
        late = self._late(piece.gives)
        kept = [(older.without(piece.gives), after) for older, after in self._pieces if after < begin]
        self._pieces = [*kept, (piece.after(last, begin), begin)]
        if kept:
            self._look_on()
        else:
            self._open()
        return late

    def take(self) -> None:
        """Go on to the arrival after this one."""
        self._at = self.number + 1
        self._next()

    def _late(self, gives: Mapping[int, int]) -> int:
        """Return how many arrivals of the places that are given away now were begun from their turn on."""
        if not self._pieces:
            return 0
        (piece, after), late = self._pieces[0], 0
        begun = piece.first_after(after) if gives else 0  # what came before was begun as an older piece had it
        for place, number in gives.items():
            since = max(number, begun, piece.takes.get(place, 0))
            if place in piece.places and self._at > since:
                at = position(place, piece.users)
                late += _turns(self._at, at, piece.users) - _turns(since, at, piece.users)
        return late

    def _open(self) -> None:
        piece, after = self._pieces[0]
        self._at = piece.works.first_after(piece.course.due(max(0, after) // _MS))
        self._look_on()

    def _look_on(self) -> None:
        """Find the next arrival, from the first that was not looked at."""
        piece = self._pieces[0][0]
        is_giving = self._at < piece.given_at
        self._given_at = piece.given_at if is_giving else NEVER_NS
        self._coming = (piece.owned_at_first if is_giving else piece.owned).since(self._at)
        self._next()

    def _next(self) -> None:
        piece, after = self._pieces[0]
        until = self._pieces[1][1] if len(self._pieces) > 1 else NEVER_NS
        is_bound = bool(piece.takes or piece.gives)
        for number, place in self._coming:
            self._at = number
            due_ns = piece.course.instant_ns(piece.works.work(number))
            if due_ns is None or due_ns > until:
                break
            if number >= self._given_at:
                self._look_on()
                return
            if due_ns > after and (not is_bound or piece.counts(number, place)):
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

    @property
    def lost(self) -> tuple[int, ...]:
        """Return the places not held any more of which an arrival may still be to begin."""
        if self.next_ns == NEVER_NS:
            return ()
        *older, (newest, _) = self._pieces
        gives = {place for piece, _ in self._pieces if self.number < piece.given_at for place in piece.gives}
        before = Places.union(piece.places for piece, _ in older) - newest.places
        return (*before, *gives.difference(before))

    @property
    def takes(self) -> Mapping[int, int]:
        """Return from which arrival on the places gained count."""
        return self._pieces[-1][0].takes if self._pieces else {}


def _turns(number: int, at: int, users: int) -> int:
    """Return how many arrivals before *number* belong to the place at position *at* of *users*."""
    return max(0, -(-(number - at) // users))


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
    user.marks &= ~(ACTED | COUNTED)
    user.loops = user.saved = user.cookie_line = None
