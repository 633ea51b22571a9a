"""
The profile: how many of the T users are wanted at each instant, in integers.

    u(t) = (2·T·level(t) + 10 000) // 20 000          level in hundredths of a percent: rounded half up

Within a ramp of d ms from a to b, at τ ms:

    u = (2·T·(a·(d-τ) + b·τ) + 10 000·d) // (20 000·d)

The first segment starts from 0 %, a `hold` from 100 % (nobody means to hold no users); after the last one its level is
held. Absent: ramp to 100 % over 30 s, then hold.

Every kind of segment becomes straight pieces:

| segment | pieces |
|---|---|
| ramp, hold | one |
| steps | count jumps, each held `every`; step k of n stands at a + (b - a)·k ÷ n |
| spike | there, held, back |
| sine | 32 a period: at phase φ low + (high - low)·(1 - cos 2πφ) ÷ 2; at most 0.5 % of the height off the wave |
| curve | one to each point |
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from trafficsim_api.segments import Curve, Hold, Profile, Ramp, Sine, Spike, Steps
from trafficsim_api.units import FULL, milliseconds

__all__ = ["DEFAULT", "Segment", "Shape", "shape"]

DEFAULT: Final = (Profile(ramp=Ramp(to=FULL, over=timedelta(seconds=30))),)
PIECES: Final = 32


@dataclass(frozen=True, slots=True)
class Segment:
    """A straight piece of *length_ms* from level *start* to level *end* (hundredths of a percent)."""

    begin_ms: int
    length_ms: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A profile as straight pieces, in order of time."""

    segments: tuple[Segment, ...]
    _begins: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_begins", tuple(segment.begin_ms for segment in self.segments))

    @property
    def length_ms(self) -> int:
        """Return when the last segment ends, in ms from the run's start."""
        return self.segments[-1].begin_ms + self.segments[-1].length_ms if self.segments else 0

    def users_at(self, total: int, at_ms: int) -> int:
        """
        Return u(t): the users wanted *at_ms* after the run's start, of *total*.

        10 users ramping to 100 % over 10 s: 0 at 0 s, 1 at 0.5 s, 5 at 4.9 s, 10 from 9.5 s on; none before the start.
        """
        if at_ms < 0 or not self.segments:
            return 0
        # Of several pieces that begin together all but the last have no length: a jump.
        segment = self.segments[bisect_right(self._begins, at_ms) - 1]
        done, length = at_ms - segment.begin_ms, segment.length_ms
        if done >= length:
            return (2 * total * segment.end + FULL) // (2 * FULL)
        level = segment.start * (length - done) + segment.end * done
        return (2 * total * level + FULL * length) // (2 * FULL * length)

    def at(self, at_ms: int) -> tuple[Segment | None, int | None]:
        """Return the piece that *at_ms* lies in (None: before the start, after the end) and when the next begins."""
        number = bisect_right(self._begins, at_ms)
        segment = self.segments[number - 1] if number else None
        if segment is not None and at_ms >= segment.begin_ms + segment.length_ms:
            return None, None
        following = self._begins[number] if number < len(self._begins) else self.length_ms
        return segment, following

    def peak(self, total: int, from_ms: int, until_ms: int) -> int:
        """Return the most users wanted at any instant in [*from_ms*, *until_ms*]."""
        corners = [s.begin_ms for s in self.segments] + [s.begin_ms + s.length_ms - 1 for s in self.segments]
        inside = [at for at in corners if from_ms < at < until_ms]
        return max(self.users_at(total, at) for at in (from_ms, until_ms, *inside))

    def user_ms(self, total: int, from_ms: int, until_ms: int) -> int:
        """
        Return ∫ u(t) dt over [*from_ms*, *until_ms*] in user-milliseconds, of whole users as `users_at` has them.

        Of a straight piece on which v = u + ½ before rounding goes from v₀ to v₁ in Δ ms, q = ⌊v⌋ and r = v - q:

            Δ · (q₁(q₁-1) - q₀(q₀-1) + 2(q₁r₁ - q₀r₀)) ÷ 2(v₁ - v₀)

        5 users ramping to 100 % over 30 s: 18 000 in the first 15 s (nobody, one from 3 s, two from 9 s); the straight
        line without rounding has 18 750.
        """
        area = 0
        last = self.segments[-1] if self.segments else Segment(0, 0, 0, 0)
        tail = Segment(self.length_ms, max(0, until_ms - self.length_ms), last.end, last.end)
        for s in (*self.segments, tail):
            begin, end = max(from_ms, s.begin_ms), min(until_ms, s.begin_ms + s.length_ms)
            if begin < end:
                area += _whole_user_ms(s, total, begin, end)
        return area


def _whole_user_ms(s: Segment, total: int, begin: int, end: int) -> int:
    """Return ∫ u(t) dt over [*begin*, *end*], both on *s*; see `Shape.user_ms`."""
    unit = 2 * FULL * s.length_ms
    (q0, r0), (q1, r1) = (
        divmod(2 * total * (s.start * s.length_ms + (s.end - s.start) * (at - s.begin_ms)) + FULL * s.length_ms, unit)
        for at in (begin, end)
    )
    rise = (q1 - q0) * unit + r1 - r0
    if not rise:
        return q0 * (end - begin)
    return (end - begin) * (unit * (q1 * (q1 - 1) - q0 * (q0 - 1)) + 2 * (q1 * r1 - q0 * r0)) // (2 * rise)


def shape(profile: Iterable[Profile] | None) -> Shape:
    """Return the shape of *profile* (None: the default one)."""
    segments: list[Segment] = []
    pieces = tuple(DEFAULT if profile is None else profile)
    begin, level = 0, FULL if pieces and pieces[0].hold else 0
    for piece in pieces:
        for length, start, end in _pieces(piece, level):
            segments.append(Segment(begin, length, start, end))
            begin, level = begin + length, end
    return Shape(tuple(segments))


def _pieces(piece: Profile, level: int) -> Iterator[tuple[int, int, int]]:
    """Yield (ms, level at the start, level at the end) of each straight piece; the one before ended at *level*."""
    match piece.ramp or piece.hold or piece.steps or piece.spike or piece.sine or piece.curve:
        case Ramp(to=to, over=over):
            yield milliseconds(over), level, to
        case Hold(for_=length):
            yield milliseconds(length), level, level
        case Steps(to=to, count=count, every=every):
            for step in range(1, count + 1):
                height = level + ((to - level) * step * 2 + count) // (2 * count)
                yield milliseconds(every), height, height
        case Spike(to=to, over=over, hold=hold):
            yield milliseconds(over), level, to
            yield milliseconds(hold), to, to
            yield milliseconds(over), to, level
        case Sine() as wave:
            yield from _wave(wave)
        case Curve(points=points):
            at = 0
            for point in points:
                yield milliseconds(point.at) - at, level, point.to
                at, level = milliseconds(point.at), point.to


def _wave(wave: Sine) -> Iterator[tuple[int, int, int]]:
    """Yield the pieces of *wave*; the last one is cut where the segment ends."""
    period, whole = milliseconds(wave.period), milliseconds(wave.for_)

    def height(at: int) -> int:
        return wave.low + round((wave.high - wave.low) * (1 - math.cos(2 * math.pi * (at % period) / period)) / 2)

    begin, number = 0, 1
    while begin < whole:
        end = min(whole, number * period // PIECES)
        if end > begin:
            yield end - begin, height(begin), height(end)
        begin, number = max(begin, end), number + 1
