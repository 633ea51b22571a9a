"""Dealing places to two versions: each gets exactly its quota, nobody is dropped, and at most a chunk is on twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.places import Places, position
from trafficsim_operator.plan.places import Deal, Holder, deal, max_over


def a_holder(
    name: str, *ranges: tuple[int, int], settled: bool = True, answers: bool = True, retiring: bool = False,
    capacity: int | None = None,
) -> Holder:  # fmt: skip
    """Build a runner that holds *ranges*; its colour is the first word of its name."""
    return Holder(
        name=name, held=Places.of(ranges), settled=settled, answers=answers, takes=answers, retiring=retiring,
        colour=name.split("-")[0], capacity=capacity,
    )  # fmt: skip


def ranges(found: Deal) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the places dealt as plain ranges."""
    return {name: places.ranges for name, places in found.places.items()}


def split(total: int, percent: int) -> dict[str, int]:
    """Return how many places blue and green are to have."""
    green = (2 * total * percent + 100) // 200
    green = max(1, min(total - 1, green)) if 0 < percent < 100 and total >= 2 else green
    return {"blue": total - green, "green": green}


A, B, G = "blue-a", "blue-b", "green-g"
QUARTER = {"blue": 15, "green": 5}


def test_a_quarter_of_twenty_moves_in_chunks_of_two() -> None:
    """The example of the module: 15 and 5, two at a time, the next ones when the givers of the last have settled."""
    step = deal(20, [a_holder(A, (0, 10)), a_holder(B, (10, 20)), a_holder(G)], 100, quota=QUARTER)
    assert {A: ((0, 10),), B: ((10, 20),), G: ((8, 10),)} == ranges(step)
    step = deal(20, [a_holder(A, (0, 10)), a_holder(B, (10, 20)), a_holder(G, (8, 10))], 100, quota=QUARTER)
    assert {A: ((0, 8),), B: ((10, 20),), G: ((8, 10),)} == ranges(step), "given, and nothing more in this look"
    leaving = [a_holder(A, (0, 8), settled=False), a_holder(B, (10, 20)), a_holder(G, (8, 10))]
    assert {A: ((0, 8),), B: ((10, 20),), G: ((8, 10),)} == ranges(deal(20, leaving, 100, quota=QUARTER))
    step = deal(20, [a_holder(A, (0, 8)), a_holder(B, (10, 20)), a_holder(G, (8, 10))], 100, quota=QUARTER)
    assert {A: ((0, 8),), B: ((10, 20),), G: ((8, 10), (16, 18))} == ranges(step), "b's highest are as a's were"
    less = a_holder(B, (10, 16), (18, 20))
    step = deal(20, [a_holder(A, (0, 8)), less, a_holder(G, (8, 10), (16, 18))], 100, quota=QUARTER)
    green = (3, 4), (8, 10), (16, 18)
    assert {A: ((0, 8),), B: ((10, 16), (18, 20)), G: green} == ranges(step), "one is missing to five"
    done = deal(20, [a_holder(A, (0, 3), (4, 8)), less, a_holder(G, *green)], 100, quota=QUARTER)
    assert {A: ((0, 3), (4, 8)), B: ((10, 16), (18, 20)), G: green} == ranges(done)
    assert not done.moving


