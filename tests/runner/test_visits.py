"""The open model in a worker: which arrival comes next over any assignments, and who takes it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.arrivals import UNIT, Course, Evenly, works_of
from trafficsim_api.places import Places
from trafficsim_api.profile import Segment, Shape
from trafficsim_runner.users import User
from trafficsim_runner.visits import NEVER_NS, Piece, Schedule, Slots, dress

FULL = Shape((Segment(0, 1, 10_000, 10_000),))
MS = 1_000_000


def a_piece(rate=100, places=((0, 10),), users=10, since_ms=0, before=0, **turns):
    """Return *rate* arrivals a second, of which those of *places* are owned."""
    course = Course(shape=FULL, rate=rate * 3_600_000, since_ms=since_ms, before=before)
    return Piece(course=course, works=Evenly(), places=Places.of(places), users=users, **turns)


def taken(schedule, until_ms):
    """Take what is due until then; return (number, ms)."""
    found = []
    while schedule.next_ns <= until_ms * MS:
        found.append((schedule.number, schedule.due_ns / MS))
        schedule.take()
    return found


def test_from_the_beginning():
    """100/s: arrival n at 10·(n + 1) ms, told before the start or at it."""
    for at in (-500 * MS, 0):
        schedule = Schedule()
        schedule.follow(a_piece(), at)
        assert [(n, 10 * (n + 1)) for n in range(10)] == taken(schedule, 100)


def test_from_the_middle():
    """A worker that begins later takes what is due after that."""
    schedule = Schedule()
    schedule.follow(a_piece(), 55 * MS)
    assert [5, 6, 7] == [number for number, _ in taken(schedule, 85)]
    schedule = Schedule()
    schedule.follow(a_piece(), 60 * MS)
    assert [6] == [number for number, _ in taken(schedule, 70)]


def test_nothing_after_the_end_or_without_a_place():
    """The run's end ends the arrivals, at it is too late; who holds no place has none."""
    schedule = Schedule()
    schedule.end_ns = 50 * MS
    schedule.follow(a_piece(), 0)
    assert [0, 1, 2, 3] == [number for number, _ in taken(schedule, 1000)]
    assert NEVER_NS == schedule.next_ns
    schedule = Schedule()
    schedule.follow(a_piece(places=()), 0)
    assert NEVER_NS == schedule.next_ns


def test_a_rate_of_nothing_never_comes_and_a_new_one_does():
    """Where the level is 0 for good nothing is due, until an edit."""
    nothing = a_piece()
    nothing = replace(nothing, course=Course(shape=Shape((Segment(0, 1, 0, 0),)), rate=1))
    schedule = Schedule()
    schedule.follow(nothing, 0)
    assert NEVER_NS == schedule.next_ns
    schedule.follow(a_piece(since_ms=1000), 500 * MS)
    assert [(0, 1010.0), (1, 1020.0)] == taken(schedule, 1020)


def test_what_is_overdue_is_still_taken_when_an_edit_comes():
    """The worker was late: what was due before the edit's instant comes by the old course, what is after by the new."""
    schedule = Schedule()
    schedule.follow(a_piece(), 0)
    schedule.follow(a_piece(rate=1000, since_ms=40, before=4 * UNIT), 60 * MS)
    assert [0, 1, 2, 3, 4, 5] == [number for number, _ in taken(schedule, 60)]
    assert [(24, 61.0), (25, 62.0)] == taken(schedule, 62)


LOOKS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0, 50, 100, 1000]), st.integers(0, 3)),
    max_size=8,
)


@given(LOOKS, st.integers(0, 100))
def test_workers_that_hear_in_time_never_do_one_twice_or_leave_one_out(looks, late_ms):
    """
    Edits of the rate told to two workers at different instants, both before they count: together they take what one
    that holds everything takes.
    """
    halves = [Schedule(), Schedule()]
    whole = Schedule()
    course = Course(shape=FULL, rate=100 * 3_600_000)
    places = (((0, 10),), ((0, 4),), ((4, 10),))
    came = [[], [], []]

    def tell(schedule, course, held, at_ms):
        schedule.follow(Piece(course=course, works=Evenly(), places=Places.of(held), users=10), at_ms * MS)

    for schedule, held in zip((whole, *halves), places, strict=True):
        tell(schedule, course, held, 0)
    now = 0
    for wait, _, rate, repeats in looks:
        now += wait
        since = max(course.since_ms, now + 1000)
        course = Course(shape=FULL, rate=max(1, rate) * 3_600_000, since_ms=since, before=course.due(since))
        for number, (schedule, held) in enumerate(zip((whole, *halves), places, strict=True)):
            told = now + number * late_ms
            came[number] += taken(schedule, told)
            for _ in range(1 + repeats):
                tell(schedule, course, held, told)
    for number, schedule in enumerate((whole, *halves)):
        came[number] += taken(schedule, now + 3000)
    assert came[0] == sorted(came[1] + came[2], key=lambda pair: (pair[1], pair[0]))
    assert len({number for number, _ in came[0]}) == len(came[0])


