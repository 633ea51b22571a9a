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

Where a place must never be on twice (*exclusive*: its user has a row of its own), the giver goes first: in step 2 it
drops at once, in step 4 it drops before anybody takes, and step 3 waits until all are *at rest*. What is given is off
for about one action, at most c places at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trafficsim_api.places import Places

__all__ = ["Deal", "Holder", "deal", "max_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A runner as the dealer sees it. *takes*: ready, answering, not leaving; *retiring*: it gives all."""

    name: str
    held: Places
    settled: bool
    answers: bool
    takes: bool
    retiring: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """The places each answering runner is to hold next; *unplaced* found no room; *moving*: a move is under way."""

    places: Mapping[str, Places]
    unplaced: Places
    moving: bool


def max_over(total: int) -> int:
    """Return how many places may be on twice during a move: max(1, ⌊T ÷ 10⌋)."""
    return max(1, total // 10)


def deal(
    total: int,
    holders: Sequence[Holder],
    capacity: int,
    *,
    unknown: bool = False,
    exclusive: bool = False,
    at_rest: bool = True,
) -> Deal:
    """
    Return the next step for *total* places over *holders* of at most *capacity* places each.

    10 places, a holds 0–9, b joins: b is dealt nothing new; a move of max(1, ⌊10 ÷ 10⌋) = 1 place starts: b takes 9,
    a drops it when b has settled; and so on until both hold 5. Exclusive: a drops 9, and b takes it when a has settled.
    """
    held = {holder.name: holder.held.below(total) for holder in holders}
    by_name = {holder.name: holder for holder in holders}
    takers = [holder.name for holder in holders if holder.takes and not holder.retiring]
    moving = _part(held, by_name) if exclusive else _finish_moves(held, by_name)
    missing = Places.first(total) - Places.union(held.values())
    share = min(capacity, -(-total // len(takers))) if takers else 0
    if missing and unknown:
        pass  # a runner that was never heard may hold them
    elif missing and exclusive and not at_rest:
        moving = True  # the users of these places may not have left yet
    elif missing:
        missing = _give(held, takers, missing, share)
        missing = _give(held, takers, missing, capacity)
    elif not moving and takers and all(holder.settled for holder in holders if holder.answers):
        if exclusive:
            missing = _drop(held, by_name, takers, share, capacity, max_over(total)) if at_rest else missing
            moving = bool(missing)
        else:
            moving = _start_move(held, by_name, takers, share, capacity, max_over(total))
    return Deal(places={name: held[name] for name in held if by_name[name].answers}, unplaced=missing, moving=moving)


def _part(held: dict[str, Places], holders: Mapping[str, Holder]) -> bool:
    """Drop places held twice from one of the two that answers; say whether any are still on twice."""
    order = sorted(held, key=lambda name: (not holders[name].answers, holders[name].retiring, len(held[name]), name))
    moving = False
    for index, giver in enumerate(order):
        for keeper in order[:index]:
            both = held[keeper] & held[giver]
            if not both:
                continue
            # Who does not answer keeps what it has; of two such nobody can be told.
            name = giver if holders[giver].answers else keeper
            held[name] = held[name] - both if holders[name].answers else held[name]
            moving = moving or not holders[name].answers
    return moving


def _finish_moves(held: dict[str, Places], holders: Mapping[str, Holder]) -> bool:
    """Drop places held twice from their giver where the taker is settled; say whether any are still on twice."""
    # From who keeps to who gives: a retiring runner gives first, then the fuller one, then the later name.
    order = sorted(held, key=lambda name: (holders[name].retiring, len(held[name]), name))
    moving = False
    sizes = dict(held)
    for index, giver in enumerate(order):
        for taker in order[:index]:
            both = held[taker] & sizes[giver]
            if not both:
                continue
            if holders[giver].answers and holders[taker].settled and holders[taker].answers:
                held[giver] = held[giver] - both
            else:
                moving = True
    return moving


def _give(held: dict[str, Places], takers: Sequence[str], places: Places, most: int) -> Places:
    """Give *places* to *takers*, emptiest first, none above *most*; return what found no room."""
    for name in sorted(takers, key=lambda taker: (len(held[taker]), taker)):
        block = places.lowest(max(0, most - len(held[name])))
        held[name] = held[name] | block
        places = places - block
    return places


def _givers(held: dict[str, Places], holders: Mapping[str, Holder], share: int) -> list[str]:
    """Return who has places to give: those that are retiring, then the fullest."""
    return sorted(
        (name for name in held if held[name] and (holders[name].retiring or len(held[name]) > share)),
        key=lambda name: (not holders[name].retiring, -len(held[name]), name),
    )


def _drop(
    held: dict[str, Places], holders: Mapping[str, Holder], takers: Sequence[str], share: int, capacity: int, chunk: int
) -> Places:
    """Let retiring and overfull runners drop up to *chunk* places that takers have room for; return those places."""
    room = sum(max(0, min(share, capacity) - len(held[taker])) for taker in takers)
    dropped = Places()
    for giver in _givers(held, holders, share):
        if not holders[giver].answers:
            continue
        spare = len(held[giver]) if holders[giver].retiring else len(held[giver]) - share
        given = held[giver].highest(min(spare, chunk - len(dropped), room - len(dropped)))
        held[giver] = held[giver] - given
        dropped = dropped | given
    return dropped


def _start_move(
    held: dict[str, Places], holders: Mapping[str, Holder], takers: Sequence[str], share: int, capacity: int, chunk: int
) -> bool:
    """Let takers take up to *chunk* places of retiring and overfull runners; say whether a move began."""
    began = False
    for giver in _givers(held, holders, share):
        spare = len(held[giver]) if holders[giver].retiring else len(held[giver]) - share
        # Subtle: a taker ends at or below the share, so it stays the less full of the two until the giver dropped.
        room = sum(max(0, min(share, capacity) - len(held[taker])) for taker in takers if taker != giver)
        offered = held[giver].highest(min(spare, chunk, room))
        if not offered or not holders[giver].answers:
            continue
        _give(held, [taker for taker in takers if taker != giver], offered, min(share, capacity))
        chunk -= len(offered)
        began = True
        if chunk <= 0:
            break
    return began
