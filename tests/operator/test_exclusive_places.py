"""Places whose users have rows of their own: the giver goes first, and nobody is ever on twice."""

from collections import Counter
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan.assignments import at_rest, holders
from trafficsim_operator.plan.places import Deal, Holder, deal, max_over
from trafficsim_operator.testing.fakes import FakeWorld


def a_holder(name: str, *ranges: tuple[int, int], settled: bool = True, answers: bool = True) -> Holder:
    """Build a runner that holds *ranges*."""
    return Holder(name=name, held=Places.of(ranges), settled=settled, answers=answers, takes=answers)


def dealt(found: Deal) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the places dealt as plain ranges."""
    return {name: places.ranges for name, places in found.places.items()}


def test_a_move_is_break_before_make() -> None:
    """The giver drops a tenth first; the taker gets it once the giver has settled."""
    first = deal(10, [a_holder("a", (0, 10)), a_holder("b")], 100, exclusive=True)
    assert {"a": ((0, 9),), "b": ()} == dealt(first)
    assert ((9, 10),) == first.unplaced.ranges
    assert first.moving
    waits = deal(10, [a_holder("a", (0, 9), settled=False), a_holder("b")], 100, exclusive=True, at_rest=False)
    assert {"a": ((0, 9),), "b": ()} == dealt(waits)
    assert waits.moving
    then = deal(10, [a_holder("a", (0, 9)), a_holder("b")], 100, exclusive=True)
    assert {"a": ((0, 9),), "b": ((9, 10),)} == dealt(then)


def test_the_first_deal_is_as_ever() -> None:
    """Nobody has any, so nobody must give."""
    assert {"a": ((0, 5),), "b": ((5, 10),)} == dealt(deal(10, [a_holder("a"), a_holder("b")], 100, exclusive=True))


def test_a_place_on_twice_from_before_is_dropped_at_once() -> None:
    """`unique` came by an edit in the midst of a move: one of the two drops what both hold."""
    found = deal(10, [a_holder("a", (0, 10)), a_holder("b", (9, 10), settled=False)], 100, exclusive=True)
    assert {"a": ((0, 9),), "b": ((9, 10),)} == dealt(found)
    silent = [a_holder("a", (0, 10), answers=False), a_holder("b", (9, 10))]
    assert {"b": ()} == dealt(deal(10, silent, 100, exclusive=True))


class _Runner:
    """A runner whose users leave some time after it was told so."""

    def __init__(self, name: str) -> None:
        self.name, self.held, self.on = name, Places(), set[int]()
        self.settled, self.answers, self.retires, self.leaves = True, True, False, False

    def seen(self) -> Runner:
        ack = Acknowledgement(
            boot="b", runner=self.name, run=1, epoch=1, places=self.held.ranges, settled=self.settled,
            drained=not self.on,
        )  # fmt: skip
        state = RunnerState.LEAVING if self.leaves else RunnerState.READY
        return Runner(
            name=self.name, uid=self.name, revision="r", state=state, acknowledgement=ack, answered=self.answers
        )

    def hold(self, places: Places) -> None:
        if places != self.held:
            self.settled = False
            self.held = places
            self.on |= set(places)

    def settle(self) -> None:
        self.on = set() if self.leaves else set(self.held)
        self.settled = True


EVENTS = ["look", "look", "settle", "settle", "edit", "join", "lose", "delete", "retire", "silence"]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_two_users_of_one_place(data: st.DataObject) -> None:
    """
    Over edits, newcomers, losses, deletions, silence and retirement, each runner settling when it likes: a place's user
    is never at work in two runners; and when the world is quiet every place is held once, evenly.
    """
    total, capacity = data.draw(st.integers(1, 40)), data.draw(st.integers(5, 50))
    runners = {f"r{n}": _Runner(f"r{n}") for n in range(data.draw(st.integers(1, 3)))}
    born = len(runners)

    def look() -> Deal:
        seen = [runner.seen() for runner in runners.values()]
        going = frozenset(runner.name for runner in runners.values() if runner.retires)
        before = {runner.name: len(runner.held.below(total)) for runner in runners.values()}
        found = deal(total, holders(seen, 1, going), capacity, exclusive=True, at_rest=at_rest(seen, 1))
        given_up = sum(max(0, before[name] - len(places)) for name, places in found.places.items())
        assert given_up <= max_over(total)
        for name, places in found.places.items():
            runners[name].hold(places)
        for one, other in combinations(runners.values(), 2):
            assert not one.on & other.on
        return found

    for _ in range(data.draw(st.integers(0, 25))):
        name = data.draw(st.sampled_from(sorted(runners)))
        match data.draw(st.sampled_from(EVENTS)):
            case "settle":
                runners[name].settle()
            case "edit":
                total = data.draw(st.integers(1, 40))
            case "join":
                runners[f"r{born}"] = _Runner(f"r{born}")
                born += 1
            case "lose" if len(runners) > 1:
                del runners[name]
            case "delete":
                runners[name].leaves = True
                runners[f"r{born}"] = _Runner(f"r{born}")
                born += 1
            case "retire" if sum(not r.retires and not r.leaves for r in runners.values()) > 1:
                runners[name].retires = True
            case "silence":
                runners[name].answers = not runners[name].answers
        look()
    for runner in runners.values():
        runner.answers = True
    while sum(not r.retires and not r.leaves for r in runners.values()) * capacity < total:
        runners[f"r{born}"] = _Runner(f"r{born}")
        born += 1
    for _ in range(200):
        for runner in runners.values():
            runner.settle()
        before = {name: runner.held for name, runner in runners.items()}
        if not look().moving and before == {name: runner.held for name, runner in runners.items()}:
            break
    staying = [runner for runner in runners.values() if not runner.retires and not runner.leaves]
    assert dict.fromkeys(range(total), 1) == dict(Counter(place for r in staying for place in r.held.below(total)))
    assert max(len(runner.held) for runner in staying) <= -(-total // len(staying))


async def test_a_run_with_unique_rows_moves_one_tenth_at_a_time() -> None:
    """300 users get a second runner by minRunners: what the first gives is held by nobody, then by the second."""
    world = FakeWorld()
    rows = [{"user": f"u{number}"} for number in range(300)]
    document = {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 300,
            "data": [{"name": "accounts", "mode": "unique", "from": {"inline": rows}}],
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/{{data.accounts.user}}"}}]}],
        },
    }
    world.record.put(document)
    dips, sizes = set(), set()
    for number in range(120):
        if number == 30:
            scaled = document["spec"] | {"scaling": {"minRunners": 2}}  # type: ignore[operator]
            world.record.put(document | {"spec": scaled})
        await world.look("n", "shop")
        held = Counter(
            place for r in world.fleet.runners.values() if r.assignment is not None for place in r.assignment.held
        )
        assert not held or max(held.values()) == 1
        if number > 10:
            dips.add(300 - len(held))
        sizes.add(len(world.fleet.runners))
    assert {1, 2} <= sizes
    assert {0, 30} == dips
    assert [150, 150] == [len(r.assignment.held) for r in world.fleet.runners.values() if r.assignment is not None]