def test_who_takes_an_arrival():
    """The place's own user, else one that is there and free, else a new one, else nobody."""
    slots, users = Slots(), {}
    slots.hold([3, 1, 2])
    assert 1 == slots.choose(1, users)
    users[1] = object()
    assert 3 == slots.choose(1, users)
    users[3] = object()
    slots.free[3] = User()
    assert 2 == slots.choose(2, users)
    assert 3 == slots.choose(1, users)
    assert 3 == slots.choose(7, users)
    del slots.free[3]
    assert 2 == slots.choose(1, users)
    users[2] = object()
    assert slots.choose(1, users) is None


def test_a_visitor_is_new():
    """Draws and iteration follow from the arrival alone; nothing of the visitor before is left."""
    one, other = User(), User()
    for user, place in ((one, 3), (other, 4)):
        user.place = place
        dress(user, number=47, users=10, seed=7, archetype=1)
    assert (one.key, one.draws, one.iteration) == (other.key, other.draws, other.iteration)
    assert 4 == one.iteration
    one.saved, one.cookie_line, one.loops = {"a": "b"}, b"c=d", [2]
    dress(one, number=48, users=10, seed=7, archetype=0)
    assert (None, None, None) == (one.saved, one.cookie_line, one.loops)
    assert one.key != other.key


def test_a_place_gained_counts_from_its_turn_on():
    """100/s over 10 places: place 8 (position 1) comes with arrivals 1, 11, 21 …; taken from 20 on that is 21 first."""
    schedule = Schedule()
    schedule.follow(a_piece(places=((8, 9),), takes={8: 20}), 0)
    assert [21, 31] == [number for number, _ in taken(schedule, 400)]
    assert {8: 20} == schedule.takes


def test_a_taker_that_is_told_late_says_from_when_on_it_counts():
    """Told at 255 ms to take from arrival 20 (due at 210 ms) on: it takes from 25 on, and stays with that."""
    schedule = Schedule()
    schedule.follow(a_piece(places=((8, 9),), takes={8: 20}), 255 * MS)
    assert {8: 25} == schedule.takes
    schedule.follow(a_piece(places=((8, 9),), takes={8: 20}, since_ms=1000), 260 * MS)
    assert {8: 25} == schedule.takes
    assert [31, 41] == [number for number, _ in taken(schedule, 450)]


def test_a_giver_goes_on_until_the_turn():
    """Arrivals of the place given away are begun before it, and no more from it on; then it is over."""
    schedule = Schedule()
    schedule.follow(a_piece(), 0)
    assert [0, 1, 2] == [number for number, _ in taken(schedule, 30)]
    assert 0 == schedule.follow(a_piece(places=((0, 8), (9, 10)), gives={8: 20}), 35 * MS)
    assert (8,) == schedule.lost
    assert [3, 4, 5, 6, 7, 8, 9, 10, 11, *range(12, 20)] == [number for number, _ in taken(schedule, 200)]
    assert () == schedule.lost
    assert [20, 22] == [number for number, _ in taken(schedule, 230)]


def test_a_place_given_away_before_it_was_taken_counts_in_between():
    """Taken from arrival 20 on and given away at 40, both told before: 21 and 31 are begun here."""
    schedule = Schedule()
    schedule.follow(a_piece(places=((8, 9),), takes={8: 20}), 0)
    schedule.follow(a_piece(places=(), gives={8: 40}), 5 * MS)
    assert {8: 20} == schedule.takes
    assert [21, 31] == [number for number, _ in taken(schedule, 1_000)]
    schedule = Schedule()
    schedule.follow(a_piece(places=(), takes={8: 20}, gives={8: 40}), 5 * MS)
    assert [21, 31] == [number for number, _ in taken(schedule, 1_000)]


