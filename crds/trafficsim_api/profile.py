"""
The profile: how many of the T users are wanted at each instant, in integers.

    u(t) = (2·T·level(t) + 10 000) // 20 000          level in hundredths of a percent: rounded half up

Within a ramp of d ms from a to b, at τ ms:

    u = (2·T·(a·(d-τ) + b·τ) + 10 000·d) // (20 000·d)

The first segment starts from 0 %; after the last one its level is held. Absent: ramp to 100 % over 30 s, then hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from trafficsim_api.resource import Profile, Ramp
from trafficsim_api.units import FULL, milliseconds

__all__ = ["DEFAULT", "Segment", "Shape", "shape"]

DEFAULT: Final = (Profile(ramp=Ramp(to=FULL, over=timedelta(seconds=30))),)


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

    @property
    def length_ms(self) -> int:
        """Return when the last segment ends, in ms from the run's start."""
        return self.segments[-1].begin_ms + self.segments[-1].length_ms if self.segments else 0

    def users_at(self, total: int, at_ms: int) -> int:
        """
        Return u(t): the users wanted *at_ms* after the run's start, of *total*.

        10 users ramping to 100 % over 10 s: 0 at 0 s, 1 at 0.5 s, 5 at 4.9 s, 10 from 9.5 s on; none before the start.
        """
        if at_ms < 0:
            return 0
        for segment in self.segments:
            done = at_ms - segment.begin_ms
            if done < segment.length_ms:
                length = segment.length_ms
                level = segment.start * (length - done) + segment.end * done
                return (2 * total * level + FULL * length) // (2 * FULL * length)
        return (2 * total * self.segments[-1].end + FULL) // (2 * FULL) if self.segments else 0

    def peak(self, total: int, from_ms: int, until_ms: int) -> int:
        """Return the most users wanted at any instant in [*from_ms*, *until_ms*]."""
        corners = [s.begin_ms for s in self.segments] + [s.begin_ms + s.length_ms - 1 for s in self.segments]
        inside = [at for at in corners if from_ms < at < until_ms]
        return max(self.users_at(total, at) for at in (from_ms, until_ms, *inside))

    def user_ms(self, total: int, from_ms: int, until_ms: int) -> int:
        """
        Return ∫ u(t) dt over [*from_ms*, *until_ms*] in user-milliseconds, each straight piece as a trapezium.

        The rounding of u(t) to whole users is left out: it averages to nothing over a ramp.
        """
        area = 0
        last = self.segments[-1] if self.segments else Segment(0, 0, 0, 0)
        tail = Segment(self.length_ms, max(0, until_ms - self.length_ms), last.end, last.end)
        for s in (*self.segments, tail):
            begin, end = max(from_ms, s.begin_ms), min(until_ms, s.begin_ms + s.length_ms)
            if begin < end:
                at_begin = s.start * s.length_ms + (s.end - s.start) * (begin - s.begin_ms)
                at_end = s.start * s.length_ms + (s.end - s.start) * (end - s.begin_ms)
                area += total * (at_begin + at_end) * (end - begin) // (2 * FULL * s.length_ms)
        return area


def shape(profile: Iterable[Profile] | None) -> Shape:
    """Return the shape of *profile* (None: the default one)."""
    segments: list[Segment] = []
    begin = level = 0
    for piece in DEFAULT if profile is None else profile:
        if piece.ramp:
            length, end = milliseconds(piece.ramp.over), piece.ramp.to
        else:
            assert piece.hold is not None
            length, end = milliseconds(piece.hold.for_), level
        segments.append(Segment(begin, length, level, end))
        begin, level = begin + length, end
    return Shape(tuple(segments))