@pytest.mark.parametrize("runners", [1, 4, 10])
@pytest.mark.parametrize("percent", [10, 25, 50, 75])
def test_a_version_gets_every_archetype_and_users_that_are_on(runners: int, percent: int) -> None:
    """Ten archetypes alike, half of the users on: green gets about its share of each, and half of its users are on."""
    total, size = 200, 200 // runners
    held = {f"blue-{number}": Places.of(((size * number, size * (number + 1)),)) for number in range(runners)}
    held["green-0"] = Places()
    for _ in range(100):
        there = [
            Holder(name=name, held=places, settled=True, answers=True, takes=True, colour=name.split("-")[0])
            for name, places in held.items()
        ]
        held = dict(deal(total, there, 200, quota=split(total, percent)).places)
    green = [place for low, high in held["green-0"].ranges for place in range(low, high)]
    assert total * percent // 100 == len(green)
    kinds = [sum(place % 10 == kind for place in green) for kind in range(10)]
    assert max(kinds) - min(kinds) <= max(4, len(green) // 20)
    assert abs(sum(position(place, total) < total // 2 for place in green) - len(green) / 2) <= len(green) / 5


def test_a_hasty_way_back_does_not_wait_for_the_giver() -> None:
    """All five at once with c = 5, though green is unsettled still."""
    there = [a_holder(A, (0, 7)), a_holder(B, (10, 18)), a_holder(G, (7, 10), (18, 20), settled=False)]
    step = deal(20, there, 100, quota={"blue": 20, "green": 0}, chunk=5, hasty=True)
    assert {A: ((0, 10),), B: ((10, 20),), G: ((7, 10), (18, 20))} == ranges(step)
    there = [a_holder(A, (0, 10)), a_holder(B, (10, 20), settled=False), a_holder(G, (7, 10), (18, 20), settled=False)]
    step = deal(20, there, 100, quota={"blue": 20, "green": 0}, chunk=5, hasty=True)
    assert {A: ((0, 10),), B: ((10, 20),), G: ((18, 20),)} == ranges(step), "b's new users are not there yet"


def test_in_haste_the_next_go_while_earlier_ones_are_on_twice() -> None:
    """Two of c = 5 are not finished, so three more go, and none of those two."""
    there = [a_holder(A, (0, 12), settled=False), a_holder(G, (10, 20), settled=False)]
    step = deal(20, there, 100, quota={"blue": 20, "green": 0}, chunk=5, hasty=True)
    assert {A: ((0, 12), (17, 20)), G: ((10, 20),)} == ranges(step)
    assert step.moving


@pytest.mark.parametrize(
    ("room", "expected", "unplaced"),
    [
        pytest.param(10, {A: ((0, 10),), G: ((15, 20),)}, (), id="own colour has room"),
        pytest.param(7, {A: ((0, 7),), G: ((7, 9), (15, 20))}, ((9, 10),), id="then the other, the rest waits"),
    ],
)
def test_what_was_lost_goes_to_its_own_colour_first(
    room: int, expected: dict[str, tuple[tuple[int, int], ...]], unplaced: tuple[tuple[int, int], ...]
) -> None:
    """Blue's third runner is gone with places 5–9; its second is full, green has room for two."""
    there = [a_holder(A, (0, 5), capacity=room), a_holder(B, (10, 15), capacity=5), a_holder(G, (15, 20), capacity=7)]
    found = deal(20, there, 100, quota={"blue": 15, "green": 5})
    assert expected | {B: ((10, 15),)} == ranges(found)
    assert unplaced == found.unplaced.ranges


def test_a_colour_without_a_quota_takes_nothing() -> None:
    """Not even what nobody has room for: it is not proven, or rejected."""
    found = deal(20, [a_holder(A, (0, 10)), a_holder(G)], 15, quota={"blue": 20, "green": 0})
    assert {A: ((0, 15),), G: ()} == ranges(found)
    assert ((15, 20),) == found.unplaced.ranges


def test_a_silent_colour_keeps_its_places_until_it_is_written_off() -> None:
    """Unreachable is not lost, not even in haste; left out of the holders its places go at once."""
    quota, silent = {"blue": 20, "green": 0}, a_holder(G, (10, 20), answers=False)
    kept = deal(20, [a_holder(A, (0, 10)), silent], 100, quota=quota, chunk=5, hasty=True)
    assert {A: ((0, 10),)} == ranges(kept)
    assert not kept.unplaced
    written_off = deal(20, [a_holder(A, (0, 10))], 100, quota=quota, chunk=5, hasty=True)
    assert {A: ((0, 20),)} == ranges(written_off)


def test_a_quota_changed_in_a_move_turns_it_round() -> None:
    """Green has taken two and is called back: it drops them, and blue never let go."""
    there = [a_holder(A, (0, 20)), a_holder(G, (18, 20), settled=False)]
    found = deal(20, there, 100, quota={"blue": 20, "green": 0}, chunk=5, hasty=True)
    assert {A: ((0, 20),), G: ()} == ranges(found)


def test_what_both_have_too_many_of_is_dropped_by_both() -> None:
    """Quota 12 and 8, 14 and 10 held, four of them twice: two each."""
    there = [a_holder(A, (0, 14)), a_holder(G, (10, 20))]
    assert {A: ((0, 12),), G: ((12, 20),)} == ranges(deal(20, there, 100, quota={"blue": 12, "green": 8}))


def test_the_runners_of_a_colour_share_evenly_once_nothing_moves_between_colours() -> None:
    """A newcomer of green gets a chunk of green's; blue's is left alone."""
    there = [a_holder(A, (0, 10)), a_holder(G, (10, 20)), a_holder("green-h")]
    found = deal(20, there, 100, quota={"blue": 10, "green": 10})
    assert {A: ((0, 10),), G: ((10, 20),), "green-h": ((18, 20),)} == ranges(found)


def test_a_retiring_runner_gives_to_the_other_colour_first() -> None:
    """What a colour has too many of is taken from who goes anyway."""
    there = [a_holder(A, (0, 10)), a_holder(B, (10, 20), retiring=True), a_holder(G)]
    found = deal(20, there, 100, quota={"blue": 18, "green": 2})
    assert {A: ((0, 10),), B: ((10, 20),), G: ((18, 20),)} == ranges(found)


def test_exclusive_the_giver_goes_first() -> None:
    """Blue drops two, green gets them when all are at rest, and nobody else does."""
    there = [a_holder(A, (0, 20)), a_holder(G)]
    step = deal(20, there, 100, quota=QUARTER, exclusive=True)
    assert {A: ((0, 18),), G: ()} == ranges(step)
    assert ((18, 20),) == step.unplaced.ranges
    leaving = [a_holder(A, (0, 18), settled=False), a_holder(G)]
    waits = deal(20, leaving, 100, quota=QUARTER, exclusive=True, at_rest=False)
    assert {A: ((0, 18),), G: ()} == ranges(waits)
    step = deal(20, [a_holder(A, (0, 18)), a_holder(G)], 100, quota=QUARTER, exclusive=True)
    assert {A: ((0, 18),), G: ((18, 20),)} == ranges(step)


class _Runner:
    """
    A runner whose users come and go some time after it was told so.

    *surely* are the places whose users are at work even if all that may leave have left, *possibly* those whose users
    are there if all have come and nobody has left.
    """

    def __init__(self, name: str, capacity: int) -> None:
        self.name, self.capacity = name, capacity
        self.held, self.surely, self.possibly = Places(), Places(), Places()
        self.settled, self.answers, self.retiring = True, True, False

    @property
    def colour(self) -> str:
        return self.name.split("-")[0]

    def seen(self) -> Holder:
        return Holder(
            name=self.name, held=self.held, settled=self.settled, answers=self.answers, takes=self.answers,
            retiring=self.retiring, colour=self.colour, capacity=self.capacity,
        )  # fmt: skip

    def hold(self, places: Places) -> None:
        if places != self.held:
            self.held, self.settled = places, False
            self.surely = self.surely & places
            self.possibly = self.possibly | places

    def settle(self) -> None:
        self.surely = self.possibly = self.held
        self.settled = True


class _World:
    """Runners of up to three colours, and what is asked for."""

    def __init__(self, total: int, *, exclusive: bool = False) -> None:
        self.total, self.percent, self.hasty, self.exclusive = total, 0, False, exclusive
        self.runners: dict[str, _Runner] = {}
        self.born = 0

    def join(self, colour: str, capacity: int) -> None:
        name = f"{colour}-{self.born}"
        self.runners[name] = _Runner(name, capacity)
        self.born += 1

    @property
    def quota(self) -> dict[str, int]:
        return split(self.total, self.percent)

    @property
    def chunk(self) -> int:
        return max(1, self.total // 4) if self.hasty else max_over(self.total)

    def twice(self) -> int:
        parts = [runner.held.below(self.total) for runner in self.runners.values()]
        return sum(map(len, parts)) - len(Places.union(parts))

    def look(self) -> Deal:
        """Deal once, and hold the deal against what was before."""
        before = {name: runner.held.below(self.total) for name, runner in self.runners.items()}
        seen = {name: runner.seen() for name, runner in self.runners.items()}
        everybody, twice = Places.union(before.values()), self.twice()
        found = deal(
            self.total, list(seen.values()), 1, quota=self.quota, chunk=self.chunk, hasty=self.hasty,
            exclusive=self.exclusive, at_rest=all(r.answers and r.settled for r in self.runners.values()),
        )  # fmt: skip
        for name, places in found.places.items():
            gained = places - before[name]
            assert not gained or self.quota.get(self.runners[name].colour, 0) > 0
            assert not gained or (not seen[name].retiring and len(places) <= self.runners[name].capacity)
            if not self.exclusive:
                keepers = [before[other] for other, it in seen.items() if other != name and it.settled and it.answers]
                assert not (before[name] - places) - Places.union(keepers)
            self.runners[name].hold(places)
        if self.exclusive:
            dropped = [before[name] - places for name, places in found.places.items()]
            assert sum(map(len, dropped)) <= max(self.chunk, twice + self.chunk)
            assert self.twice() <= twice
        else:
            assert not everybody - Places.union(runner.held for runner in self.runners.values())
            assert self.twice() <= max(twice, self.chunk)
            settled = all(it.settled for it in seen.values() if it.answers)
            assert self.hasty or self.twice() <= twice or (not twice and settled)
        return found

    def come_to_rest(self, capacity: int) -> int:
        """Let everybody answer and settle, with room for all, until nothing changes; return how many looks it took."""
        for runner in self.runners.values():
            runner.answers = True
        for colour, quota in self.quota.items():
            while sum(r.capacity for r in self.runners.values() if r.colour == colour and not r.retiring) < quota:
                self.join(colour, capacity)
        for looks in range(400):
            for runner in self.runners.values():
                runner.settle()
            before = {name: runner.held for name, runner in self.runners.items()}
            if not self.look().moving and before == {name: runner.held for name, runner in self.runners.items()}:
                return looks
        raise AssertionError("nothing comes to rest")

    def check_rest(self) -> None:
        """Assert that each place is held once, by the colour that is to, evenly, and by nobody who goes."""
        assert not self.twice()
        assert Places.first(self.total) == Places.union(runner.held for runner in self.runners.values())
        for colour in sorted({runner.colour for runner in self.runners.values()}):
            mine = [runner for runner in self.runners.values() if runner.colour == colour]
            staying = [len(runner.held) for runner in mine if not runner.retiring]
            assert self.quota.get(colour, 0) == sum(len(runner.held) for runner in mine) == sum(staying)


EVENTS = ["look", "look", "settle", "settle", "edit", "shift", "abort", "join", "lose", "retire", "silence"]


def play(world: _World, data: st.DataObject, events: list[str], capacity: int) -> None:
    """Let something happen, then look."""
    name = data.draw(st.sampled_from(sorted(world.runners)))
    match data.draw(st.sampled_from(events)):
        case "settle":
            world.runners[name].settle()
        case "edit":
            world.total = data.draw(st.integers(1, 60))
        case "shift":
            world.percent, world.hasty = data.draw(st.sampled_from([0, 10, 25, 50, 75, 100])), False
        case "abort":
            world.percent, world.hasty = 0, True
        case "join":
            world.join(data.draw(st.sampled_from(["blue", "green", "old"])), capacity)
        case "lose" if len(world.runners) > 1:
            del world.runners[name]
        case "retire":
            world.runners[name].retiring = True
        case "silence":
            world.runners[name].answers = not world.runners[name].answers
    world.look()


@settings(deadline=None, max_examples=300)
@given(data=st.data(), exclusive=st.booleans())
def test_random_histories(data: st.DataObject, exclusive: bool) -> None:
    """
    Over edits of T and of the quota, aborts, newcomers, losses, silence and retirement: no place is dropped but by a
    runner of whose place another's user is at work, at most a chunk is on twice, nobody above capacity; and when the
    world is quiet each colour has exactly its quota.
    """
    capacity = data.draw(st.integers(5, 70))
    world = _World(data.draw(st.integers(1, 60)), exclusive=exclusive)
    for colour in ("blue", "blue", "green")[: data.draw(st.integers(1, 3))]:
        world.join(colour, capacity)
    for _ in range(data.draw(st.integers(0, 25))):
        play(world, data, EVENTS, capacity)
    world.come_to_rest(capacity)
    world.check_rest()
    held = {name: runner.held for name, runner in world.runners.items()}
    assert held == dict(world.look().places), "a look more changes nothing"


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_users_at_work_in_a_shift(data: st.DataObject) -> None:
    """
    While nobody is lost, T ≤ users at work ≤ T + c at every look of a shift, however long each runner takes to settle:
    counting everybody who may have left as gone, and everybody who may have come as there.
    """
    world = _World(data.draw(st.integers(1, 60)))
    for colour in ("blue", "blue", "green", "green"):
        world.join(colour, 60)
    world.look()
    for runner in world.runners.values():
        runner.settle()
    for _ in range(data.draw(st.integers(1, 60))):
        play(world, data, ["look", "settle", "settle", "settle", "shift"], 60)
        surely = [runner.surely for runner in world.runners.values()]
        possibly = sum(len(runner.possibly) for runner in world.runners.values())
        assert Places.first(world.total) == Places.union(surely)
        assert world.total <= possibly <= world.total + world.chunk


@settings(deadline=None, max_examples=100)
@given(total=st.integers(1, 400), percent=st.sampled_from([10, 25, 50, 75, 100]), green=st.integers(1, 3))
def test_an_abort_is_over_though_green_never_settles(total: int, percent: int, green: int) -> None:
    """Blue has all again after a look for each chunk and one for each taken, whatever green says of itself."""
    world = _World(total)
    for colour in ("blue", "blue", *["green"] * green):
        world.join(colour, total)
    world.percent = percent
    world.come_to_rest(total)
    world.check_rest()
    world.percent, world.hasty = 0, True
    chunks = -(-split(total, percent)["green"] // world.chunk)
    for _ in range(2 * chunks + 1):
        world.look()
        for runner in world.runners.values():
            if runner.colour == "blue":
                runner.settle()
    assert total == sum(len(runner.held) for runner in world.runners.values() if runner.colour == "blue")
    assert not any(runner.held for runner in world.runners.values() if runner.colour == "green")
