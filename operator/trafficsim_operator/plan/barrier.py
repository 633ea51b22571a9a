"""
The start barrier: in tiers large and xlarge all runners begin at one instant that they were told beforehand.

    origin = now + lead,    lead = 3 s + 10 ms · runners: the time to tell them all
    moved on once, to now + lead, when 1 s or less is left and a runner has not acknowledged its places
    d      = (the start it was told - origin) - clock offset + what its first user was late, by its own clock
    skew   = max d - min d, once every runner has told; after 10 s of those that have

An offset within its own error is none that anybody knows of, and left out. Runners that were made after the origin have
no part in it. One that hangs just when it is told holds the look up for longer than the lead: the others have begun by
then, so nothing is moved on, and the skew says how late it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from trafficsim_api.status import Barrier, Run
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.observed import Runner
from trafficsim_operator.plan.assignments import held_by

__all__ = ["Start", "is_open", "lead_ms", "measured", "moved_on", "starts", "untold"]

_LEAD_MS: Final = 3_000
_LEAD_PER_RUNNER_MS: Final = 10
# A runner that hears of the move later than this before the first instant may begin by that.
_GUARD_MS: Final = 1_000
_PATIENCE_MS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A runner's beginning: by how much it was off the origin, and how well its clock is known."""

    off_us: int
    error_ms: int


def lead_ms(runners: int) -> int:
    """
    Return how far ahead the start of so many runners is set.

        3 s + 10 ms · runners       3: 3 030 ms, 60: 3 600 ms
    """
    return _LEAD_MS + _LEAD_PER_RUNNER_MS * runners


def is_open(run: Run, now_ms: int) -> bool:
    """Say whether the start is still to come, or its skew to be told."""
    if run.barrier is None or run.origin is None or run.barrier.runners:
        return False
    return now_ms < parse_instant(run.origin) + _PATIENCE_MS + _GUARD_MS


def untold(runners: Iterable[Runner], run: int) -> tuple[str, ...]:
    """
    Return the names of the runners that have not acknowledged their places: none holds any before the start is set.

    Nor has who was told of some and has not answered since.
    """
    return tuple(
        runner.name
        for runner in runners
        if (ack := held_by(runner, run)) is None or not (ack.users and ack.held) or not (runner.answered or ack.settled)
    )


def moved_on(run: Run, late: Sequence[str], lead: int, now_ms: int) -> Run:
    """
    Return the run with its origin moved on when some are *late* to acknowledge it; once, and never when it has come.

    Origin 3 000 ms, lead 3 000 ms: at 1 999 nothing, at 2 000 it is moved to 5 000, from 3 000 on nothing.
    """
    if run.barrier is None or run.barrier.moved or run.origin is None or not (late and lead):
        return run
    left = parse_instant(run.origin) - now_ms
    if not 0 < left <= _GUARD_MS:
        return run
    by = now_ms + lead - parse_instant(run.origin)
    end = format_instant(parse_instant(run.end) + by) if run.end else None
    origin = format_instant(now_ms + lead)
    barrier = run.barrier.model_copy(update={"moved": True})
    # Planned user time counts from the origin.
    return run.model_copy(update={"origin": origin, "end": end, "planned_since": None, "barrier": barrier})


def starts(runners: Iterable[Runner], run: Run | None) -> tuple[Start, ...]:
    """Return the beginnings that runners have told of."""
    if run is None or run.barrier is None or run.origin is None:
        return ()
    origin_ms, found = parse_instant(run.origin), []
    for runner in runners:
        ack = held_by(runner, run.id)
        if ack is None or ack.late_us is None or not ack.start_at_ms or runner.started_ms > origin_ms:
            continue
        is_known = abs(runner.clock_offset_ms) > runner.clock_error_ms
        told_ms = ack.start_at_ms - (runner.clock_offset_ms if is_known else 0)
        off_us = (told_ms - origin_ms) * 1000 + ack.late_us
        found.append(Start(off_us=off_us, error_ms=runner.clock_error_ms))
    return tuple(found)


def measured(run: Run, told: Sequence[Start], wanted: int, now_ms: int) -> Run:
    """
    Return the run with the skew of its start, as soon as it is known.

    Off by 400, 12 600 and -100 µs, clocks known to 2, 1 and 3 ms: a skew of 13 ms, known to 3 ms.
    """
    if run.barrier is None or run.barrier.runners or run.origin is None or not told:
        return run
    if len(told) < wanted and now_ms < parse_instant(run.origin) + _PATIENCE_MS:
        return run
    offs = [start.off_us for start in told]
    skew_ms = -(-(max(offs) - min(offs)) // 1000)
    error_ms = max(start.error_ms for start in told)
    barrier = Barrier(moved=run.barrier.moved, runners=len(told), skew_ms=skew_ms, offset_error_ms=error_ms)
    return run.model_copy(update={"barrier": barrier})
