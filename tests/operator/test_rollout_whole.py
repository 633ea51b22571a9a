"""
Random histories of rollouts through the whole decision, in a world of fakes: what histories/checks.py says of the parts
holds for what `decide` makes of them, and of what reconcile writes before it acts.
"""

import json
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import RolloutStatus, Status
from trafficsim_api.units import parse_instant
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.plan.places import max_over
from trafficsim_operator.plan.rollout import TRANSITIONS
from trafficsim_operator.store import Conflict, Document
from trafficsim_operator.testing.fakes import FakeHealth, FakeRecord, FakeWorld

P = RolloutPhase
ROLLOUT = {
    "steps": [{"percent": 50}, {"percent": 100}],
    "dwell": "4s",
    "warmUp": "1s",
    "window": "1s",
    "maxDwell": "30s",
    "minSamples": 20,
    "scaleDownDelay": "3s",
    "abortScaleDownDelay": "4s",
    "deadline": "40s",
}
WINDOW_MS, DWELL_MS = 1_000, 4_000
COMMANDS = ("promote", "promote-full", "skip-step", "pause", "resume", "abort", "retry")
HEALTH: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"checks_failed_permille": 300},
    {"failed_permille": 400},
    {"problem": "CrashLoopBackOff: exit code 3"},
)


class Killed(Exception):
    """The operator's process ended after it wrote."""


class FrailRecord(FakeRecord):
    """A record whose next write is lost to somebody else's, or is the last thing its operator does."""

    contested = False
    kills = False

    async def write(self, document: Document, status: Status) -> None:
        """Write, unless contested; end the operator then, if it is to end."""
        if self.contested:
            self.contested = False
            raise Conflict
        await super().write(document, status)
        if self.kills:
            self.kills = False
            raise Killed


