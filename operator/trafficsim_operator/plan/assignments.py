"""
Assignments: from places and load to what each runner is to be told, and only where it does not hold it already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from trafficsim_api.names import hash8
from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement, Assignment, Task
from trafficsim_operator.actions import Assign
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan.acceptance import Accepted
from trafficsim_operator.plan.data import rows_for
from trafficsim_operator.plan.handover import NO_TURNS, HandOver
from trafficsim_operator.plan.places import Holder

__all__ = ["Terms", "assign", "at_rest", "cause_of", "held_by", "holders", "retiring"]


_CLOCK_MS: Final = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all runners of the run are told alike; instants in wall-clock ms."""

    simulation: str
    run: int
    accepted: Accepted
    start_at_ms: int
    warm_up_ms: int
    end_ms: int
    total: int
    suspended: bool = False
    tasks: Mapping[str, Task] = field(default_factory=dict)
    """What is to be done once, by runner UID."""

    @property
    def digest(self) -> str:
        """Return a hash over what a runner does not echo one by one."""
        return hash8(
            self.accepted.load.model_dump(mode="json"),
            self.accepted.limits.model_dump(mode="json"),
            self.start_at_ms,
            self.warm_up_ms,
            self.end_ms,
        )


def held_by(runner: Runner, run: int) -> Acknowledgement | None:
    """Return what *runner* holds of *run*; None when it holds nothing of it, or was never heard."""
    ack = runner.acknowledgement
    return ack if ack is not None and ack.run == run and ack.epoch > 0 else None


def retiring(runners: Sequence[Runner], run: int, wanted: int) -> frozenset[str]:
    """
    Return the names of the runners that are to go so that *wanted* stay.

    First those that are retiring already, then those not ready, then the emptiest, then the newest.
    """
    staying = [runner for runner in runners if runner.state is not RunnerState.LEAVING]
    excess = len(staying) - wanted
    if excess <= 0:
        return frozenset()

    def key(runner: Runner) -> tuple[bool, bool, int, int, str]:
        ack = held_by(runner, run)
        held = len(ack.held) if ack else 0
        return not (ack and ack.retire), runner.state is RunnerState.READY, held, -runner.started_ms, runner.name

    return frozenset(runner.name for runner in sorted(staying, key=key)[:excess])


def holders(
    runners: Iterable[Runner],
    run: int,
    going: frozenset[str],
    *,
    capacities: Mapping[str, int] = MappingProxyType({}),
    may_take: Callable[[str], bool] = lambda revision: True,
    suspended: bool = False,
    unwilling: frozenset[str] = frozenset(),
) -> tuple[Holder, ...]:
    """
    Return *runners* as the dealer sees them; one that is being deleted keeps nothing, unless its node is not ready.

    There nobody hears that it is to end. While it answers its users go to others, and it is told to drain; while it
    doesn't it keeps them, as any that is silent.

    *capacities* are of a runner, by revision; runners of a revision that may not take get no place more. Those of them
    that have nobody are not waited for: a version whose workers refuse its load will never be settled. Who has not
    heard yet that all are *suspended*, or that they go on, is not settled: its places are on or off against the rest.
    The *unwilling*, by name, do nothing that they are told.
    """

    def is_settled(runner: Runner, ack: Acknowledgement | None) -> bool:
        if ack is None:
            return runner.state is not RunnerState.STARTING
        is_out = not (ack.held or ack.active or may_take(runner.revision))
        return is_out or (ack.settled and ack.suspended is suspended)

    return tuple(
        Holder(
            name=runner.name,
            held=ack.held if (ack := held_by(runner, run)) else Places(),
            settled=is_settled(runner, ack),
            answers=runner.answered and runner.name not in unwilling,
            refuses=runner.answered and runner.name in unwilling,
            takes=runner.answered
            and runner.name not in unwilling
            and runner.state is RunnerState.READY
            and runner.name not in going
            and may_take(runner.revision),
            retiring=runner.name in going or runner.state is RunnerState.LEAVING,
            colour=runner.revision,
            capacity=capacities.get(runner.revision),
        )
        for runner in runners
        if not runner.is_out
    )


def at_rest(runners: Iterable[Runner], run: int) -> bool:
    """
    Say whether no runner can have users of places it does not hold any more.

    So it is when all that were ever told anything answer and have done what they were told; one that is being deleted,
    or holds another run's places, must have drained.
    """
    for runner in runners:
        ack = runner.acknowledgement
        if ack is None:
            continue
        leaves = runner.state is RunnerState.LEAVING or ack.run != run
        if not runner.answered or not (ack.drained if leaves else ack.settled):
            return False
    return True


def assign(
    runner: Runner,
    places: Places,
    terms: Terms,
    *,
    epoch: int,
    retire: bool,
    digest: str,
    over: HandOver = NO_TURNS,
    anew: bool = False,
) -> Assign | None:
    """
    Return the assignment that *runner* needs to hold *places* under *terms*; None when it holds them already.

    *anew*: it is told all the same, since what it holds may be another operator's word.

    Turns (*over*) are new only where places are, so they call for no assignment by themselves. Instants are told in the
    runner's own wall clock where that is a quarter of a second or more off ours.
    """
    if runner.address is None or not runner.answered:
        return None
    sizing = terms.accepted.sizings.get(runner.revision, terms.accepted.sizing)
    ack = held_by(runner, terms.run)
    processes = max(sizing.processes, ack.processes if ack else 0, 1)
    task = terms.tasks.get(runner.uid)
    if not anew and ack is not None and (task is None or (ack.task is not None and ack.task.id == task.id)):
        held = (ack.held, ack.users, ack.processes, ack.digest, ack.suspended, ack.retire)
        if held == (places, terms.total, processes, digest, terms.suspended, retire):
            return None
    shift = runner.clock_offset_ms if abs(runner.clock_offset_ms) >= _CLOCK_MS else 0
    assignment = Assignment(
        simulation=terms.simulation,
        run=terms.run,
        runner=runner.uid,
        revision=runner.revision,
        epoch=epoch,
        users=terms.total,
        places=places.ranges,
        takes=over.takes,
        gives=over.gives,
        processes=processes,
        digest=digest,
        start_at_ms=terms.start_at_ms + shift,
        warm_up_ms=terms.warm_up_ms,
        end_ms=terms.end_ms + shift,
        suspended=terms.suspended,
        retire=retire,
        load=terms.accepted.load,
        limits=terms.accepted.limits,
        task=task,
        rows=rows_for(terms.accepted.load, terms.accepted.rows, runner.acknowledgement),
    )
    return Assign(name=runner.name, address=runner.address, assignment=assignment)


def cause_of(runners: Iterable[Runner], problem: str) -> str:
    """Return why runners don't start or work: what the first pod or runner says, else what is wrong with the object."""
    said = (runner.cause or (runner.acknowledgement.problem if runner.acknowledgement else "") for runner in runners)
    return next((cause for cause in said if cause), problem)
