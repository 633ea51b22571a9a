"""
Dealing places: which runner is to hold which places next, one step at a time, so that no user is ever dropped by us.

In order, the first that applies:

1. **Edit.** Places ≥ T are dropped.
2. **Finish a move.** A place held twice is dropped by its giver once the taker is settled. The giver is the retiring
   runner, else the fuller one.
3. **Deal.** Places that nobody holds go at once to the emptiest runners, in contiguous blocks: first up to an equal
   share ⌈T ÷ runners⌉, then up to capacity. What still finds no room waits and is counted as lost.
4. **Move.** When nothing else is under way and all are settled, up to c = max(1, ⌊T ÷ 10⌋) places go from the fullest
   (a retiring one first, its highest places) to the emptiest; the giver keeps them until step 2.

A runner that does not answer keeps its places and takes none; while one was never heard (*unknown*), nothing is dealt.
So it is with one that *refuses* what it is told; but what is on twice with it goes back to it: it is at work there.

Where a place must never be on twice (*exclusive*: its user has a row of its own), the giver goes first: in step 2 it
drops at once, in step 4 it drops before anybody takes, and step 3 waits until all are *at rest*. What is given is off
for about one action, at most c places at a time.

**Colours.** In a rollout each runner has a colour, its version, and each colour a *quota* of the T places:

- step 2: of two colours that hold a place, the one that is further above its quota gives;
- step 3: what nobody holds goes to the colours below their quotas, each up to its quota, then to any that has a quota;
- step 4: from colours above their quotas to those below, exactly so many; when nothing moves between colours, the
  runners of a colour share evenly. The next places go when the givers of the last have settled: T ≤ users ≤ T + c.

A colour without a quota takes nothing: it is not proven, or rejected. A *hasty* shift, the way back, waits for nobody:
the next places go while earlier ones are on twice still, or their givers unsettled, so that only Σ held ≤ T + c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trafficsim_api.places import Places

__all__ = ["Deal", "Holder", "deal", "max_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """
    A runner as the dealer sees it. *takes*: ready, answering, not leaving; *retiring*: it gives all.

    *colour* is its version, *capacity* how many places it has room for; None: as many as the others. *refuses*: it does
    nothing that it is told, which is why it counts as one that does not answer; what it says of itself is true.
    """

    name: str
    held: Places
    settled: bool
    answers: bool
    takes: bool
    retiring: bool = False
    colour: str = ""
    capacity: int | None = None
    refuses: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """
    The places each answering runner is to hold next; *unplaced* found no room; *moving*: a move is under way.

    *unknown*: a runner that was never heard may hold what is unplaced.
    """

    places: Mapping[str, Places]
    unplaced: Places
    moving: bool
    unknown: bool = False


def max_over(total: int) -> int:
    """Return how many places may be on twice during a move: max(1, ⌊T ÷ 10⌋)."""
    return max(1, total // 10)


def deal(
    total: int,
    holders: Sequence[Holder],
    capacity: int,
    *,
    quota: Mapping[str, int] | None = None,
    chunk: int | None = None,
    hasty: bool = False,
    unknown: bool = False,
    exclusive: bool = False,
    at_rest: bool = True,
) -> Deal:
    """
    Return the next step for *total* places over *holders* of at most *capacity* places each.

    10 places, a holds 0–9, b joins: b is dealt nothing new; a move of max(1, ⌊10 ÷ 10⌋) = 1 place starts: b takes 9,
    a drops it when b has settled; and so on until both hold 5. Exclusive: a drops 9, and b takes it when a has settled.

    *quota* says how many places each colour is to have, T in all; None: one colour has them all. *chunk* is c.
    20 places, blue's a and b hold 0–9 and 10–19, green's g joins, quota 15 and 5: g takes 8 and 9, a drops them when g
    has settled; when a has, g takes 16 and 17, then b drops them; at last g takes 3 and a drops it: 7, 8 and 5.
    Called back hastily with c = 5, quota 20 and 0: a takes three of them, b takes two, and g drops all five.
    """
    table = _Table(total, holders, capacity, quota)
    is_strict = quota is not None and not hasty
    moving = table.drop_twice(exclusive=exclusive, is_strict=is_strict)
    missing = table.missing()
    most = max_over(total) if chunk is None else chunk
    if missing and unknown:
        pass  # a runner that was never heard may hold them
    elif missing and exclusive and not at_rest:
        moving = True  # the users of these places may not have left yet
    elif missing:
        missing = table.give_to_any(table.give_by_quota(missing))
    elif exclusive:
        if not moving and at_rest and table.is_settled:
            missing = table.part_with(most)
            moving = bool(missing)
    elif hasty or not moving:
        moving = table.move(most, moving=moving, hasty=hasty)
    return Deal(places=table.answering(), unplaced=missing, moving=moving, unknown=unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Colour:
    """The runners of one version and the places it is to have."""

    name: str
    quota: int
    names: Sequence[str]
    takers: Sequence[str]

    def share(self, places: int) -> int:
        """Return what each taker is to have of so many places: ⌈places ÷ takers⌉."""
        return -(-places // len(self.takers)) if self.takers else 0


class _Table:
    """Who holds what by now, and what each may hold."""

    __slots__ = ("_by_name", "_capacity", "_colours", "_held", "_total")

    def __init__(
        self, total: int, holders: Sequence[Holder], capacity: int, quota: Mapping[str, int] | None
    ) -> None:  # fmt: skip
        assert quota is None or sum(quota.values()) == total
        self._total = total
        self._capacity = capacity
        self._by_name = {holder.name: holder for holder in holders}
        self._held = {holder.name: holder.held.below(total) for holder in holders}
        self._colours = (
            [_colour("", total, holders)]
            if quota is None
            else [
                _colour(name, quota.get(name, 0), [holder for holder in holders if holder.colour == name])
                for name in sorted({*quota, *(holder.colour for holder in holders)})
            ]
        )

    # What is.

    @property
    def is_settled(self) -> bool:
        """Say whether all that answer have done what they were told."""
        return all(holder.settled for holder in self._by_name.values() if holder.answers)

    def answering(self) -> Mapping[str, Places]:
        """Return what each runner that answers is to hold."""
        return {name: places for name, places in self._held.items() if self._by_name[name].answers}

    def missing(self) -> Places:
        """Return the places that nobody holds."""
        return Places.first(self._total) - Places.union(self._held.values())

    def _twice(self) -> int:
        """Return how many places too many are held: each counts once for every runner but one."""
        return self._sum(self._held) - len(Places.union(self._held.values()))

    def _sum(self, names: Iterable[str]) -> int:
        return sum(len(self._held[name]) for name in names)

    def _above(self, colour: _Colour) -> int:
        """Return how many places *colour* has above its quota, below zero when it lacks some."""
        return self._sum(colour.names) - colour.quota

    def _most(self, name: str, most: int | None = None) -> int:
        """Return how many places a runner may have: its capacity, and no more than *most*."""
        own = self._by_name[name].capacity
        capacity = self._capacity if own is None else own
        return capacity if most is None else min(most, capacity)

    def _room(self, takers: Iterable[str], most: int | None = None) -> int:
        return sum(max(0, self._most(taker, most) - len(self._held[taker])) for taker in takers)

    # Finishing moves.

    def drop_twice(self, *, exclusive: bool, is_strict: bool) -> bool:
        """Drop what is held twice from its giver where that may be; say whether any is on twice still (strict: was)."""
        if not self._twice():
            return False
        within = [self._drop_within(colour.names, exclusive=exclusive) for colour in self._colours]
        between = [
            self._drop_between(one, other, exclusive=exclusive)
            for index, one in enumerate(self._colours)
            for other in self._colours[:index]
        ]
        return is_strict or any(within) or any(between)

    def _drop_within(self, names: Iterable[str], *, exclusive: bool) -> bool:
        """Do so among runners of one colour: a retiring one gives first, then the fuller one, then the later name."""
        order = sorted(names, key=lambda name: (self._by_name[name].retiring, len(self._held[name]), name))
        if exclusive:
            order.sort(key=lambda name: not self._by_name[name].answers)
        moving = False
        for index, giver in enumerate(order):
            for keeper in order[:index]:
                if both := self._held[keeper] & self._held[giver]:
                    moving = not self._drop(giver, keeper, both, exclusive=exclusive) or moving
        return moving

    def _drop_between(self, one: _Colour, other: _Colour, *, exclusive: bool) -> bool:
        """Do so among two colours: each gives what it has above its quota, the one further above it the rest."""
        if not Places.union(self._held[name] for name in one.names) & Places.union(
            self._held[name] for name in other.names
        ):
            return False
        moving = False
        giving, keeping = (one, other) if self._above(one) > self._above(other) else (other, one)
        for giver in sorted(giving.names, key=self._giver_order):
            for keeper in keeping.names:
                both = self._held[keeper] & self._held[giver]
                if not both:
                    continue
                back = min(max(0, self._above(keeping)), len(both) - min(len(both), max(0, self._above(giving))))
                parts = (giver, keeper, both.highest(len(both) - back)), (keeper, giver, both.lowest(back))
                for who, stays, places in parts:
                    if places:
                        moving = not self._drop(who, stays, places, exclusive=exclusive) or moving
        return moving

    def _drop(self, giver: str, keeper: str, both: Places, *, exclusive: bool) -> bool:
        """Drop *both* from the giver; say whether it was dropped by one of the two."""
        gives, keeps = self._by_name[giver], self._by_name[keeper]
        if exclusive:
            # Who does not answer keeps what it has; of two such nobody can be told.
            who = gives if gives.answers else keeps
            may = who.answers
        elif gives.refuses and keeps.answers:
            who, may = keeps, True
        else:
            who, may = gives, gives.answers and (keeps.answers or keeps.refuses) and keeps.settled
        if may:
            self._held[who.name] = self._held[who.name] - both
        return may

    # Dealing.

    def give_by_quota(self, places: Places) -> Places:
        """Give *places* to the colours below their quotas, up to those; return what found no room."""
        if len(self._colours) == 1:
            return self._give_to(self._colours[0], places)
        for colour in sorted(self._colours, key=self._above):
            due = places.lowest(max(0, -self._above(colour)))
            places = (places - due) | self._give_to(colour, due)
        return places

    def give_to_any(self, places: Places) -> Places:
        """Give *places* to whoever has room and is of a colour with a quota; return what found none."""
        return self._give([taker for colour in self._colours if colour.quota for taker in colour.takers], places)

    def _give_to(self, colour: _Colour, places: Places) -> Places:
        return self._give(colour.takers, self._give(colour.takers, places, colour.share(colour.quota)))

    def _give(self, takers: Iterable[str], places: Places, most: int | None = None) -> Places:
        """Give *places* to *takers*, emptiest first, none above *most* or its capacity; return what found no room."""
        if not places:
            return places
        for name in sorted(takers, key=lambda taker: (len(self._held[taker]), taker)):
            block = places.lowest(max(0, self._most(name, most) - len(self._held[name])))
            if block:
                self._held[name] = self._held[name] | block
                places = places - block
        return places

    # Moving.

    def move(self, chunk: int, *, moving: bool, hasty: bool) -> bool:
        """Begin to move up to *chunk* places, between colours or else within them; say whether a move is under way."""
        if not hasty and not self.is_settled:
            return False
        chunk -= self._twice() if moving else 0
        if len(self._colours) > 1 and chunk > 0:
            offered = Places.union(places for _, places in self._offers(chunk, alone=moving))
            if offered:
                self.give_by_quota(offered)
                return True
        if moving or (hasty and not self.is_settled):
            return moving
        before = chunk
        for colour in self._colours:
            chunk -= self._even(colour, chunk) if colour.quota else 0
        return chunk < before

    def part_with(self, chunk: int) -> Places:
        """Let givers drop up to *chunk* places that others have room for; return those places."""
        dropped = []
        if len(self._colours) > 1:
            for giver, places in self._offers(chunk, alone=False):
                self._held[giver] = self._held[giver] - places
                dropped.append(places)
        for colour in self._colours:
            if colour.quota and not dropped:
                dropped += self._even_out(colour, chunk)
        return Places.union(dropped)

    def _offers(self, chunk: int, *, alone: bool) -> list[tuple[str, Places]]:
        """
        Return up to *chunk* places that colours above their quotas give and those below have room for, by giver.

        *alone*: some are on twice, and of those none.
        """
        lacking = (min(max(0, -self._above(colour)), self._room(colour.takers)) for colour in self._colours)
        left = min(chunk, sum(lacking))
        offers: list[tuple[str, Places]] = []
        for colour in self._colours:
            above = min(left, self._above(colour))
            if above <= 0:
                continue
            given = self._offers_of(colour, above, alone=alone)
            offers += given
            left -= sum(len(places) for _, places in given)
        return offers

    def _offers_of(self, colour: _Colour, count: int, *, alone: bool) -> list[tuple[str, Places]]:
        """
        Return up to *count* places of *colour*: of retiring runners, then what is above an equal share, then any.

        Subtle: of several givers the highest places all have the same archetype, and the same turn in the profile, when
        each has a block as long as the mix. So each gives from as far below its highest as others have given before.
        """
        share = colour.share(colour.quota)
        givers = [name for name in sorted(colour.names, key=self._giver_order) if self._by_name[name].answers]
        free = {name: self._alone(name) if alone else self._held[name] for name in givers}
        before = sum(self._sum(other.names) for other in self._colours if other is not colour) if len(givers) > 1 else 0
        offers: list[tuple[str, Places]] = []
        for spare_above in (share, 0):
            for name in givers:
                keeps = 0 if self._by_name[name].retiring else spare_above
                most = min(count, max(0, len(free[name]) - keeps))
                if most:
                    above = before % (len(free[name]) - most + 1)
                    some = free[name].highest(above + most) - free[name].highest(above)
                    offers.append((name, some))
                    free[name] = free[name] - some
                    count -= most
                    before += most if len(givers) > 1 else 0
        return offers

    def _alone(self, name: str) -> Places:
        """Return the places that runner *name* holds and nobody else does."""
        return self._held[name] - Places.union(places for other, places in self._held.items() if other != name)

    def _giver_order(self, name: str) -> tuple[bool, int, str]:
        """Sort givers: those that are retiring, then the fullest."""
        return not self._by_name[name].retiring, -len(self._held[name]), name

    def _fair(self, colour: _Colour) -> int:
        """Return what each taker of *colour* is to have when it shares evenly what those that refuse do not keep."""
        kept = self._sum(name for name in colour.names if self._by_name[name].refuses)
        return colour.share(max(colour.quota, self._sum(colour.names)) - kept)

    def _spares(self, colour: _Colour, share: int) -> Iterator[tuple[str, int]]:
        """Yield who of *colour* has more than an equal share, and how much it can spare; a retiring one all."""
        for name in sorted(colour.names, key=self._giver_order):
            keeps = 0 if self._by_name[name].retiring else self._most(name, share)
            if len(self._held[name]) > keeps and self._by_name[name].answers:
                yield name, len(self._held[name]) - keeps

    def _even(self, colour: _Colour, chunk: int) -> int:
        """Let takers take up to *chunk* places of retiring and overfull runners of *colour*; return how many."""
        share, begun = self._fair(colour), 0
        for giver, spare in self._spares(colour, share):
            # Subtle: a taker ends at or below the share, so it stays the less full of the two until the giver dropped.
            takers = [taker for taker in colour.takers if taker != giver]
            offered = self._held[giver].highest(min(spare, chunk - begun, self._room(takers, share)))
            self._give(takers, offered, share)
            begun += len(offered)
        return begun

    def _even_out(self, colour: _Colour, chunk: int) -> list[Places]:
        """Let retiring and overfull runners of *colour* drop up to *chunk* places; return what each dropped."""
        share = self._fair(colour)
        left = min(chunk, self._room(colour.takers, share))
        dropped = []
        for giver, spare in list(self._spares(colour, share)):
            given = self._held[giver].highest(min(spare, left))
            if given:
                self._held[giver] = self._held[giver] - given
                left -= len(given)
                dropped.append(given)
        return dropped


def _colour(name: str, quota: int, holders: Sequence[Holder]) -> _Colour:
    takers = [holder.name for holder in holders if holder.takes and not holder.retiring]
    return _Colour(name=name, quota=quota, names=[holder.name for holder in holders], takers=takers)
