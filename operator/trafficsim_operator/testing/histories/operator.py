"""
A light operator: what `decide` does about a rollout, over the very parts of it, without the rest of a simulation.

    observe → the rollout's machine → pointers, runners, quota → places → what to record, and what to do by it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from trafficsim_api.places import Places
from trafficsim_api.rollout import Rollout, RolloutPhase
from trafficsim_api.status import Revision, RolloutPlan, RolloutStatus
from trafficsim_operator.observed import RevisionSeen, Runner, RunnerState
from trafficsim_operator.plan import split
from trafficsim_operator.plan.analysis import Analysis
from trafficsim_operator.plan.assignments import held_by, holders, retiring
from trafficsim_operator.plan.colours import colour_of, written_off
from trafficsim_operator.plan.pauses import refusal
from trafficsim_operator.plan.places import Deal, Holder, deal
from trafficsim_operator.plan.rolling import Colour, Seen
from trafficsim_operator.plan.rollout import advance, is_judged
from trafficsim_operator.plan.steps import pin
from trafficsim_operator.testing.histories.runners import RUN, Told

__all__ = ["Acts", "Asked", "Look", "Wish", "Written", "look_at", "revision_of", "runners_for"]

_AT_REST: Final = (RolloutPhase.STABLE, RolloutPhase.REJECTED, RolloutPhase.RETIRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A command, as the annotation has it."""

    id: int
    action: str
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user's document asks for; *load* counts its edits."""

    wanted: str
    users: int
    rollout: Rollout
    paused: bool = False
    suspended: bool = False
    ended: bool = False
    load: int = 0
    command: Asked | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What is on record."""

    rollout: RolloutStatus
    stable: Revision
    candidate: Revision | None = None
    previous: Revision | None = None
    epoch: int = 0
    total: int = 0
    """T: what places are dealt for."""
    load: int = 0
    command: int = 0
    """The id of the last command that was answered."""
    begun: bool = False
    """The run has its origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """What is to be done: assignments by runner, runners to have by revision, runners to take away."""

    epoch: int
    told: Mapping[str, Told]
    replicas: Mapping[str, int]
    removed: Sequence[str]
    dropped: Sequence[str]
    """Revisions whose object goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything of one look, for the asserts."""

    before: Written
    after: Written
    seen: Seen
    runners: Sequence[Runner]
    holders: Sequence[Holder]
    silent: frozenset[str]
    going: frozenset[str]
    quota: Mapping[str, int]
    chunk: int | None
    hasty: bool
    unknown: bool
    dealt: Deal
    acts: Acts
    action: str
    """The command that was done, "" for none."""


@lru_cache(maxsize=1_000)
def revision_of(name: str) -> Revision:
    """Return the revision of that name."""
    return Revision(revision=name, image=f"runner:{name}", runner={})


@lru_cache(maxsize=10_000)
def pinned(rollout: Rollout, total: int) -> RolloutPlan:
    """Return *rollout* pinned for *total* users."""
    return pin(rollout, total, None)


