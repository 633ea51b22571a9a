"""
Handing arrivals over: in a move of the open model each arrival is begun by the taker or the giver, never by neither.

    n₀ = the first arrival due 3 s from now or later
    1. the taker gets the place from arrival n₀ on, and says from which on it does: n₁ ≥ n₀, later if it was late
    2. the giver, dropping the place, gets it until n₁; if it has begun later ones by then it counts them as begun twice
       (when it is the taker that drops it again, having begun to count, all from n₁ on were)

What is under way is kept in the runners' acknowledgements alone, so another operator goes on with it. A turn is told
again with every assignment until it has passed for a second, and while the other of the two may still need it.
A place that nobody holds counts at once, or from where a giver leaves off. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from trafficsim_api.arrivals import Course, works_of
from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.turns import Turn, joined, places_of, within

__all__ = ["NO_TURNS", "HandOver", "Turning", "hand_over"]

LEAD_MS: Final = 3_000
# Clocks of runners differ by less, and so late at most a worker wakes up that still counts as healthy.
PASSED_MS: Final = 1_000
_NS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """What one runner's assignment says of turns: see protocol.Assignment."""

    takes: tuple[Turn, ...] = ()
    gives: tuple[Turn, ...] = ()


NO_TURNS: Final = HandOver()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning:
    """Where the arrivals stand: *elapsed_ms* of the run by *course*; *process* and *seed* say which they are."""

    course: Course
    process: str
    seed: int
    elapsed_ms: int

    @property
    def turn(self) -> int:
        """Return n₀: the first arrival that is due in 3 s or later."""
        return works_of(self.process, self.seed).first_after(self.course.due(max(0, self.elapsed_ms + LEAD_MS)))

    def has_passed(self, number: int) -> bool:
        """Say whether arrival *number* was due a second ago or longer."""
        due_ns = self.course.instant_ns(works_of(self.process, self.seed).work(number))
        return due_ns is not None and due_ns <= (self.elapsed_ms - PASSED_MS) * _NS


def hand_over(
    dealt: Mapping[str, Places], held: Mapping[str, Acknowledgement | None], turning: Turning
) -> Mapping[str, HandOver]:
    """
    Return what each runner of *dealt*, the places it is to hold next, is told of turns; *held* is what each says.

    Nothing while a runner among them knows of no turns: then taker and giver both begin what falls between.
    """
    acks = {name: ack for name, ack in held.items() if ack is not None}
    if any(ack.takes is None for ack in acks.values()):
        return dict.fromkeys(dealt, NO_TURNS)
    turn = turning.turn
    found = {}
    for name, places in dealt.items():
        mine, others = acks.get(name), [(other, ack) for other, ack in acks.items() if other != name]
        theirs = Places.union(ack.held for _, ack in others)
        given = [leaving for _, ack in others for leaving in ack.gives if not turning.has_passed(leaving.number)]
        had = mine.held if mine else Places()
        gained, lost = places - had, had - places
        gives = [*_kept_gives(mine, places, turning), *_new_gives(mine, lost, others, dealt)]
        # What is given away before it was even taken counts between the two turns.
        takes = [*_kept_takes(mine, places | places_of(gives), theirs | places_of(given), turning)]
        if moved := gained & theirs:
            started = [later.number for _, ack in others for later in within(ack.takes or (), moved)]
            takes.append(Turn(number=max([turn, *started]), places=moved.ranges))
        takes += within(given, gained - theirs)
        found[name] = HandOver(takes=joined(takes), gives=joined(gives))
    return found


def _kept_takes(mine: Acknowledgement | None, places: Places, theirs: Places, turning: Turning) -> Iterator[Turn]:
    """Yield the turns still needed of places taken: those to come, and those that a giver was not told of yet."""
    for turn in within((mine.takes if mine else None) or (), places):
        if not turning.has_passed(turn.number):
            yield turn
        else:
            yield from within((turn,), theirs)


def _kept_gives(mine: Acknowledgement | None, places: Places, turning: Turning) -> Iterator[Turn]:
    """Yield the turns to come of places given away, unless they are this runner's again."""
    for turn in mine.gives if mine else ():
        if not turning.has_passed(turn.number):
            yield from within((turn,), turn.held - places)


def _new_gives(
    mine: Acknowledgement | None,
    lost: Places,
    others: Sequence[tuple[str, Acknowledgement]],
    dealt: Mapping[str, Places],
) -> Iterable[Turn]:
    """Yield the turns of the places *lost* now: from when on who has them says it counts."""
    for name, ack in others:
        kept = lost & ack.held & dealt.get(name, ack.held)
        yield from within(ack.takes or (), kept)
        # Who had them all along, and was not heard, goes by no turn: what was begun here since ours was begun twice.
        yield from within((mine.takes if mine else None) or (), kept - places_of(ack.takes or ()))
