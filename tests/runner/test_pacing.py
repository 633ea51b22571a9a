"""Pacing: places held, sorted by position, against the definition place by place."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, tuples

from trafficsim_api.places import position
from trafficsim_api.profile import Segment, Shape
from trafficsim_runner.pacing import Pacer, spread

RAMP = Shape(
    (Segment(0, 10_000, 0, 10_000), Segment(10_000, 5000, 10_000, 10_000), Segment(15_000, 1000, 10_000, 2500))
)
END = 20_000


def a_pacer(users=100, ranges=((0, 100),), shape=RAMP, end_ms=END, suspended=False):
    return Pacer(users=users, ranges=ranges, shape=shape, end_ms=end_ms, suspended=suspended)


@given(users=integers(1, 200), at=integers(-10, 25_000), cuts=lists(integers(0, 200), max_size=4), suspended=booleans())
def test_the_places_on_are_those_the_definition_names(users, at, cuts, suspended):
    """Place p is on exactly when position(p, T) < u(t); any partition together gives u(t); suspended or over: none."""
    edges = [0, *sorted(min(cut, users) for cut in cuts), users]
    u = RAMP.users_at(users, at) if 0 <= at < END and not suspended else 0
    on = []
    for first, stop in itertools.pairwise(edges):
        pacer = a_pacer(users, [(first, stop)], suspended=suspended)
        on += pacer.slice(0, pacer.wanted(at))
    assert u == len(on)
    assert set(on) == {place for place in range(users) if position(place, users) < u}


@given(at=integers(-100, 30_000), suspended=booleans(), held=tuples(integers(0, 50), integers(50, 100)))
def test_nothing_changes_before_the_next_look(at, suspended, held):
    """Between now and the next look, less the 20 ms of a ramp, the places on stay as they are."""
    pacer = a_pacer(ranges=[held], suspended=suspended)
    next_look = pacer.next_look_ms(at)
    assert next_look > at
    if next_look - at > 20:
        assert {pacer.wanted(at)} == {pacer.wanted(t) for t in range(at, min(next_look, at + 20_000), 7)}


@given(
    pieces=lists(tuples(integers(0, 400), integers(0, 10_000), integers(0, 10_000)), min_size=1, max_size=5),
    users=integers(1, 60),
)
def test_following_the_looks_misses_nothing(pieces, users):
    """Whatever the profile (jumps are pieces without length), between two looks a change waits at most 20 ms."""
    segments, begin = [], 0
    for length, start, end in pieces:
        segments.append(Segment(begin, length, start, end))
        begin += length
    pacer = a_pacer(users, [(0, users)], Shape(tuple(segments)), end_ms=1500)
    at, seen = -5, pacer.wanted(-5)
    while at < 1600:
        following = pacer.next_look_ms(at)
        changes = [t for t in range(at + 1, min(following, 1700)) if pacer.wanted(t) != seen]
        assert not changes or following - changes[0] <= 20
        at, seen = following, pacer.wanted(following)


def test_the_end_is_looked_at():
    """At the end of the run the next look comes exactly then, also in the middle of a ramp."""
    assert END == a_pacer().next_look_ms(END - 1)
    assert 5005 == a_pacer(end_ms=5005).next_look_ms(4990)
    assert 0 == a_pacer(end_ms=5005).wanted(5005)


@given(count=integers(0, 500), over=integers(0, 2000))
def test_starts_are_spread_evenly(count, over):
    """The first at once, the last before the end, in equal steps (to the ms)."""
    delays = spread(count, over)
    assert len(delays) == count
    assert all(0 <= delay <= over for delay in delays)
    steps = [b - a for a, b in itertools.pairwise(delays)]
    assert not steps or max(steps) - min(steps) <= 1


@given(since=integers(-100, 12_000), at=integers(0, 14_000), held=tuples(integers(0, 50), integers(51, 100)))
def test_the_first_user_is_found_within_a_ramp(since, at, held):
    """The first ms with anybody on, wherever in the ramp the look before was."""
    pacer = a_pacer(ranges=[held])
    first = next(t for t in range(11_000) if pacer.wanted(t))
    if since <= first <= at:
        assert first == pacer.first_on_ms(since, at)
