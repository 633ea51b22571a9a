"""How old a connection may become."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trafficsim_runner.draws import key_of
from trafficsim_runner.http.connection import age_of
from trafficsim_runner.users import User

SECOND = 1_000_000_000


def a_user(seed, place, iteration):
    user = User()
    user.key, user.iteration = key_of(seed, place), iteration
    return user


@given(
    st.integers(0, 2**53), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(SECOND, 86_400 * SECOND)
)  # fmt: skip
def test_ages_are_within_a_fifth(seed, place, iteration, most_ns):
    """Never below 80 % nor above 120 %; the same user gets the same in the same iteration."""
    age = age_of(a_user(seed, place, iteration), most_ns)
    assert most_ns * 8 <= age * 10 + 50 and age * 10 <= most_ns * 12
    assert age == age_of(a_user(seed, place, iteration), most_ns)


def test_ages_are_spread_evenly():
    """Connections that open together do not close together: each tenth of the range gets its tenth."""
    ages = [age_of(a_user(0, place, 0), 300 * SECOND) for place in range(10_000)]
    tenths = [0] * 10
    for age in ages:
        tenths[(age - 240 * SECOND) * 10 // (120 * SECOND + 1)] += 1
    assert all(abs(count - 1000) < 5 * (10_000 * 0.1 * 0.9) ** 0.5 for count in tenths)
