"""
The story of `trafficsim demo-rollout`: which edit comes next, what there is to tell, and how it came out.

    version 1 has all users → version 2 is asked for → promoted → version 3 is asked for → rolled back → the end

It sees the run through its looks alone; every number it tells is one of the status.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from trafficsim_api.phases import Phase
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import RolloutStatus, Status
from trafficsim_operator.cli.figures import counted
from trafficsim_operator.cli.rollout_history import History, Tone
from trafficsim_operator.local import Frame

__all__ = ["Attempt", "Chapter", "Edit", "Story", "Told"]

_CALM_MS: Final = 5_000
"""For how long all users are to be at work before the next edit, so that it is seen in the picture."""
_ENDED: Final = frozenset({RolloutPhase.RETIRING, RolloutPhase.STABLE, RolloutPhase.REJECTED})


class Edit(StrEnum):
    """An edit of the document, as its user would make it."""

    GOOD = "demo/shop:2"
    BAD = "demo/shop:3"
    STOP = "stop"


class Chapter(StrEnum):
    """How far the story is."""

    BEFORE = "before"
    GOOD = "good"
    BETWEEN = "between"
    BAD = "bad"
    AFTER = "after"
    OVER = "over"


_NEXT: Final = {Chapter.BEFORE: Edit.GOOD, Chapter.BETWEEN: Edit.BAD, Chapter.AFTER: Edit.STOP}
_FOLLOWING: Final = {
    Chapter.BEFORE: Chapter.GOOD, Chapter.GOOD: Chapter.BETWEEN, Chapter.BETWEEN: Chapter.BAD,
    Chapter.BAD: Chapter.AFTER, Chapter.AFTER: Chapter.OVER, Chapter.OVER: Chapter.OVER,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A line of the story."""

    at_ms: int
    text: str
    tone: Tone = Tone.STEP


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One version's way, as it was seen."""

    label: str = ""
    revision: str = ""
    asked_ms: int = 0
    steps: list[int] = field(default_factory=list)
    """The percentages it came to."""
    promoted: bool = False
    rejected: bool = False
    verdict_ms: int = 0
    """When it was decided: the promotion, or the beginning of the way back."""
    ended_ms: int = 0
    message: str = ""


