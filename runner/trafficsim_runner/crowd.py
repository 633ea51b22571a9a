"""The crowd: which users of a worker are there, how they leave, and how much time they were wanted and active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from trafficsim_api.layout import Drop
from trafficsim_runner.http.sender import Sender
from trafficsim_runner.starts import Starts
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.active import ActiveLog
from trafficsim_runner.users import STARTING, THINKING, WORKING, User, UserPool
from trafficsim_runner.visits import Slots

__all__ = ["MS", "Crowd"]

MS: Final = 1_000_000


class Crowd:
    """
    The users of one worker.

    *active* counts users from their first send until they are parked (in the open model: until their iteration is
    over), *log* hears of each change; *wanted* the places held that are on. *on_change* is called when `is_settled` or
    `is_drained` may have changed.
    """

    client: Sender

    def __init__(self, *, account: Account, clock: Callable[[], int], on_change: Callable[[], None]) -> None:
        self._account = account
        self._clock = clock
        self._on_change = on_change
        self._pool = UserPool()
        self._users: dict[int, User] = {}
        self._leaving: dict[int, User] = {}
        self._awaited: set[int] = set()
        self._slots = Slots()
        self.starts = Starts()
        self._settled = True
        self._giving = False  # arrivals of places lost are still to be begun
        self._counted_ns = clock()
        self._active_ns = 0
        self._wanted_ns = 0
        self.active = 0
        self.wanted = 0
        self.first_ns = 0  # when the first user of all began
        self.log: ActiveLog | None = None

    def read_time(self, now_ns: int) -> None:
        """Bring the account's user-milliseconds up to *now_ns*."""
        self._count_time(now_ns)
        for counter, waiting in (("active_user_ms", self._active_ns), ("wanted_user_ms", self._wanted_ns)):
            self._account.count(counter, waiting // MS)
        self._active_ns %= MS
        self._wanted_ns %= MS

    @property
    def is_settled(self) -> bool:
        """Say whether the last assignment is carried out: gained places made their first send, lost ones are parked."""
        return self._settled

    @property
    def is_drained(self) -> bool:
        """Say whether nobody is active or about to be, and no request is in flight."""
        return not self._users and not self.client.in_flight and not self._giving

    @property
    def pooled(self) -> int:
        """Return how many records wait for a user."""
        return self._pool.pooled

    @property
    def parked(self) -> int:
        """Return how many users wait in the wheel."""
        states = [user.state for user in self._users.values()]  # twice as fast as a sum, with thousands, each second
        return states.count(STARTING) + states.count(THINKING)

    def _leave_all(self, now_ns: int) -> None:
        for user in tuple(self._users.values()):
            self._leave(user, now_ns)

    def _leave(self, user: User, now_ns: int) -> None:
        """Park *user* at once unless a request of it is out; then after that."""
        if user.leaving:
            return
        self._account.count("places_lost")
        if user.state == WORKING and self.client.is_sending(user):
            user.leaving = True
            self._leaving[user.place] = user
        else:
            self._park(user, now_ns)

    def _park(self, user: User, now_ns: int) -> None:
        """Give the user's record back: it is nobody any more."""
        self.client.release(user)
        if user.begun:
            self._count_active(-1, now_ns)
        place = user.place
        del self._users[place]
        self._leaving.pop(place, None)
        self._slots.free.pop(place, None)
        self._awaited.discard(place)
        if self.starts.drop(user):
            self._account.drop(Drop.GENERATOR_SATURATED)
        self._pool.release(user)
        self._account.slab.now(active=self.active, wanted=self.wanted)

    def _begin(self, user: User, now_ns: int) -> None:
        """Count a user as active: it made its first send, or its first try failed."""
        if not user.begun:
            user.begun = True
            self.first_ns = self.first_ns or now_ns
            self._count_active(1, now_ns)
            self.client.fold_at = max(1, min(64, self.active))
            self._account.slab.now(active=self.active, wanted=self.wanted)
            if self._awaited:
                self._awaited.discard(user.place)
                self._changed()

    def _changed(self) -> None:
        if not self._settled and not self._awaited and not self._giving:
            self._settled = True
        self._on_change()

    def _count_active(self, change: int, now_ns: int) -> None:
        self._count_time(now_ns)
        self.active += change
        if self.log is not None:
            self.log.add(self.active)

    def _count_time(self, now_ns: int) -> None:
        passed = now_ns - self._counted_ns
        self._counted_ns = now_ns
        self._active_ns += self.active * passed
        self._wanted_ns += self.wanted * passed
