"""Places: the users of any partition add up, nobody is parked on the way up, and sets behave as sets."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.places import Archetypes, Places, position
from trafficsim_api.profile import shape
from trafficsim_api.resource import Hold, Profile, Ramp
from trafficsim_api.units import FULL

totals = st.integers(1, 400)


def order(total):
    """Return order(T) by its definition: the places sorted by their bit-reversed index."""
    width = max(1, (total - 1).bit_length())
    return sorted(range(total), key=lambda place: int(f"{place:0{width}b}"[::-1], 2))


@st.composite
def partitions(draw, total):
    """Random disjoint Places that hold all of 0 … total-1, some of them perhaps empty."""
    cuts = sorted(draw(st.lists(st.integers(0, total), max_size=9)))
    pieces = [(a, b) for a, b in pairwise([0, *cuts, total])]
    runners = draw(st.integers(1, 5))
    owners = [draw(st.integers(0, runners - 1)) for _ in pieces]
    return [Places.of(piece for piece, owner in zip(pieces, owners, strict=True) if owner == r) for r in range(runners)]


def on(places, total, wanted):
    """Return the places that are on when *wanted* users are."""
    return {place for place in places if position(place, total) < wanted}


@pytest.mark.parametrize(
    ("total", "expected"), [(1, [0]), (2, [0, 1]), (5, [0, 4, 2, 1, 3]), (8, [0, 4, 2, 6, 1, 5, 3, 7])]
)
def test_order_by_example(total, expected):
    """order(5) is 0, 4, 2, 1, 3."""
    assert expected == sorted(range(total), key=lambda place: position(place, total))


@given(total=totals)
def test_position_is_the_place_in_the_bit_reversed_order(total):
    """The formula gives what sorting by the reversed bits gives."""
    assert list(range(total)) == [position(place, total) for place in order(total)]


@given(total=st.integers(1, 1_000_000), data=st.data())
def test_positions_of_large_totals_stay_inside(total, data):
    place = data.draw(st.integers(0, total - 1))
    assert 0 <= position(place, total) < total


@pytest.mark.parametrize(("place", "total"), [(-1, 5), (5, 5), (0, 0)])
def test_no_position_outside(place, total):
    with pytest.raises(ValueError, match="is not one of"):
        position(place, total)


@given(total=totals, data=st.data())
def test_runners_add_up_for_any_partition(total, data):
    """Σ over runners = u(t), at every u."""
    runners = data.draw(partitions(total))
    wanted = data.draw(st.integers(0, total))
    assert wanted == sum(len(on(places, total, wanted)) for places in runners)


@given(total=totals, data=st.data())
def test_no_ramp_up_parks_a_user(total, data):
    """Who is on at u is on at every larger u."""
    less = data.draw(st.integers(0, total))
    more = data.draw(st.integers(less, total))
    assert on(range(total), total, less) <= on(range(total), total, more)


@given(total=totals, data=st.data())
def test_the_same_users_run_on_one_and_on_four_runners(total, data):
    """Which users are on follows from u alone, not from who holds them."""
    wanted = data.draw(st.integers(0, total))
    runners = data.draw(partitions(total))
    assert on(Places.first(total), total, wanted) == set().union(*(on(places, total, wanted) for places in runners))


@given(total=totals, parts=st.integers(1, 8), data=st.data())
def test_contiguous_parts_are_loaded_evenly(total, parts, data):
    """Bit reversal spreads the users: equal blocks differ by few users at any u."""
    size = total // parts
    if size == 0:
        return
    wanted = data.draw(st.integers(0, total))
    shares = [len(on(range(r * size, (r + 1) * size), total, wanted)) for r in range(parts)]
    assert max(shares) - min(shares) <= 2 + size.bit_length()


@settings(max_examples=60)
@given(total=st.integers(1, 60), data=st.data())
def test_histories_of_moves_keep_every_promise(total, data):
    """
    Over any history of moves, edits, losses and u(t): each place is on exactly once but in a move, and the sum is u(t).

    A move: the takers get the places first, the givers drop them after; between the two they are on twice.
    """
    runners = data.draw(partitions(total))
    for _ in range(data.draw(st.integers(1, 8))):
        wanted = data.draw(st.integers(0, total))
        match data.draw(st.sampled_from(["move", "edit", "loss"])):
            case "move":
                giver, taker = (data.draw(st.integers(0, len(runners) - 1)) for _ in range(2))
                moved = runners[giver].highest(data.draw(st.integers(0, 9))) if giver != taker else Places()
                runners[taker] |= moved
                twice = sum(len(on(places, total, wanted)) for places in runners) - wanted
                assert len(on(moved, total, wanted)) == twice
                if giver != taker:
                    runners[giver] -= moved
            case "edit":
                total = data.draw(st.integers(1, 60))
                runners = [places.below(total) for places in runners]
                runners[0] |= Places.first(total) - Places.union(runners)
                wanted = min(wanted, total)
            case "loss":
                lost = data.draw(st.integers(0, len(runners) - 1))
                homeless, runners[lost] = runners[lost], Places()
                runners[(lost + 1) % len(runners)] |= homeless
        held = [place for places in runners for place in places]
        assert sorted(held) == list(range(total))
        assert wanted == sum(len(on(places, total, wanted)) for places in runners)


lengths = st.integers(0, 9000).map(lambda ms: timedelta(milliseconds=ms))
segments = st.builds(lambda to, over: Profile(ramp=Ramp(to=to, over=over)), st.integers(0, FULL), lengths) | st.builds(
    lambda length: Profile(hold=Hold(for_=length)), lengths
)


@given(total=totals, data=st.data())
def test_every_instant_of_a_profile_is_met_exactly(total, data):
    """With the profile's u(t), the runners together have u(t) users at every instant."""
    form = shape(data.draw(st.lists(segments, min_size=1, max_size=4)))
    runners = data.draw(partitions(total))
    for at_ms in data.draw(st.lists(st.integers(0, 40_000), min_size=1, max_size=4)):
        wanted = form.users_at(total, at_ms)
        assert wanted == sum(len(on(places, total, wanted)) for places in runners)


