"""
Fakes of everything outside the decision: a record, a fleet and runners in memory, under a clock that is only moved.

They keep the rules of the real ones (compare-and-set, absolute actions, older epochs refused, settled after a look) and
are what the tests of the decision run against; the real ones have tests of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api.arrivals import Course, works_of
from trafficsim_api.errors import Unavailable
from trafficsim_api.layout import Layout
from trafficsim_api.places import position
from trafficsim_api.policy import LOCAL_DEFAULT, Policy
from trafficsim_api.profile import shape
from trafficsim_api.protocol import Acknowledgement, Assignment, Task, TaskReport
from trafficsim_api.resource import TrafficSimulationSpec, actions_of
from trafficsim_api.sealed import seal
from trafficsim_api.statistics import Answer, Window, zeros
from trafficsim_api.status import Status
from trafficsim_operator.actions import EnsureRevision, Happening, RemoveRevision, Retire
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.rows import inline_rows
from trafficsim_operator.fleet.runners import RunnerRefused, Runners, Signer
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import RevisionSeen, RowsSeen, Runner, RunnerState, TargetFacts
from trafficsim_operator.reconcile import World, reconcile
from trafficsim_operator.store import Conflict, Document

__all__ = ["FakeFleet", "FakeHealth", "FakeRecord", "FakeRunner", "FakeRunners", "FakeWorld"]

# Windows that a runner keeps for who comes late.
_RING: Final = 600


@dataclass(slots=True, kw_only=True)
class FakeOnce:
    """How tasks go: ended after *looks*, with a *fault* or with *values*."""

    looks: int = 1
    fault: str = ""
    values: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class FakeHealth:
    """How a version's runners do: how many of a thousand requests fail, or miss their check, and its response times."""

    failed_permille: int = 0
    checks_failed_permille: int = 0
    bucket: int = 1780
    tells: bool = False
    """They tell windows, as real ones do."""
    idle: bool = False
    """They hold users and send nothing."""
    problem: str = ""
    """Why its pods don't start: they never get ready."""
    target: str = "reachable"


