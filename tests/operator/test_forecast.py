"""The demand ahead: the fit and its tests, the history and its resets, what came of forecasts, and what they may do."""

import math
import random

import pytest

from trafficsim_api.status import DemandStatus, ForecastStatus
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.plan.forecast import every_ms, fit, is_proven, is_releasable, observed_demand, raised
from trafficsim_operator.plan.seasons import Effect, Season

# A Monday, 00:00 UTC.
MONDAY = 1_699_833_600_000
STEP = 15_000


def samples(*users: float, every: int = STEP) -> list[tuple[int, int]]:
    """Build a history of *users*, so far apart."""
    return [(MONDAY + number * every, round(count)) for number, count in enumerate(users)]


def seen(
    users: list[int], *, look_ahead_ms: int = 60_000, forecast: ForecastStatus | None = None
) -> tuple[DemandStatus, ForecastStatus]:
    """Return history and forecast after *users*, each at its instant."""
    demand, found = DemandStatus(), forecast or ForecastStatus()
    for number, count in enumerate(users):
        at = MONDAY + number * STEP
        demand, found = observed_demand(
            demand, found, users=count, at_ms=at, look_ahead_ms=look_ahead_ms, is_edit=False
        )
    return demand, found


@pytest.mark.parametrize(
    ("look_ahead_s", "every_s"), [(15, 15), (60, 15), (100, 15), (101, 30), (120, 30), (200, 30), (600, 90)]
)
def test_how_far_apart(look_ahead_s: int, every_s: int) -> None:
    """24 samples hold the window, which is at least 300 s and three times as long as what is forecast."""
    assert 1000 * every_s == every_ms(1000 * look_ahead_s)
    ahead_s = -(-look_ahead_s // every_s) * every_s
    assert 24 >= max(300, 3 * ahead_s) / every_s + 1 >= 8


def test_a_line_goes_on() -> None:
    """100, 110, … 300 users, 15 s apart, are 340 in 60 s."""
    found = fit(samples(*range(100, 301, 10)), 60_000)
    assert found is not None
    assert math.isclose(340, found)


def test_a_falling_line_ends_at_nobody() -> None:
    """No forecast is below 0."""
    assert 0 == fit(samples(*range(200, -1, -10)), 60_000)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(samples(*range(100, 170, 10), every=60_000), id="7 samples"),
        pytest.param(samples(*range(100, 300, 10)), id="285 s"),
        pytest.param(samples(*[100] * 21), id="constant"),
        pytest.param(samples(*[100, 110] * 10, 100), id="up and down"),
        pytest.param([], id="nothing"),
    ],
)
def test_no_trend(history: list[tuple[int, int]]) -> None:
    """Too few, too short, or a slope that noise may be: nothing is forecast."""
    assert fit(history, 60_000) is None


def test_the_window_is_three_times_what_is_forecast() -> None:
    """300 s are enough for 100 s ahead, not for 105 s."""
    line = samples(*range(100, 301, 10))
    assert fit(line, 100_000) is not None
    assert fit(line, 105_000) is None


def test_noise_is_rarely_a_trend() -> None:
    """A slope's t beyond 2 is what noise alone has in about one history of twenty."""
    draw = random.Random(7)
    noisy = [samples(*(1000 + draw.gauss(0, 50) for _ in range(21))) for _ in range(400)]
    assert 40 > sum(fit(history, 60_000) is not None for history in noisy) > 4


def test_a_season_is_taken_out_and_put_in_again() -> None:
    """A wave by the hour and a rise over it: the line is laid through what the wave leaves."""

    def demand(second: int) -> float:
        return 1000 + second / 10 + 300 * math.sin(2 * math.pi * second / 3600)

    wave = Effect((3600,), (300.0, 0.0))
    history = samples(*(demand(15 * number) for number in range(21)))
    found = fit(history, 60_000, Season((wave,)))
    assert found is not None
    assert math.isclose(demand(360), found, abs_tol=2)
    plain = fit(history, 60_000)
    assert plain is not None
    assert abs(plain - demand(360)) > 2


def test_a_season_needs_no_trend() -> None:
    """Where nothing else changes, the wave alone tells what comes."""
    wave = Effect((3600,), (300.0, 0.0))
    history = samples(*(1000 + wave.at(MONDAY + number * STEP) for number in range(21)))
    found = fit(history, 60_000, Season((wave,)))
    assert found is not None
    assert math.isclose(1000 + wave.at(MONDAY + 360_000), found, abs_tol=1)


def test_history_takes_one_sample_a_step() -> None:
    """What comes between two is passed over; the oldest of more than 24 go."""
    demand, _ = seen(list(range(30)))
    assert tuple(range(6, 30)) == demand.users
    assert format_instant(MONDAY + 6 * STEP) == demand.since
    again = observed_demand(
        demand, ForecastStatus(), users=99, at_ms=MONDAY + 29 * STEP, look_ahead_ms=60_000, is_edit=False
    )
    assert demand == again[0]