# Sets.

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


@given(left=ranges, right=ranges)
def test_places_are_sets(left, right):
    """Union, difference and intersection are those of Python's sets."""
    a, b = Places.of(left), Places.of(right)
    sa, sb = set(a), set(b)
    assert {p for start, stop in left for p in range(start, stop)} == sa
    assert (sa | sb, sa - sb, sa & sb) == (set(a | b), set(a - b), set(a & b))
    assert (len(sa), bool(sa)) == (len(a), bool(a))
    assert set(Places.union([a, b])) == sa | sb


@given(given_ranges=ranges)
def test_places_have_one_form(given_ranges):
    """Ranges are sorted, disjoint and never touch, so equal sets are equal values and survive JSON."""
    places = Places.of(given_ranges)
    assert all(a_stop < b_start for (_, a_stop), (b_start, _) in pairwise(places.ranges))
    assert all(start < stop for start, stop in places.ranges)
    assert places == Places.of([p, p + 1] for p in places) == Places.of(places.to_lists())
    assert list(places) == sorted(places)


@given(given_ranges=ranges, count=st.integers(-2, 70), total=st.integers(0, 70))
def test_lowest_highest_below(given_ranges, count, total):
    places = Places.of(given_ranges)
    listed = list(places)
    taken = max(0, count)
    assert listed[:taken] == list(places.lowest(count))
    assert (listed[-taken:] if taken else []) == list(places.highest(count))
    assert [p for p in listed if p < total] == list(places.below(total))
    assert all((p in places) == (p in listed) for p in range(70))


# Archetypes.


def test_archetypes_by_example():
    """Weights 70 and 30 give 0 1 0 0 0 1 0 0 1 0 and then again."""
    archetypes = Archetypes([70, 30])
    assert [0, 1, 0, 0, 0, 1, 0, 0, 1, 0] * 2 == [archetypes.of(n) for n in range(20)]


@given(weights=st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), n=st.integers(0, 2000))
def test_every_beginning_has_the_mix(weights, n):
    """After n users each archetype has its share of them, to within one user for each archetype."""
    archetypes = Archetypes(weights)
    counts = [0] * len(weights)
    for user in range(n):
        counts[archetypes.of(user)] += 1
    assert all(
        abs(count - weight * n / sum(weights)) < len(weights) for count, weight in zip(counts, weights, strict=True)
    )
    assert all(count == 0 for count, weight in zip(counts, weights, strict=True) if weight == 0)


@given(weights=st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any))
def test_the_period_is_the_whole_mix(weights):
    """One period has each archetype exactly as often as its weight says; scaling all weights changes nothing."""
    archetypes, whole = Archetypes(weights), sum(weights)
    users = [archetypes.of(n) for n in range(whole)]
    assert weights == [users.count(index) for index in range(len(weights))]
    assert users == [Archetypes([weight * 3 for weight in weights]).of(n) for n in range(whole)]


@pytest.mark.parametrize("weights", [[], [0, 0], [-1, 2]])
def test_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="weights"):
        Archetypes(weights)
