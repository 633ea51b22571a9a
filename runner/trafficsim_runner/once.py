"""
What a runner does once: the task of its assignment, and how it stands.

    running ──► done | failed

That a task has begun is kept in the state directory before its first request. So a task is never begun twice under one
id: a repeated assignment changes nothing, and a runner that comes back in the midst of one calls it failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from pydantic import ValidationError

from trafficsim_api.protocol import Assignment, Task, TaskReport
from trafficsim_api.sealed import seal
from trafficsim_runner.errand import Errand, Outcome
from trafficsim_runner.logs import event
from trafficsim_runner.state import State

__all__ = ["Once"]

log: Final = logging.getLogger(__name__)

LONGEST_CAUSE: Final = 500


class Once:
    """
    The tasks of the present run; *group* holds the one that is running.

    *environ* is what `{{env.X}}` reads; *clock* is CLOCK_MONOTONIC in ns, *wall_s* the wall clock in s.
    """

    def __init__(
        self, group: asyncio.TaskGroup, state: State, environ: Mapping[str, str], *, clock: Callable[[], int],
        wall_s: Callable[[], float],
    ) -> None:  # fmt: skip
        self._group = group
        self._state = state
        self._environ = environ
        self._clock = clock
        self._wall_s = wall_s
        self._given = ""
        self._known: dict[str, TaskReport] = {}
        self._last = ""
        self._errand: Errand | None = None
        self._doing: asyncio.Task[None] | None = None
        self._why_broken = ""

    def resume(self) -> None:
        """Take up what an earlier boot of this container kept; what it was at is not begun again."""
        try:
            kept = [TaskReport.model_validate_json(json.dumps(fields)) for fields in json.loads(self._state.tasks())]
        except (ValueError, ValidationError, TypeError):
            kept = []
        for report in kept:
            if report.state == "running":
                cause = "the runner was started anew in its midst: what it had done is not known"
                report = report.model_copy(update={"state": "failed", "message": cause})
            self._known[report.id], self._last = report, report.id

    def forget(self) -> None:
        """Begin another run."""
        self.break_off("the next run has begun")
        self._known, self._last = {}, ""

    def follow(self, assignment: Assignment) -> None:
        """Begin the task of *assignment*, unless it was begun before; without one, break off what is running."""
        task = assignment.task
        self._given = task.id if task else ""
        if task is None or (self._doing is not None and self._last != task.id):
            self.break_off("the run was ended in its midst")
        if task is not None and task.id not in self._known:
            self._begin(task, assignment)

    def break_off(self, why: str) -> None:
        """End the task that is running, if one is."""
        if self._doing is not None and not self._doing.done():
            self._why_broken = why
            self._doing.cancel()
        self._doing = None

    @property
    def report(self) -> TaskReport | None:
        """Return how the last task stands; its values are told only while the assignment names it."""
        report = self._known.get(self._last)
        if report is None:
            return None
        if report.state == "running" and self._errand is not None:
            return report.model_copy(update={"requests": self._errand.requests})
        return report if self._given == report.id else report.model_copy(update={"sealed": ""})

    def _begin(self, task: Task, assignment: Assignment) -> None:
        try:
            self._keep(TaskReport(id=task.id, state="running"))
        except OSError as error:
            # Without a trace of it a restart would do it again.
            cause = f"nothing can be kept in the state directory: {error.strerror}"
            self._known[task.id] = TaskReport(id=task.id, state="failed", message=cause)
            return
        event(log, logging.INFO, "task-begun", f"{task.kind} is being done", task_id=task.id)
        self._why_broken = ""
        self._doing = self._group.create_task(self._do(task, assignment), name=task.id)

    async def _do(self, task: Task, assignment: Assignment) -> None:
        report = TaskReport(id=task.id, state="failed")
        errand: Errand | None = None
        try:
            errand = self._errand = Errand(
                task, assignment.load, assignment.limits, environ=self._environ, directory=self._state.directory,
                clock=self._clock, wall_s=self._wall_s,
            )  # fmt: skip
            report = _reported(task, assignment.simulation, await errand.walk())
        except asyncio.CancelledError:
            sent = errand.requests if errand else 0
            report = report.model_copy(update={"message": f"broken off: {self._why_broken}", "requests": sent})
        except (ValueError, OSError) as error:
            report = report.model_copy(update={"message": str(error)[:LONGEST_CAUSE]})
        except Exception as error:
            log.exception("task-fault", extra={"task": task.id})
            report = report.model_copy(update={"message": f"an internal mistake ({type(error).__name__})"})
        finally:
            self._finish(task, report, errand)

    def _finish(self, task: Task, report: TaskReport, errand: Errand | None) -> None:
        self._errand = None
        if errand is not None:
            errand.close()
        if task.id not in self._known:
            return  # of a run that is over
        try:
            self._keep(report)
        except OSError as error:
            event(log, logging.WARNING, "task-not-kept", f"a restart will call {task.kind} failed: {error}")
        is_done = report.state == "done"
        event(log, logging.INFO if is_done else logging.ERROR, f"task-{report.state}",
              f"{task.kind} is done" if is_done else f"{task.kind} failed: {report.message}",
              task_id=task.id, task_requests=report.requests, task_failed=report.failed)  # fmt: skip

    def _keep(self, report: TaskReport) -> None:
        self._known[report.id], self._last = report, report.id
        self._state.save_tasks(json.dumps([known.model_dump(mode="json") for known in self._known.values()]))


def _reported(task: Task, simulation: str, outcome: Outcome) -> TaskReport:
    report = TaskReport(
        id=task.id, state="failed" if outcome.cause else "done", message=outcome.cause[:LONGEST_CAUSE],
        requests=outcome.requests, failed=outcome.failed,
    )  # fmt: skip
    if outcome.cause or not outcome.saved or not task.reader:
        return report
    sealed = seal(outcome.saved, task.reader, f"{simulation}/{task.id}")
    return report.model_copy(update={"saved": len(outcome.saved), "sealed": sealed})
