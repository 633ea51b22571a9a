"""
Which of the places held are on, and when to look again.

Place p of T is on exactly when position(p, T) < u(t). The places held are kept sorted by position, so those on are a
prefix, and a change of u(t) starts or stops a slice of it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from trafficsim_api.places import Places, position
from trafficsim_api.profile import Shape

__all__ = ["LOOK_MS", "Pacer", "spread"]

LOOK_MS: Final = 20
_NEVER: Final = 86_400_000  # a day: when nothing changes by itself any more


class Pacer:
    """
    The places of one assignment in their order, and the profile they follow.

    *suspended*: none is on, the places are kept. From *end_ms* on (ms since the run's start) none is on either.
    """

    __slots__ = ("end_ms", "_order", "_positions", "_shape", "_suspended", "_users")

    def __init__(
        self, *, users: int, ranges: Iterable[Sequence[int]], shape: Shape, end_ms: int, suspended: bool = False
    ) -> None:
        held = Places.of(ranges).below(users)
        by_position = sorted((position(place, users), place) for place in held)
        self._positions = array("q", [at for at, _ in by_position])  # 8 bytes a place: a list takes 40
        self._order = [place for _, place in by_position]
        self._users = users
        self._shape = shape
        self.end_ms = end_ms
        self._suspended = suspended

    def wanted(self, at_ms: int) -> int:
        """Return how many of the places held are on *at_ms* after the run's start."""
        if self._suspended or not 0 <= at_ms < self.end_ms:
            return 0
        return bisect_left(self._positions, self._shape.users_at(self._users, at_ms))

    def first_on_ms(self, since_ms: int, at_ms: int) -> int:
        """
        Return the first ms at which some place held is on, where none was before *since_ms* and some are *at_ms*.

        10 places, all held, ramp to 100 % over 10 s: 0.5 s is the first, seen at 0.52 s or at 3 s.
        """
        first, last = max(0, since_ms), at_ms
        while first < last:
            middle = (first + last) // 2
            first, last = (first, middle) if self.wanted(middle) else (middle + 1, last)
        return first

    def is_off(self, at_ms: int) -> bool:
        """Say whether nobody is to be at work *at_ms* after the run's start, whatever the profile says."""
        return self._suspended or at_ms >= self.end_ms

    @property
    def places(self) -> list[int]:
        """Return the places held, in their order."""
        return self._order

    def slice(self, first: int, stop: int) -> list[int]:
        """Return the places number *first* … *stop* - 1 in their order; the first `wanted` are those on."""
        return self._order[first:stop]

    def next_look_ms(self, at_ms: int) -> int:
        """Return when `wanted` may have changed: 20 ms on in a ramp, else at the profile's next corner or the end."""
        if self._suspended or at_ms >= self.end_ms:
            return at_ms + _NEVER
        if at_ms < 0:
            return 0
        segment, following = self._shape.at(at_ms)
        looks = [self.end_ms, at_ms + _NEVER]
        if following is not None:
            looks.append(following)
        if segment is not None and segment.start != segment.end:
            looks.append(at_ms + LOOK_MS)
        return min(looks)


def spread(count: int, over_ms: int) -> list[int]:
    """
    Return the delays (ms) at which *count* users start, even over *over_ms*, the first at once.

        delay(k) = k·over ÷ count       4 over 1000 ms: 0, 250, 500, 750
    """
    return [k * over_ms // count for k in range(count)]