class History:
    """A world, what the user asks for in it, and what must hold at every look."""

    def __init__(self) -> None:
        self.record = FrailRecord()
        self.world = FakeWorld(record=self.record)
        self.world.fleet.tells = True
        self.users, self.image, self.versions, self.commands = 20, "shop:1", 1, 0
        self.rollout: dict[str, Any] = dict(ROLLOUT)
        self.suspended = False
        self.excused: set[int] = set(range(60))
        self.epochs: dict[str, int] = {}
        self.plans: dict[int, Any] = {}
        self.verdicts: Counter[int] = Counter()
        self.known: set[str] = set()
        self.put()

    # What the user does.

    def put(self, command: str | None = None) -> None:
        """Apply the document."""
        annotations = self.record.documents.get(("n", "shop"), {}).get("metadata", {}).get("annotations", {})
        if command is not None:
            self.commands += 1
            text = json.dumps({"id": f"c{self.commands}", "action": command})
            annotations = {"trafficsim.io/command": text}
        self.record.put(
            {
                "apiVersion": "trafficsim.io/v1alpha1",
                "kind": "TrafficSimulation",
                "metadata": {"name": "shop", "namespace": "n", "annotations": annotations},
                "spec": {
                    "target": {"url": "http://127.0.0.1:8080"},
                    "users": self.users,
                    "suspend": self.suspended,
                    "scaling": {"usersPerProcess": 10, "maxProcesses": 1},
                    "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
                    "runner": {"image": self.image},
                    "rollout": self.rollout,
                },
            }
        )

    def new_version(self, number: int) -> None:
        """Ask for a version that was not there before; how it fares is known when its first runner is made."""
        self.versions += 1
        self.image = f"shop:{self.versions}"
        known, health = set(self.world.fleet.health), HEALTH[number % len(HEALTH)]

        class Faring(dict[str, FakeHealth]):
            def setdefault(self, revision: str, default: FakeHealth | None = None) -> FakeHealth:
                if revision not in known and revision not in self:
                    self[revision] = FakeHealth(tells=True, **health)
                return self[revision]

        self.world.fleet.health = Faring(self.world.fleet.health)
        self.put()

    def happen(self, event: str, number: int) -> None:
        """Let one thing happen."""
        fleet = self.world.fleet
        names = sorted(fleet.runners)
        stable = self.world.status.stable
        blue = [n for n in names if stable is not None and fleet.runners[n].revision == stable.revision]
        green = [n for n in names if n not in blue]
        match event:
            case "version":
                self.new_version(number)
            case "back":
                self.image = stable.image if stable is not None else self.image
                self.put()
            case "users":
                self.users = number
                self.put()
            case "steps":
                self.rollout = ROLLOUT | {"steps": [{"percent": 30 + number % 30}, {"percent": 100}], "dwell": "5s"}
                self.put()
            case "paused":
                self.rollout = self.rollout | {"paused": not self.rollout.get("paused", False)}
                self.put()
            case "suspend":
                self.suspended = not self.suspended
                self.put()
            case "command":
                self.put(COMMANDS[number % len(COMMANDS)])
            case "lose blue" if blue:
                self.lose(blue[number % len(blue)])
            case "lose green" if green:
                self.lose(green[number % len(green)])
            case "silence blue" if blue:
                fleet.runners[blue[number % len(blue)]].silent = True
            case "silence green" if green:
                for name in green:
                    fleet.runners[name].silent = True
            case "speak":
                for runner in fleet.runners.values():
                    runner.silent = False
            case "conflict":
                self.record.contested = True
            case "kill":
                self.record.kills = True
            case "forget":
                self.world.world.ledgers = Ledgers()

    def lose(self, name: str) -> None:
        """Lose a runner with its users."""
        runner = self.world.fleet.runners.pop(name)
        if runner.assignment is not None:
            self.excused |= set(runner.assignment.held)

    # A look.

    async def look(self) -> None:
        """Look once, at most a second after the last look; check what it led to."""
        world = self.world
        asked = json.dumps({k: v for k, v in self.record.documents["n", "shop"].items() if k != "status"})
        before, had = world.status, self.held()
        twice, calm = self.twice(had), not any(r.silent for r in world.fleet.runners.values())
        world.waits = min(world.waits if world.waits is not None else 1_000, 1_000)
        try:
            await world.look("n", "shop")
        except Killed:
            world.world.ledgers = Ledgers()
            world.waits = 500
        status = world.status
        now = json.dumps({k: v for k, v in self.record.documents["n", "shop"].items() if k != "status"})
        assert asked == now, "I9: the operator writes what is the user's"
        self._assignments(had, status)
        self._floor(status)
        total = status.users.dealt
        back = status.rollout is not None and status.rollout.phase in (P.ABORTING, P.SUPERSEDING)
        most = max(1, total // 4) if back else max_over(total)
        if calm and before.users.dealt == total:
            assert self.twice(self.held()) <= max(twice, most), "I2: too many places are on twice"
        if status.rollout is not None and status is not before:
            self._rollout(before, status)

    def held(self) -> dict[str, frozenset[int]]:
        """Return the places by runner, of those that are to go on."""
        return {
            name: frozenset(runner.assignment.held)
            for name, runner in self.world.fleet.runners.items()
            if runner.assignment is not None and not runner.assignment.retire
        }

    def twice(self, held: dict[str, frozenset[int]]) -> int:
        """Return how many places below T are held too often."""
        counts = Counter(place for places in held.values() for place in places if place < self.world.status.users.dealt)
        return sum(count - 1 for count in counts.values())

    def _assignments(self, had: dict[str, frozenset[int]], status: Status) -> None:
        for name, runner in self.world.fleet.runners.items():
            told = runner.assignment
            if told is None:
                continue
            assert told.epoch >= self.epochs.get(name, 0), "I5: a runner's epoch falls"
            assert told.epoch <= status.epoch, "I5: a runner was told what is not on record"
            self.epochs[name] = told.epoch
            if set(told.held) - had.get(name, frozenset()):
                age = self.world.now_ms - runner.born_ms
                assert age >= runner.ready_after_ms, f"I4: {name} is not ready and gets users"
                assert len(told.held) <= 10, f"I4: {name} has room for ten"

    def _floor(self, status: Status) -> None:
        total = status.users.dealt
        if self.suspended or status.phase != "Running":
            self.excused |= set(range(60))  # nobody is to be on, and after a while the runners go
        on = {place for places in self.held().values() for place in places}
        missing = set(range(total)) - on
        self.excused = {place for place in self.excused if place in missing or place >= total}
        assert missing <= self.excused, f"I1: {len(missing - self.excused)} of {total} users went off"

    def _rollout(self, was: Status, status: Status) -> None:
        before, after = was.rollout or RolloutStatus(), status.rollout
        assert after is not None
        if after.phase is not before.phase:
            near = TRANSITIONS[before.phase]
            assert after.phase in near or any(after.phase in TRANSITIONS[phase] for phase in near), (
                f"there is no way from {before.phase} to {after.phase}"
            )
            verdict = after.phase is P.PROMOTING or (after.phase is P.REJECTED and before.phase is P.ABORTING)
            if verdict:
                self.verdicts[after.attempt] += 1
                assert self.verdicts[after.attempt] == 1, f"I8: attempt {after.attempt} has two verdicts"
        if after.phase in (P.PREPARING, P.SHIFTING, P.ANALYZING, P.ABORTING, P.SUPERSEDING):
            assert self.plans.setdefault(after.attempt, after.plan) == after.plan, "I11: another plan"
        if after.pause is not None:
            assert after.message, f"{after.pause} without a word of why"
        told = status.last_command.action if status.last_command and status.last_command != was.last_command else ""
        goes_on = after.phase is P.PROMOTING or (after.phase is P.SHIFTING and after.step > before.step)
        judged = before.phase is P.ANALYZING and not (before.passed or before.fast) and told not in COMMANDS
        if goes_on and judged and status.users.dealt > 1:
            assert before.step_started_at is not None
            assert before.windows_from_ms is not None
            assert status.run is not None
            assert status.run.origin is not None
            now = self.world.now_ms
            assert now - parse_instant(before.step_started_at) >= DWELL_MS, "I12: its dwell is not over"
            run_ms = now - parse_instant(status.run.origin)
            assert run_ms - before.windows_from_ms >= 3 * WINDOW_MS, "I12: on less than three windows"
            counted = re.search(r"n=(\d+)", after.message)
            assert counted, f"I7: it passes without numbers: {after.message}"
            assert int(counted[1]) >= ROLLOUT["minSamples"], f"I7: it passes by too few: {after.message}"

    # The end.

    async def come_to_rest(self) -> None:
        """Let nothing happen any more."""
        for runner in self.world.fleet.runners.values():
            runner.silent = False
        self.suspended = False
        self.rollout = {**self.rollout, "paused": False}
        self.put()
        still = 0
        for _ in range(400):
            await self.look()
            for runner in self.world.fleet.runners.values():
                runner.silent = False
            still = still + 1 if self._is_at_rest() else 0
            if still >= 5:
                return
        raise AssertionError(f"it does not come to rest: {self.world.status.phase}, {self.world.status.rollout}")

    def _is_at_rest(self) -> bool:
        status = self.world.status
        rollout = status.rollout or RolloutStatus()
        is_over = rollout.phase in (P.STABLE, P.REJECTED) or rollout.pause is not None
        counts = Counter(place for places in self.held().values() for place in places)
        return (
            status.phase == "Running" and is_over and dict.fromkeys(range(self.users), 1) == dict(counts)
        )  # fmt: skip


EVENTS = st.sampled_from(
    ["look"] * 10
    + ["version"] * 3
    + ["back", "users", "steps", "paused", "suspend", "command", "lose blue", "lose green", "silence blue"]
    + ["silence green", "speak", "speak", "conflict", "kill", "forget"]
)
HISTORIES = st.lists(st.tuples(EVENTS, st.integers(1, 30), st.integers(0, 6)), min_size=5, max_size=14)


SUSPENDED = [("suspend", 22, 3), ("kill", 28, 4), ("lose green", 15, 4), *[("look", 1, 5)] * 11]
# What a silent version did is told at once when it speaks again.
TOLD_LATE = [
    ("users", 25, 5),
    ("users", 6, 3),
    ("silence green", 2, 5),
    *[("look", 15, 4)] * 4,
    ("users", 6, 4),
    ("look", 19, 2),
]


async def whatever_happens(drawn: list[tuple[str, int, int]]) -> None:
    """Let a run begin and a version be rolled out; then each event, and some looks after it."""
    history = History()
    for _ in range(8):
        await history.look()
    history.new_version(0)
    for event, number, looks in drawn:
        history.happen(event, number)
        for _ in range(looks + 1):
            await history.look()
    await history.come_to_rest()


@pytest.mark.timeout(180)
@settings(deadline=None, max_examples=30)
@given(HISTORIES)
async def test_whatever_happens(drawn: list[tuple[str, int, int]]) -> None:
    """The invariants hold, and in the end every user is on once and the rollout is over or says what it waits for."""
    await whatever_happens(drawn)


@pytest.mark.parametrize("drawn", [SUSPENDED, TOLD_LATE], ids=["suspended until the runners go", "told late"])
async def test_what_happened_once(drawn: list[tuple[str, int, int]]) -> None:
    """Histories that broke something once."""
    await whatever_happens(drawn)


@pytest.mark.histories
@pytest.mark.timeout(900)
@settings(deadline=None, max_examples=300)
@given(HISTORIES)
async def test_whatever_happens_at_length(drawn: list[tuple[str, int, int]]) -> None:
    """The same, three hundred times."""
    await whatever_happens(drawn)
