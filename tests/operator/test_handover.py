"""Handing arrivals over: what runners are told of turns, and that no arrival is lost or begun twice on the way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trafficsim_api.arrivals import UNIT, Course, works_of
from trafficsim_api.places import Places
from trafficsim_api.profile import Segment, Shape, shape
from trafficsim_api.protocol import Acknowledgement, Assignment
from trafficsim_api.turns import Turn, by_place
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.plan.handover import HandOver, Turning, hand_over
from trafficsim_operator.testing.fakes import FakeWorld
from trafficsim_runner.visits import Piece, Schedule

FULL = Shape((Segment(0, 1, 10_000, 10_000),))


def at(elapsed_ms: int, rate: int = 100) -> Turning:
    """Say that *rate* arrivals a second have come since the start: 100 more each second."""
    course = Course(shape=FULL, rate=rate * 3_600_000)
    return Turning(course=course, process="constant", seed=0, elapsed_ms=elapsed_ms)


def holding(*ranges: tuple[int, int], takes: Any = (), gives: Any = ()) -> Acknowledgement:
    """Build what a runner with *ranges* says."""
    return Acknowledgement(boot="b", run=1, epoch=1, users=10, places=ranges, takes=takes, gives=gives)


def turns(number: int, *ranges: tuple[int, int]) -> tuple[Turn, ...]:
    """Build the turns of *ranges* at *number*."""
    return (Turn(number=number, places=ranges),)


def places(**found: tuple[tuple[int, int], ...]) -> dict[str, Places]:
    """Build the places dealt."""
    return {name: Places.of(ranges) for name, ranges in found.items()}


NOTHING = HandOver()


@pytest.mark.parametrize(
    ("dealt", "held", "expected"),
    [
        pytest.param(
            places(a=((0, 10),), b=((8, 10),)), {"a": holding((0, 10)), "b": None},
            {"a": NOTHING, "b": HandOver(takes=turns(1_300, (8, 10)))}, id="the taker, from 3 s ahead on",
        ),
        pytest.param(
            places(a=((0, 8),), b=((8, 10),)),
            {"a": holding((0, 10)), "b": holding((8, 10), takes=turns(1_300, (8, 10)))},
            {"a": HandOver(gives=turns(1_300, (8, 10))), "b": HandOver(takes=turns(1_300, (8, 10)))},
            id="the giver, until the taker's word",
        ),
        pytest.param(
            places(a=((0, 8),), b=((8, 10),)),
            {"a": holding((0, 10)), "b": holding((8, 10), takes=turns(700, (8, 10)))},
            {"a": HandOver(gives=turns(700, (8, 10))), "b": HandOver(takes=turns(700, (8, 10)))},
            id="a giver that hears of it late is told all the same",
        ),
        pytest.param(
            places(a=((0, 8),), b=((8, 10),)),
            {"a": holding((0, 8), gives=turns(1_200, (8, 10))), "b": holding((8, 10), takes=turns(1_200, (8, 10)))},
            {"a": HandOver(gives=turns(1_200, (8, 10))), "b": HandOver(takes=turns(1_200, (8, 10)))},
            id="under way: told again",
        ),
        pytest.param(
            places(a=((0, 8),), b=((8, 10),)),
            {"a": holding((0, 8), gives=turns(890, (8, 10))), "b": holding((8, 10), takes=turns(890, (8, 10)))},
            {"a": NOTHING, "b": NOTHING}, id="passed for a second: no more",
        ),
        pytest.param(
            places(a=((0, 10),), b=((8, 10),)),
            {"a": holding((0, 10)), "b": holding((8, 10), takes=turns(890, (8, 10)))},
            {"a": NOTHING, "b": HandOver(takes=turns(890, (8, 10)))}, id="passed, and the giver not told yet",
        ),
        pytest.param(
            places(a=((0, 8),), c=((8, 10),)), {"a": holding((0, 8), gives=turns(1_200, (8, 10))), "c": holding()},
            {"a": HandOver(gives=turns(1_200, (8, 10))), "c": HandOver(takes=turns(1_200, (8, 10)))},
            id="the taker was lost: the next goes on from where the giver leaves off",
        ),
        pytest.param(
            places(a=((0, 10),)), {"a": holding((0, 8), gives=turns(1_200, (8, 10)))}, {"a": NOTHING},
            id="the giver has it again: without a turn",
        ),
        pytest.param(
            places(a=((0, 8),), b=(), c=((8, 10),)),
            {
                "a": holding((0, 8), gives=turns(1_200, (8, 10))),
                "b": holding((8, 10), takes=turns(1_200, (8, 10))),
                "c": holding((8, 10), takes=turns(1_290, (8, 10))),
            },
            {
                "a": HandOver(gives=turns(1_200, (8, 10))),
                "b": HandOver(takes=turns(1_200, (8, 10)), gives=turns(1_290, (8, 10))),
                "c": HandOver(takes=turns(1_290, (8, 10))),
            },
            id="given away before it was taken",
        ),
        pytest.param(
            places(a=((0, 10),), b=()),
            {"a": holding((0, 10)), "b": holding((8, 10), takes=turns(900, (8, 10)))},
            {"a": NOTHING, "b": HandOver(takes=turns(900, (8, 10)), gives=turns(900, (8, 10)))},
            id="the taker gives it back: the giver had not been heard",
        ),
        pytest.param(places(a=((0, 10),)), {"a": None}, {"a": NOTHING}, id="nobody had it: at once"),
        pytest.param(
            places(a=((0, 8),)), {"a": holding((0, 10))}, {"a": NOTHING}, id="nobody takes it: T is less now"
        ),
        pytest.param(
            places(a=((0, 10),), b=((8, 10),)), {"a": holding((0, 10), takes=None), "b": None},
            {"a": NOTHING, "b": NOTHING}, id="a runner that knows of no turns",
        ),
    ],
)  # fmt: skip
def test_what_runners_are_told(
    dealt: dict[str, Places], held: dict[str, Acknowledgement | None], expected: dict[str, HandOver]
) -> None:
    """100/s, 10 s after the start: 1000 arrivals have come."""
    assert expected == hand_over(dealt, held, at(10_000))


def test_an_edit_of_the_rate_moves_the_turn_not_its_number() -> None:
    """Told to take from 1 300 on; at half the rate since 11 s that is later, and both still go by the number."""
    slower = Course(shape=FULL, rate=50 * 3_600_000, since_ms=11_000, before=1_100 * UNIT)
    turning = Turning(course=slower, process="constant", seed=0, elapsed_ms=13_500)
    told = hand_over(
        places(a=((0, 8),), b=((8, 10),)),
        {"a": holding((0, 10)), "b": holding((8, 10), takes=turns(1_300, (8, 10)))},
        turning,
    )
    assert turns(1_300, (8, 10)) == told["a"].gives == told["b"].takes


def a_document(users: int, rate: int, process: str) -> dict[str, Any]:
    """Build a document whose runners hold ten users each."""
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": users,
            "seed": 5,
            "arrivals": {"rate": f"{rate}/s", "process": process},
            "profile": [{"hold": {"for": "1s"}}],
            "scaling": {"usersPerProcess": 10, "maxProcesses": 1},
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
        },
    }


class Arriving:
    """A fake world whose runners begin arrivals by the real schedule; *came* counts them, *twice* what is owned to."""

    def __init__(self, process: str) -> None:
        self.world, self.process = FakeWorld(), process
        self.schedules: dict[str, Schedule] = {}
        self.told: dict[str, Assignment] = {}
        self.came: Counter[int] = Counter()
        self.twice = 0
        self.start_ms = 0

    def take(self) -> None:
        """Let every runner begin what is due now."""
        for name, schedule in self.schedules.items():
            if name in self.world.fleet.runners:
                until_ns = (self.world.now_ms - self.told[name].start_at_ms) * 1_000_000
                while schedule.next_ns <= until_ns:
                    self.came[schedule.number] += 1
                    schedule.take()

    async def look(self) -> None:
        """Move on by what the last look asked for, look, and let the runners hear."""
        if self.world.waits is not None:
            self.world.now_ms += min(self.world.waits, 1000)
        self.world.waits = 0
        self.take()
        await self.world.look("n", "shop")
        for name, runner in self.world.fleet.runners.items():
            a = runner.assignment
            if a is None or a is self.told.get(name) or a.load.arrivals is None or a.start_at_ms > 1 << 50:
                continue
            self.told[name], self.start_ms = a, a.start_at_ms
            course = Course(shape=shape(a.load.profile), rate=a.load.arrivals.rate, since_ms=a.load.since_ms,
                            before=a.load.before)  # fmt: skip
            held = Places() if a.retire else a.held.below(a.users)
            piece = Piece(course=course, works=works_of(self.process, 5), places=held, users=max(1, a.users),
                          takes=by_place(a.takes), gives=by_place(a.gives))  # fmt: skip
            schedule = self.schedules.setdefault(name, Schedule())
            self.twice += schedule.follow(piece, (self.world.now_ms - a.start_at_ms) * 1_000_000)


TWICE_ON_THE_WAY = [("users", 33), ("look", 2), ("users", 27), ("users", 11)]
"""Places that are given away before their taker began."""
BEGUN_BY_OTHERS = [("users", 4), ("users", 38), ("users", 28), ("look", 4), ("users", 1)]
"""A place is given away that the giver came by after arrivals which others had begun."""
GIVEN_BACK = [("users", 18), ("rate", 15), ("users", 8), ("silence", 10), ("rate", 19)]
"""A silent giver is heard again when its taker, which has begun to count, is to go."""

EVENTS = st.sampled_from(["look", "look", "look", "users", "users", "rate", "silence", "speak", "forget"])


@settings(deadline=None, max_examples=40)
@example(TWICE_ON_THE_WAY, "constant")
@example(BEGUN_BY_OTHERS, "constant")
@example(GIVEN_BACK, "poisson")
@given(st.lists(st.tuples(EVENTS, st.integers(1, 40)), max_size=8), st.sampled_from(["constant", "poisson"]))
async def test_whatever_happens_every_arrival_comes_once(history: list[tuple[str, int]], process: str) -> None:
    """
    Scale-out, scale-in and edits of the rate, runners that do not answer for a while, an operator that forgets: from
    the first arrival to the last each is begun once, but for those that a late giver counts as begun twice.
    """
    arriving, users, rate = Arriving(process), 20, 20
    world = arriving.world
    world.record.put(a_document(users, rate, process))
    for _ in range(12):
        await arriving.look()
    for event, number in history:
        names = sorted(world.fleet.runners)
        silent = any(r.silent for r in world.fleet.runners.values())
        match event:
            # An edit counts for all a second from now: who cannot hear of it goes on by the old one, and that is known.
            case "users" if not silent:
                users = number
            case "rate" if not silent:
                rate = number
            case "silence" if names:
                world.fleet.runners[names[number % len(names)]].silent = True
            case "speak":
                for runner in world.fleet.runners.values():
                    runner.silent = False
            case "forget" if not silent:
                world.world.ledgers = Ledgers()
        world.record.put(a_document(users, rate, process))
        # An operator that never saw the old rate reckons by the new one, so it looks once before there is another.
        for _ in range(number % 8 + (4 if event in ("users", "rate") else event == "forget")):
            await arriving.look()
    for runner in world.fleet.runners.values():
        runner.silent = False
    for _ in range(40):
        await arriving.look()
    last = max(arriving.came)
    assert [n for n in range(last) if not arriving.came[n]] == []
    assert sum(count - 1 for count in arriving.came.values() if count > 1) == arriving.twice
