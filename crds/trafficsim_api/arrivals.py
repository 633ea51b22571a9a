"""
Arrivals: when each iteration of the open model begins, and who begins it. Pure, in integers.

    Λ(t) = ∫ rate · level dt          level: what the profile says, at most 100 %
    arrival n is at the first ns with Λ ≥ work(n):  constant  work(n) = n + 1
                                                   poisson   work(n) = E₀ + … + Eₙ, exponential with mean 1

so floor(Λ(t)) arrivals are planned until t when they come evenly. Work is measured in UNITs of 2⁻²⁰ of an arrival, time
in ns from the run's start. Arrival n belongs to the runner that holds place order(T)[n mod T]: disjoint for any
partition of the places, and the same sequence on 1 and on 4 runners.

The exponentials come in blocks of 1024: their sum is drawn from the gamma distribution, and given the sum the instants
within are uniform and sorted. That is the same process, and nobody has to add up a million draws to know the next one.
Each block is drawn from (seed, number of the block) alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import shake_128
from math import isqrt, log, sqrt
from statistics import NormalDist
from typing import Final, Literal

from trafficsim_api.model import Model
from trafficsim_api.places import Places, position
from trafficsim_api.profile import Shape
from trafficsim_api.units import FULL, Rate

__all__ = ["UNIT", "Arrivals", "Course", "Evenly", "Owned", "Poisson", "works_of"]

UNIT: Final = 1 << 20
_NS: Final = 1_000_000  # ns a ms
_HOUR: Final = 3_600_000 * 1000  # thousandths of an arrival an hour → arrivals a ms
_BLOCK: Final = 1024
_TRIES: Final = 16
_inverse_normal = NormalDist().inv_cdf


class Arrivals(Model):
    """The open model: iterations begin at a rate, whether earlier ones are done or not; `users` is the ceiling."""

    rate: Rate
    """Iterations begun at 100% of the profile, over all runners."""
    process: Literal["constant", "poisson"] = "constant"
    """Evenly, or at random like independent visitors."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """
    How the work due grows over time, from *since_ms* on, where it stands at *before* (UNITs).

        due(t) = before + UNIT · (Λ(t) - Λ(since))

    An edit of rate or profile is a new course from then on; the numbers of the arrivals go on.
    """

    shape: Shape
    rate: int
    since_ms: int = 0
    before: int = 0

    def due(self, at_ms: int) -> int:
        """Return the work due until *at_ms*, rounded down; not less than *before*."""
        if at_ms <= self.since_ms:
            return self.before
        area, over = self._area(at_ms)
        start, under = self._start
        return self.before + UNIT * self.rate * (area * under - start * over) // (over * under * 2 * FULL * _HOUR)

    def instant_ns(self, work: int) -> int | None:
        """Return the first ns at which at least *work* is due, None when that is never."""
        if work <= self.before:
            return self.since_ms * _NS
        start, under = self._start
        scale = under * UNIT * self.rate
        # The area 2·∫level dt that is needed, as wanted ÷ scale.
        wanted = start * UNIT * self.rate + (work - self.before) * 2 * FULL * _HOUR * under
        number = max(0, bisect_left(self._scaled, wanted) - 1)
        begin, length, low, high, area = self._pieces[number]
        rest = wanted - area * scale
        if low == high:
            return None if low == 0 else begin * _NS - (-rest * _NS // (2 * low * scale))
        # scale·(high - low)·x² + scale·2·low·length·NS·x ≥ rest·length·NS², x in ns
        square, linear, need = scale * (high - low), scale * 2 * low * length * _NS, rest * length * _NS * _NS
        root = isqrt(max(0, linear * linear + 4 * square * need))
        x = max(0, (root - linear) // (2 * square))
        while square * x * x + linear * x < need and x < length * _NS:
            x += 1
        while x and square * (x - 1) * (x - 1) + linear * (x - 1) >= need:
            x -= 1
        return begin * _NS + x

    @cached_property
    def _pieces(self) -> tuple[tuple[int, int, int, int, int], ...]:
        """Return (begin ms, length ms, first level, last level, area before it) of every piece, an endless one last."""
        found, area, level, end = [], 0, 0, 0
        for s in self.shape.segments:
            if s.length_ms:
                found.append((s.begin_ms, s.length_ms, s.start, s.end, area))
            area += (s.start + s.end) * s.length_ms
            level, end = s.end, s.begin_ms + s.length_ms
        return (*found, (end, 0, level, level, area))

    @cached_property
    def _begins(self) -> list[int]:
        return [piece[0] for piece in self._pieces]

    @cached_property
    def _scaled(self) -> list[int]:
        scale = self._start[1] * UNIT * self.rate
        return [piece[4] * scale for piece in self._pieces]

    @cached_property
    def _start(self) -> tuple[int, int]:
        return self._area(self.since_ms)

    def _area(self, at_ms: int) -> tuple[int, int]:
        """Return 2·∫level dt until *at_ms* as a fraction (numerator, denominator)."""
        if at_ms <= 0:
            return 0, 1
        begin, length, low, high, area = self._pieces[max(0, bisect_right(self._begins, at_ms) - 1)]
        done = at_ms - begin
        if low == high:
            return area + 2 * low * done, 1
        return area * length + 2 * low * length * done + (high - low) * done * done, length


class Evenly:
    """The constant process: work(n) = n + 1."""

    def work(self, number: int) -> int:
        """Return the work at which arrival *number* is due."""
        return (number + 1) * UNIT

    def first_after(self, work: int) -> int:
        """Return the first arrival that is due after *work*."""
        return work // UNIT


class Poisson:
    """The Poisson process of *seed*: work(n) is a sum of exponentials with mean 1."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ends: list[int] = []  # the work at the end of each block
        self._number = -1
        self._block: list[int] = []

    def work(self, number: int) -> int:
        """Return the work at which arrival *number* is due."""
        block, at = divmod(number, _BLOCK)
        return self._of(block)[at]

    def first_after(self, work: int) -> int:
        """Return the first arrival that is due after *work*."""
        while not self._ends or self._ends[-1] <= work:
            self._grow()
        block = bisect_right(self._ends, work)
        return block * _BLOCK + bisect_right(self._of(block), work)

    def _grow(self) -> None:
        length = round(_gamma(self._bits(len(self._ends), "length", 16 * _TRIES)) * UNIT)
        self._ends.append((self._ends[-1] if self._ends else 0) + length)

    def _of(self, block: int) -> list[int]:
        if block != self._number:
            while len(self._ends) <= block:
                self._grow()
            begin = self._ends[block - 1] if block else 0
            length = self._ends[block] - begin
            bits = self._bits(block, "instants", 8 * (_BLOCK - 1))
            draws = sorted(int.from_bytes(bits[at : at + 8], "little") for at in range(0, len(bits), 8))
            self._block = [begin + (draw * length >> 64) for draw in draws] + [self._ends[block]]
            self._number = block
        return self._block

    def _bits(self, block: int, what: str, size: int) -> bytes:
        return shake_128(f"arrivals {self._seed} {block} {what}".encode()).digest(size)


