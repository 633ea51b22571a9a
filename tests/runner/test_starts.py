"""Bounded starts: the seed's numbers, when the cut acts, and who goes first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_runner.health.load import CpuLoad, share_of_cores
from trafficsim_runner.starts import LEVEL_NS, PRIORITY, Starts, limit_of
from trafficsim_runner.users import User

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("configured", "descriptors", "limit", "cut"),
    [
        pytest.param(60_000, 1_000_000, 50_000, 30_000, id="50 000 at most"),
        pytest.param(50_000, 1_024, 1_024, 614, id="descriptors"),
        pytest.param(300, 1_024, 300, 180, id="configured"),
        pytest.param(1, 1_024, 1, 1, id="one stays one"),
        pytest.param(0, 1_024, 0, 0, id="a worker without places"),
    ],
)
def test_limit(configured, descriptors, limit, cut):
    """The least of the three, and 60 % of it in the cut."""
    assert (limit, cut) == (limit_of(configured, descriptors), limit_of(configured, descriptors, is_cut=True))


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        pytest.param([800], [False], id="80 % is not above"),
        pytest.param([801], [True], id="above 80 %"),
        pytest.param([900, 750, 750, 750, 750], [True] * 5, id="between 70 and 80 % nothing changes"),
        pytest.param([900, 700, 700, 700], [True, True, True, False], id="three seconds of calm end it"),
        pytest.param([900, 600, 710, 600, 600, 600], [True] * 5 + [False], id="in a row"),
        pytest.param([750, 750], [False, False], id="nothing to end"),
    ],
)
def test_when_the_cut_acts(loads, expected):
    """It begins above 80 %, and ends after three seconds at or below 70 %."""
    starts = Starts()
    starts.bound(1_000, 2_000)
    for load, is_cut in zip(loads, expected, strict=True):
        was_cut = starts.is_cut
        assert (is_cut != was_cut) == starts.measure(load)
        assert (is_cut, 600 if is_cut else 1_000) == (starts.is_cut, starts.limit)


def test_who_goes_first():
    """Lower first, within one level who came first; a level a second: 9 at 0 s comes before 5 at 4.5 s."""
    starts, users = Starts(), [User() for _ in range(5)]
    starts.measure(1_000)
    for user, priority, at_s in zip(users, (9, 5, 5, 0, 5), (0, 1, 1, 3, 4.5), strict=True):
        starts.push(user, priority, int(at_s * SECOND), 7)
    found = [starts.pop(0) for _ in range(6)]
    assert [users[3], users[1], users[2], users[0], users[4]] == [entry[0] for entry in found[:5]]
    assert (7, None) == (found[0][1], found[5])


def test_who_leaves_is_forgotten():
    """A user that left is not let in, even when its record waits for somebody else by now."""
    starts, user, other = Starts(), User(), User()
    starts.push(user, 5, 0, 1)
    starts.push(other, 5, 0, 2)
    assert (True, False) == (starts.drop(user), starts.drop(user))
    starts.push(user, 5, SECOND, 3)
    assert [(other, 2), (user, 3), None] == [starts.pop(0) for _ in range(3)]


def test_outside_of_the_cut_nobody_waits():
    """Whatever is out: the bound on requests in flight is the client's then."""
    starts = Starts()
    starts.bound(10, 10)
    assert not starts.holds_back(10)
    starts.measure(900)
    assert (True, False) == (starts.holds_back(6), starts.holds_back(5))
    starts.push(User(), 5, 0, 0)
    assert starts.holds_back(0), "those that wait already come first"
    for _ in range(3):
        assert starts.pop(10) is None
        starts.measure(0)
    assert starts.pop(10) is not None


COMERS = st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(0, 9), st.booleans()), max_size=60)


@given(COMERS, st.integers(1, 8))
def test_never_above_the_limit_in_order_and_nobody_starves(comers, configured):
    """
    Users of any priority come, those under way end now and then: never more begin than the limit, those of one priority
    begin in the order they came, and nobody is overtaken by who came more than 9 s later.
    """
    starts, out, now, begun, came = Starts(), 0, 0, [], {}
    starts.bound(configured, 100)
    starts.measure(1_000)

    def let():
        nonlocal out
        while (found := starts.pop(out)) is not None:
            out += 1
            assert out <= starts.limit
            begun.append(found[0])

    for wait, priority, ends in comers:
        now += wait
        out -= ends and out > 0
        user = User()
        came[user] = now, priority
        starts.push(user, priority, now, now)
        let()
    while len(starts):
        out -= 1
        let()
    assert set(came) == set(begun)
    for at, user in enumerate(begun):
        for later in begun[:at]:
            assert came[later][0] <= came[user][0] + 9 * LEVEL_NS
            assert came[later][1] != came[user][1] or came[later][0] <= came[user][0]


@pytest.mark.parametrize(
    ("cores", "workers", "share"), [(500, 1, 500), (2_000, 4, 500), (4_000, 2, 1_000), (1, 3, 1), (1_000, 0, 1_000)]
)
def test_what_a_worker_can_have(cores, workers, share):
    """An equal share of the quota, a core at most."""
    assert share == share_of_cores(cores, workers)


def test_load():
    """CPU ÷ (time · share); over a moment the last reading stands."""
    load = CpuLoad(0, 0)
    assert 820 == load.since_last(SECOND, 410_000_000, 500)
    assert 820 == load.since_last(SECOND + 1_000, 410_000_900, 500)
    assert 0 == load.since_last(3 * SECOND, 410_000_000, 500)


def test_the_default_priority():
    """The seed's."""
    assert 5 == PRIORITY
