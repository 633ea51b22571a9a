"""
Pools of connections by endpoint group: who gets one, who waits, which may go. No socket, no clock.

A request takes the idle connection of its group that was used last; else one is opened for it while the group has fewer
than its max and the worker fewer than its limit; else it waits, first come, first served within its group. Where the
limit is what keeps requests of several groups waiting, the higher priority goes first, within one the older request. An
idle connection of another group is closed for it: first of groups with more than their min, then of low priority, and
there the one unused for longest. So a min is kept while there is room, and keeps nobody waiting.

A connection counts until its descriptor is closed, so the target never sees more than max.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from trafficsim_api.connections import Pool
    from trafficsim_runner.program import RequestStep

__all__ = ["Group", "Pools", "Waiter"]

C = TypeVar("C")
U = TypeVar("U")

_MS: Final = 1_000_000
_RANKS: Final = {"high": 0, "medium": 1, "low": 2}


class Waiter(Generic[U]):
    """
    A request that waits for a connection since *since_ns*; *number* orders them all, *due_ns* is when it was due.

    *again*: it was begun before and needs a fresh connection, for another hop of a redirect or another try. *retried*:
    it was sent before (see Connection.retried).
    """

    __slots__ = ("again", "due_ns", "number", "retried", "since_ns", "step", "user", "wire")

    def __init__(
        self, user: U, step: RequestStep, wire: bytes, *, since_ns: int, due_ns: int, again: bool = False,
        retried: bool = False,
    ) -> None:  # fmt: skip
        self.user = user
        self.step = step
        self.wire = wire
        self.since_ns = since_ns
        self.due_ns = due_ns
        self.again = again
        self.retried = retried
        self.number = 0


class Group(Generic[C, U]):
    """
    The pool of one group.

    *size* counts connections from the decision to open one until its descriptor is closed, *closing* those of them that
    are about to be. *idle* holds the unused ones with the instant they became so, the longest unused first. *is_used*:
    the min is kept open. *failed_ns*: when opening one ahead of need last failed. *is_gone*: no request is of this
    group any more; it ends with its last connection.
    """

    __slots__ = (
        "closing", "connect_ns", "dropped", "failed_ns", "heartbeat_s", "idle", "idle_ns", "is_gone", "is_used",
        "keep_alive", "least", "longest_ns", "most", "name", "peak", "rank", "size", "wait_ns", "waited_ns", "waiters",
        "waits",
    )  # fmt: skip

    def __init__(self, settings: Pool) -> None:
        self.name = settings.group
        self.size = 0
        self.closing = 0
        self.idle: OrderedDict[C, int] = OrderedDict()
        self.waiters: OrderedDict[U, Waiter[U]] = OrderedDict()
        self.is_used = False
        self.failed_ns = 0
        self.peak = self.waits = self.waited_ns = self.longest_ns = self.dropped = 0
        self.adopt(settings)

    def adopt(self, settings: Pool) -> None:
        """Go by *settings* from now on."""
        self.rank = _RANKS[settings.priority]
        self.most = settings.most
        self.least = min(settings.least, settings.most)
        self.idle_ns = settings.idle_ms * _MS
        self.keep_alive = settings.keep_alive
        self.connect_ns = settings.connect_ms * _MS
        self.wait_ns = settings.wait_ms * _MS
        self.heartbeat_s = settings.heartbeat_ms // 1000
        self.is_gone = False

    @property
    def open(self) -> int:
        """Return how many connections are there to stay."""
        return self.size - self.closing

    @property
    def yields(self) -> tuple[bool, int]:
        """Return what orders the groups by how soon they give an idle connection up, the last one first."""
        return self.open > self.least, self.rank

    @property
    def first(self) -> Waiter[U]:
        """Return who is next."""
        return next(iter(self.waiters.values()))

    @property
    def missing(self) -> int:
        """Return how many connections there are fewer than are kept open."""
        return max(0, self.least - self.size) if self.is_used and not self.is_gone else 0

    def opening(self) -> None:
        """Count a connection that is about to be opened."""
        self.size += 1
        self.peak = max(self.peak, self.size)

    def keeps(self) -> bool:
        """Say whether a connection stays after its answer."""
        return self.keep_alive and not self.is_gone and self.open <= self.most

    def waited(self, ns: int) -> None:
        """Count a request that waited."""
        self.waits += 1
        self.waited_ns += ns
        self.longest_ns = max(self.longest_ns, ns)

    def stale(self, now_ns: int) -> list[C]:
        """Return the connections that were unused for too long, or are too many."""
        least = self.least if self.is_used and not self.is_gone else 0
        surplus = self.open - least
        found: list[C] = []
        for connection, since_ns in self.idle.items():
            excess = self.is_gone or self.open - len(found) > self.most
            if len(found) >= surplus or (not excess and now_ns - since_ns <= self.idle_ns):
                break
            found.append(connection)
        return found

    def expired(self, now_ns: int) -> list[Waiter[U]]:
        """Return the requests that waited for too long."""
        found: list[Waiter[U]] = []
        for waiter in self.waiters.values():
            if now_ns - waiter.since_ns > self.wait_ns:
                found.append(waiter)
            elif not waiter.again:  # those behind it came later; the ones begun before stand in front of them all
                break
        return found

    def figures(self) -> list[int]:
        """Return the figures that POOL_FIGURES names, in its order."""
        return [
            self.open, self.open - len(self.idle), len(self.waiters), self.most, self.peak, self.waits,
            self.waited_ns // 1000, self.longest_ns // 1000, self.dropped,
        ]  # fmt: skip


class Pools(Generic[C, U]):
    """The pools of a worker, and who waits in them."""

    __slots__ = ("_otherwise", "_places", "_taken", "groups")

    def __init__(self, settings: Mapping[str, Pool], otherwise: Pool) -> None:
        self.groups: dict[str, Group[C, U]] = {}
        self._places: dict[U, Group[C, U]] = {}
        self._taken = 0
        self._otherwise = otherwise
        self.adopt(settings, otherwise)

    def adopt(self, settings: Mapping[str, Pool], otherwise: Pool) -> None:
        """Go by *settings* from now on, by *otherwise* for a group that is not among them."""
        self._otherwise = otherwise
        for name, group in self.groups.items():
            group.is_gone = name not in settings
        for name, pool in settings.items():
            if name in self.groups:
                self.groups[name].adopt(pool)
            else:
                self.groups[name] = Group(pool)

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return len(self._places)

    def group(self, name: str) -> Group[C, U]:
        """Return the group called *name* for a request that begins; one that was not foretold goes by *otherwise*."""
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group(self._otherwise)
            found.name = name
        elif found.is_gone:
            found.adopt(self._otherwise)
        return found

    def group_again(self, name: str) -> Group[C, U]:
        """Return the group called *name* for a request that was begun in it."""
        found = self.groups.get(name)
        return self.group(name) if found is None else found

    def queue(self, group: Group[C, U], waiter: Waiter[U]) -> None:
        """Let *waiter* wait; one that was begun before goes in front of those that were not."""
        self._taken += 1
        waiter.number = -1 if waiter.again else self._taken
        group.waiters[waiter.user] = waiter
        if waiter.again:
            group.waiters.move_to_end(waiter.user, last=False)
        self._places[waiter.user] = group

    def forget(self, user: U) -> Waiter[U] | None:
        """Let *user* wait no longer; return what it waited with."""
        group = self._places.pop(user, None)
        return None if group is None else group.waiters.pop(user)

    def waiters(self) -> Iterator[Waiter[U]]:
        """Yield all who wait."""
        for group in self.groups.values():
            yield from group.waiters.values()

    def turn(self, has_room: bool) -> Group[C, U] | None:
        """
        Return the group whose first waiter is to be served now; *has_room*: the worker may open one more.

        It is served by an idle connection of the group, else by a new one, else by what `victim` gives up for it.
        """
        best: Group[C, U] | None = None
        for group in self.groups.values():
            if not group.waiters or not self._is_servable(group, has_room):
                continue
            if best is None or (group.rank, group.first.number) < (best.rank, best.first.number):
                best = group
        return best

    def _is_servable(self, group: Group[C, U], has_room: bool) -> bool:
        if group.idle:
            return True
        return group.size < group.most and (has_room or self.victim(group) is not None)

    def victim(self, group: Group[C, U]) -> C | None:
        """Return the idle connection to close so that *group* may open one."""
        if group.idle:  # what it needs is a fresh one
            return next(iter(group.idle))
        worst: Group[C, U] | None = None
        for other in self.groups.values():
            if other.idle and (worst is None or other.yields > worst.yields):
                worst = other
        return None if worst is None else next(iter(worst.idle))

    def prune(self) -> None:
        """Forget the groups that are gone and empty."""
        for name in [name for name, group in self.groups.items() if group.is_gone]:
            if not (self.groups[name].size or self.groups[name].waiters):
                del self.groups[name]
