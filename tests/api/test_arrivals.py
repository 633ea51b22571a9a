"""Arrivals: the integral of the rate and its inverse, exactly; a Poisson process; one sequence for any partition."""

import itertools
import math
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.arrivals import UNIT, Course, Evenly, Owned, Poisson
from trafficsim_api.profile import shape
from trafficsim_api.resource import Hold, Profile, Ramp
from trafficsim_api.units import FULL, format_rate, parse_rate

MS = 1_000_000


def ramp(to, ms):
    return Profile(ramp=Ramp(to=to, over=timedelta(milliseconds=ms)))


def hold(ms):
    return Profile(hold=Hold(for_=timedelta(milliseconds=ms)))


profiles = st.lists(
    st.builds(ramp, st.integers(0, FULL), st.integers(0, 60_000)) | st.builds(hold, st.integers(0, 60_000)),
    min_size=1,
    max_size=5,
)
rates = st.integers(1, 10_000 * 3600 * 1000)


def integral(profile, at_ms):
    """Return ∫ level dt until *at_ms* (ms) by the definition: a trapezium for each segment."""
    level, begin, area = Fraction(1 if profile[0].hold else 0), 0, Fraction(0)
    for piece in profile:
        length = (piece.ramp.over if piece.ramp else piece.hold.for_) // timedelta(milliseconds=1)
        end = Fraction(piece.ramp.to, FULL) if piece.ramp else level
        inside = min(max(at_ms - begin, 0), length)
        if length:
            area += inside * (2 * level + (end - level) * Fraction(inside, length)) / 2
        level, begin = end, begin + length
    return area + max(at_ms - begin, 0) * level


@given(profiles, rates, st.integers(0, 400_000))
def test_the_work_due_is_the_integral_of_the_rate(profile, rate, at_ms):
    """due(t) = ⌊UNIT · rate · ∫ level dt⌋, whatever the profile."""
    expected = math.floor(UNIT * Fraction(rate, 3_600_000_000) * integral(profile, at_ms))
    assert expected == Course(shape=shape(profile), rate=rate).due(at_ms)


@given(profiles, rates, st.integers(0, 400_000), st.integers(0, 400_000))
def test_as_many_arrivals_as_the_integral(profile, rate, since_ms, at_ms):
    """Evenly: ⌊Λ(t)⌋ arrivals have come until t; the last of them not after t, the next one after it."""
    course = Course(shape=shape(profile), rate=rate, since_ms=since_ms, before=5 * UNIT)
    count = course.due(at_ms) // UNIT
    works = Evenly()
    if count > 5:
        assert course.instant_ns(works.work(count - 1)) <= at_ms * MS
    following = course.instant_ns(works.work(count))
    assert following is None or following > at_ms * MS or at_ms <= since_ms


@given(profiles, rates, st.integers(1, 10**12))
def test_an_instant_is_the_first_one(profile, rate, work):
    """At the instant the work is due, a ns before it is not; never means that it never is."""
    course = Course(shape=shape(profile), rate=rate)
    at_ns, needed = course.instant_ns(work), Fraction(work, UNIT) * 3_600_000_000 / rate
    if at_ns is None:
        assert integral(profile, 10**9) < needed
    else:
        assert integral(profile, Fraction(at_ns - 1, MS)) < needed <= integral(profile, Fraction(at_ns, MS))


@given(profiles, profiles, rates, rates, st.integers(0, 300_000), st.integers(0, 300_000))
def test_an_edit_goes_on_where_the_course_before_it_stood(before, after, old, new, since_ms, later_ms):
    """A new rate or profile from since on: the work due then is the same, and grows by the new one's integral."""
    first = Course(shape=shape(before), rate=old)
    second = Course(shape=shape(after), rate=new, since_ms=since_ms, before=first.due(since_ms))
    at_ms = since_ms + later_ms
    gained = integral(after, at_ms) - integral(after, since_ms)
    assert first.due(since_ms) == second.due(since_ms)
    assert first.due(since_ms) + math.floor(UNIT * Fraction(new, 3_600_000_000) * gained) == second.due(at_ms)


