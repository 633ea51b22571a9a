"""Draws: functions of (seed, user, n), evenly spread, with the distributions they promise."""

from __future__ import annotations

from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from trafficsim_runner import draws

N = 20_000


def test_the_generator_is_splitmix64():
    """draw(0, n) is the published sequence of splitmix64 seeded with 0."""
    assert [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F] == [draws.draw(0, n) for n in range(3)]


@given(seed=integers(0, 2**53), user=integers(0, 10**6), n=integers(0, 10**6))
def test_a_draw_depends_on_nothing_else(seed, user, n):
    """The same seed, user and number give the same draw; another user or seed another key."""
    key = draws.key_of(seed, user)
    assert draws.draw(key, n) == draws.draw(draws.key_of(seed, user), n)
    assert key != draws.key_of(seed, user + 1)
    assert key != draws.key_of(seed + 1, user)
    assert 0 < draws.unit(key, n) < 1


@given(low=integers(0, 10**12), width=integers(0, 10**12), n=integers(0, 1000))
def test_whole_numbers_stay_within(low, width, n):
    """Both ends are possible, nothing beyond."""
    assert low <= draws.whole(draws.key_of(1, 2), n, low, low + width) <= low + width


def test_whole_numbers_are_even():
    """3..10 gives each of the eight about equally often."""
    counts = [0] * 8
    for user in range(N):
        counts[draws.whole(draws.key_of(0, user), 0, 3, 10) - 3] += 1
    assert all(count == pytest.approx(N / 8, rel=0.08) for count in counts)


def test_think_times_have_the_median_and_p95_asked_for():
    """Log-normal by median and 95th percentile."""
    sigma = draws.sigma_of(2000, 8000)
    values = sorted(draws.log_normal(draws.key_of(5, user), 0, 2000, sigma) for user in range(N))
    assert median(values) == pytest.approx(2000, rel=0.05)
    assert values[int(N * 0.95)] == pytest.approx(8000, rel=0.06)


def test_users_and_numbers_are_independent():
    """Neighbouring users, and one user's draws in a row, have the mean of an even spread."""
    assert fmean(draws.unit(draws.key_of(0, user), 0) for user in range(N)) == pytest.approx(0.5, abs=0.01)
    assert fmean(draws.unit(draws.key_of(0, 0), n) for n in range(N)) == pytest.approx(0.5, abs=0.01)
