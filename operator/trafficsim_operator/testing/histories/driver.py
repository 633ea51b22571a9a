"""Many histories, in as many processes as asked for; what they came to, and what they did not come to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import Final

from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_operator.plan.pauses import COMMANDS
from trafficsim_operator.plan.rollout import TRANSITIONS
from trafficsim_operator.testing.histories.faults import Fault
from trafficsim_operator.testing.histories.history import PAIRS, Broken, History, Visits

__all__ = ["LOOKS", "many", "report", "shortfalls", "some"]

LOOKS: Final = 60
"""Of a history, until the world goes quiet."""
_AT_ONCE: Final = 125


def some(first: int, count: int, looks: int = LOOKS) -> tuple[Visits, list[str]]:
    """Run the histories of *count* seeds from *first* on; return what they came to, and what was broken."""
    visits, broken = Visits(), []
    for seed in range(first, first + count):
        try:
            History(seed, visits).run(looks)
        except Broken as error:
            broken.append(str(error))
    return visits, broken


def many(first: int, count: int, processes: int) -> tuple[Visits, list[str]]:
    """Run *count* histories from seed *first* on in *processes* processes."""
    if processes <= 1:
        return some(first, count)
    visits, broken = Visits(), []
    starts = range(first, first + count, _AT_ONCE)
    counts = (min(_AT_ONCE, first + count - start) for start in starts)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for part, found in pool.map(some, starts, counts, repeat(LOOKS)):
            visits.add(part)
            broken += found
    return visits, broken


def shortfalls(visits: Visits, count: int) -> list[str]:
    """
    Return what *count* histories should have come to and did not.

    Of 10 000: every fault in every phase 100 times, 1 000 promoted and 1 000 rolled back; every transition taken, every
    command done, every pause seen.
    """
    found = [
        f"{fault} in {phase}: {visits.faults[phase, fault]} times, {count // 100} are due"
        for phase, fault in PAIRS
        if visits.faults[phase, fault] < count // 100
    ]
    found += [
        f"{count // 10} {verdict} are due: {visits.verdicts[verdict]}"
        for verdict in ("promoted", "rolled back")
        if visits.verdicts[verdict] < count // 10
    ]
    ways = [(before, after) for before, afters in TRANSITIONS.items() for after in afters]
    found += [f"never: {before} → {after}" for before, after in ways if not visits.steps[before, after]]
    found += [f"never done: {action}" for action in COMMANDS if not visits.commands[action]]
    found += [f"never: {pause}" for pause in PauseReason if not visits.pauses[pause]]
    return found


def report(visits: Visits) -> Iterator[str]:
    """Yield lines of what histories came to: faults by phase, and the way they went."""
    yield f"{visits.looks} looks"
    yield f"{'':24}" + "".join(f"{phase[:9]:>10}" for phase in RolloutPhase)
    for fault in Fault:
        yield f"{fault:24}" + "".join(f"{visits.faults[phase, fault]:>10}" for phase in RolloutPhase)
    for title, counter in (
        ("verdicts", visits.verdicts),
        ("transitions", visits.steps),
        ("ways back", visits.reasons),
        ("pauses", visits.pauses),
        ("commands", visits.commands),
        ("ends", visits.ends),
    ):
        names = {" → ".join(name) if isinstance(name, tuple) else str(name): n for name, n in counter.items()}
        yield f"{title}: " + ", ".join(f"{name} {n}" for name, n in sorted(names.items()))
