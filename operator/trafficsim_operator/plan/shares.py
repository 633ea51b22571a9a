"""
Each runner's share of the numbers: its newest account, whether that is all of it, and what of it is missing.

    whole      read when nobody was at work on the runner, and nobody can be without another assignment
    missing    said once of each runner that went before its account was whole, or whose account is gone
    open       what would be missing if the run ended now
    unkept     the last account of a runner that went is in this process alone: the record did not take it

Runners keep cumulative vectors, so the newest answer of each is its whole account, and the run's is their sum. A
container that comes back without its counts begins from nothing: what it had counted stays a share of its own.

What was told once is there: where the accounts add up to less than the status tells of, some were lost between two
operators, and that is said; not before all that there are were read, or the run ends. Until then the status goes on to
tell of it. Told numbers have three digits, so a smaller loss does not show by that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Answer, Vector, histogram, merge_extremes, total, zeros
from trafficsim_api.status import Accounts, UnkeptShare
from trafficsim_api.units import format_instant
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan import numbers
from trafficsim_operator.plan.unkept import gone_with_it

__all__ = ["Share", "Shares", "may_count"]

# Clocks of operator and cluster differ by less.
_CLOCKS_MS: Final = 10_000


def may_count(runner: Runner, run: int, attending_ms: int) -> bool:
    """
    Say whether *runner* may have counted anything in *run*.

    One that was never heard may have been told by another operator; not if it was made after looks without a break
    began at *attending_ms* (wall clock ms, 0: unknown), nor while its container starts for the first time.
    """
    ack = runner.acknowledgement
    if ack is not None:
        return ack.run == run and ack.epoch > 0
    is_ours = bool(attending_ms) and runner.started_ms >= attending_ms + _CLOCKS_MS
    return not is_ours and (runner.state is not RunnerState.STARTING or runner.restarts > 0)


@dataclass(slots=True, kw_only=True)
class Share:
    """
    One runner's newest answer, read at *read_ms*, counted up to *counted_ms* (wall clock ms).

    *ended*: it is final, and to be kept on record; *let_go*: by our hand, under the *epoch* it had heard of. *whole* is
    the epoch under which nobody was at work at that read, nor would be; -1: somebody was.
    """

    name: str
    answer: Answer
    read_ms: int
    counted_ms: int
    ended: bool = False
    let_go: bool = False
    epoch: int = 0
    whole: int = -1

    def is_whole(self, runner: Runner) -> bool:
        """Say whether *runner* has counted nothing since, as far as its newest acknowledgement tells."""
        ack = runner.acknowledgement
        return ack is not None and self.whole == ack.epoch


@dataclass(slots=True, kw_only=True)
class Shares:
    """
    The shares of *run* by runner UID; *missing* by what it is about, *told* the requests that the status told of.

    Looks have followed one another without a break since *attending_ms* (wall clock ms, 0: unknown). *begun*: the run
    has its origin; before that nobody is at work, and nothing can be missing.
    """

    run: int = 0
    attending_ms: int = 0
    begun: bool = True
    by_uid: dict[str, Share] = field(default_factory=dict)
    layout: Layout = field(default_factory=lambda: Layout(actions=()))
    missing: dict[str, str] = field(default_factory=dict)
    owed: dict[str, Answer] = field(default_factory=dict)
    """What is to be put on record, by the name it is kept under."""
    told: int = 0
    unkept: tuple[UnkeptShare, ...] = ()
    """What another operator had in its memory alone, until it was held to that."""
    changes: int = 0
    """Rises with every change."""

    def begin(self, run: int, accounts: Accounts) -> None:
        """Start *run* anew, with what the status tells of it."""
        self.run, self.attending_ms = run, 0
        self.by_uid, self.layout, self.owed = {}, Layout(actions=()), {}
        self.missing = {f"told {number}": text for number, text in enumerate(accounts.missing)}
        self.told, self.unkept = accounts.requests, accounts.unkept
        self.changes += 1

    def restore(self, key: str, answer: Answer, now_ms: int) -> None:
        """Take the last answer of a runner that has ended, as it was kept under *key*."""
        counted_ms = _counted_ms(answer, now_ms)
        share = Share(name=key, answer=answer, read_ms=now_ms, counted_ms=counted_ms, ended=True, let_go=True)
        self._put(key, share)

    def take(self, runner: Runner, answer: Answer, now_ms: int) -> None:
        """Take the newest *answer* of *runner*, read after its acknowledgement."""
        before = self.by_uid.get(runner.uid)
        if before is not None and before.answer.boot != answer.boot and not _goes_on(before.answer, answer):
            # The runner came back without its state directory: what it had counted stays counted.
            key = f"{runner.uid}.{before.answer.boot[:8]}"
            self.by_uid[key] = replace(before, ended=True)
            self.owed[key] = before.answer
            since = format_instant(before.counted_ms)
            self.miss(key, f"{runner.name} lost its account; what came after {since} until its restart")
        ack = runner.acknowledgement
        epoch = ack.epoch if ack is not None else 0
        is_going = ack is not None and (ack.retire or ack.suspended or runner.state is RunnerState.LEAVING)
        is_over = ack is not None and ack.drained and is_going
        # Subtle: a pod may be seen once more before it hears that it goes; only one that was told of users since stays.
        is_let_go = before is not None and before.let_go and (is_going or epoch <= before.epoch)
        last_ms = before.counted_ms if before is not None else now_ms
        share = Share(
            name=runner.name,
            answer=answer,
            read_ms=now_ms,
            counted_ms=min(now_ms, _counted_ms(answer, last_ms)),
            let_go=is_let_go,
            epoch=epoch,
            whole=epoch if is_over else -1,
        )
        if share.whole >= 0 and self.missing.pop(runner.uid, None) is not None:
            self.changes += 1  # it was let go before, and told the rest on its way
        self._put(runner.uid, share)

    def let_go(self, runners: Iterable[Runner], *, is_over: bool) -> tuple[dict[str, Answer], bool]:
        """
        Return the last answers, by UID, of *runners*, which end by our hand, and whether a share of theirs is missing.

        That is true once only: it is put on record before the runner goes. It is not when the run *is_over*.
        """
        last, is_missing = {}, False
        for runner in runners:
            share = self.by_uid.get(runner.uid)
            is_known = is_over or (share is not None and (share.ended or share.is_whole(runner)))
            if not is_known and (share is not None or self.may_count(runner)):
                is_missing = self._miss_rest(runner, _why(runner)) or is_missing
            if share is not None and not share.ended:
                share.ended = share.let_go = True
                share.epoch = runner.acknowledgement.epoch if runner.acknowledgement is not None else 0
                last[runner.uid] = share.answer
        return last, is_missing

    def gone(self, runner: Runner, now_ms: int) -> Answer | None:
        """Return the last answer of *runner*, which is gone, if it is not on record; say what of it is missing."""
        share, ack = self.by_uid.get(runner.uid), runner.acknowledgement
        if share is not None and share.ended:
            return None
        # Whoever was at work is lost, which is told with its users.
        is_lost = (
            ack is not None and ack.run == self.run and not ack.retire and not (share is not None and share.let_go)
        )
        was_up = runner.state in (RunnerState.READY, RunnerState.UNREADY)
        had_some = share is not None or (self.may_count(runner) and (ack is not None or was_up))
        if had_some and not is_lost and not (share is not None and share.is_whole(runner)):
            self._miss_rest(runner, f"it was seen gone at {format_instant(now_ms)}")
        if share is None:
            return None
        share.ended = True
        self.changes += 1
        return share.answer

    def may_count(self, runner: Runner) -> bool:
        """Say whether *runner* may have counted anything in the run."""
        return self.begun and may_count(runner, self.run, self.attending_ms)

    def _miss_rest(self, runner: Runner, why: str) -> bool:
        return self.begun and self.miss(runner.uid, f"{self.since(runner)} on: {why}")

    def miss(self, key: str, text: str) -> bool:
        """Say that a share is missing; return whether that is new."""
        if key in self.missing or text in self.missing.values():
            return False
        self.missing[key] = text
        self.changes += 1
        return True

    def since(self, runner: Runner) -> str:
        """Return from when on the numbers of *runner* are not known."""
        share = self.by_uid.get(runner.uid)
        return f"{runner.name} from {'its start' if share is None else format_instant(share.counted_ms)}"

    def open(self, runners: Collection[Runner]) -> Iterator[str]:
        """
        Yield what would be missing if the run ended now: of the numbers of *runners*, and of what was told of before.

        Where a runner's share is open, nobody knows whether what was told of is at it.
        """
        lost, here = self._lost_with_another(), {runner.uid for runner in runners}
        yield from (gone_with_it(share) for share in lost if share.uid not in here)
        is_open = False
        for runner in runners:
            share = self.by_uid.get(runner.uid)
            is_known = share is not None and (share.is_whole(runner) or (share.ended and not runner.answered))
            if runner.uid not in self.missing and not is_known and self.may_count(runner):
                why = "it had not drained" if runner.answered else "it did not answer"
                is_open = True
                yield f"{self.since(runner)} on: {why} when the run ended"
        if not is_open and (text := self._short_of(lost)):
            yield text

    def hold_to_told(self) -> None:
        """
        Say what of the shares that were told of nobody has, all that there are being read; once.

        Those that another operator had by name, others where the sum is less than was told.
        """
        lost, self.unkept = self._lost_with_another(), ()
        for share in lost:
            self.miss(f"{share.uid} unkept", gone_with_it(share))
        if text := self._short_of(lost):
            self.miss("told", text)
        self.told = 0

    def _lost_with_another(self) -> list[UnkeptShare]:
        """Return the shares that another operator had in its memory alone, and that nobody has as far as was read."""
        return [share for share in self.unkept if share.uid not in self.by_uid]

    def _short_of(self, lost: Iterable[UnkeptShare]) -> str:
        """Return what is said of told requests that neither an account nor what is *lost* by name has, "" if none."""
        found = sum(_done(share.answer) for share in self.by_uid.values()) + sum(share.requests for share in lost)
        if numbers.rounded(found) >= self.told:
            return ""
        return f"about {self.told - found} requests that were told of before: no record has their share any more"

    def take_owed(self) -> dict[str, Answer]:
        """Return what is to be put on record of accounts that ended before their runners, once."""
        owed, self.owed = self.owed, {}
        return owed

    def merged(self) -> tuple[Layout, Vector, Vector, tuple[int, ...]]:
        """Return layout, total, the part before the warm-up's end, and extremes over all runners."""
        layout = self.layout
        whole, warm = zeros(layout), zeros(layout)
        extremes: tuple[int, ...] = (0,) * layout.extremes
        for share in self.by_uid.values():
            answer = share.answer
            whole = whole + numbers.aligned(answer.total, answer.layout, layout)
            # Subtle: a worker copies its counters at the warm-up's end, and the last snapshot may be older than that.
            early = np.minimum(answer.warmup, answer.total)
            warm = warm + numbers.aligned(early, answer.layout, layout)
            extremes = merge_extremes(extremes, numbers.aligned_extremes(answer.extremes, answer.layout, layout))
        return layout, whole, warm, extremes

    def _put(self, key: str, share: Share) -> None:
        self.layout = numbers.joined(self.layout, share.answer.layout)
        self.by_uid[key] = share
        self.changes += 1


def _why(runner: Runner) -> str:
    """Return why the last numbers of *runner*, which is let go, are not known."""
    ack = runner.acknowledgement
    if not runner.answered:
        return "it did not answer any more and was let go"
    if ack is not None and ack.drained:
        return "its last numbers could not be read, and it was let go"
    return "it was let go before it had drained"


def _goes_on(before: Answer, after: Answer) -> bool:
    """Say whether *after* can be of the same account as *before*: no count of finished requests ever falls."""
    then, now = (histogram(answer.layout, answer.total, "service") for answer in (before, after))
    return _done(after) >= _done(before) and bool(np.all(now >= then))


def _done(answer: Answer) -> int:
    return total(answer.layout, answer.total, "done")


def _counted_ms(answer: Answer, otherwise: int) -> int:
    """
    Return up to when *answer* counts.

    Subtle: a read tells what was counted at the runner's last look, up to a second ago. What is missing of one that
    dies begins there, not at the read.
    """
    return answer.windows[-1].wall_ms if answer.windows else otherwise
