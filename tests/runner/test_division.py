"""How places and limits are divided over worker processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.places import Places
from trafficsim_runner.division import divide, givers, pool_limits, pool_shares, shares


def ranges(*pairs):
    return Places.of(pairs)


def sizes(division):
    return [len(part) for part in division]


places = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300)), max_size=8).map(
    lambda pairs: Places.of((start, start + length) for start, length in pairs)
)
history = st.lists(st.tuples(places, st.integers(0, 6)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("count", "workers", "expected"),
    [
        pytest.param(51, 2, [26, 25], id="as equal as can be"),
        pytest.param(1, 2, [1, 0], id="fewer places than workers"),
        pytest.param(0, 2, [0, 0], id="nothing to divide"),
        pytest.param(1000, 4, [250, 250, 250, 250], id="evenly"),
    ],
)
def test_a_first_division_is_even(count, workers, expected):
    """The emptiest worker takes next."""
    assert expected == sizes(divide([], Places.first(count), workers))


def test_a_new_worker_takes_only_new_places():
    """A rise of the process count parks nobody."""
    held = divide([], Places.first(40), 1)
    assert (Places.first(40), ranges((40, 70))) == divide(held, Places.first(70), 2)


def test_a_shrink_from_the_top_leaves_every_worker_its_part():
    """Runners give up their highest places first; afterwards no worker is idle."""
    held = divide([], Places.first(1000), 2)
    left = sizes(divide(held, Places.first(500), 2))
    assert 500 == sum(left)
    assert max(left) - min(left) <= 16


def test_the_fullest_worker_waits_until_the_others_have_caught_up():
    """Held 0, 4, 9 and 10 more: 7, 7, 9."""
    held = [Places(), ranges((0, 4)), ranges((4, 13))]
    assert [7, 7, 9] == sizes(divide(held, Places.first(23), 3))


@given(history=history)
def test_every_place_is_with_exactly_one_worker_and_stays_there(history):
    """Over any history: the union is what is assigned, no place twice, no place moves, no worker goes."""
    held: tuple[Places, ...] = ()
    for wanted, workers in history:
        new = divide(held, wanted, max(1, workers))
        assert wanted == Places.union(new)
        assert len(wanted) == sum(sizes(new))
        assert len(new) == max(len(held), max(1, workers))
        for index, before in enumerate(held):
            assert before & wanted == before & new[index]
        held = new


@given(held=history, more=places)
def test_no_worker_that_gains_ends_above_one_that_does_not_by_more_than_one(held, more):
    """New places fill up the emptiest."""
    first, workers = held[0]
    before = divide([], first, max(1, workers))
    after = divide(before, first | more, max(1, workers))
    gained = [len(b) for a, b in zip(before, after, strict=True) if len(b) > len(a)]
    assert not gained or max(gained) <= min(sizes(after)) + 1


@pytest.mark.parametrize(
    ("limit", "weights", "expected"),
    [
        pytest.param(1000, [600, 400], (600, 400), id="by places"),
        pytest.param(1000, [0, 0, 0], (333, 333, 334), id="equal when nobody holds any"),
        pytest.param(5, [1, 1], (2, 3), id="whole"),
    ],
)
def test_shares(limit, weights, expected):
    """A limit is divided exactly."""
    assert expected == shares(limit, weights)


@given(limit=st.integers(0, 10**6), weights=st.lists(st.integers(0, 5000), min_size=1, max_size=16))
def test_shares_add_up_and_cover_their_weights(limit, weights):
    """Nothing of a limit is lost or made, and a limit that covers all places covers each worker's."""
    given_out = shares(limit, weights)
    assert limit == sum(given_out)
    if limit >= sum(weights):
        assert all(share >= weight for share, weight in zip(given_out, weights, strict=True) if any(weights))


@pytest.mark.parametrize(
    ("most", "weights", "expected"),
    [
        pytest.param(50, [300, 300], (25, 25), id="by places"),
        pytest.param(200, [400, 200], (133, 67), id="exact shares"),
        pytest.param(4, [90, 5, 5], (2, 1, 1), id="nobody's users wait for ever"),
        pytest.param(10, [0, 5, 5], (1, 4, 5), id="a worker without places may get some"),
        pytest.param(2, [5, 0, 5], (1, 0, 1), id="fewer than workers: where the users are"),
        pytest.param(3, [0, 0, 0], (1, 1, 1), id="no places at all"),
    ],
)
def test_connections_of_a_pool_are_shared(most, weights, expected):
    """As any limit, but no worker is left without one while another has two."""
    assert expected == pool_shares(most, weights)


@given(most=st.integers(1, 400), weights=st.lists(st.integers(0, 2000), min_size=1, max_size=16))
def test_a_pool_is_shared_without_rest_and_starves_nobody(most, weights):
    parts = pool_shares(most, weights)
    assert most == sum(parts)
    assert min(parts) >= 1 or most < len(weights)


@given(
    maxes=st.lists(st.integers(1, 100), min_size=1, max_size=6),
    weights=st.lists(st.integers(0, 2000), min_size=1, max_size=8),
    more=st.integers(0, 500),
)
def test_each_workers_limit_covers_its_pools(maxes, weights, more):
    """The limit is shared without rest; while it covers the pools together it does so in every worker."""
    parts = [pool_shares(most, weights) for most in maxes]
    pooled = [sum(part[worker] for part in parts) for worker in range(len(weights))]
    limits = pool_limits(sum(maxes) + more, pooled, weights)
    assert sum(maxes) + more == sum(limits)
    assert all(limit >= held for limit, held in zip(limits, pooled, strict=True))


def test_a_limit_below_the_pools_is_shared_by_what_they_may_hold():
    assert (5, 5) == pool_limits(10, [9, 9], [1, 1])


@pytest.mark.parametrize(
    ("had", "given", "workers", "expected"),
    [
        pytest.param([((0, 6),), ((6, 12),)], (4, 8), 2, [((4, 6),), ((6, 8),)], id="each its own"),
        pytest.param([], (4, 8), 2, [((4, 8),), ()], id="after a restart the first"),
        pytest.param([((0, 6),)], (4, 8), 2, [((4, 8),), ()], id="what nobody had too"),
        pytest.param([((0, 6),)], (0, 0), 0, [], id="no workers"),
    ],
)
def test_who_begins_what_was_given_away(had, given, workers, expected):
    """Whoever had a place begins its arrivals until the turn; none is left out, none is two's."""
    found = givers([Places.of(part) for part in had], Places.of([given]), workers)
    assert expected == [part.ranges for part in found]
