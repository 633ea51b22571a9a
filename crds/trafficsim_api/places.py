"""
Places: how a whole number of users is spread over runners, exactly, at every instant.

There are T places, 0 … T-1; place p is user number p. Place p is on when its position in order(T) < u(t), where
order(T) sorts the places by their bit-reversed index (width ⌈log₂ T⌉). So for any partition of the places the sum over
runners is u(t), no ramp up parks a user, and the same users run on 1 and on 4 runners.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Archetypes", "Places", "position"]


def position(place: int, total: int) -> int:
    """
    Return the position of *place* in order(*total*): how many of the places stand before it.

        position(p, T) = Σ over the one-bits j of p: how many q < T have p's bits below j, and bit j zero
                       = Σ ⌈(T - (p mod 2^j)) / 2^(j+1)⌉

    order(5) is 0, 4, 2, 1, 3: position(1, 5) = 3, position(4, 5) = 1.
    """
    if not 0 <= place < total:
        raise ValueError(f"place {place} is not one of {total}")
    before = 0
    rest, bit = place, 1
    while rest:
        if rest & 1:
            before += (total - (place & (bit - 1)) + 2 * bit - 1) // (2 * bit)
        rest >>= 1
        bit <<= 1
    return before


@dataclass(frozen=True, slots=True)
class Places:
    """A set of places as sorted, disjoint, non-adjacent half-open ranges [first, last + 1)."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[Sequence[int]]) -> Places:
        """Return the places of *ranges* (pairs [start, stop)), in any order, overlapping or not."""
        merged: list[tuple[int, int]] = []
        for start, stop in sorted((int(r[0]), int(r[1])) for r in ranges):
            if start >= stop:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
            else:
                merged.append((start, stop))
        return cls(tuple(merged))

    @classmethod
    def first(cls, count: int) -> Places:
        """Return places 0 … count-1."""
        return cls(((0, count),) if count > 0 else ())

    @classmethod
    def union(cls, parts: Iterable[Places]) -> Places:
        """Return every place that is in at least one of *parts*."""
        return cls.of(r for part in parts for r in part.ranges)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[int]:
        for start, stop in self.ranges:
            yield from range(start, stop)

    def __contains__(self, place: int) -> bool:
        return any(start <= place < stop for start, stop in self.ranges)

    def __or__(self, other: Places) -> Places:
        return Places.of(self.ranges + other.ranges)

    def __sub__(self, other: Places) -> Places:
        left: list[tuple[int, int]] = []
        for start, stop in self.ranges:
            for cut_start, cut_stop in other.ranges:
                if cut_stop <= start or cut_start >= stop:
                    continue
                if cut_start > start:
                    left.append((start, cut_start))
                start = cut_stop
                if start >= stop:
                    break
            if start < stop:
                left.append((start, stop))
        return Places(tuple(left))

    def __and__(self, other: Places) -> Places:
        return self - (self - other)

    def below(self, total: int) -> Places:
        """Return the places < *total*."""
        return self & Places.first(total)

    def lowest(self, count: int) -> Places:
        """Return the *count* lowest places (all, if there are fewer)."""
        taken: list[tuple[int, int]] = []
        for start, stop in self.ranges:
            if count <= 0:
                break
            taken.append((start, min(stop, start + count)))
            count -= stop - start
        return Places(tuple(taken))

    def highest(self, count: int) -> Places:
        """Return the *count* highest places (all, if there are fewer)."""
        return self - self.lowest(len(self) - count)

    def to_lists(self) -> list[list[int]]:
        """Return the ranges as JSON lists."""
        return [[start, stop] for start, stop in self.ranges]


class Archetypes:
    """
    Which archetype user n has, by weights, for n = 0, 1, 2, …; independent of the number of users and runners.

        archetype(n) = the one with the largest weightᵢ·(n+1) - W·countᵢ(n), W the sum of weights, ties in order

    Weights 70 and 30 give 0 1 0 0 0 1 0 0 1 0 and then again: every range of places has the mix.
    The sequence has period W ÷ gcd of the weights, so only one period is kept.
    """

    __slots__ = ("_sequence",)

    def __init__(self, weights: Sequence[int]) -> None:
        from math import gcd

        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError("weights are whole numbers >= 0 with a sum > 0")
        scale = gcd(*weights)
        parts = [weight // scale for weight in weights]
        whole = sum(parts)
        counts = [0] * len(parts)
        sequence: list[int] = []
        for n in range(whole):
            best = max(range(len(parts)), key=lambda i: (parts[i] * (n + 1) - whole * counts[i], -i))
            counts[best] += 1
            sequence.append(best)
        self._sequence = tuple(sequence)

    def of(self, user: int) -> int:
        """Return the index of the archetype of user number *user*."""
        return self._sequence[user % len(self._sequence)]