@pytest.mark.parametrize(
    ("later", "is_edit", "look_ahead_ms", "users"),
    [
        pytest.param(1, False, 60_000, (10, 20, 30, 60), id="next"),
        pytest.param(2, False, 60_000, (10, 20, 30, 45, 60), id="one missed lies between"),
        pytest.param(3, False, 60_000, (60,), id="a gap begins anew"),
        pytest.param(1, True, 60_000, (60,), id="so does an edit"),
        pytest.param(1, False, 120_000, (60,), id="and another step"),
        pytest.param(-9, False, 60_000, (60,), id="and a clock that was set back"),
    ],
)
def test_history_begins_anew(later: int, is_edit: bool, look_ahead_ms: int, users: tuple[int, ...]) -> None:
    """A gap and an edit are no trend."""
    demand, forecast = seen([10, 20, 30])
    at = MONDAY + (2 + later) * STEP
    found, _ = observed_demand(demand, forecast, users=60, at_ms=at, look_ahead_ms=look_ahead_ms, is_edit=is_edit)
    assert users == found.users


def test_forecast_against_what_came() -> None:
    """A forecast for 60 s is compared four samples later: 500 s of a line are met."""
    demand, forecast = seen([100 + 10 * number for number in range(33)])
    assert format_instant(MONDAY + 36 * STEP) == forecast.at
    assert (460, 420, 420) == (forecast.users, forecast.predicted, forecast.actual)
    assert (24, 0, False) == (len(demand.users), forecast.error, forecast.off)
    assert (0,) * 9 == forecast.errors
    assert is_proven(forecast)


def test_no_proof_before_eight_comparisons() -> None:
    """The first forecast is made at 300 s, compared at 360 s; the eighth comparison comes at 465 s."""
    line = [100 + 10 * number for number in range(40)]
    assert [0, 340] == [seen(line[:20])[1].users, seen(line[:21])[1].users]
    assert [7, False] == [len(seen(line[:31])[1].errors), is_proven(seen(line[:31])[1])]
    assert [8, True] == [len(seen(line[:32])[1].errors), is_proven(seen(line[:32])[1])]


def test_switches_itself_off_and_on() -> None:
    """Off while the mean of the newest errors is above 30 %; on again when it is not."""
    wrong = ForecastStatus(users=500, errors=(90,) * 8, error=90, off=True)
    line = [100 + 10 * number for number in range(60)]
    at_first = seen(line[:26], forecast=wrong)[1]
    assert (True, False) == (at_first.off, is_proven(at_first))
    later = [seen(line[:length], forecast=wrong)[1] for length in range(26, 60)]
    assert [True, False] == sorted({found.off for found in later}, reverse=True)
    for found in later:
        assert found.off == (sum(found.errors) > 30 * len(found.errors))


def test_an_edit_drops_what_was_forecast() -> None:
    """What was forecast before an edit is compared with nothing, the errors so far stay."""
    demand, forecast = seen([100 + 10 * number for number in range(30)])
    _, after = observed_demand(demand, forecast, users=10, at_ms=MONDAY + 30 * STEP, look_ahead_ms=60_000, is_edit=True)
    assert ((), 0, forecast.errors) == (after.pending, after.users, after.errors)


@pytest.mark.parametrize(
    ("forecast", "users"),
    [
        pytest.param(620, 620, id="above 0.8 of 720"),
        pytest.param(577, 577, id="just above"),
        pytest.param(576, 0, id="0.8"),
        pytest.param(900, 750, id="at most 1.5 times those now"),
        pytest.param(400, 0, id="it only raises"),
    ],
)
def test_raised(forecast: int, users: int) -> None:
    """500 users now on 3 runners that 240 take up each, 1000 asked for."""
    assert users == raised(forecast, now=500, most=1000, runners=3, full_milliusers=240_000)


def test_raised_to_no_more_than_are_asked_for() -> None:
    """Nobody is there beyond T."""
    assert 600 == raised(740, now=500, most=600, runners=3, full_milliusers=240_000)


@pytest.mark.parametrize(("forecast", "is_so"), [(200, True), (215, True), (216, False), (600, False)])
def test_releasable(forecast: int, is_so: bool) -> None:
    """Below 0.3 of what the runners carry when taken up."""
    assert is_so == is_releasable(forecast, runners=3, full_milliusers=240_000)


def test_instants_are_on_the_grid() -> None:
    """A sample is that of its step, also when the look was a little late."""
    demand, forecast = seen([10, 20])
    late = MONDAY + 2 * STEP + 4_000
    found, _ = observed_demand(demand, forecast, users=30, at_ms=late, look_ahead_ms=60_000, is_edit=False)
    assert ((10, 20, 30), MONDAY) == (found.users, parse_instant(found.since or ""))
