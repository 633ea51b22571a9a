"""A fake of a runner: it does as it is told, counts requests and tells windows, under a clock that is only moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from trafficsim_api.arrivals import Course, works_of
from trafficsim_api.layout import Layout
from trafficsim_api.places import position
from trafficsim_api.profile import shape
from trafficsim_api.protocol import Acknowledgement, Assignment, Task, TaskReport
from trafficsim_api.resource import actions_of
from trafficsim_api.sealed import seal
from trafficsim_api.statistics import Answer, Window, zeros

__all__ = ["FakeHealth", "FakeOnce", "FakeRunner"]

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
    users_at_quota: int = 0
    """How many users take up all of a runner's CPU, 0: hardly anything is used."""


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
    leaving: bool = False
    """It is being deleted."""
    node_lost: bool = False
    """Its node is not ready."""
    is_overdue: bool = False
    """Its grace is over, and nobody saw it end."""
    clock_ahead_ms: int = 0
    killed_ms: int = 0
    problem: str = ""
    late_us: int = 0
    """How late its first user is."""
    begun: bool = False
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

    def lacks(self, assignment: Assignment) -> set[str]:
        """Return the digests of the rows that *assignment* needs, and that were sent neither with it nor before."""
        wanted = {feed.digest for feed in assignment.load.data or () if feed.digest}
        return wanted - self.rows - assignment.rows.keys()

    def take(self, assignment: Assignment, now_ms: int) -> bool:
        """Do as *assignment* says from now on; say whether a task of it was begun now."""
        told = self.assignment
        self.count(now_ms)
        if told is not None and assignment.run > told.run:
            self.done = self.wanted_user_ms = self.failed = self.checks_failed = 0
            self.windows, self.begun = [], False
        self.rows = {feed.digest for feed in assignment.load.data or () if feed.digest}
        self.assignment, self.looks = assignment, 0
        return assignment.task is not None and self.begin(assignment.task)

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
        # By the second and from the run's start on, as real ones tell; without windows in one piece.
        edges: set[int] = set()
        if self.health.tells:
            start = self.assignment.start_at_ms if self.assignment is not None else 0
            edges = {*range(since - since % 1_000 + 1_000, until, 1_000), *([start] if since < start < until else ())}
        for begin, end in pairwise((since, *sorted(edges), max(since, until))):
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
        counts |= {layout.worker("active_user_ms"): users * (end_ms - begin_ms)}
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
                core_permille=100,
                pod_permille=self._used(users),
                warm=begin_ms - start_ms >= assignment.warm_up_ms,
                indices=np.array([index for index, _ in counted], dtype=np.uint32),
                counts=np.array([count for _, count in counted], dtype=np.uint64),
            )
        )
        del self.windows[:-_RING]

    def _used(self, users: int) -> int:
        """Return the CPU that *users* take ÷ the quota, in permille: no more than there is."""
        most = self.health.users_at_quota
        return min(1000, 1000 * users // most) if most else 100

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
        self.begun = self.begun or active > 0
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
            start_at_ms=a.start_at_ms,
            late_us=self.late_us if self.begun else None,
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
        fresh = tuple(window for window in self.windows if window.sequence > since)
        return Answer(
            runner=self.uid,
            boot=f"boot-{self.uid}",
            run=self.assignment.run,
            layout=layout,
            sequence=self.sequence,
            first=fresh[0].sequence if fresh else self.sequence + 1,
            total=total,
            warmup=warm,
            extremes=(0,) * layout.extremes,
            windows=fresh,
        )


def _share(before: int, after: int, permille: int) -> int:
    """Return how many of the requests number *before* up to *after* are of the *permille*, evenly spread."""
    return after * permille // 1000 - before * permille // 1000
