"""
Runners that answer, and say no to what they are told (409, 422, 507): who is told again when, and who waits for them.

    told again     at the next look, then after 1, 2, 4 … 60 s, at once when it is told something else
    for 10 s       nobody takes users in a look in which one that is to give some is not told
    from then on   it keeps the users it has, gets none, and what is on twice goes back to it; the rest moves on
    then it says   yes to what it has: from there it is one as any

It is at work with all it holds, so that nobody else is to begin its users: they would be twice. That is as with one
that can't be reached. Nor is its pod taken away: that would cost users who are at work, for a reason (a full disk, a
load that its version does not know) which the next pod may have as well. It is said, and whoever reads it decides.

A first no is often of the moment: another operator's word has just been heard. From the second on it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from trafficsim_api.names import hash8
from trafficsim_api.places import Places
from trafficsim_api.protocol import Assignment
from trafficsim_api.units import format_instant
from trafficsim_operator.actions import Assign
from trafficsim_operator.observed import Runner, Unwilling

__all__ = ["PATIENCE_MS", "after", "is_due", "out", "sentences", "to_be_sent", "wait_ms", "word_of"]

PATIENCE_MS: Final = 10_000
_LONGEST_MS: Final = 60_000
_NAMED: Final = 3
_SAID: Final = 160


def word_of(assignment: Assignment, boot: str) -> str:
    """Return a hash over what the runner's *boot* is told, but for what is new each time: epoch and turns."""
    told = assignment
    task = told.task.id if told.task is not None else ""
    return hash8(
        boot, told.run, told.users, told.places, told.processes, told.digest, told.suspended, told.retire, task
    )  # fmt: skip


def after(before: Unwilling | None, word: str, said: str, now_ms: int) -> Unwilling:
    """
    Return how a runner stands that has said no to *word*, in these words, after it stood as *before*.

    One that goes on saying no is told every 60 s: after twice that it was a no of the moment, and this is a first one.
    """
    if before is None or now_ms - before.told_ms > 2 * _LONGEST_MS:
        return Unwilling(word=word, said=said, since_ms=now_ms, told_ms=now_ms, tries=1)
    return Unwilling(word=word, said=said, since_ms=before.since_ms, told_ms=now_ms, tries=before.tries + 1)


def wait_ms(tries: int) -> int:
    """
    Return how long a runner is not told again what it refused so many times in a row.

        0 after the first, then 1 s · 2^(tries - 2), 60 s at most: 0, 1, 2, 4, 8, 16, 32, 60 s
    """
    return 0 if tries <= 1 else int(min(_LONGEST_MS, 1_000 * 2 ** min(tries - 2, 10)))


def is_due(unwilling: Unwilling, word: str, now_ms: int) -> bool:
    """Say whether it is to be told *word* now: something else than it refused, or it has been long enough."""
    return word != unwilling.word or now_ms - unwilling.told_ms >= wait_ms(unwilling.tries)


def out(runners: Iterable[Runner], unwilling: Mapping[str, Unwilling], now_ms: int) -> frozenset[str]:
    """Return the names of those *runners* that nobody waits for any more; *unwilling* are by UID."""
    return frozenset(
        runner.name
        for runner in runners
        if (found := unwilling.get(runner.uid)) is not None
        and found.tries > 1
        and now_ms - found.since_ms >= PATIENCE_MS
    )


def to_be_sent(
    wishes: Sequence[tuple[Runner, Assign]], unwilling: Mapping[str, Unwilling], gone: frozenset[str], now_ms: int
) -> tuple[Assign, ...]:
    """
    Return those of the *wishes* that are sent at this look.

    Not what a runner refused a moment ago; and while one of those is to give users, nobody is told to take any: else
    more would be at work than was decided on. Who is *gone*, as far as others go, keeps nobody from it.
    """
    sent, givers = [], False
    for runner, action in wishes:
        found = unwilling.get(runner.uid)
        if found is None or is_due(found, word_of(action.assignment, _boot(runner)), now_ms):
            sent.append((runner, action))
        elif runner.name not in gone:
            givers = givers or bool(_held(runner, action) - action.assignment.held)
    return tuple(action for runner, action in sent if not (givers and action.assignment.held - _held(runner, action)))


def sentences(runners: Iterable[Runner], unwilling: Mapping[str, Unwilling]) -> Iterator[str]:
    """Yield what is told of *runners* that go on saying no: the first three by name, and how many more there are."""
    named = sorted(
        (runner.name, found)
        for runner in runners
        if runner.answered and (found := unwilling.get(runner.uid)) is not None and found.tries > 1
    )
    for name, found in named[:_NAMED]:
        yield f"{name} refuses what it is told since {format_instant(found.since_ms)}: {found.said[:_SAID]}"
    if len(named) > _NAMED:
        yield f"so do {len(named) - _NAMED} more"


def _held(runner: Runner, action: Assign) -> Places:
    ack = runner.acknowledgement
    return ack.held if ack is not None and ack.run == action.assignment.run else Places()


def _boot(runner: Runner) -> str:
    return runner.acknowledgement.boot if runner.acknowledgement is not None else ""
