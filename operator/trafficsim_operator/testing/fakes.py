"""
Fakes of everything outside the decision: a record, a fleet and runners in memory, under a clock that is only moved.

They keep the rules of the real ones (compare-and-set, absolute actions, older epochs refused, settled after a look) and
are what the tests of the decision run against; the real ones have tests of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api.errors import Unavailable
from trafficsim_api.policy import LOCAL_DEFAULT, Policy
from trafficsim_api.protocol import Acknowledgement, Assignment
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.statistics import Answer
from trafficsim_api.status import Status
from trafficsim_operator.actions import EnsureRevision, Happening, RemoveRevision, Retire
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.rows import inline_rows
from trafficsim_operator.fleet.runners import RunnerRefused, Runners, Signer
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import RevisionSeen, RowsSeen, Runner, RunnerState, TargetFacts
from trafficsim_operator.reconcile import World, reconcile
from trafficsim_operator.store import Conflict, Document
from trafficsim_operator.testing.fake_runner import FakeHealth, FakeOnce, FakeRunner

__all__ = ["FakeFleet", "FakeHealth", "FakeOnce", "FakeRecord", "FakeRunner", "FakeRunners", "FakeWorld"]


@dataclass(slots=True, kw_only=True)
class FakeFleet:
    """Revisions of fake runners; like a Deployment it keeps as many alive as were asked for."""

    clock: FakeWorld
    image: str = "trafficsim/runner:1"
    cores: int | None = None
    replicas: dict[str, int] = field(default_factory=dict)
    runners: dict[str, FakeRunner] = field(default_factory=dict)
    made: int = 0
    problem: str = ""
    unresolved: str = ""
    once: FakeOnce = field(default_factory=FakeOnce)
    begun: list[str] = field(default_factory=list)
    """Which task was begun on which runner."""
    tables: dict[str, RowsSeen] = field(default_factory=dict)
    """Rows by feeder that stand in a ConfigMap."""
    settles: int = 1
    health: dict[str, FakeHealth] = field(default_factory=dict)
    """By revision, of runners that are made from now on; a revision that is not named does well."""
    tells: bool = False
    """Runners tell windows."""
    ready_after_ms: int = 1_000
    """How long runners take to start."""
    scalers: dict[str, str] = field(default_factory=dict)
    """Who else sets a revision's replicas."""

    async def observe(self, owner: Owner) -> Mapping[str, RevisionSeen]:
        """Return every revision, after what is missing was started."""
        for revision, count in self.replicas.items():
            while sum(r.revision == revision and not r.leaving for r in self.runners.values()) < count:
                self.made += 1
                name = f"{owner.name}-{revision}-{self.made}"
                self.runners[name] = FakeRunner(
                    name=name,
                    uid=f"uid-{self.made}",
                    revision=revision,
                    born_ms=self.clock.now_ms,
                    ready_after_ms=self.ready_after_ms,
                    settles=self.settles,
                    once=self.once,
                    health=self.health.setdefault(revision, FakeHealth(tells=self.tells)),
                )
        return {
            revision: RevisionSeen(
                revision=revision,
                replicas=count,
                problem=self.problem,
                scaler=self.scalers.get(revision, ""),
                runners=tuple(
                    self._seen(r) for r in self.runners.values() if r.revision == revision and not r.is_overdue
                ),
                unseen=tuple(self._seen(r) for r in self.runners.values() if r.revision == revision and r.is_overdue),
            )
            for revision, count in self.replicas.items()
        }

    def _seen(self, runner: FakeRunner) -> Runner:
        now = self.clock.now_ms
        is_up = now - runner.born_ms >= runner.ready_after_ms and not runner.health.problem
        state = RunnerState.READY if is_up else RunnerState.STARTING
        if runner.assignment is not None and runner.assignment.retire and not runner.active(now):
            state = RunnerState.UNREADY
        if runner.leaving:
            state = RunnerState.LEAVING
        return Runner(
            name=runner.name,
            uid=runner.uid,
            revision=runner.revision,
            state=state,
            address=runner.name,
            cause=runner.health.problem,
            started_ms=runner.born_ms,
            killed_ms=runner.killed_ms,
            node_lost=runner.node_lost,
            grace_ends_ms=now if runner.leaving else 0,
        )

    async def apply(self, owner: Owner, action: EnsureRevision | Retire | RemoveRevision) -> None:
        """Carry out one action."""
        match action:
            case EnsureRevision():
                self.replicas[action.revision] = action.replicas
            case Retire():
                self.replicas[action.revision] = action.replicas
                for name in action.runners:
                    self.runners.pop(name, None)
            case RemoveRevision():
                self.replicas.pop(action.revision, None)
                for name in [n for n, r in self.runners.items() if r.revision == action.revision]:
                    del self.runners[name]

    async def look_up(
        self, owner: Owner, spec: TrafficSimulationSpec, policy: Policy
    ) -> tuple[TargetFacts, str | None, str]:
        """Return a target on loopback, or why it does not resolve."""
        if self.unresolved:
            return TargetFacts(host="shop", port=8080, problem=self.unresolved), None, ""
        return TargetFacts(host="127.0.0.1", port=8080, addresses=("127.0.0.1",)), None, ""

    async def rows(self, owner: Owner, spec: TrafficSimulationSpec) -> Mapping[str, RowsSeen]:
        """Return inline rows as they stand, and those of *tables* for all others."""
        return {
            feeder.name: inline_rows(feeder)
            if feeder.from_.inline is not None
            else self.tables.get(feeder.name, RowsSeen())
            for feeder in spec.data
        }


