"""Dealing places: nobody is ever dropped by us, moves overlap by at most a tenth, and everything comes to rest."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.places import Places
from trafficsim_operator.plan.places import Deal, Holder, deal, max_over


def a_holder(
    name: str, *ranges: tuple[int, int], settled: bool = True, answers: bool = True, retiring: bool = False
) -> Holder:
    """Build a runner that holds *ranges*."""
    return Holder(name=name, held=Places.of(ranges), settled=settled, answers=answers, takes=answers, retiring=retiring)


def ranges(found: Deal) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the places dealt as plain ranges."""
    return {name: places.ranges for name, places in found.places.items()}


@pytest.mark.parametrize(("total", "most"), [(0, 1), (1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (400, 40), (5000, 500)])
def test_a_tenth_may_be_on_twice(total: int, most: int) -> None:
    """At most max(1, ⌊T ÷ 10⌋) places overlap in a move."""
    assert most == max_over(total)


def test_first_deal_is_equal_and_contiguous() -> None:
    """1200 places over two runners: 600 each, in blocks."""
    assert {"a": ((0, 600),), "b": ((600, 1200),)} == ranges(deal(1200, [a_holder("a"), a_holder("b")], 1000))


def test_edit_up_deals_only_the_new_ones() -> None:
    """1200 → 2001 with a third runner: nobody moves, the newcomer takes its share, the others the rest."""
    found = deal(2001, [a_holder("a", (0, 600)), a_holder("b", (600, 1200)), a_holder("c")], 1000)
    assert {"a": ((0, 600), (1867, 1934)), "b": ((600, 1200), (1934, 2001)), "c": ((1200, 1867),)} == ranges(found)


def test_edit_down_drops_the_places_above() -> None:
    """2001 → 300 on one runner: places ≥ 300 are dropped, the rest stay where they are."""
    going = [a_holder("b", (600, 1200), retiring=True), a_holder("c", (1200, 1867), retiring=True)]
    found = deal(300, [a_holder("a", (0, 600), (1867, 1934)), *going], 1000)
    assert {"a": ((0, 300),), "b": (), "c": ()} == ranges(found)


def test_a_move_is_make_before_break() -> None:
    """The taker gets a tenth first; the giver drops it once the taker has settled."""
    first = deal(10, [a_holder("a", (0, 10)), a_holder("b")], 100)
    assert {"a": ((0, 10),), "b": ((9, 10),)} == ranges(first)
    assert first.moving
    waiting = deal(10, [a_holder("a", (0, 10)), a_holder("b", (9, 10), settled=False)], 100)
    assert {"a": ((0, 10),), "b": ((9, 10),)} == ranges(waiting)
    settled = deal(10, [a_holder("a", (0, 10)), a_holder("b", (9, 10))], 100)
    assert {"a": ((0, 9),), "b": ((8, 10),)} == ranges(settled), "and the next one begins"


def test_retiring_runner_gives_all() -> None:
    """A retiring runner is emptied in steps, and takes nothing."""
    found = deal(20, [a_holder("a", (0, 10)), a_holder("b", (10, 20), retiring=True)], 100)
    assert {"a": ((0, 10), (18, 20)), "b": ((10, 20),)} == ranges(found)


def test_an_unreachable_runner_keeps_its_places() -> None:
    """Unreachable is not lost: its places are dealt to nobody."""
    found = deal(10, [a_holder("a", (0, 5)), a_holder("b", (5, 10), answers=False)], 100)
    assert {"a": ((0, 5),)} == ranges(found)
    assert not found.unplaced


def test_a_lost_runners_places_go_at_once() -> None:
    """Places that nobody holds are dealt at once, up to capacity; what finds no room waits."""
    found = deal(20, [a_holder("a", (0, 10))], 15)
    assert {"a": ((0, 15),)} == ranges(found)
    assert ((15, 20),) == found.unplaced.ranges


class _Runner:
    def __init__(self) -> None:
        self.held, self.settled, self.answers, self.retiring = Places(), True, True, False


def _holders(runners: dict[str, _Runner]) -> list[Holder]:
    return [
        Holder(name=n, held=r.held, settled=r.settled, answers=r.answers, takes=r.answers, retiring=r.retiring)
        for n, r in runners.items()
    ]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_random_histories(data: st.DataObject) -> None:
    """
    Over edits, newcomers, losses, silence and retirement: no place that is held is ever dropped by a deal, no runner is
    dealt above capacity, at most max_over places are on twice by a move, and when the world is quiet every place is
    held once, evenly, and by no retiring runner.
    """
    total, capacity = data.draw(st.integers(1, 60)), data.draw(st.integers(5, 70))
    runners = {f"r{n}": _Runner() for n in range(data.draw(st.integers(1, 3)))}
    born = len(runners)

    def look(everybody_settles: bool) -> None:
        before = Places.union(r.held for r in runners.values()).below(total)
        twice = sum(len(r.held.below(total)) for r in runners.values()) - len(before)
        found = deal(total, _holders(runners), capacity)
        for name, places in found.places.items():
            runner = runners[name]
            assert places.below(total) == places
            assert len(places) <= max(capacity, len(runner.held.below(total)))
            runner.settled = places == runner.held and (runner.settled or everybody_settles or data.draw(st.booleans()))
            runner.held = places
        after = Places.union(r.held for r in runners.values()).below(total)
        assert not before - after
        assert sum(len(r.held.below(total)) for r in runners.values()) - len(after) <= max(twice, max_over(total))

    for _ in range(data.draw(st.integers(0, 12))):
        match data.draw(st.sampled_from(["look", "look", "edit", "join", "lose", "retire", "silence"])):
            case "edit":
                total = data.draw(st.integers(1, 60))
            case "join":
                runners[f"r{born}"] = _Runner()
                born += 1
            case "lose" if len(runners) > 1:
                del runners[data.draw(st.sampled_from(sorted(runners)))]
            case "retire" if sum(not r.retiring for r in runners.values()) > 1:
                runners[data.draw(st.sampled_from(sorted(runners)))].retiring = True
            case "silence":
                runner = runners[data.draw(st.sampled_from(sorted(runners)))]
                runner.answers = not runner.answers
        look(everybody_settles=False)
    for runner in runners.values():
        runner.answers = True
    while sum(not r.retiring for r in runners.values()) * capacity < total:
        runners[f"r{born}"] = _Runner()
        born += 1
    for _ in range(200):
        before = [(r.held, r.settled) for r in runners.values()]
        look(everybody_settles=True)
        if before == [(r.held, True) for r in runners.values()]:
            break
    staying = [len(r.held) for r in runners.values() if not r.retiring]
    assert total == sum(staying)
    assert len(Places.union(r.held for r in runners.values())) == total
    assert max(staying) <= -(-total // len(staying))
    again = deal(total, _holders(runners), capacity)
    assert {name: r.held for name, r in runners.items()} == dict(again.places)
