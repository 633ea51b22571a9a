"""
The segments a profile is written in. Percentages are of `users` (of the rate in the open model), at most 100 %.

| segment | from the level the one before left |
|---|---|
| `ramp: {to, over}` | evenly to a level |
| `hold: {for}` | stays; as the first segment at 100 % |
| `steps: {to, count, every}` | to a level in equal steps, each held; the first at once |
| `spike: {to, over, hold}` | up (or down) within `over`, held, and back within `over` |
| `sine: {low, high, period, for}` | a wave from low over high to low, again and again |
| `curve: {points: [{at, to}]}` | straight lines through points, times from the segment's start |
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from trafficsim_api.model import Model, exactly_one, fault
from trafficsim_api.units import FULL, Duration, Percentage

__all__ = ["SEGMENTS", "Curve", "CurvePoint", "Hold", "Profile", "Ramp", "Sine", "Spike", "Steps"]

SEGMENTS: Final = ("ramp", "hold", "steps", "spike", "sine", "curve")
MAX_WAVES: Final = 256


def _level(name: str, hundredths: int) -> None:
    if hundredths > FULL:
        raise fault(name, "at most 100% is needed")


class Ramp(Model):
    """Change the users evenly."""

    to: Percentage
    """The share of `users` at the end of the segment."""
    over: Duration
    """How long it takes."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _level("to", self.to)
        return self


class Hold(Model):
    """Keep the users as they are; as the first segment, all of them."""

    for_: Annotated[Duration, Field(alias="for")]
    """For how long."""


class Steps(Model):
    """Go to a level in equal steps, each held; the first step is at once."""

    to: Percentage
    """The share of `users` after the last step."""
    count: Annotated[int, Field(ge=1, le=100)]
    """How many steps."""
    every: Duration
    """How long each step is held."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _level("to", self.to)
        return self


class Spike(Model):
    """Go to a level, stay, and come back to where the segment began."""

    to: Percentage
    """The share of `users` at the top, or at the bottom."""
    over: Duration = timedelta(0)
    """How long the way there takes, and the way back."""
    hold: Duration
    """How long the level is held."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _level("to", self.to)
        return self


class Sine(Model):
    """A wave: from low over high back to low in each period."""

    low: Percentage = 0
    """The least share of `users`."""
    high: Percentage = FULL
    """The largest share of `users`."""
    period: Duration
    """From one low to the next."""
    for_: Annotated[Duration, Field(alias="for")]
    """How long it goes on."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _level("high", self.high)
        if self.low > self.high:
            raise fault("low", "must not be above high")
        if self.period < timedelta(seconds=1):
            raise fault("period", "at least 1s is needed")
        if self.for_ > MAX_WAVES * self.period:
            raise fault("for", f"at most {MAX_WAVES} periods are possible")
        return self


class CurvePoint(Model):
    """A level at an instant."""

    at: Duration
    """From the segment's start."""
    to: Percentage
    """The share of `users` there."""


class Curve(Model):
    """Straight lines through points."""

    points: Annotated[tuple[CurvePoint, ...], Field(min_length=1, max_length=256)]
    """The points, each later than the one before."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for number, point in enumerate(self.points):
            _level(f"points[{number}].to", point.to)
            if number and point.at <= self.points[number - 1].at:
                raise fault(f"points[{number}].at", "must be after the point before")
        return self


class Profile(Model):
    """One segment of the profile: exactly one of ramp, hold, steps, spike, sine and curve."""

    ramp: Ramp | None = None
    hold: Hold | None = None
    steps: Steps | None = None
    spike: Spike | None = None
    sine: Sine | None = None
    curve: Curve | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, SEGMENTS, "exactly one of " + ", ".join(SEGMENTS))
        return self