def test_a_giver_without_other_places_comes_to_an_end():
    """With its last place given away it is done when that place has no arrival before the turn."""
    schedule = Schedule()
    schedule.follow(a_piece(places=((8, 9),)), 0)
    schedule.follow(a_piece(places=(), gives={8: 20}), 5 * MS)
    assert (8,) == schedule.lost
    assert [1, 11] == [number for number, _ in taken(schedule, 10_000)]
    assert () == schedule.lost
    assert NEVER_NS == schedule.next_ns


def test_a_late_giver_counts_what_it_did_twice():
    """Told at 455 ms that place 8 was another's from arrival 20 on: 21, 31 and 41 were begun here too."""
    schedule = Schedule()
    schedule.follow(a_piece(), 0)
    taken(schedule, 455)
    told = a_piece(places=((0, 8), (9, 10)), gives={8: 20})
    assert 3 == schedule.follow(told, 455 * MS)
    assert 0 == schedule.follow(told, 456 * MS)
    assert () == schedule.lost
    assert [45, 46, 47, 48, 49, 50, 52] == [number for number, _ in taken(schedule, 530)]


def test_the_turn_holds_for_what_was_told_before_too():
    """An edit of the rate waits for its instant; the place given away meanwhile goes at its turn all the same."""
    schedule = Schedule()
    schedule.follow(a_piece(), 0)
    schedule.follow(a_piece(rate=50, since_ms=500, before=50 * UNIT), 100 * MS)
    given = a_piece(rate=50, since_ms=500, before=50 * UNIT, places=((0, 8), (9, 10)), gives={8: 40})
    schedule.follow(given, 150 * MS)
    numbers = [number for number, _ in taken(schedule, 1_000)]
    assert {11, 21, 31} <= set(numbers)
    assert not {41, 51, 61} & set(numbers)
    assert 74 == numbers[-1]


MOVES = st.lists(
    st.tuples(
        st.integers(0, 3000),  # ms until the next move
        st.integers(0, 9), st.integers(0, 2), st.integers(0, 2),  # place, giver, taker
        st.integers(0, 2500), st.integers(0, 3500),  # ms until taker and giver are told
        st.sampled_from([None, 30, 100, 400]),  # an edit of the rate on the way
    ),
    max_size=6,
)  # fmt: skip


@given(MOVES, st.sampled_from(["constant", "poisson"]))
def test_whatever_moves_every_arrival_is_begun_once(moves, process):
    """
    Three runners, moves of places between them, takers and givers told as late as may be, edits of the rate in between:
    each arrival is begun by exactly one, but for those that a late giver says it did twice.
    """
    works, course = works_of(process, 3), Course(shape=FULL, rate=100 * 3_600_000)
    runners = [Schedule() for _ in range(3)]
    places = [Places.first(10), Places(), Places()]
    takes, gives = [{}, {}, {}], [{}, {}, {}]
    came, twice, now = [[], [], []], 0, 0

    def tell(index):
        piece = Piece(course=course, works=works, places=places[index], users=10,
                      takes=dict(takes[index]), gives=dict(gives[index]))  # fmt: skip
        came[index].extend(taken(runners[index], now))
        return runners[index].follow(piece, now * MS)

    for index in range(3):
        tell(index)
    for wait, place, giver, taker, take_ms, give_ms, rate in moves:
        now += wait
        if rate is not None:
            since = max(course.since_ms, now + 1000)
            course = Course(shape=FULL, rate=rate * 3_600_000, since_ms=since, before=course.due(since))
            twice += sum(tell(index) for index in range(3))
        if giver == taker or place not in places[giver]:
            continue
        one = Places.of([(place, place + 1)])
        turn = works.first_after(course.due(now + 3000))
        now += take_ms
        places[taker], takes[taker] = places[taker] | one, {**takes[taker], place: turn}
        gives[taker].pop(place, None)
        twice += tell(taker)
        takes[taker] = dict(runners[taker].takes)
        now += give_ms
        places[giver], gives[giver] = places[giver] - one, {**gives[giver], place: takes[taker][place]}
        takes[giver].pop(place, None)
        twice += tell(giver)
        now += 4000  # the operator begins no other move of the place before the turn
    now += 2000
    for index in range(3):
        tell(index)
    numbers = sorted(number for part in came for number, _ in part)
    last = works.first_after(course.due(now))
    expected = [n for n in range(last) if course.instant_ns(works.work(n)) <= now * MS]
    assert set(expected) == set(numbers)
    assert len(numbers) - len(set(numbers)) == twice