def _gamma(bits: bytes) -> float:
    """
    Return a draw of the sum of 1024 exponentials (Marsaglia and Tsang, A simple method for generating gamma variables).

    Each try takes a normal and a uniform draw; all but one in 10⁴ tries are taken.
    """
    d = _BLOCK - 1 / 3
    value = d
    for at in range(0, len(bits), 16):
        x = _inverse_normal(_unit(bits[at : at + 8]))
        v = (1 + x / sqrt(9 * d)) ** 3
        value = d * v
        if v > 0 and log(_unit(bits[at + 8 : at + 16])) < x * x / 2 + d - d * v + d * log(v):
            break
    return value


def _unit(bits: bytes) -> float:
    return ((int.from_bytes(bits, "little") >> 11) + 0.5) * 2.0**-53


@lru_cache(maxsize=4)
def works_of(process: str, seed: int) -> Evenly | Poisson:
    """Return which work each arrival of *process* is due at; what was summed up for it is kept."""
    return Poisson(seed) if process == "poisson" else Evenly()


class Owned:
    """The numbers of the arrivals that belong to *places* (half-open ranges) of *users*, in order."""

    __slots__ = ("_order", "_positions", "_users")

    def __init__(self, users: int, places: Iterable[tuple[int, int]]) -> None:
        by_position = sorted((position(place, users), place) for place in Places.of(places).below(users))
        self._users = users
        self._positions = [at for at, _ in by_position]
        self._order = [place for _, place in by_position]

    def __bool__(self) -> bool:
        return bool(self._positions)

    def since(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield (number, place) of each arrival owned, from *number* on, without end."""
        if not self._positions:
            return
        turn, at = divmod(number, self._users)
        index = bisect_left(self._positions, at)
        while True:
            for chosen in range(index, len(self._positions)):
                yield turn * self._users + self._positions[chosen], self._order[chosen]
            turn, index = turn + 1, 0