def test_a_ramp_has_its_integral_in_every_second():
    """0 to 1000/s over 10 s: 50, 150, 250 … arrivals in the seconds, 5000 in all, then 1000 in each."""
    course = Course(shape=shape([ramp(FULL, 10_000)]), rate=parse_rate("1000/s"))
    counted = [0] * 12
    for n in itertools.count():
        at = course.instant_ns(Evenly().work(n)) - 1
        if at >= 12_000 * MS:
            break
        counted[at // (1000 * MS)] += 1
    assert [50, 150, 250, 350, 450, 550, 650, 750, 850, 950, 1000, 1000] == counted


@pytest.mark.parametrize(("seed", "seconds"), [(0, 400), (7, 400), (2**53, 400)])
def test_poisson_counts_and_gaps(seed, seconds):
    """Mean and variance of the counts are equal, the gaps are exponential (Kolmogorov and Smirnov at 0.1 %)."""
    course, works = Course(shape=shape([hold(1000)]), rate=parse_rate("100/s")), Poisson(seed)
    instants = list(itertools.takewhile(lambda at: at < seconds * 1000 * MS,
                                        (course.instant_ns(works.work(n)) for n in itertools.count())))  # fmt: skip
    counts = [0] * seconds
    for at in instants:
        counts[at // (1000 * MS)] += 1
    mean = len(instants) / seconds
    variance = sum((count - mean) ** 2 for count in counts) / (seconds - 1)
    assert abs(mean - 100) < 4 * math.sqrt(100 / seconds)
    assert abs(variance / mean - 1) < 4 * math.sqrt(2 / seconds)
    gaps = sorted((b - a) / (10 * MS) for a, b in itertools.pairwise([0, *instants]))
    n = len(gaps)
    furthest = max(max(abs(1 - math.exp(-gap) - i / n), abs(1 - math.exp(-gap) - (i + 1) / n))
                   for i, gap in enumerate(gaps))  # fmt: skip
    assert furthest < 1.95 / math.sqrt(n)


@given(st.integers(0, 2**53), st.integers(0, 5000 * UNIT))
def test_the_first_poisson_arrival_after_an_amount_of_work(seed, work):
    """It is due after it, the one before is not, and the works rise; a second look at an older block says the same."""
    works = Poisson(seed)
    number = works.first_after(work)
    assert works.work(number) > work
    assert not number or works.work(number - 1) <= work
    assert works.work(number) == Poisson(seed).work(number)


@given(st.integers(1, 200), st.data())
def test_owners_are_disjoint_and_miss_nothing(users, data):
    """For any partition of the places over runners each arrival has one owner, the same place as on one runner."""
    parts = data.draw(st.lists(st.integers(0, 4), min_size=users, max_size=users))
    begin = data.draw(st.integers(0, 1000))
    alone = dict(itertools.takewhile(lambda pair: pair[0] < begin + 300, Owned(users, [(0, users)]).since(begin)))
    shared = {}
    for runner in range(5):
        owned = Owned(users, [(p, p + 1) for p in range(users) if parts[p] == runner])
        for number, place in itertools.takewhile(lambda pair: pair[0] < begin + 300, owned.since(begin)):
            assert number not in shared
            shared[number] = place
    assert alone == shared
    assert sorted(alone) == list(range(begin, begin + 300))


@pytest.mark.parametrize(
    ("text", "per_hour", "back"),
    [("300/s", 300 * 3_600_000, "300/s"), ("0.5/s", 1_800_000, "0.5/s"), ("90/m", 5_400_000, "1.5/s"),
     ("10/h", 10_000, "10/h"), ("1/m", 60_000, "1/m"), ("0.001/h", 1, "0.001/h")],
)  # fmt: skip
def test_rates(text, per_hour, back):
    """Thousandths an hour, exactly; written back in the largest unit that can."""
    assert per_hour == parse_rate(text)
    assert back == format_rate(per_hour)
    assert per_hour == parse_rate(back)


@pytest.mark.parametrize(
    "text", ["300", "0/s", "1000000.1/s", "-1/s", "1e3/s", "300/d", "300 /s", 3.5, True, None, "/s"]
)
def test_what_is_no_rate(text):
    """A rate has a unit, is above 0 and at most a million a second."""
    with pytest.raises(ValueError, match="rate"):
        parse_rate(text)
