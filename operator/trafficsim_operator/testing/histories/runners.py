"""
Light runners: they hold places, come to rest after a while, and may be slow, silent or lost. Sets of places are bits.

What a runner surely has on and what it may have on differ while it settles: a place gained is on when it has settled
at the latest, a place lost is off then at the latest. Floors are checked against the one, ceilings against the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement
from trafficsim_operator.observed import Runner, RunnerState

__all__ = ["Told", "LightAck", "LightFleet", "LightRunner", "Version", "bits"]

RUN = 1


@lru_cache(maxsize=100_000)
def bits(places: Places) -> int:
    """Return *places* as bits: place p is bit p."""
    return sum((1 << stop) - (1 << start) for start, stop in places.ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How runners of a version turn out: when they are up, whether they crash, and what its numbers are like."""

    name: str
    start_ms: int
    crashes: bool = False
    behaviour: str = "good"
    """good, bad (its numbers break a limit), empty (it finishes no request), few (too few requests to judge)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An assignment, as far as the split goes."""

    epoch: int
    places: Places
    total: int
    suspended: bool
    retire: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LightAck:
    """What of an acknowledgement is asked for where versions are compared and places are dealt."""

    epoch: int
    held: Places
    users: int
    active: int
    settled: bool
    suspended: bool
    retire: bool
    drained: bool
    revision: str
    run: int = RUN
    target: str = "reachable"
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class LightRunner:
    """One runner. *on*: places whose users are surely active, *may*: those whose users may be."""

    name: str
    revision: str
    born_ms: int
    up_ms: int | None
    """When it is ready; None: it crashes instead."""
    settles_ms: int
    number: int
    told: Told | None = None
    on: int = 0
    may: int = 0
    rests_ms: int = 0
    silent_until_ms: int = 0
    deaf: bool = False
    """It does not answer at this look."""
    ack: LightAck | None = None
    refused: int = 0

    def tell(self, told: Told, now_ms: int) -> None:
        """Take an assignment; an older epoch is refused, a repeat changes nothing."""
        before = self.told
        if before is not None and told.epoch < before.epoch:
            self.refused += 1
            return
        if before == told:
            return
        assert before is None or told.epoch > before.epoch, f"I5: {self.name} is told two things by one epoch {told}"
        wants = 0 if told.suspended or told.retire else bits(told.places)
        self.told = told
        self.on &= wants
        self.may |= wants
        self.rests_ms = now_ms + self.settles_ms
        self.ack = None

    def tick(self, now_ms: int) -> None:
        """Let time pass."""
        if self.told is not None and now_ms >= self.rests_ms and (self.ack is None or not self.ack.settled):
            told = self.told
            self.on = self.may = 0 if told.suspended or told.retire else bits(told.places)
            self.ack = None

    def acknowledged(self, now_ms: int) -> LightAck | None:
        """Return what it holds now; None: nothing was told it yet."""
        told = self.told
        if told is None:
            return LightAck(
                epoch=0, held=Places(), users=0, active=0, settled=True, suspended=False, retire=False, drained=True,
                revision=self.revision,
            )  # fmt: skip
        if self.ack is None:
            self.ack = LightAck(
                epoch=told.epoch,
                held=told.places,
                users=told.total,
                # Who is on its way out is active until parked; who has not made its first send is not yet.
                active=(self.on | (self.may & ~bits(told.places))).bit_count(),
                settled=now_ms >= self.rests_ms,
                suspended=told.suspended,
                retire=told.retire,
                drained=not self.may,
                revision=self.revision,
            )
        return self.ack

    @property
    def is_up(self) -> bool:
        """Say whether it has workers at all."""
        return self.up_ms is not None


@dataclass(slots=True)
class LightFleet:
    """Runners by name, and how many of each revision there are to be."""

    runners: dict[str, LightRunner] = field(default_factory=dict)
    replicas: dict[str, int] = field(default_factory=dict)
    made: int = 0

    def of(self, revision: str) -> list[LightRunner]:
        """Return the runners of *revision*."""
        return [runner for runner in self.runners.values() if runner.revision == revision]

    def replace_lost(self, versions: dict[str, Version], now_ms: int, settles_ms: int) -> None:
        """Have as many runners of every revision as there are to be; as a Deployment, it takes none away by itself."""
        for revision, count in self.replicas.items():
            version = versions[revision]
            for _ in range(count - len(self.of(revision))):
                self.made += 1
                name = f"{revision}-{self.made:03}"
                self.runners[name] = LightRunner(
                    name=name,
                    revision=revision,
                    born_ms=now_ms,
                    up_ms=None if version.crashes else now_ms + version.start_ms,
                    settles_ms=settles_ms,
                    number=self.made,
                )

    def lose(self, name: str) -> LightRunner:
        """Lose a runner with all its users."""
        return self.runners.pop(name)


@dataclass(slots=True)
class Memory:
    """What an operator remembers of runners that don't answer; a restart forgets it."""

    acks: dict[str, LightAck] = field(default_factory=dict)
    heard_ms: dict[str, int] = field(default_factory=dict)

    def seen(self, runner: LightRunner, now_ms: int) -> Runner:
        """Return *runner* as a look sees it."""
        is_ready = runner.up_ms is not None and now_ms >= runner.up_ms
        answers = is_ready and not runner.deaf and now_ms >= runner.silent_until_ms
        heard = self.heard_ms.setdefault(runner.name, now_ms)
        if answers:
            ack = runner.acknowledged(now_ms)
            assert ack is not None
            self.acks[runner.name] = ack
            self.heard_ms[runner.name] = heard = now_ms
        known = self.acks.get(runner.name)
        retired = known is not None and known.retire and known.drained
        state = RunnerState.STARTING if not is_ready else RunnerState.UNREADY if retired else RunnerState.READY
        return Runner(
            name=runner.name,
            uid=runner.name,
            revision=runner.revision,
            state=state,
            address=runner.name,
            cause="" if runner.is_up else "CrashLoopBackOff: it ended with code 7",
            acknowledgement=cast("Acknowledgement | None", known),
            answered=answers,
            silent_ms=now_ms - heard if is_ready else 0,
            started_ms=runner.born_ms,
        )
