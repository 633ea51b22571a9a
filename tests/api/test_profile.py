"""The profile: u(t) in integers, by its formula."""

import math
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.profile import shape
from trafficsim_api.resource import Curve, CurvePoint, Hold, Profile, Ramp, Sine, Spike, Steps
from trafficsim_api.units import FULL

MAX = 60_000


def ramp(to, ms):
    return Profile(ramp=Ramp(to=to, over=timedelta(milliseconds=ms)))


def hold(ms):
    return Profile(hold=Hold(for_=timedelta(milliseconds=ms)))


profiles = st.lists(
    st.builds(ramp, st.integers(0, FULL), st.integers(0, MAX)) | st.builds(hold, st.integers(0, MAX)),
    min_size=1,
    max_size=5,
)


def level_at(profile, at_ms):
    """Return the wanted share at *at_ms* as an exact fraction: the definition, without the formula."""
    level, begin = Fraction(1 if profile[0].hold else 0), 0
    for piece in profile:
        over = piece.ramp.over if piece.ramp else piece.hold.for_
        length = over // timedelta(milliseconds=1)
        end = Fraction(piece.ramp.to, FULL) if piece.ramp else level
        if at_ms < begin + length:
            return level + (end - level) * Fraction(at_ms - begin, length)
        level, begin = end, begin + length
    return level


@pytest.mark.parametrize(
    ("at_s", "users"),
    [(-1, 0), (0, 0), (0.499, 0), (0.5, 1), (4.9, 5), (5, 5), (9.499, 9), (9.5, 10), (10, 10), (3600, 10)],
)
def test_ten_users_over_ten_seconds(at_s, users):
    """0 at 0 s, 1 at 0.5 s, 5 at 4.9 s, 10 from 9.5 s on; none before the start."""
    assert users == shape([ramp(FULL, 10_000)]).users_at(10, int(at_s * 1000))


@pytest.mark.parametrize(("at_s", "users"), [(0, 0), (15, 50), (30, 100), (86_400, 100)])
def test_absent_profile(at_s, users):
    """Ramp to 100 % over 30 s, then hold."""
    assert users == shape(None).users_at(100, at_s * 1000)


@given(profile=profiles, total=st.integers(0, 1_000_000), at_ms=st.integers(0, 6 * MAX))
def test_users_are_the_share_rounded_half_up(profile, total, at_ms):
    """The integer formula is the exact share, rounded half up."""
    assert int(total * level_at(profile, at_ms) + Fraction(1, 2)) == shape(profile).users_at(total, at_ms)


@given(profile=profiles, total=st.integers(0, 1_000_000), at_ms=st.integers(0, 6 * MAX))
def test_users_stay_within_the_total(profile, total, at_ms):
    assert 0 <= shape(profile).users_at(total, at_ms) <= total


@given(to=st.integers(0, FULL), ms=st.integers(1, MAX), total=st.integers(0, 10_000), data=st.data())
def test_a_ramp_up_never_falls(to, ms, total, data):
    early = data.draw(st.integers(0, ms))
    late = data.draw(st.integers(early, 2 * ms))
    form = shape([ramp(to, ms)])
    assert form.users_at(total, early) <= form.users_at(total, late)


@given(
    profile=profiles,
    total=st.integers(0, 10_000),
    first=st.integers(0, 5 * MAX),
    length=st.integers(0, MAX),
    data=st.data(),
)
def test_peak_is_the_most_at_any_instant(profile, total, first, length, data):
    """No instant in between has more, and the peak is reached to within what one millisecond of a ramp changes."""
    form = shape(profile)
    peak = form.peak(total, first, first + length)
    inside = data.draw(st.lists(st.integers(first, first + length), min_size=1, max_size=20))
    assert all(form.users_at(total, at) <= peak for at in inside)
    assert 0 <= peak <= total


def area_of(profile, total, first, last):
    """Return the exact user time between two instants: for how long each whole user, one after the other, is wanted."""
    area, level, begin = Fraction(0), Fraction(1 if profile[0].hold else 0), 0
    for piece in [*profile, hold(10**9)]:
        length = (piece.ramp.over if piece.ramp else piece.hold.for_) // timedelta(milliseconds=1)
        end = Fraction(piece.ramp.to, FULL) if piece.ramp else level
        left, right = max(first, begin), min(last, begin + length)
        if left < right:
            low, high = sorted(
                total * (level + (end - level) * Fraction(at - begin, length)) + Fraction(1, 2) for at in (left, right)
            )
            share = sum(1 if user <= low else (high - user) / (high - low) for user in range(1, int(high) + 1))
            area += share * (right - left)
        level, begin = end, begin + length
    return area


@given(profile=profiles, total=st.integers(0, 60), first=st.integers(0, 5 * MAX), length=st.integers(0, 2 * MAX))
def test_user_time_is_that_of_whole_users(profile, total, first, length):
    """∫ u(t) dt as `users_at` rounds it; rounding down loses less than one user-millisecond for each piece."""
    lost = area_of(profile, total, first, first + length) - shape(profile).user_ms(total, first, first + length)
    assert 0 <= lost < len(profile) + 1


