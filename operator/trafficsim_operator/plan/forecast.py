"""
The demand ahead where no profile tells it: least squares on the users at work, never on runners.

    demand(t) = season(t) + a + b·t              over the newest max(300 s, 3 · lookAhead), one sample every
                                                 max(15 s, 3 · lookAhead ÷ 20, in whole 15 s)

The season (plan/seasons.py) is what the minute of the hour, the hour, the weekday and the weekend explain. With
lookAhead 60s there are 21 samples over 300 s; with 120s, the way to adjust well ahead, 13 samples over 360 s, 30 s
apart. A shorter window tells noise from a trend no more: at 60 s ahead the noise of a forecast is 2.0 times that of a
sample with a window of 60 s, 1.1 times with 120 s and 0.55 times with 300 s.

| | |
|---|---|
| no forecast | fewer than 8 samples, too short a span, or no season and a slope whose t is not beyond ± 2 |
| begun anew | at an edit of users, and when two samples are missing: 2.5 samples without one |
| compared | with what came when its instant comes: error = |forecast - came| ÷ came |
| off | while the mean of the newest 20 errors is above 30 % |

Until 8 comparisons are there it is told and nothing is done by it: a forecast that was never right yet is no reason for
a runner. It only ever raises (`raised`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from trafficsim_api.status import DemandStatus, ForecastStatus
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.plan.seasons import NO_SEASON, Season, kept, season_of

__all__ = ["every_ms", "fit", "is_proven", "is_releasable", "observed_demand", "raised"]

_GRID_MS: Final = 15_000
_LEAST_WINDOW_MS: Final = 300_000
_MOST_SAMPLES: Final = 24
_LEAST_SAMPLES: Final = 8
_T: Final = 2.0
_COMPARISONS: Final = 8
_ERRORS: Final = 20
_MOST_ERROR: Final = 30


def every_ms(look_ahead_ms: int) -> int:
    """
    Return how far apart samples are, so that 24 of them hold the window.

        max(15 s, 3 · lookAhead ÷ 20), in whole 15 s: 60 s → 15 s, 120 s → 30 s, 600 s → 90 s
    """
    return max(1, -(-3 * look_ahead_ms // (20 * _GRID_MS))) * _GRID_MS


def fit(samples: Sequence[tuple[int, int]], ahead_ms: int, season: Season = NO_SEASON) -> float | None:
    """
    Return the demand *ahead_ms* after the newest of *samples* (instant, users); None without a trend to go by.

    100, 110, … 300 users, 15 s apart, are 340 in 60 s; twenty times 100 users are no trend.
    """
    if len(samples) < _LEAST_SAMPLES or samples[-1][0] - samples[0][0] < max(_LEAST_WINDOW_MS, 3 * ahead_ms):
        return None
    now = samples[-1][0]
    before = np.array([at - now for at, _ in samples], dtype=np.float64) / 1000
    users = np.array([count - season.at(at) for at, count in samples], dtype=np.float64)
    middle, mean = float(before.mean()), float(users.mean())
    spread = float(((before - middle) ** 2).sum())
    slope = float(((before - middle) * users).sum()) / spread
    rest = users - mean - slope * (before - middle)
    error = float(np.sqrt((rest @ rest) / (len(samples) - 2) / spread))
    # Rounding leaves a constant demand a slope of some 1e-17, and no error.
    is_trend = abs(slope) > max(_T * error, 1e-9)
    if not is_trend and not season.effects:
        return None
    level = mean + slope * (ahead_ms / 1000 - middle) if is_trend else mean
    return max(0.0, level + season.at(now + ahead_ms))


def observed_demand(
    demand: DemandStatus, forecast: ForecastStatus, *, users: int, at_ms: int, look_ahead_ms: int, is_edit: bool
) -> tuple[DemandStatus, ForecastStatus]:
    """Return the history and the forecast after *users* were at work at *at_ms*; too early for a sample: as before."""
    step_ms = every_ms(look_ahead_ms)
    since = parse_instant(demand.since) if demand.since else at_ms
    missed = (at_ms - since) // step_ms - len(demand.users)
    if not demand.users or is_edit or demand.every_ms != step_ms or missed > 1 or at_ms < since:
        begun = DemandStatus(since=format_instant(at_ms), every_ms=step_ms, users=(users,))
        if not is_edit:
            begun = begun.model_copy(update={"fives": demand.fives, "hours": demand.hours})
        return begun, forecast.model_copy(update={"at": None, "users": 0, "pending": ()})
    if missed < 0:
        return demand, forecast
    fresh = (users,) if not missed else ((demand.users[-1] + users) // 2, users)
    known = (*demand.users, *fresh)
    first = max(0, len(known) - _MOST_SAMPLES)
    since += first * step_ms
    update = {"since": format_instant(since), "users": known[first:]}
    demand = kept(demand.model_copy(update=update), since + (len(known) - first - 1) * step_ms)
    for missing in range(len(fresh)):
        # What was forecast for a sample that is missing can't be compared.
        forecast = _compared(forecast, users if missing == len(fresh) - 1 else 0, -(-look_ahead_ms // step_ms))
    return demand, _forecast(demand, forecast, -(-look_ahead_ms // step_ms) * step_ms)


def _compared(forecast: ForecastStatus, users: int, steps: int) -> ForecastStatus:
    """Return *forecast* after *users* came (0: nobody knows), each having been made *steps* samples ahead."""
    pending = forecast.pending
    if len(pending) < steps:
        return forecast.model_copy(update={"pending": (*pending, 0)})
    predicted, pending = pending[0], (*pending[1:], 0)
    if not predicted or not users:
        return forecast.model_copy(update={"pending": pending})
    error = min(999, round(100 * abs(predicted - users) / users))
    errors = (*forecast.errors, error)[-_ERRORS:]
    mean = round(sum(errors) / len(errors)) if len(errors) >= _COMPARISONS else None
    return ForecastStatus(
        at=forecast.at,
        users=forecast.users,
        predicted=predicted,
        actual=users,
        pending=pending,
        errors=errors,
        error=mean,
        off=mean is not None and sum(errors) > _MOST_ERROR * len(errors),
    )


def _forecast(demand: DemandStatus, forecast: ForecastStatus, ahead_ms: int) -> ForecastStatus:
    """Return *forecast* with the newest one in it, in the place that is kept for it: *ahead_ms* is in whole samples."""
    assert demand.since is not None
    since, step_ms = parse_instant(demand.since), demand.every_ms
    samples = [(since + number * step_ms, users) for number, users in enumerate(demand.users)]
    window_ms = max(_LEAST_WINDOW_MS, 3 * ahead_ms)
    newest = [sample for sample in samples if sample[0] >= samples[-1][0] - window_ms]
    found = fit(newest, ahead_ms, season_of(demand))
    users = 0 if found is None else round(found)
    at = format_instant(samples[-1][0] + ahead_ms) if users else None
    return forecast.model_copy(update={"at": at, "users": users, "pending": (*forecast.pending[:-1], users)})


def is_proven(forecast: ForecastStatus) -> bool:
    """Say whether something may be done by *forecast*: there is one, 8 of them were compared, and they were good."""
    return bool(forecast.users) and forecast.error is not None and not forecast.off


def raised(forecast: int, *, now: int, most: int, runners: int, full_milliusers: int) -> int:
    """
    Return the users that runners are to be there for by a *forecast* of users, 0: by it none.

        0 unless it is above those *now*, and above 0.8 of what the *runners* carry when all of them is taken
        else min(forecast, 1.5 · now, most)

    500 now, 620 forecast, 3 runners that 240 users take up each, 1000 users asked for: 620 of 720 are above 576, so
    620. 900 forecast: 750. 560 forecast: 0.
    """
    if forecast <= now or 10_000 * forecast <= 8 * runners * full_milliusers:
        return 0
    return min(forecast, 3 * now // 2, most)


def is_releasable(forecast: int, *, runners: int, full_milliusers: int) -> bool:
    """
    Say whether a *forecast* of users leaves runners with little to do: below 0.3 of what they carry when taken up.

    200 users on 3 runners that 240 take up each: 216, so yes. It is only said; runners go when the users have gone.
    """
    return 10_000 * forecast < 3 * runners * full_milliusers
