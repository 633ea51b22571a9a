"""What the time of the clock explains of the demand: which features count, from when on, and what they are worth."""

import math
import random
from collections.abc import Callable

import pytest

from trafficsim_api.status import DemandStatus
from trafficsim_api.units import format_instant
from trafficsim_operator.plan.seasons import NO_SEASON, effect_of, kept, season_of

# A Monday, 00:00 UTC.
MONDAY = 1_699_833_600_000
FIVE, HOUR = 300_000, 3_600_000
Demand = Callable[[int], float]


def by_minute(at_ms: int) -> float:
    """Return a demand with a wave by the hour, 200 users up and down, and a rise."""
    return 1000 + (at_ms - MONDAY) / 60_000 + 200 * math.sin(2 * math.pi * at_ms / HOUR)


def by_hour(at_ms: int) -> float:
    """Return a demand with a wave by the day, 300 users up and down."""
    return 1000 + 300 * math.cos(2 * math.pi * at_ms / (24 * HOUR))


def by_weekday(at_ms: int) -> float:
    """Return a demand that is half on Saturday and Sunday."""
    return 500 if (at_ms - MONDAY) // (24 * HOUR) % 7 >= 5 else 1000


def points(demand: Demand, count: int, every_ms: int) -> list[tuple[int, int]]:
    """Return so many means of *demand*."""
    return [(MONDAY + number * every_ms, round(demand(MONDAY + number * every_ms))) for number in range(count)]


@pytest.mark.parametrize(
    ("demand", "every_ms", "count", "periods"),
    [
        pytest.param(by_minute, FIVE, 25, (3600,), id="two hours by the minute"),
        pytest.param(by_minute, FIVE, 24, None, id="a mean less"),
        pytest.param(by_hour, HOUR, 49, (86_400,), id="two days by the hour"),
        pytest.param(by_hour, HOUR, 48, None, id="an hour less"),
        pytest.param(by_weekday, HOUR, 337, (86_400, 604_800), id="two weeks by weekday"),
        pytest.param(by_weekday, HOUR, 336, None, id="an hour less: a day's wave explains nothing"),
        pytest.param(lambda _: 1000, HOUR, 337, None, id="constant"),
        pytest.param(lambda at: at / 1e6 - 1_699_000, HOUR, 337, None, id="a line"),
        pytest.param(by_hour, HOUR, 1, None, id="one mean"),
    ],
)
def test_a_feature_counts_when_its_period_is_there_twice(
    demand: Demand, every_ms: int, count: int, periods: tuple[int, ...] | None
) -> None:
    """Minute, hour, weekday and weekend each when there are two hours, days, weeks to learn them from."""
    found = effect_of(points(demand, count, every_ms))
    assert periods == (None if found is None else found.periods)


@pytest.mark.parametrize(
    ("demand", "every_ms", "count"),
    [pytest.param(by_minute, FIVE, 25, id="minute"), pytest.param(by_hour, HOUR, 72, id="hour")],
)
def test_what_a_wave_is_worth(demand: Demand, every_ms: int, count: int) -> None:
    """The difference between two instants of the clock is found again."""
    found = effect_of(points(demand, count, every_ms))
    assert found is not None
    first, second = MONDAY + 30 * HOUR, MONDAY + 30 * HOUR + every_ms
    slope = every_ms / 60_000 if demand is by_minute else 0
    assert math.isclose(demand(second) - demand(first) - slope, found.at(second) - found.at(first), abs_tol=3)


def test_the_weekend_is_told_from_a_weekday() -> None:
    """A Saturday has some 500 users fewer than the Friday before, at the same hour."""
    found = effect_of(points(by_weekday, 337, HOUR))
    assert found is not None
    friday = MONDAY + 32 * 24 * HOUR + 12 * HOUR
    assert -700 < found.at(friday + 24 * HOUR) - found.at(friday) < -300


def test_noise_is_no_season() -> None:
    """What explains less than half of it is noise that happens to have that shape."""
    draw = random.Random(3)
    noisy = [
        [(at, users + round(draw.gauss(0, 50))) for at, users in points(lambda _: 1000, 49, HOUR)] for _ in range(100)
    ]
    assert 0 == sum(effect_of(history) is not None for history in noisy)


def test_means_of_five_minutes_and_of_hours_are_kept() -> None:
    """Three hours of a sample every 15 s: the newest 25 means of five minutes, and 3 of an hour."""
    demand = DemandStatus(since=format_instant(MONDAY), every_ms=15_000)
    assert NO_SEASON == season_of(demand)
    for number in range(4 * 181):
        at = MONDAY + number * 15_000
        users = (*demand.users, round(by_minute(at)))[-24:]
        demand = kept(demand.model_copy(update={"users": users}), at)
    assert (25, 3) == (len(demand.fives.users), len(demand.hours.users))
    assert format_instant(MONDAY + 3 * HOUR) == demand.fives.until == demand.hours.until
    middle = [by_minute(MONDAY + 2 * HOUR + number * 15_000) for number in range(240)]
    assert math.isclose(sum(middle) / 240, demand.hours.users[-1], abs_tol=1)
    assert [(3600,)] == [effect.periods for effect in season_of(demand).effects]


def test_spans_without_looks_are_not_known() -> None:
    """An operator that was away for a quarter of an hour leaves two of them open, and the rest in their place."""
    demand = DemandStatus(since=format_instant(MONDAY), every_ms=15_000, users=(10, 10, 10))
    for at in (0, FIVE, 4 * FIVE):
        demand = kept(demand, MONDAY + at)
    assert ((10, -1, -1, 10), format_instant(MONDAY + 4 * FIVE)) == (
        demand.fives.users,
        demand.fives.until,
    )
