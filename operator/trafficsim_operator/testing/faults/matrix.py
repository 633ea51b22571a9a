"""
The matrix: every fault at every call of every scenario, each in a process that is forked off at that call.

What came before the call is the same for all its faults, and needs to be played once: the process that plays a
scenario without a fault forks at each of its calls, once per fault, and waits for what became of it there.
"""

from __future__ import annotations

import gc
import os
import pickle
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final

from trafficsim_operator.testing import virtual_loop
from trafficsim_operator.testing.faults.kinds import Fault
from trafficsim_operator.testing.faults.play import Outcome, play
from trafficsim_operator.testing.faults.scenarios import SCENARIOS, Scenario
from trafficsim_operator.testing.faults.wire import Wire

__all__ = ["Point", "Result", "every_point", "one", "part", "parts", "several", "undisturbed"]

_SLICES: Final = 12


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A fault at a call, by the call's number in its scenario."""

    scenario: str
    number: int
    fault: str

    def __str__(self) -> str:
        return f"{self.scenario}:{self.number}:{self.fault}"

    @classmethod
    def of(cls, text: str) -> Point:
        """Return the point that *text* names, as it is printed; raise ValueError for none."""
        scenario, number, fault = text.split(":")
        return cls(_scenario(scenario).name, int(number), Fault(fault).value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a point: the call it met, and the *problems* there were (none: it was survived)."""

    point: Point
    call: str
    problems: tuple[str, ...]
    looks: int = 0


def _scenario(name: str) -> Scenario:
    try:
        return next(scenario for scenario in SCENARIOS if scenario.name == name)
    except StopIteration:
        raise ValueError(f"there is no scenario {name}") from None


def undisturbed(name: str) -> Outcome:
    """Play a scenario without a fault; raise ValueError when it does not come to its end."""
    outcome = virtual_loop.run(play(_scenario(name), Wire()))
    if outcome.found:
        raise ValueError(f"{name} fails without a fault: {'; '.join(outcome.found)}")
    return outcome


def every_point(name: str, calls: int) -> list[Point]:
    """Return the points of a scenario of so many calls."""
    return [Point(name, number, fault.value) for number in range(calls) for fault in Fault]


def one(point: Point) -> Result:
    """Try one point in this process."""
    plain = undisturbed(point.scenario)
    wire = Wire(meets=lambda number, label: Fault(point.fault) if number == point.number else None)
    outcome = virtual_loop.run(play(_scenario(point.scenario), wire, plain.end))
    return _judged(point, plain, outcome)


def several(name: str, faults: Mapping[int, Fault]) -> Outcome:
    """
    Play a scenario with *faults* at the calls of these numbers, counted on over all processes of the operator.

    Its *found* says as well where the end is another one than without a fault.
    """
    plain = undisturbed(name)
    outcome = virtual_loop.run(play(_scenario(name), Wire(meets=lambda number, _: faults.get(number)), plain.end))
    outcome.found += [] if outcome.found else plain.differs(outcome)
    return outcome


def _judged(point: Point, plain: Outcome, outcome: Outcome) -> Result:
    call = outcome.calls[point.number] if point.number < len(outcome.calls) else "no call"
    problems = [*outcome.found, *plain.differs(outcome)]
    if outcome.found:
        problems = [*outcome.found]  # it did not come to its end: how it differs says nothing more
    if len(outcome.fired) != 1:
        problems = [f"the fault did not happen: {outcome.fired}", *problems]
    return Result(point=point, call=call, problems=tuple(problems), looks=outcome.looks)


def part(name: str, points: Sequence[Point]) -> list[Result]:
    """Try *points* of one scenario, each in a process that is forked off at its call."""
    plain = undisturbed(name)
    faults: dict[int, list[Point]] = {}
    for point in points:
        faults.setdefault(point.number, []).append(point)
    results: list[Result] = []
    own: list[tuple[Point, int]] = []

    def meets(number: int, label: str) -> Fault | None:
        if own:
            return None
        for point in faults.pop(number, ()):
            read, write = os.pipe()
            if virtual_loop.fork() == 0:
                os.close(read)
                gc.disable()  # it is over before there is anything worth looking for
                own.append((point, write))
                return Fault(point.fault)
            os.close(write)
            results.append(_heard(read, point, label))
        return None

    gc.collect()
    gc.freeze()  # what is there now stays shared with the forks
    try:
        outcome = virtual_loop.run(play(_scenario(name), Wire(meets=meets), plain.end))
        result = _judged(own[0][0], plain, outcome) if own else None
    except BaseException:
        if not own:
            raise
        result = Result(point=own[0][0], call="", problems=(traceback.format_exc(),))
    if own:
        _tell(own[0][1], result)
    gc.unfreeze()
    missed = (Result(point=p, call="", problems=("never reached",)) for rest in faults.values() for p in rest)
    return [*results, *missed]


def _tell(write: int, result: Result | None) -> None:
    """Send what became of it to the process that forked this one, and end at once."""
    with os.fdopen(write, "wb") as pipe:
        pickle.dump(result, pipe)
    os._exit(0)


def _heard(read: int, point: Point, label: str) -> Result:
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    os.wait()
    if not text:
        return Result(point=point, call=label, problems=("its process died",))
    found: Result = pickle.loads(text)
    return found


def parts(points: Sequence[Point], processes: int) -> Iterator[list[Result]]:
    """Try *points* over so many processes; yield results as they come."""
    chosen: list[tuple[str, list[Point]]] = []
    for name in dict.fromkeys(point.scenario for point in points):
        own = [point for point in points if point.scenario == name]
        # Every so manieth, so that the slices take about as long.
        numbers = sorted({point.number for point in own})
        count = max(1, min(_SLICES, len(own) // 20))
        for index in range(count):
            those = set(numbers[index::count])
            chosen.append((name, [point for point in own if point.number in those]))
    if processes <= 1:
        for name, own in chosen:
            yield part(name, own)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(part, name, own) for name, own in chosen]):
            yield future.result()