class FakeRunners(Runners):
    """The clients of fake runners, by name instead of address."""

    def __init__(self, world: FakeWorld) -> None:
        super().__init__(signer=Signer(kid="fake", key=Ed25519PrivateKey.generate()))
        self._world = world

    def _runner(self, address: str) -> FakeRunner:
        runner = self._world.fleet.runners.get(address)
        if runner is None or runner.silent:
            raise Unavailable(f"{address} does not answer")
        return runner

    async def acknowledgement(self, address: str) -> Acknowledgement:
        """Return what the runner does."""
        return self._runner(address).acknowledgement(self._world.now_ms)

    async def assign(self, address: str, assignment: Assignment) -> Acknowledgement:
        """Tell the runner; it refuses an older epoch."""
        runner = self._runner(address)
        told = runner.assignment
        if told is not None and (assignment.run, assignment.epoch) < (told.run, told.epoch):
            raise RunnerRefused("409: older epoch")
        if runner.lacks(assignment):
            raise RunnerRefused("422: rows were not sent")
        if runner.take(assignment, self._world.now_ms) and assignment.task is not None:
            self._world.fleet.begun.append(f"{assignment.task.id} on {runner.name}")
        return runner.acknowledgement(self._world.now_ms)

    async def statistics(self, address: str, boot: str, since: int) -> Answer:
        """Return the runner's account."""
        runner = self._runner(address)
        runner.count(self._world.now_ms)
        return runner.answer(since)


@dataclass(slots=True, kw_only=True)
class FakeRecord:
    """Documents in memory with compare-and-set; *writes* and *happenings* are kept for the asserts."""

    documents: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    generations: dict[tuple[str, str], int] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    sealed: dict[str, str] = field(default_factory=dict)
    writes: list[Status] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)

    def put(self, body: dict[str, Any]) -> None:
        """Apply a document as a user does: status stays, the generation rises when the spec changed."""
        key = body["metadata"].get("namespace", "default"), body["metadata"]["name"]
        before = self.documents.get(key, {})
        if before.get("spec") != body["spec"]:
            self.generations[key] = self.generations.get(key, 0) + 1
        self.documents[key] = {**body, "status": before.get("status")}
        self.versions[key] = self.versions.get(key, 0) + 1

    async def read(self, namespace: str, name: str) -> Document | None:
        """Return the document."""
        key = namespace, name
        if key not in self.documents:
            return None
        return Document(
            namespace=namespace,
            name=name,
            uid=f"uid-{name}",
            generation=self.generations[key],
            version=str(self.versions[key]),
            body=self.documents[key],
        )

    async def write(self, document: Document, status: Status) -> None:
        """Write the status if nobody wrote in between."""
        key = document.namespace, document.name
        if str(self.versions[key]) != document.version:
            raise Conflict
        self.versions[key] += 1
        self.documents[key] = {
            **self.documents[key],
            "status": json.loads(status.model_dump_json(by_alias=True, exclude_none=True)),
        }
        self.writes.append(status)

    async def tell(self, document: Document, happenings: tuple[Happening, ...]) -> None:
        """Keep the events."""
        self.happenings.extend(happenings)

    async def totals(self, document: Document) -> Mapping[str, bytes]:
        """Return what was kept."""
        return self.kept

    async def keep_totals(self, document: Document, runner: str, answer: bytes) -> None:
        """Keep an ended runner's account."""
        self.kept[runner] = answer

    async def saved(self, document: Document, task: str) -> str | None:
        """Return what was kept of a setup."""
        return self.sealed.get(task)

    async def keep_saved(self, document: Document, task: str, sealed: str) -> None:
        """Keep what a setup saved, in place of an earlier one's."""
        self.sealed = {task: sealed}


@dataclass(slots=True)
class FakeWorld:
    """A whole world in memory; `look` moves the clock on by what the last look asked for and looks again."""

    now_ms: int = 1_700_000_000_000
    policy: Policy = LOCAL_DEFAULT
    record: FakeRecord = field(default_factory=FakeRecord)
    fleet: FakeFleet = field(init=False)
    world: World = field(init=False)
    waits: int | None = 0

    def __post_init__(self) -> None:
        self.fleet = FakeFleet(clock=self)
        self.world = World(
            record=self.record,
            fleet=self.fleet,
            runners=FakeRunners(self),
            ledgers=Ledgers(),
            policy=lambda: self.policy,
            now_ms=lambda: self.now_ms,
        )

    @property
    def status(self) -> Status:
        """Return the newest status."""
        return self.record.writes[-1] if self.record.writes else Status()

    async def look(self, namespace: str, name: str) -> Status:
        """Move the clock on and look once."""
        self.now_ms += self.waits if self.waits is not None else 60_000
        for runner in self.fleet.runners.values():
            runner.count(self.now_ms)
        self.waits = await reconcile(namespace, name, self.world)
        return self.status
