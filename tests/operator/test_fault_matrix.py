"""
A sample of the fault matrix, and the machinery that it stands on. All of it: `make faults`.

Each run draws other points; those that failed once are tried in every run.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from trafficsim_operator.testing import virtual_loop
from trafficsim_operator.testing.faults.__main__ import main
from trafficsim_operator.testing.faults.kinds import Fault
from trafficsim_operator.testing.faults.matrix import Point, every_point, one, part, parts, several, undisturbed
from trafficsim_operator.testing.faults.scenarios import SCENARIOS

NAMES = [scenario.name for scenario in SCENARIOS]
SAMPLE = 40
SEVERAL = 12
# What failed once, by scenario, call and fault: every call of that kind, since their numbers move with the code.
FAILED_ONCE = (
    ("start", "GET acknowledgement of a runner", Fault.RESET),
    ("edit", "GET acknowledgement of a runner", Fault.TIME_OUT),
    ("scale-out", "GET acknowledgement of a runner", Fault.ERROR),
    ("promote", "POST configmaps", Fault.TIME_OUT),
    ("rollback", "GET statistics of a runner", Fault.TIME_OUT),
    ("finish-late", "PUT assignment of a runner", Fault.KILLED_BEFORE),
)


@pytest.mark.timeout(240)
def test_a_sample_is_survived(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the seed: each point comes to the end of its scenario without a fault."""
    seed = random.randrange(1_000_000)
    code = main(["--sample", str(SAMPLE), "--seed", str(seed)])
    told = capsys.readouterr().out
    assert 0 == code, told
    assert f"{SAMPLE} faults tried, {SAMPLE} survived" == told.splitlines()[-1]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("scenario", "call", "fault"), FAILED_ONCE)
def test_what_failed_once_is_survived(scenario: str, call: str, fault: Fault) -> None:
    calls = undisturbed(scenario).calls
    points = [Point(scenario, number, fault.value) for number, label in enumerate(calls) if label == call]
    results = part(scenario, points)
    assert points == [result.point for result in results] != []
    assert [] == [f"{result.point}: {result.problems}" for result in results if result.problems]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("scenario", ["scale-in", "finish", "promote"])
def test_several_faults_in_a_row_lose_no_number(scenario: str) -> None:
    """Drawn anew each time, each a few calls after the other: the end is the same, and every request is told of."""
    seed = random.randrange(1_000_000)
    rng, calls = random.Random(seed), len(undisturbed(scenario).calls)
    print(f"{scenario}: {seed}")
    for _ in range(SEVERAL):
        number, faults = rng.randrange(calls), {}
        for _ in range(rng.choice((2, 3, 4))):
            faults[number] = rng.choice(list(Fault))
            number += rng.choice((1, 2, 3, 5, 8, 13))
        outcome = several(scenario, faults)
        assert [] == outcome.found, f"{scenario}, {faults}: {outcome.fired}"


def test_a_scenario_is_the_same_each_time() -> None:
    """The number of a call names it for good: same calls, same end."""
    first, second = undisturbed("start"), undisturbed("start")
    assert first.calls == second.calls
    assert [] == first.differs(second)


@pytest.mark.timeout(120)
def test_a_point_in_a_process_of_its_own_comes_to_the_same() -> None:
    """Forked off at its call, or played from the beginning."""
    points = [Point("finish", number, Fault.LOST_ANSWER.value) for number in (0, 3)]
    [forked] = parts(points, 1)
    assert [one(point) for point in points] == forked


def test_a_point_that_is_not_reached_fails() -> None:
    """Each fault has to happen."""
    calls = len(undisturbed("delete").calls)
    beyond = Point("delete", calls, Fault.ERROR.value)
    assert ("the fault did not happen: []",) == one(beyond).problems[:1]
    [[result]] = parts([beyond], 1)
    assert ("never reached",) == result.problems


def test_points_are_named_as_they_are_printed() -> None:
    point = Point.of("start:17:lost-answer")
    assert "start:17:lost-answer" == str(point)
    assert len(Fault) * 3 == len(every_point("start", 3))
    for text in ("start", "nothing:1:error", "start:one:error", "start:1:earthquake"):
        with pytest.raises(ValueError, match=r".+"):
            Point.of(text)


def test_every_scenario_is_played() -> None:
    assert ["start", "edit", "scale-out", "scale-in", "promote", "rollback", "finish", "finish-late", "delete"] == NAMES


def test_hours_pass_at_once() -> None:
    """The loop goes to whatever is due next, in its order; a wait for nothing at all is told."""

    async def story() -> list[str]:
        told: list[str] = []

        async def tell(word: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            told.append(f"{word} at {asyncio.get_running_loop().time():.0f}")

        await asyncio.gather(tell("second", 7200), tell("first", 60))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return [*told, f"{asyncio.get_running_loop().time():.0f}"]

    assert ["first at 60", "second at 7200", "7230"] == virtual_loop.run(story())
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        virtual_loop.run(asyncio.Event().wait())
