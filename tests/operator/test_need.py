"""How many runners users need: the tolerance, those to come, the static size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_operator.plan.need import need, runners_for_users


@pytest.mark.parametrize(
    ("users", "milliusers", "runners"),
    [(0, 400_000, 0), (1, 400_000, 1), (400, 400_000, 1), (401, 400_000, 2), (1013, 400_000, 3), (7, 0, 0)],
)
def test_runners_for_users(users: int, milliusers: int, runners: int) -> None:
    """A partly filled runner is still a runner; nothing measured asks for none."""
    assert runners == runners_for_users(users, milliusers)


@pytest.mark.parametrize(
    ("users", "there", "runners"),
    [
        pytest.param(320, 3, 3, id="3.2 is within a tenth of 3"),
        pytest.param(330, 3, 3, id="1.1 is within"),
        pytest.param(331, 3, 4, id="above"),
        pytest.param(340, 3, 4, id="3.4"),
        pytest.param(250, 3, 3, id="2.5 takes 3"),
        pytest.param(200, 3, 2, id="2"),
        pytest.param(900, 10, 10, id="0.9 is within"),
        pytest.param(899, 10, 9, id="below"),
        pytest.param(0, 3, 1, id="the static size"),
        pytest.param(5, 0, 1, id="none there"),
    ],
)
def test_need_now(users: int, there: int, runners: int) -> None:
    """At 100 users a runner: what is there is enough within a tenth, else it is rounded up."""
    assert runners == need(users, 0, milliusers=100_000, there=there, static=1).runners


@pytest.mark.parametrize(
    ("ahead", "runners"),
    [
        pytest.param(340, 4, id="more to come, no tolerance"),
        pytest.param(320, 3, id="no more than now"),
        pytest.param(0, 3, id="nothing known"),
    ],
)
def test_need_ahead(ahead: int, runners: int) -> None:
    """Those to come are a number, not a measurement."""
    assert runners == need(320, ahead, milliusers=100_000, there=3, static=1).runners


def test_nothing_measured_is_the_static_size() -> None:
    """Without a measurement users, tier and capacity decide."""
    assert 2 == need(5000, 9000, milliusers=0, there=7, static=2).runners


@given(
    users=st.integers(0, 5000),
    more=st.integers(0, 5000),
    ahead=st.integers(0, 5000),
    milliusers=st.integers(0, 500_000),
    there=st.integers(0, 300),
    static=st.integers(1, 50),
)
def test_more_users_never_need_fewer(
    users: int, more: int, ahead: int, milliusers: int, there: int, static: int
) -> None:
    """More users, now and to come, never need fewer runners."""
    some = need(users, users + ahead, milliusers=milliusers, there=there, static=static)
    many = need(users + more, users + more + ahead, milliusers=milliusers, there=there, static=static)
    assert some.runners <= many.runners