@dataclass(slots=True, kw_only=True)
class Story:
    """Takes looks in; says what is to be told, and which edit is to be made."""

    history: History = field(default_factory=History)
    chapter: Chapter = Chapter.BEFORE
    good: Attempt = field(default_factory=Attempt)
    bad: Attempt = field(default_factory=Attempt)
    _calm_since_ms: int | None = None
    _full_ms: int | None = None
    _on_ms: int = 0
    """When it was last seen running."""
    _seen: tuple[int, RolloutPhase, int, str | None] = (0, RolloutPhase.STABLE, 0, None)

    def see(self, frame: Frame) -> tuple[tuple[Told, ...], Edit | None]:
        """Take a look over; return the lines it gives, and the edit that is to be made now."""
        self.history.see(frame)
        status, at_ms = frame.status, frame.elapsed_ms
        if at_ms is None or status.phase is not Phase.RUNNING:
            return (), None
        self._on_ms = at_ms
        told = tuple(self._news(status, at_ms))
        return told, self._edit(status, at_ms)

    @property
    def is_shown(self) -> bool:
        """Say whether it came out as it should: the good version promoted, the bad one back at the 10 % step."""
        good, bad = self.good, self.bad
        return good.promoted and bad.rejected and not good.rejected and not bad.promoted and bad.steps == [10]

    @property
    def full_ms(self) -> int:
        """Return since when all users were at work."""
        return self._full_ms or 0

    def _edit(self, status: Status, at_ms: int) -> Edit | None:
        """Return the next edit, once all users have been at work for a while."""
        total = status.users.target
        is_calm = self.history.samples[-1].total == total > 0 if self.history.samples else False
        if is_calm and self._full_ms is None:
            self._full_ms = at_ms
        if not is_calm or self.chapter not in _NEXT:
            self._calm_since_ms = None
            return None
        if self._calm_since_ms is None:
            self._calm_since_ms = at_ms
        if at_ms - self._calm_since_ms < _CALM_MS:
            return None
        edit = _NEXT[self.chapter]
        if edit is Edit.BAD and not self.good.promoted:  # there is nothing to come back to
            edit = Edit.STOP
        self._turn_to(edit, at_ms)
        return edit

    def _turn_to(self, edit: Edit, at_ms: int) -> None:
        self._calm_since_ms = None
        self.chapter = Chapter.OVER if edit is Edit.STOP else _FOLLOWING[self.chapter]
        if edit is not Edit.STOP:
            attempt = self.good if edit is Edit.GOOD else self.bad
            attempt.label, attempt.asked_ms = edit.rpartition(":")[2], at_ms
            self.history.mark(at_ms, f"image: {edit}", Tone.ASKED)

    def _news(self, status: Status, at_ms: int) -> Iterator[Told]:
        """Yield a line for what the rollout came to since the last look."""
        rollout = status.rollout
        if rollout is None or self.chapter not in (Chapter.GOOD, Chapter.BAD):
            return
        seen = (rollout.attempt, rollout.phase, rollout.step, rollout.pause)
        if seen == self._seen or rollout.attempt == 0:
            return
        attempt = self.good if self.chapter is Chapter.GOOD else self.bad
        if rollout.attempt == self._seen[0] or rollout.phase not in _ENDED:
            yield from self._turns(attempt, rollout, status, at_ms)
        self._seen = seen

    def _turns(self, attempt: Attempt, rollout: RolloutStatus, status: Status, at_ms: int) -> Iterator[Told]:
        name, users = f"version {attempt.label}", rollout.wanted
        if status.candidate is not None:
            attempt.revision = status.candidate.revision
        if rollout.pause is not None:
            yield Told(at_ms=at_ms, text=f"{name} waits ({rollout.pause}): {rollout.message}", tone=Tone.BAD)
            return
        match rollout.phase:
            case RolloutPhase.PREPARING:
                yield Told(at_ms=at_ms, text=f"a runner of {name} starts beside the old one, without users")
            case RolloutPhase.SHIFTING | RolloutPhase.ANALYZING if rollout.percent not in attempt.steps:
                if attempt.steps and rollout.phase is RolloutPhase.SHIFTING and rollout.message:
                    yield Told(at_ms=at_ms, text=f"{attempt.steps[-1]} % is passed: {rollout.message}")
                attempt.steps.append(rollout.percent)
                self.history.mark(at_ms, f"{rollout.percent} %", Tone.STEP)
                share = f"{users} of {counted(status.users.dealt, 'user')}"
                yield Told(at_ms=at_ms, text=f"{name} gets {rollout.percent} %: {share}")
            case RolloutPhase.ANALYZING:
                yield Told(at_ms=at_ms, text=f"{rollout.percent} % are there: both versions are measured side by side")
            case RolloutPhase.ABORTING:
                attempt.verdict_ms, attempt.message = at_ms, rollout.message.partition(" · ")[0]
                self.history.mark(at_ms, "rolled back", Tone.BAD)
                yield Told(at_ms=at_ms, text=f"{name} is {attempt.message}; its users go back", tone=Tone.BAD)
            case RolloutPhase.REJECTED:
                yield from self._rejected(attempt, rollout, at_ms)
            case RolloutPhase.PROMOTING | RolloutPhase.RETIRING if not attempt.promoted:
                attempt.promoted, attempt.verdict_ms, attempt.ended_ms = True, at_ms, at_ms
                attempt.message = _numbers(rollout)
                self.chapter = _FOLLOWING[self.chapter]
                self.history.mark(at_ms, "promoted", Tone.GOOD)
                text = f"{name} is promoted: {attempt.message}; the one before it is kept a while"
                yield Told(at_ms=at_ms, text=text, tone=Tone.GOOD)
            case _:
                pass

    def _rejected(self, attempt: Attempt, rollout: RolloutStatus, at_ms: int) -> Iterator[Told]:
        """Close the attempt; between two looks its way back may have gone unseen."""
        if not attempt.verdict_ms:
            attempt.verdict_ms, attempt.message = at_ms, rollout.message
            self.history.mark(at_ms, "rolled back", Tone.BAD)
        attempt.rejected, attempt.ended_ms = True, at_ms
        self.chapter = _FOLLOWING[self.chapter]
        yield Told(at_ms=at_ms, text=f"all users are back; version {attempt.label} is rejected", tone=Tone.BAD)

    def words(self) -> tuple[str, ...]:
        """Return what happened, in sentences with the numbers."""
        return tuple(self._words())

    def _words(self) -> Iterator[str]:
        good, bad, history = self.good, self.bad, self.history
        if not good.label:
            yield "Version 1 never had all of its users at work, so that nothing was rolled out."
            return
        yield _fate(good)
        if bad.label:
            yield _fate(bad)
        if bad.rejected and bad.revision:
            most = counted(history.most(bad.revision), "user")
            took = max(0, bad.ended_ms - bad.verdict_ms) / 1000
            yield f"Version {bad.label} never had more than {most}; its verdict was followed within {took:.1f} s."
        until_ms = bad.ended_ms or self._on_ms
        least, most_active = history.bounds(self.full_ms, until_ms)
        yield (
            f"At every look from {self.full_ms // 1000} s to {until_ms // 1000} s between {least} and {most_active} "
            f"users were active, of {history.total} asked for."
        )


def _numbers(rollout: RolloutStatus) -> str:
    """Return by what a version was promoted: `r2 is promoted: success 100%, n=700; r1 is kept` → the middle of it."""
    return rollout.message.partition(": ")[2].partition("; ")[0]


def _fate(attempt: Attempt) -> str:
    """Return how one version fared."""
    name, steps = f"Version {attempt.label}", ", ".join(map(str, attempt.steps))
    if attempt.promoted:
        took = (attempt.verdict_ms - attempt.asked_ms) / 1000
        return f"{name} was promoted after {took:.0f} s, by way of {steps} %: {attempt.message}."
    if attempt.rejected:
        took = (attempt.verdict_ms - attempt.asked_ms) / 1000
        return f"{name} was rolled back after {took:.0f} s: {attempt.message}."
    return f"{name} was neither promoted nor rolled back: it came to {steps or '0'} % before the run was over."