@dataclass(slots=True, kw_only=True)
class FakeRunner:
    """A runner that does as it is told after *settles* looks, and counts one request per user and second."""

    name: str
    uid: str
    revision: str
    born_ms: int
    ready_after_ms: int = 1_000
    settles: int = 1
    assignment: Assignment | None = None
    looks: int = 0
    silent: bool = False
    clock_ahead_ms: int = 0
    killed_ms: int = 0
    problem: str = ""
    rows: set[str] = field(default_factory=set)
    tasks: dict[str, TaskReport] = field(default_factory=dict)
    """What it began once, by id."""
    once: FakeOnce = field(default_factory=FakeOnce)
    done: int = 0
    wanted_user_ms: int = 0
    counted_ms: int = 0
    health: FakeHealth = field(default_factory=FakeHealth)
    failed: int = 0
    checks_failed: int = 0
    windows: list[Window] = field(default_factory=list)
    sequence: int = 0
    rest_ms: int = 0
    """User time that was not enough for a request yet."""

    def active(self, now_ms: int) -> int:
        """Return the users that are on: places whose turn it is, by the real arithmetic."""
        a = self.assignment
        if a is None or a.suspended or a.retire or now_ms >= a.end_ms:
            return 0
        wanted = shape(a.load.profile).users_at(a.users, now_ms - a.start_at_ms)
        return sum(position(place, a.users) < wanted for place in a.held)

    def count(self, now_ms: int) -> None:
        """Count the user time and requests since the last call, up to the assignment's end."""
        until = now_ms if self.assignment is None else min(now_ms, self.assignment.end_ms)
        since, self.counted_ms = self.counted_ms or until, now_ms
        # By the second, as real ones tell; without windows in one piece.
        edges = range(since - since % 1_000 + 1_000, until, 1_000) if self.health.tells else ()
        for begin, end in pairwise((since, *edges, max(since, until))):
            self._count(begin, end)

    def _count(self, begin_ms: int, end_ms: int) -> None:
        spent = end_ms - begin_ms
        users = self.active(end_ms - spent // 2 - 1)  # the middle: exact over a straight piece
        before, failed, missed = self.done, self.failed, self.checks_failed
        self.wanted_user_ms += users * spent
        self.rest_ms = (self.rest_ms if self.health.tells else 0) + users * spent
        if not self.health.idle:
            self.done, self.rest_ms = self.done + self.rest_ms // 1000, self.rest_ms % 1000
        self.failed += _share(before, self.done, self.health.failed_permille)
        self.checks_failed += _share(before, self.done, self.health.checks_failed_permille)
        if self.health.tells and self.assignment is not None and spent:
            window = self.done - before, self.failed - failed, self.checks_failed - missed
            self._tell(self.assignment, begin_ms, end_ms, users, *window)

    def _tell(
        self, assignment: Assignment, begin_ms: int, end_ms: int, users: int, done: int, failed: int, missed: int
    ) -> None:
        layout = Layout(actions=actions_of(assignment.load.archetypes))
        counters = {"sent": done, "done": done, "failed": failed, "checks": done, "checks_failed": missed}
        counts = {layout.action(0, name): count for name, count in counters.items()}
        counts |= {layout.response(0) + self.health.bucket: done - failed}
        counted = sorted((index, count) for index, count in counts.items() if count)
        self.sequence += 1
        start_ms = assignment.start_at_ms - self.clock_ahead_ms
        self.windows.append(
            Window(
                sequence=self.sequence,
                start_ms=begin_ms - start_ms,
                end_ms=end_ms - start_ms,
                wall_ms=end_ms,
                epoch=assignment.epoch,
                active=users,
                wanted=users,
                busiest_permille=100,
                pod_permille=100,
                warm=begin_ms - start_ms >= assignment.warm_up_ms,
                indices=np.array([index for index, _ in counted], dtype=np.uint32),
                counts=np.array([count for _, count in counted], dtype=np.uint64),
            )
        )
        del self.windows[:-_RING]

    def is_giving(self, now_ms: int) -> bool:
        """Say whether arrivals of places given away are still to come, or a new course is, by the real arithmetic."""
        a = self.assignment
        if a is None or a.suspended or a.load.arrivals is None or now_ms >= a.end_ms:
            return False
        course = Course(shape=shape(a.load.profile), rate=a.load.arrivals.rate, since_ms=a.load.since_ms,
                        before=a.load.before)  # fmt: skip
        works = works_of(a.load.arrivals.process, a.load.seed)
        due_ns = [course.instant_ns(works.work(turn.number)) for turn in a.gives]
        due_ns += [course.since_ms * 1_000_000] if course.since_ms else []
        return any(due is not None and due > (now_ms - a.start_at_ms) * 1_000_000 for due in due_ns)

    def acknowledgement(self, now_ms: int) -> Acknowledgement:
        """Return what it does now."""
        self.looks += 1
        a = self.assignment
        if a is None:
            return Acknowledgement(
                boot=f"boot-{self.uid}", runner=self.uid, clock_ms=now_ms + self.clock_ahead_ms, takes=()
            )
        active, giving = self.active(now_ms), self.is_giving(now_ms)
        return Acknowledgement(
            boot=f"boot-{self.uid}",
            simulation=a.simulation,
            runner=self.uid,
            revision=self.revision,
            run=a.run,
            epoch=a.epoch,
            users=a.users,
            places=a.places,
            takes=a.takes,
            gives=a.gives,
            processes=a.processes,
            digest=a.digest,
            active=active,
            settled=self.looks > self.settles and not giving,
            retire=a.retire,
            suspended=a.suspended,
            drained=not active and not giving,
            target=self.health.target,
            rows=tuple(self.rows),
            problem=self.problem,
            task=self._task(a),
            clock_ms=now_ms + self.clock_ahead_ms,
        )

    def begin(self, task: Task) -> bool:
        """Begin *task*, once; say whether it was begun now."""
        is_new = task.id not in self.tasks
        if is_new:
            self.tasks[task.id] = TaskReport(id=task.id, state="running")
        return is_new

    def _task(self, assignment: Assignment) -> TaskReport | None:
        """Return how its last task stands; it ends after some looks, and broken off without the assignment for it."""
        report = next(reversed(self.tasks.values()), None)
        if report is None or not report.id.startswith(f"{assignment.run}-"):
            return None
        task = assignment.task
        if report.state == "running" and task is None:
            report = report.model_copy(update={"state": "failed", "message": "broken off"})
        elif report.state == "running" and task is not None and self.looks > self.once.looks:
            report = report.model_copy(
                update={"state": "failed" if self.once.fault else "done", "message": self.once.fault, "requests": 2}
            )
            if not self.once.fault and self.once.values and task.reader:
                sealed = seal(self.once.values, task.reader, f"{assignment.simulation}/{task.id}")
                report = report.model_copy(update={"saved": len(self.once.values), "sealed": sealed})
        self.tasks[report.id] = report
        return report if task is not None else report.model_copy(update={"sealed": ""})

    def answer(self, since: int = 0) -> Answer:
        """Return its account, and the windows after *since* if it tells any."""
        assert self.assignment is not None
        layout = Layout(actions=actions_of(self.assignment.load.archetypes))
        total, warm = zeros(layout), zeros(layout)
        total[layout.action(0, "done")] = total[layout.action(0, "class_2xx")] = total[layout.action(0, "checks")] = (
            self.done
        )
        total[layout.action(0, "failed")], total[layout.action(0, "checks_failed")] = self.failed, self.checks_failed
        total[layout.response(0) + 1780] = total[layout.service(0) + 1780] = self.done
        total[layout.worker("wanted_user_ms")] = total[layout.worker("active_user_ms")] = self.wanted_user_ms
        return Answer(
            runner=self.uid,
            boot=f"boot-{self.uid}",
            run=self.assignment.run,
            layout=layout,
            sequence=self.sequence,
            first=self.windows[0].sequence if self.windows else 1,
            total=total,
            warmup=warm,
            extremes=(0,) * layout.extremes,
            windows=tuple(window for window in self.windows if window.sequence > since),
        )


def _share(before: int, after: int, permille: int) -> int:
    """Return how many of the requests number *before* up to *after* are of the *permille*, evenly spread."""
    return after * permille // 1000 - before * permille // 1000


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

    async def observe(self, owner: Owner) -> Mapping[str, RevisionSeen]:
        """Return every revision, after what is missing was started."""
        for revision, count in self.replicas.items():
            while sum(r.revision == revision for r in self.runners.values()) < count:
                self.made += 1
                name = f"{owner.name}-{revision}-{self.made}"
                self.runners[name] = FakeRunner(
                    name=name,
                    uid=f"uid-{self.made}",
                    revision=revision,
                    born_ms=self.clock.now_ms,
                    settles=self.settles,
                    once=self.once,
                    health=self.health.setdefault(revision, FakeHealth(tells=self.tells)),
                )
        return {
            revision: RevisionSeen(
                revision=revision,
                replicas=count,
                problem=self.problem,
                runners=tuple(self._seen(r) for r in self.runners.values() if r.revision == revision),
            )
            for revision, count in self.replicas.items()
        }

    def _seen(self, runner: FakeRunner) -> Runner:
        now = self.clock.now_ms
        is_up = now - runner.born_ms >= runner.ready_after_ms and not runner.health.problem
        state = RunnerState.READY if is_up else RunnerState.STARTING
        if runner.assignment is not None and runner.assignment.retire and not runner.active(now):
            state = RunnerState.UNREADY
        return Runner(
            name=runner.name,
            uid=runner.uid,
            revision=runner.revision,
            state=state,
            address=runner.name,
            cause=runner.health.problem,
            started_ms=runner.born_ms,
            killed_ms=runner.killed_ms,
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
        if told is not None and assignment.run > told.run:
            runner.done = runner.wanted_user_ms = runner.failed = runner.checks_failed = 0
            runner.windows = []
        runner.count(self._world.now_ms)
        wanted = {feed.digest for feed in assignment.load.data or () if feed.digest}
        if wanted - runner.rows - assignment.rows.keys():
            raise RunnerRefused("422: rows were not sent")
        runner.rows = wanted
        runner.assignment, runner.looks = assignment, 0
        if assignment.task is not None and runner.begin(assignment.task):
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
