"""
What the time of the clock (UTC) explains of the demand: the minute of the hour, the hour, the weekday and the weekend.

| feature | from | counts from |
|---|---|---|
| minute of the hour | means of 5 minutes, the newest 25 | 2 hours |
| hour of the day | means of an hour, the newest 337 | 2 days |
| weekday and weekend | the same | 2 weeks |

Each counts once two of its periods are there: in a window of minutes hour and weekday are constant. Least squares on a
level, a slope, a wave over the period, and for the week whether it is Saturday or Sunday. It is a season where it
explains at least half of what level and slope leave; the rest is noise that happens to have that shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trafficsim_api.status import DemandMeans, DemandStatus
from trafficsim_api.units import format_instant, parse_instant

__all__ = ["NO_SEASON", "Effect", "Season", "effect_of", "kept", "season_of"]

_FIVE_MS: Final = 300_000
_HOUR_MS: Final = 3_600_000
_FIVES: Final = 25
_HOURS: Final = 337
_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
_WEEK_S: Final = 7 * _DAY_S
# The Unix epoch was a Thursday.
_THURSDAY: Final = 3
_SATURDAY: Final = 5
_EXPLAINED: Final = 0.5

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Effect:
    """The features of *periods* (s) with the users that each is worth."""

    periods: tuple[int, ...]
    worth: tuple[float, ...]

    def at(self, at_ms: int) -> float:
        """Return how many users more or fewer there are at an instant, by the time of the clock alone."""
        row = np.column_stack(_features(np.array([at_ms / 1000]), self.periods))
        return float((row @ np.array(self.worth))[0])


@dataclass(frozen=True, slots=True)
class Season:
    """All effects together."""

    effects: tuple[Effect, ...] = ()

    def at(self, at_ms: int) -> float:
        """Return how many users more or fewer there are at an instant."""
        return sum(effect.at(at_ms) for effect in self.effects)


NO_SEASON: Final = Season()


def season_of(demand: DemandStatus) -> Season:
    """Return what the clock explains of *demand*: nothing in its first two hours."""
    found = (effect_of(_points(demand.fives, _FIVE_MS)), effect_of(_points(demand.hours, _HOUR_MS)))
    return Season(tuple(effect for effect in found if effect is not None))


def effect_of(points: Sequence[tuple[int, int]]) -> Effect | None:
    """Return the effect of the periods that *points* (instant, users) span twice; None where there is none."""
    if len(points) < 2:
        return None
    instants = np.array([at for at, _ in points], dtype=np.float64) / 1000
    users = np.array([count for _, count in points], dtype=np.float64)
    periods = _periods(instants)
    trend = np.column_stack((np.ones_like(instants), instants - instants[-1]))
    columns = np.column_stack((trend, *_features(instants, periods)))
    worth, _, rank, _ = np.linalg.lstsq(columns, users, rcond=None)
    if not periods or rank < columns.shape[1] or len(users) <= rank:
        return None
    plain, *_ = np.linalg.lstsq(trend, users, rcond=None)
    left, all_of_it = ((rest**2).sum() for rest in (users - columns @ worth, users - trend @ plain))
    if left > (1 - _EXPLAINED) * all_of_it or not all_of_it:
        return None
    return Effect(periods, tuple(worth[2:].tolist()))


def _periods(instants: _Floats) -> tuple[int, ...]:
    """Return the periods (s) that are spanned twice, with at least four points in each."""
    span = float(instants[-1] - instants[0])
    apart = float(np.diff(instants).min())
    return tuple(period for period in (_HOUR_S, _DAY_S, _WEEK_S) if 2 * period <= span and 4 * apart <= period)


def _features(instants: _Floats, periods: tuple[int, ...]) -> list[_Floats]:
    columns: list[_Floats] = []
    for period in periods:
        # As a wave, so that 23:59 lies beside 0:00.
        phase = 2 * np.pi * (instants % period) / period
        columns += [np.sin(phase), np.cos(phase)]
    if _WEEK_S in periods:
        weekday = (instants // _DAY_S + _THURSDAY) % 7
        columns.append((weekday >= _SATURDAY).astype(np.float64))
    return columns


def _points(means: DemandMeans, length_ms: int) -> list[tuple[int, int]]:
    """Return what is known of *means*, each at the middle of its span."""
    if means.until is None:
        return []
    first = parse_instant(means.until) - len(means.users) * length_ms + length_ms // 2
    return [(first + number * length_ms, users) for number, users in enumerate(means.users) if users >= 0]


def kept(demand: DemandStatus, at_ms: int) -> DemandStatus:
    """Return *demand*, whose newest sample is of *at_ms*, with the means of the spans that have ended since."""
    samples = demand.users[:-1][-max(1, _FIVE_MS // max(1, demand.every_ms)) :]
    fives = _ended(demand.fives, at_ms, _FIVE_MS, _FIVES, samples)
    hours = _ended(demand.hours, at_ms, _HOUR_MS, _HOURS, [users for users in fives.users[-12:] if users >= 0])
    return demand.model_copy(update={"fives": fives, "hours": hours})


def _ended(means: DemandMeans, at_ms: int, length_ms: int, most: int, newest: Iterable[int]) -> DemandMeans:
    """Return *means* with that of the *newest* users, if a span has ended; those missed in between are not known."""
    until = at_ms // length_ms * length_ms
    if means.until is None:
        return DemandMeans(until=format_instant(until))
    ended, counts = (until - parse_instant(means.until)) // length_ms, tuple(newest)
    if ended <= 0:
        return means
    mean = round(sum(counts) / len(counts)) if counts else -1
    unknown = (-1,) * min(most, ended - 1)
    return DemandMeans(until=format_instant(until), users=(*means.users, *unknown, mean)[-most:])
