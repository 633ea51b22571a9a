"""
Turns: from which arrival on another runner takes the arrivals of some places. Pure.

In a move the taker has a place from arrival n₀ on, the giver until n₀: so each arrival is begun by exactly one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from trafficsim_api.model import Model
from trafficsim_api.places import Places

__all__ = ["Turn", "by_place", "joined", "places_of", "turns_of", "within"]


class Turn(Model):
    """The arrivals of *places* (half-open ranges) change hands at arrival *number*."""

    number: int
    places: tuple[Annotated[tuple[int, int], Field()], ...]

    @property
    def held(self) -> Places:
        """Return the places as a set."""
        return Places.of(self.places)


def places_of(turns: Iterable[Turn]) -> Places:
    """Return every place in *turns*."""
    return Places.union(turn.held for turn in turns)


def within(turns: Iterable[Turn], places: Places) -> Iterator[Turn]:
    """Yield what *turns* say of *places*."""
    for turn in turns:
        if part := turn.held & places:
            yield Turn(number=turn.number, places=part.ranges)


def joined(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Return *turns* with one for each number, in order: equal sayings are equal values."""
    found: dict[int, Places] = {}
    for turn in turns:
        found[turn.number] = found.get(turn.number, Places()) | turn.held
    return tuple(Turn(number=number, places=places.ranges) for number, places in sorted(found.items()) if places)


def turns_of(numbers: Mapping[int, int]) -> tuple[Turn, ...]:
    """Return the turns of a number for each place: what `by_place` was made of."""
    found: dict[int, list[tuple[int, int]]] = {}
    for place, number in numbers.items():
        found.setdefault(number, []).append((place, place + 1))
    return tuple(Turn(number=number, places=Places.of(found[number]).ranges) for number in sorted(found))


def by_place(turns: Iterable[Turn]) -> dict[int, int]:
    """Return the number of each place; the latest of several."""
    found: dict[int, int] = {}
    for turn in turns:
        for place in turn.held:
            found[place] = max(turn.number, found.get(place, 0))
    return found
