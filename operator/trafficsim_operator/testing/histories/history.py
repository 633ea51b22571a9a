"""
One history: a simulation with a version that runs, versions that are rolled out, and whatever happens meanwhile.

Every history has an *aim*, a fault in a phase: it is led there, and the fault happens when it is. At other looks faults
come by chance. After the looks asked for the world goes quiet, and the history has to come to rest.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, Final

from trafficsim_api.rollout import PauseReason, Rollout, RolloutPhase, RolloutStep
from trafficsim_api.status import RolloutStatus
from trafficsim_operator.observed import RunnerState
from trafficsim_operator.plan.analysis import Analysis
from trafficsim_operator.plan.rolling import Colour
from trafficsim_operator.plan.split import is_hasty
from trafficsim_operator.testing.histories.checks import Checks, green_of
from trafficsim_operator.testing.histories.faults import FAULTS, Fault
from trafficsim_operator.testing.histories.numbers import analysis_of
from trafficsim_operator.testing.histories.operator import (
    Acts,
    Asked,
    Look,
    Wish,
    Written,
    look_at,
    revision_of,
    runners_for,
)
from trafficsim_operator.testing.histories.runners import LightFleet, Memory, Version, bits

__all__ = ["PAIRS", "Broken", "History", "Visits"]

_P = RolloutPhase
_START_MS: Final = 1_700_000_000_000
_QUIET_LOOKS: Final = 400
_CHANCE: Final = 0.12
_BEHAVIOURS: Final = ("good",) * 6 + ("bad",) * 4 + ("empty", "few", "hung")
_TOTALS: Final = (1, 2, 3, 5, 8, 10, 12, 20, 30, 40)
_SHORT: Final = timedelta(seconds=2)


def _rollout(*percents: int, **changes: Any) -> Rollout:
    """Return a rollout with short times."""
    asked: dict[str, Any] = {
        "steps": tuple(RolloutStep(percent=percent) for percent in percents),
        "dwell": timedelta(seconds=4),
        "max_dwell": timedelta(seconds=15),
        "warm_up": timedelta(seconds=1),
        "window": timedelta(seconds=1),
        "deadline": timedelta(seconds=40),
        "scale_down_delay": timedelta(seconds=4),
        "abort_scale_down_delay": timedelta(seconds=5),
    }
    return Rollout.model_construct(**(Rollout().__dict__ | asked | changes))


_PAUSING: Final = (RolloutStep(percent=25, pause=True), RolloutStep(percent=100))
_ROLLOUTS: Final = (
    _rollout(50, 100),
    _rollout(100),
    _rollout(20, 60, 100),
    _rollout(50, 100, dwell=_SHORT),
    _rollout(10, 25, 50, 75, 100, dwell=_SHORT),
    _rollout(50, 100, on_failure="pause"),
    _rollout(50, 100, auto_promote=False),
    _rollout(25, 100, steps=_PAUSING),
)

# On record for a look or two each time: histories are led there again and again.
_PASSING: Final = (_P.PROMOTING, _P.SUPERSEDING)
PAIRS: Final = tuple((phase, fault) for phase in RolloutPhase for fault in Fault)
_RARE: Final = (
    *((phase, Fault.ENDED) for phase in (*RolloutPhase, _P.RETIRING, _P.ABORTING)),
    *((_P.PROMOTING, fault) for fault in (*Fault, *Fault)),
    *(((_P.STABLE, Fault.OTHER_LOST), (_P.STABLE, Fault.OTHER_SILENT)) * 5),
)
_AIMS: Final = PAIRS + _RARE


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Visits:
    """What histories have come to."""

    looks: int = 0
    faults: Counter[tuple[RolloutPhase, Fault]] = field(default_factory=Counter)
    steps: Counter[tuple[RolloutPhase, RolloutPhase]] = field(default_factory=Counter)
    pauses: Counter[PauseReason] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def add(self, other: Visits) -> None:
        """Add what other histories have come to."""
        self.looks += other.looks
        for name in ("faults", "steps", "pauses", "commands", "verdicts", "reasons", "ends"):
            getattr(self, name).update(getattr(other, name))


class History:
    """One history, drawn from *seed*."""

    def __init__(self, seed: int, visits: Visits) -> None:
        self.seed, self.visits, self.rng = seed, visits, Random(seed)
        rng = self.rng
        self.aim_phase, self.aim = _AIMS[seed % len(_AIMS)]
        self.counts: Sequence[int] = (0, *rng.sample(_TOTALS, 3)) if rng.random() < 0.1 else rng.sample(_TOTALS, 3)
        self.capacity = max(4, -(-max(self.counts) // rng.choice((1, 2, 3))))
        self.versions = {"v1": Version(name="v1", start_ms=1_000)}
        self.fleet, self.memory, self.checks = LightFleet(), Memory(), Checks()
        self.now_ms, self.run_ms, self.number = _START_MS, 0, 0
        self.commands = 0
        self.wish = Wish(wanted="v1", users=rng.choice(self.counts[-3:]), rollout=self.another_rollout())
        self.written = Written(rollout=RolloutStatus(), stable=revision_of("v1"))
        self.fleet.replicas["v1"] = runners_for(self.wish.users, self.capacity)
        self.outages: list[tuple[int, int]] = []
        self.past: deque[Acts] = deque(maxlen=4)
        self.crash: float | None = None
        self.conflict = False
        self.deafness = self.losing = 0.0
        self.resume_at = self.restart_at = 0
        self.aimed = 0
        self.begins_at = rng.randint(3, 6)
        self.quiet = False

    # The whole.

    def run(self, looks: int) -> None:
        """Let *looks* looks pass, then the quiet, and check that the history comes to rest."""
        try:
            for _ in range(looks):
                self._happen()
                self._look()
            self._come_to_rest()
        except AssertionError as error:
            raise Broken(f"seed {self.seed}, look {self.number}: {error}") from error

    def _happen(self) -> None:
        """Let happen what is due, what the aim asks for, and by chance something else."""
        self.now_ms += self.rng.choice((500, 1_000, 1_000, 1_500))
        phase = self.written.rollout.phase
        if self.number == self.begins_at:
            self.ask_version(self.next_version())
        elif phase is _P.STABLE and self.written.rollout.rejected and self.rng.random() < 0.1:
            self.ask_version(self.written.rollout.rejected)
        if self.wish.suspended and self.number >= self.resume_at:
            self._strike(Fault.RESUMED)
        if self.wish.ended and self.number >= self.restart_at and not self.written.begun:
            self._restart()
        if phase is self.aim_phase and self.number > self.begins_at and self.aimed < 3:
            if self.aim is Fault.RESUMED and not self.wish.suspended:
                if self._strike(Fault.SUSPENDED):
                    # It is still in this phase when it goes on.
                    self.resume_at = self.number + 1
                    self.conflict = True
            elif (phase is _P.PROMOTING or self.rng.random() < 0.7) and self._strike(self.aim):
                self.aimed += 1
        elif self.number > self.begins_at and (not self.aimed or self.aim_phase in _PASSING):
            self._lead()
        if self.rng.random() < _CHANCE:
            self._strike(self.rng.choice(_OFTEN))

    def _strike(self, fault: Fault) -> bool:
        done = FAULTS[fault](self)
        if done:
            self.visits.faults[self.written.rollout.phase, fault] += 1
            self.checks.calm = 0
        return done

    def _lead(self) -> None:
        """Lead the history to the phase of its aim."""
        phase, now = self.aim_phase, self.written.rollout.phase
        if now in (_P.STABLE, _P.REJECTED, _P.RETIRING) and phase not in (_P.STABLE, now) and self.rng.random() < 0.3:
            self.ask_version(self.next_version())
        if now not in (_P.PREPARING, _P.SHIFTING, _P.ANALYZING) or self.rng.random() > 0.25:
            return
        if phase in (_P.ABORTING, _P.REJECTED):
            self.command("abort")
        elif phase is _P.SUPERSEDING:
            self.ask_version(self.next_version())
        elif phase is _P.STABLE and now is not _P.PREPARING:
            self.ask_version(self.written.stable.revision)
        elif phase in (_P.PROMOTING, _P.RETIRING) and now is not _P.PREPARING:
            self.command("promote-full")

    # What the user does.

    def ask(self, **changes: Any) -> None:
        """Edit the document."""
        self.wish = replace(self.wish, **changes)

    def ask_version(self, name: str) -> None:
        """Ask for a version."""
        self.ask(wanted=name)

    def any_version(self) -> str:
        """Return a version that was not there before, or for a change one that was."""
        return self.rng.choice(sorted(self.versions)) if self.rng.random() < 0.3 else self.next_version()

    def next_version(self) -> str:
        """Return a version that was not there before."""
        name = f"v{len(self.versions) + 1}"
        rng = self.rng
        towards_green = self.aim_phase in (_P.ANALYZING, _P.PROMOTING, _P.RETIRING)
        crashes = rng.random() < (0.02 if towards_green else 0.08)
        behaviour = "good" if towards_green and rng.random() < 0.7 else rng.choice(_BEHAVIOURS)
        start_ms = rng.choice((500, 1_000, 3_000, 60_000 if rng.random() < 0.2 else 1_000))
        self.versions[name] = Version(name=name, start_ms=start_ms, crashes=crashes, behaviour=behaviour)
        return name

    def another_rollout(self) -> Rollout:
        """Return other steps."""
        return self.rng.choice(_ROLLOUTS)

    def command(self, action: str, attempt: int | None = None) -> None:
        """Write a command."""
        self.commands += 1
        self.ask(command=Asked(id=self.commands, action=action, attempt=attempt))

    def suspend(self) -> None:
        """Suspend the simulation for some looks."""
        self.ask(suspended=True)
        self.resume_at = self.number + self.rng.randint(2, 6)

    def end(self) -> None:
        """End the run; the next one begins some looks later."""
        self.ask(ended=True, suspended=False)
        self.restart_at = self.number + self.rng.randint(3, 8)

    def _restart(self) -> None:
        """Begin the next run with what is asked for, unless it was rejected: the last run's runners are gone."""
        self.ask(ended=False)
        wanted, written = self.wish.wanted, self.written
        version = self.versions[wanted]
        if version.crashes or version.start_ms > 10_000 or wanted == written.rollout.rejected:
            wanted = written.stable.revision
        self.fleet.runners.clear()
        self.fleet.replicas = {wanted: runners_for(self.wish.users, self.capacity)}
        self.memory = Memory()
        self.past.clear()
        self.run_ms = 0
        self.outages.clear()
        self.written = replace(written, stable=revision_of(wanted), candidate=None, previous=None, begun=False)

    # What happens to the world.

    def names(self, *, blue: bool) -> list[str]:
        """Return the runners of the stable version, or all others, with users first."""
        stable = self.written.stable.revision
        found = [runner for runner in self.fleet.runners.values() if (runner.revision == stable) is blue]
        return [runner.name for runner in sorted(found, key=lambda runner: not runner.may)]

    def lose(self, name: str) -> None:
        """Lose a runner with its users."""
        lost = self.fleet.lose(name)
        self.checks.excuse(lost.may | lost.on)

    def send_again(self, acts: Acts) -> None:
        """Let an operator that has lost its lease send what it decided some looks ago."""
        for name, told in acts.told.items():
            runner = self.fleet.runners.get(name)
            # What such an operator had to say and never did is a lost call, not a stale one.
            if runner is not None and runner.told is not None and runner.told.epoch >= told.epoch:
                before = runner.told
                runner.tell(told, self.now_ms)
                assert runner.told == before, f"I5: {name} takes an assignment of epoch {told.epoch}"

    # A look.

    def _look(self) -> None:
        self.number += 1
        self.visits.looks += 1
        rng, fleet, written = self.rng, self.fleet, self.written
        if written.begun and not self.wish.suspended and not self.wish.ended:
            self.run_ms += self.now_ms - max(self.checks.last_ms, self.now_ms - 2_000)
        fleet.replace_lost(self.versions, self.now_ms, rng.choice((0, 0, 400, 900)))
        for runner in fleet.runners.values():
            runner.tick(self.now_ms)
            runner.deaf = bool(self.deafness) and rng.random() < self.deafness
        self.deafness = 0.0
        self.checks.world(fleet, written.total if written.begun else 0, hasty=is_hasty(written.rollout))
        found = look_at(
            written,
            self.wish,
            tuple(self.memory.seen(runner, self.now_ms) for runner in fleet.runners.values()),
            dict(fleet.replicas),
            now_ms=self.now_ms,
            run_ms=self.run_ms,
            capacity=self.capacity,
            analysis_of=self._analysis,
        )
        self.checks.look(found, fleet, self.now_ms)
        is_calm = not found.hasty and all(r.answered or r.state is RunnerState.STARTING for r in found.runners)
        self.checks.calm = self.checks.calm + 1 if is_calm else 0
        if self.conflict:
            self.conflict = False
            return
        self._record(found)
        self._act(found)
        self.checks.world(fleet, self.written.total if self.written.begun else 0, hasty=found.hasty)

    def _analysis(self, rollout: RolloutStatus, blue: Colour, green: Colour) -> Analysis:
        candidate = self.written.candidate
        assert candidate is not None
        behaviour = self.versions[candidate.revision].behaviour
        return analysis_of(rollout, behaviour, self.outages, now_ms=self.now_ms, run_ms=self.run_ms)

    def _record(self, found: Look) -> None:
        """Put a look on record."""
        before, after = found.before, found.after
        self.checks.recorded(found, self.now_ms)
        self.written = after
        was, now = (1 << before.total) - 1, (1 << after.total) - 1
        self.checks.excuse(now & ~was)
        if not after.begun or self.wish.suspended or not before.begun:
            self.checks.excuse(now)
        if before.rollout.phase is not after.rollout.phase:
            self.visits.steps[before.rollout.phase, after.rollout.phase] += 1
            self._count_verdict(found)
        if after.rollout.pause is not None and after.rollout.pause is not before.rollout.pause:
            self.visits.pauses[after.rollout.pause] += 1
        if found.action:
            self.visits.commands[found.action] += 1
        if len(found.runners) != len(self.fleet.runners) or before.total != after.total:
            self.checks.calm = 0

    def _count_verdict(self, found: Look) -> None:
        after = found.after.rollout
        if after.phase is _P.PROMOTING:
            self.visits.verdicts["promoted"] += 1
        elif after.phase is _P.REJECTED and found.before.rollout.phase is _P.ABORTING:
            self.visits.verdicts["rolled back"] += 1
        elif after.phase in (_P.ABORTING, _P.SUPERSEDING):
            self.visits.reasons[after.reason] += 1

    def _act(self, found: Look) -> None:
        """Do what was decided, as far as the operator gets."""
        rng, fleet, acts = self.rng, self.fleet, found.acts
        self.past.append(acts)
        calls = [*acts.told.items()]
        if self.crash is not None:
            calls = calls[: int(len(calls) * self.crash)] if self.crash else []
            if rng.random() < 0.6:
                self.memory = Memory()  # another process goes on, and has not heard anybody yet
        for name, told in calls:
            if not (self.losing and rng.random() < self.losing):
                fleet.runners[name].tell(told, self.now_ms)
        if not self.crash and self.crash is not None:
            self.crash, self.losing = None, 0.0
            return
        self.crash, self.losing = None, 0.0
        fleet.replicas.update(acts.replicas)
        for name in (*acts.removed, *(r.name for rev in acts.dropped for r in fleet.of(rev))):
            runner = fleet.lose(name)
            fleet.replicas[runner.revision] -= 1
            self.checks.removed(runner, found)
            known = self.memory.acks.get(name)
            # What it took on and was never heard to have, blue could not be given in time.
            self.checks.excuse(runner.may & ~bits(known.held) if known is not None else runner.may)
        for revision in acts.dropped:
            del fleet.replicas[revision]

    # The end.

    def _come_to_rest(self) -> None:
        """Let nothing happen any more: it ends in Stable or Rejected, or in a pause that says why."""
        self.quiet = True
        self.outages.append((self.run_ms, self.run_ms)) if not self.outages else None
        self.outages = [(start, min(end, self.run_ms)) for start, end in self.outages]
        self.wish = replace(self.wish, suspended=False, paused=self.wish.paused and self.rng.random() < 0.2)
        if self.wish.ended:
            self._look()
            self._restart()
        for runner in self.fleet.runners.values():
            runner.silent_until_ms = 0
        still = 0
        for _ in range(_QUIET_LOOKS):
            self.now_ms += 1_500
            before = self.written
            self._look()
            still = still + 1 if before == self.written and self._is_at_rest() else 0
            if still >= 3:
                break
        else:
            raise AssertionError(f"it does not come to rest: {self._story()}")
        self._rests()

    def _is_at_rest(self) -> bool:
        rollout = self.written.rollout
        if any(self.now_ms < runner.rests_ms for runner in self.fleet.runners.values()):
            return False
        return self.written.begun and (rollout.phase in (_P.STABLE, _P.REJECTED) or rollout.pause is not None)

    def _rests(self) -> None:
        """Check who has what in the end."""
        written, rollout = self.written, self.written.rollout
        total = written.total
        assert total == self.wish.users, f"{total} places are dealt for {self.wish.users} users"
        users: Counter[str] = Counter()
        for runner in self.fleet.runners.values():
            users[runner.revision] += runner.on.bit_count()
            assert runner.on == runner.may, f"{runner.name} has not settled"
        assert sum(users.values()) == total, f"I3: {dict(users)} at rest, of {total}"
        green = written.candidate.revision if written.candidate is not None else ""
        wanted = 0
        if rollout.phase in (_P.SHIFTING, _P.ANALYZING):
            assert rollout.plan is not None
            wanted = green_of(total, rollout.plan.steps[rollout.step].percent)
            if rollout.phase is _P.ANALYZING or rollout.pause is None:
                assert users[green] == wanted, f"I3: green has {users[green]} of {wanted} users at rest"
        else:
            assert users[written.stable.revision] == total, (
                f"I3: {dict(users)} at rest, stable is {written.stable.revision}"
            )
        if rollout.pause is not None:
            assert rollout.message, f"{rollout.pause} without a word of why"
            self.visits.ends[rollout.pause] += 1
            return
        assert not self.checks.excused, "users are missing"
        if rollout.phase is _P.STABLE:
            assert self.wish.wanted == written.stable.revision, f"{self.wish.wanted} is wanted, {self._story()}"
        else:
            assert self.wish.wanted == rollout.rejected, f"{self.wish.wanted} is wanted, {self._story()}"
        self.visits.ends[rollout.phase] += 1

    def _story(self) -> str:
        rollout = self.written.rollout
        names = {name: self.fleet.replicas[name] for name in self.fleet.replicas}
        return f"{rollout.phase} (attempt {rollout.attempt}, {rollout.pause}) {rollout.message!r}, replicas {names}"


_OFTEN: Final = tuple(fault for fault in Fault if fault not in (Fault.ENDED, Fault.RESUMED)) * 3 + (Fault.ENDED,)