@given(
    profile=profiles,
    total=st.integers(0, 10_000),
    first=st.integers(0, 5 * MAX),
    a=st.integers(0, MAX),
    b=st.integers(0, MAX),
)
def test_user_time_adds_up(profile, total, first, a, b):
    """Two intervals side by side have the user time of the whole, but for the rounding at the cut."""
    form = shape(profile)
    whole = form.user_ms(total, first, first + a + b)
    parts = form.user_ms(total, first, first + a) + form.user_ms(total, first + a, first + a + b)
    assert -1 <= whole - parts <= 2


def test_user_time_by_example():
    """100 users ramping over 10 s and holding 10 s: 500 + 1000 user-seconds."""
    assert 1_500_000 == shape([ramp(FULL, 10_000), hold(10_000)]).user_ms(100, 0, 20_000)
    assert 2_000_000 == shape([ramp(FULL, 10_000)]).user_ms(100, 10_000, 30_000)


@pytest.mark.parametrize(
    ("profile", "until_ms", "planned"),
    [
        pytest.param([ramp(FULL, 30_000)], 3_000, 0, id="nobody yet"),
        pytest.param([ramp(FULL, 30_000)], 15_000, 18_000, id="one from 3 s, two from 9 s"),
        pytest.param([ramp(FULL, 30_000)], 30_000, 75_000, id="a whole ramp"),
        pytest.param([hold(1), ramp(0, 30_000)], 30_001, 75_005, id="down again"),
    ],
)
def test_few_users_are_planned_as_whole_ones(profile, until_ms, planned):
    """Of five users a run that ends in the midst of a ramp had lost 4 % if halves of them were planned."""
    assert planned == shape(profile).user_ms(5, 0, until_ms)


def test_length():
    assert 25_000 == shape([ramp(FULL, 10_000), hold(15_000)]).length_ms


def seconds(count):
    return timedelta(seconds=count)


KINDS = {
    "hold first": (hold(10_000), {0: 100, 9: 100, 99: 100}),
    "steps up": (Profile(steps=Steps(to=FULL, count=4, every=seconds(10))), {0: 25, 9.9: 25, 10: 50, 39: 100, 40: 100}),
    "steps of a third": (Profile(steps=Steps(to=FULL, count=3, every=seconds(1))), {0: 33, 1: 67, 2: 100}),
    "spike at once": (Profile(spike=Spike(to=FULL, hold=seconds(5))), {0: 100, 4.9: 100, 5: 0, 60: 0}),
    "spike with slopes": (
        Profile(spike=Spike(to=FULL, over=seconds(10), hold=seconds(5))),
        {0: 0, 5: 50, 10: 100, 14.9: 100, 20: 50, 25: 0},
    ),
    "sine": (
        Profile(sine=Sine(low=1000, high=9000, period=seconds(20), for_=seconds(60))),
        {0: 10, 5: 50, 10: 90, 15: 50, 20: 10, 30: 90, 60: 10, 99: 10},
    ),
    "curve": (
        Profile(curve=Curve(points=(CurvePoint(at=seconds(0), to=2000), CurvePoint(at=seconds(10), to=8000)))),
        {0: 20, 5: 50, 10: 80, 99: 80},
    ),
}


@pytest.mark.parametrize(("piece", "expected"), KINDS.values(), ids=KINDS.keys())
def test_kinds(piece, expected):
    """Each kind of segment at its corners, with 100 users."""
    wanted = shape([piece])
    assert expected == {at: wanted.users_at(100, int(at * 1000)) for at in expected}


def test_steps_go_down_too():
    """From 100 % to 0 in four steps: 75, 50, 25, 0."""
    down = shape([hold(0), ramp(FULL, 0), Profile(steps=Steps(to=0, count=4, every=seconds(1)))])
    assert [75, 50, 25, 0] == [down.users_at(100, at) for at in (0, 1000, 2000, 3000)]


@given(
    low=st.integers(0, FULL),
    high=st.integers(0, FULL),
    period_ms=st.integers(1000, 100_000),
    at_ms=st.integers(0, 250_000),
)
def test_a_wave_is_close_to_its_sine(low, high, period_ms, at_ms):
    """The straight pieces stay within 0.5 % of the height (and a rounded user)."""
    low, high = min(low, high), max(low, high)
    wave = Sine(low=low, high=high, period=timedelta(milliseconds=period_ms), for_=seconds(250))
    total = 10_000
    exact = low + (high - low) * (1 - math.cos(2 * math.pi * at_ms / period_ms)) / 2
    assert abs(shape([Profile(sine=wave)]).users_at(total, at_ms) - exact) <= 0.005 * (high - low) + 2


@given(at_ms=st.integers(-1000, 200_000), kind=st.sampled_from(sorted(KINDS)))
def test_where_an_instant_lies(at_ms, kind):
    """`at` names the piece that `users_at` computes by, and the next corner lies ahead."""
    wanted = shape([KINDS[kind][0], hold(1000)])
    piece, following = wanted.at(at_ms)
    if piece is None:
        assert at_ms < 0 or at_ms >= wanted.length_ms
    else:
        assert piece.begin_ms <= at_ms < piece.begin_ms + piece.length_ms
        assert following > at_ms
