"""Which version's runners had how many users when: as the looks at a run saw it, with what happened beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import Status
from trafficsim_operator.local import Frame

__all__ = ["History", "Mark", "Sample", "Tone", "active_by_version"]

_PROMOTED: Final = (RolloutPhase.PROMOTING, RolloutPhase.RETIRING)


class Tone(StrEnum):
    """What kind of thing happened."""

    ASKED = "asked"
    STEP = "step"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look: the active users of each version, by its revision, as its runners acknowledged them."""

    at_ms: int
    active: Mapping[str, int]

    @property
    def total(self) -> int:
        """Return the active users of all versions."""
        return sum(self.active.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at an instant, in a word or two."""

    at_ms: int
    text: str
    tone: Tone


@dataclass(slots=True, kw_only=True)
class History:
    """The samples and marks of a run, oldest first; *labels* are the names of the versions, in order of appearance."""

    labels: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    total: int = 0
    """T, as it was accepted last."""

    def see(self, frame: Frame) -> None:
        """Take a look over; before the origin there is nothing to see."""
        at_ms = frame.elapsed_ms
        if at_ms is None or at_ms < 0:
            return
        status = frame.status
        for revision in (status.stable, status.candidate):
            if revision is not None:
                self.labels.setdefault(revision.revision, revision.label)
        self.total = max(self.total, status.users.target)
        self.samples.append(Sample(at_ms=at_ms, active=active_by_version(status)))

    def mark(self, at_ms: int, text: str, tone: Tone) -> None:
        """Note what happened."""
        self.marks.append(Mark(at_ms=at_ms, text=text, tone=tone))

    @property
    def until_ms(self) -> int:
        """Return the instant of the last look."""
        return self.samples[-1].at_ms if self.samples else 0

    def bounds(self, from_ms: int, until_ms: int) -> tuple[int, int]:
        """Return the least and the most users that were active at a look between two instants; (0, 0) without one."""
        totals = [sample.total for sample in self.samples if from_ms <= sample.at_ms <= until_ms]
        return (min(totals), max(totals)) if totals else (0, 0)

    def most(self, revision: str) -> int:
        """Return the most users that *revision* had at a look."""
        return max((sample.active.get(revision, 0) for sample in self.samples), default=0)

    def steps(self, count: int) -> Sequence[tuple[int, ...]]:
        """
        Return the active users in *count* equal spans of time, one number for each version of *labels*.

        A span shows the last look until its end: between two looks nothing is made up.
        """
        span = max(1, self.until_ms) / count
        found, next_sample, now = [], 0, tuple(0 for _ in self.labels)
        for number in range(1, count + 1):
            while next_sample < len(self.samples) and self.samples[next_sample].at_ms <= number * span:
                now = tuple(self.samples[next_sample].active.get(revision, 0) for revision in self.labels)
                next_sample += 1
            found.append(now)
        return found

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it: users by version."""
        return {
            "versions": list(self.labels.values()),
            "users": [
                {
                    "atMs": sample.at_ms,
                    "active": {self.labels[revision]: users for revision, users in sample.active.items()},
                }
                for sample in self.samples
            ],
            "marks": [{"atMs": mark.at_ms, "text": mark.text, "kind": mark.tone.value} for mark in self.marks],
        }


def active_by_version(status: Status) -> dict[str, int]:
    """
    Return the active users of each version by its revision; before the first rollout all are of the stable one.

    While the version before is kept after a promotion, blue is that one and green the stable one.
    """
    if status.stable is None:
        return {}
    rollout = status.rollout
    if rollout is None:
        return {status.stable.revision: status.users.active}
    blue, green = (status.previous, status.stable) if rollout.phase in _PROMOTED else (status.stable, status.candidate)
    found = {}
    for version, share in ((blue, rollout.blue), (green, rollout.green)):
        if version is not None and (share.active or version is status.stable or version is status.candidate):
            found[version.revision] = share.active
    return found