def runners_for(total: int, capacity: int) -> int:
    """Return how many runners of *capacity* places *total* users need."""
    return max(1, -(-total // capacity))


_dealt = lru_cache(maxsize=200_000)(
    lambda total, holders, capacity, quota, chunk, hasty, unknown: deal(
        total, holders, capacity, quota=dict(quota), chunk=chunk, hasty=hasty, unknown=unknown
    )
)


def look_at(
    before: Written,
    wish: Wish,
    runners: Sequence[Runner],
    existing: Mapping[str, int],
    *,
    now_ms: int,
    run_ms: int,
    capacity: int,
    analysis_of: Callable[[RolloutStatus, Colour, Colour], Analysis],
) -> Look:
    """Return what one look at *runners* (*existing*: replicas by revision) leads to. Pure, but for *analysis_of*."""
    by_revision = {
        name: RevisionSeen(revision=name, replicas=count, runners=tuple(r for r in runners if r.revision == name))
        for name, count in existing.items()
    }
    begun = not wish.ended and (before.begun or _is_up(by_revision.get(before.stable.revision), wish, capacity))
    total = _total(before, wish, by_revision, capacity) if begun else 0
    action, answered = _answer(before, wish, on=begun and not wish.suspended)
    seen = _seen(before, wish, by_revision, now_ms, run_ms, total, action, begun=begun, capacity=capacity)
    judged = is_judged(before.rollout)
    if judged:
        seen = replace(seen, analysis=analysis_of(before.rollout, seen.blue, seen.green))
    rollout = advance(before.rollout, seen)
    stable, candidate, previous = split.pointers(
        before.rollout, rollout, stable=before.stable, candidate=before.candidate, previous=before.previous,
        wanted=revision_of(wish.wanted),
    )  # fmt: skip
    assert stable is not None
    after = replace(
        before, rollout=rollout, stable=stable, candidate=candidate, previous=previous, total=total, load=wish.load,
        begun=begun, command=wish.command.id if answered and wish.command is not None else before.command,
    )  # fmt: skip
    return _split(after, before, wish, seen, by_revision, runners, action, now_ms, capacity)


def _is_up(seen: RevisionSeen | None, wish: Wish, capacity: int) -> bool:
    ready = sum(r.answered and r.state is RunnerState.READY for r in seen.runners) if seen is not None else 0
    return ready >= runners_for(wish.users, capacity)


def _total(before: Written, wish: Wish, by_revision: Mapping[str, RevisionSeen], capacity: int) -> int:
    """Return the T to deal for: what it was until the stable version's runners for a raise are ready."""
    if wish.users <= before.total:
        return wish.users
    return wish.users if _is_up(by_revision.get(before.stable.revision), wish, capacity) else before.total


def _answer(before: Written, wish: Wish, *, on: bool) -> tuple[str, bool]:
    """Return the action that a new command asks for ("" if it is refused), and whether there is one."""
    asked = wish.command
    if asked is None or asked.id == before.command:
        return "", False
    if asked.attempt is not None and asked.attempt != before.rollout.attempt:
        return "", True
    return "" if refusal(before.rollout, asked.action, on=on, paused=wish.paused) else asked.action, True


def _seen(
    before: Written,
    wish: Wish,
    by_revision: Mapping[str, RevisionSeen],
    now_ms: int,
    run_ms: int,
    total: int,
    action: str,
    *,
    begun: bool,
    capacity: int,
) -> Seen:
    stable, candidate, previous = (
        version.revision if version is not None else ""
        for version in (before.stable, before.candidate, before.previous)
    )
    blue, green, old = (colour_of(by_revision.get(name), RUN) for name in (stable, candidate, previous))
    return Seen(
        now_ms=now_ms,
        run_ms=run_ms,
        total=total,
        on=begun and not wish.suspended,
        suspended=begun and wish.suspended,
        ended=not begun,
        stable=stable,
        candidate=candidate,
        previous=previous,
        wanted=wish.wanted,
        plan=pinned(wish.rollout, wish.users) if wish.wanted != stable else None,
        paused=wish.paused,
        command=action,
        blue=blue,
        green=green,
        old=old,
        needed=split.needed(before.rollout, total, runners_for(wish.users, capacity)),
        disturbed=wish.load != before.load,
    )


def _split(
    after: Written,
    before: Written,
    wish: Wish,
    seen: Seen,
    by_revision: Mapping[str, RevisionSeen],
    runners: Sequence[Runner],
    action: str,
    now_ms: int,
    capacity: int,
) -> Look:
    """Return runners, users and places of each version where the rollout stands now, and what is to be done by them."""
    rollout, total, stable = after.rollout, after.total, after.stable.revision
    wants = _replicas(after, by_revision, now_ms, runners_for(wish.users, capacity))
    running = after.begun and not wish.suspended
    going = _going(wants, by_revision) if running else frozenset()
    silent: frozenset[str] = frozenset()
    if rollout.phase not in split.SPLIT:
        silent = written_off(runner for runner in runners if runner.revision != stable)
    quota = split.quota(
        rollout, total, stable=stable, candidate=after.candidate.revision if after.candidate else "",
        previous=after.previous.revision if after.previous else "",
    )  # fmt: skip
    heard = [runner for runner in runners if runner.name not in silent]
    known = holders(
        heard, RUN, going, capacities=dict.fromkeys(by_revision, capacity),
        may_take=lambda name: quota.get(name, 0) > 0, suspended=after.begun and wish.suspended,
    )  # fmt: skip
    in_split = rollout.phase in split.SPLIT | split.MOVING_BACK
    unknown = any(
        r.acknowledgement is None and r.state is not RunnerState.STARTING and (in_split or quota.get(r.revision, 0))
        for r in heard
    )
    chunk, hasty = split.chunk(rollout, total), split.is_hasty(rollout)
    dealt = _dealt(total, known, capacity, tuple(quota.items()), chunk, hasty, unknown)
    told, epoch = _told(after, wish, runners, dealt, going)
    removed, dropped = _let_go(wants, by_revision, stable, going) if running or not after.begun else ((), ())
    acts = Acts(
        epoch=epoch,
        told=told,
        replicas={name: count for name, count in wants.items() if count > by_revision.get(name, _NONE).replicas},
        removed=removed,
        dropped=dropped,
    )
    return Look(
        before=before, after=replace(after, epoch=epoch), seen=seen, runners=runners, holders=known, silent=silent,
        going=going, quota=quota, chunk=chunk, hasty=hasty, unknown=unknown, dealt=dealt, acts=acts, action=action,
    )  # fmt: skip


_NONE: Final = RevisionSeen(revision="", replicas=0)


def _replicas(after: Written, by_revision: Mapping[str, RevisionSeen], now_ms: int, most: int) -> Mapping[str, int]:
    """Return the runners each version is to have; in a rollout no fewer than there are."""
    stable = after.stable.revision
    green, old = (
        colour_of(by_revision.get(version.revision) if version is not None else None, RUN)
        for version in (after.candidate, after.previous)
    )
    found = split.replicas(
        after.rollout, total=after.total, now_ms=now_ms, blue_runners=most, green_runners=most, green=green, old=old
    )
    there = by_revision.get(stable, _NONE).replicas
    counts = {stable: max(found.blue, there) if after.rollout.phase not in _AT_REST else found.blue}
    for version, count in ((after.candidate, found.green), (after.previous, found.previous)):
        if version is not None and version.revision != stable:
            there = by_revision.get(version.revision, _NONE).replicas
            counts[version.revision] = max(count or 0, there) if count != 0 else 0
    return counts


def _going(wants: Mapping[str, int], by_revision: Mapping[str, RevisionSeen]) -> frozenset[str]:
    return frozenset(
        name for revision, seen in by_revision.items() for name in retiring(seen.runners, RUN, wants.get(revision, 0))
    )


def _told(
    after: Written, wish: Wish, runners: Sequence[Runner], dealt: Deal, going: frozenset[str]
) -> tuple[Mapping[str, Told], int]:
    """Return an assignment for each runner that answers and does not hold what it should, and the epoch of all."""
    epoch = max([after.epoch, *(r.acknowledgement.epoch for r in runners if r.acknowledgement is not None)])
    found = {}
    for runner in runners:
        places = dealt.places.get(runner.name) if after.begun else Places()
        if places is None or not runner.answered:
            continue
        retire = (not after.begun and wish.ended) or (runner.name in going and not places)
        told = Told(
            epoch=epoch + 1, places=places, total=after.total, suspended=after.begun and wish.suspended, retire=retire
        )
        ack = held_by(runner, RUN)
        if ack is None or (ack.held, ack.users, ack.suspended, ack.retire) != (
            told.places, told.total, told.suspended, told.retire
        ):  # fmt: skip
            found[runner.name] = told
    return found, epoch + bool(found)


def _let_go(
    wants: Mapping[str, int], by_revision: Mapping[str, RevisionSeen], stable: str, going: frozenset[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the runners to take away, and the revisions to drop: retired and drained, never up, or written off."""
    removed, dropped = [], []
    for revision, seen in by_revision.items():
        if wants.get(revision, 0) or revision == stable:
            removed += [runner.name for runner in seen.runners if runner.name in going and _is_idle(runner)]
        elif all(
            _is_idle(runner) or _is_new(runner) or runner.name in written_off(seen.runners) for runner in seen.runners
        ):
            dropped.append(revision)
    return removed, dropped


def _is_new(runner: Runner) -> bool:
    return runner.acknowledgement is not None and held_by(runner, RUN) is None


def _is_idle(runner: Runner) -> bool:
    ack = held_by(runner, RUN)
    if ack is None:
        return runner.state is RunnerState.STARTING
    return ack.retire and ack.drained
