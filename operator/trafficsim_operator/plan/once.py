"""
What is done once per run: setup before the first user, teardown after the last. Rules, over what was seen.

    setup      ordered when every runner's workers are up, before the run has its origin; failed → the run is Failed
    teardown   ordered when every user has left, unless setup failed; failed → said, and the verdict stays as it is

One runner is ordered, and that is on record before it hears of it. Its task has one id per run, under which it begins
nothing twice. A runner that is lost in the midst of it leaves it failed: what it had done is not known, and another one
would do that again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from trafficsim_api.errors import Problem
from trafficsim_api.names import hash8
from trafficsim_api.protocol import Task, TaskReport
from trafficsim_api.resource import Once, TrafficSimulationSpec, examined
from trafficsim_api.status import Run, TaskStatus
from trafficsim_api.units import format_instant, milliseconds, parse_instant
from trafficsim_operator.observed import Runner, RunnerState

__all__ = [
    "Chore",
    "advanced",
    "broken_off",
    "chore",
    "is_at_setup",
    "later",
    "ordered",
    "task_for",
    "teardown_is_due",
    "undone",
    "unsaved",
]

Kind = Literal["setup", "teardown"]
# The runner ends its task at the time-out by itself; this much later nobody waits for its word any more.
_SILENT_MS: Final = 30_000
_MESSAGE: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """
    What is seen of one of the two: *once* is what the document asks for, *ready* the runner that would do it.

    *report* is what the runner on record says of it, *is_gone* that there is no such runner any more; *has_values* that
    what setup saved is known and kept.
    """

    kind: Kind
    once: Once | None = None
    ready: Runner | None = None
    report: TaskReport | None = None
    is_gone: bool = False
    has_values: bool = False


def chore(
    kind: Kind, spec: TrafficSimulationSpec, run: Run | None, runners: Iterable[Runner], *, up: Iterable[Runner],
    has_values: bool,
) -> Chore:  # fmt: skip
    """Return what is seen of *kind*; of the runners *up* the first by name would do it."""
    once: Once | None = getattr(spec, kind)
    status: TaskStatus | None = getattr(run, kind, None)
    doing = next((runner for runner in runners if status is not None and runner.uid == status.uid), None)
    ack = doing.acknowledgement if doing is not None else None
    report = ack.task if ack is not None and run is not None and ack.run == run.id else None
    return Chore(
        kind=kind,
        once=once,
        ready=min((r for r in up if r.state is not RunnerState.LEAVING), key=lambda r: r.name, default=None),
        report=report if report is not None and run is not None and report.id == _id(run, kind) else None,
        is_gone=doing is None,
        has_values=has_values,
    )


def ordered(seen: Chore, now_ms: int) -> TaskStatus:
    """Return the order to the runner that is ready."""
    assert seen.once is not None
    assert seen.ready is not None
    return TaskStatus(
        state="Running",
        runner=seen.ready.name,
        uid=seen.ready.uid,
        digest=_digest(seen.once),
        since=format_instant(now_ms),
        deadline=format_instant(now_ms + milliseconds(seen.once.timeout) + _SILENT_MS),
    )


def undone(once: Once, now_ms: int, why: str) -> TaskStatus:
    """Return that *once* was due and is not done."""
    now = format_instant(now_ms)
    status = TaskStatus(state="Failed", runner="", uid="", digest=_digest(once), since=now, deadline=now)
    return _ended(status, now_ms, why)


def advanced(status: TaskStatus | None, seen: Chore, now_ms: int) -> TaskStatus | None:
    """Return how it stands now; what has ended stays as it ended."""
    if status is None or status.state != "Running":
        return status
    report = seen.report
    if report is not None:
        status = status.model_copy(update={"requests": report.requests, "failed": report.failed})
        if report.state == "failed":
            return _ended(status, now_ms, report.message)
        # Its end goes on record only when the values are: a new operator needs both.
        if report.state == "done" and (not report.saved or seen.has_values):
            return _ended(status.model_copy(update={"saved": report.saved}), now_ms)
    elif seen.is_gone:
        return _ended(status, now_ms, f"{status.runner} was lost in its midst: what it had done is not known")
    if now_ms < parse_instant(status.deadline):
        return status
    what = "what it saved could not be read" if report is not None and report.state == "done" else "no word of its end"
    return _ended(status, now_ms, f"{what} came from {status.runner} in time")


def broken_off(status: TaskStatus | None, why: str, now_ms: int) -> TaskStatus | None:
    """Return *status* as it stands when the run is ended."""
    is_on = status is not None and status.state == "Running"
    return _ended(status, now_ms, f"broken off: {why}") if status is not None and is_on else status


def is_at_setup(run: Run | None) -> bool:
    """Say whether a runner is at setup now: it must not be taken away."""
    return run is not None and run.setup is not None and run.setup.state == "Running"


def teardown_is_due(run: Run, teardown: Once | None) -> bool:
    """Say whether *teardown* is still to be ordered at the run's end: users have come, or setup has been done."""
    if teardown is None or run.teardown is not None:
        return False
    return run.setup.state == "Done" if run.setup is not None else run.origin is not None


def task_for(runner: Runner, run: Run, spec: TrafficSimulationSpec, reader: str) -> Task | None:
    """
    Return what *runner* is to do once now; its values are sealed for *reader*.

    What it has begun it goes on with, also when an edit took it out of the document: then its id alone is told.
    """
    pairs: tuple[tuple[Kind, TaskStatus | None, Once | None], ...] = (
        ("setup", run.setup, spec.setup),
        ("teardown", run.teardown, spec.teardown),
    )
    for kind, status, once in pairs:
        if status is None or (status.state, status.uid) != ("Running", runner.uid):
            continue
        if once is not None:
            return Task(
                kind=kind, id=_id(run, kind), flow=once.flow, timeout_ms=milliseconds(once.timeout),
                reader=reader if kind == "setup" else "",
            )  # fmt: skip
        ack = runner.acknowledgement
        if ack is not None and ack.task is not None and ack.task.id == _id(run, kind):
            return Task(kind=kind, id=ack.task.id, flow=(), timeout_ms=0)
    return None


def later(run: Run | None, spec: TrafficSimulationSpec) -> str:
    """Say what of setup takes effect with the next run only, "" when nothing does."""
    if run is None or (run.setup is None and (run.origin is None or spec.setup is None)):
        return ""
    if run.setup is not None and spec.setup is not None and run.setup.digest == _digest(spec.setup):
        return ""
    return "setup: the change takes effect with the next run"


def unsaved(
    spec: TrafficSimulationSpec, run: Run | None, before: TrafficSimulationSpec | None, saved: Mapping[str, str] | None
) -> tuple[Problem, ...]:
    """
    Return what the flows of *spec*, an edit of *run*, look up and the setup of this run did not save.

    Its setup is that of the document *before*, and what it *saved* is None while that is not known here.
    """
    if spec.setup is None or run is None or (run.setup is None and run.origin is None):
        return ()
    known: Collection[str] = saved or ()
    if run.setup is not None and (saved is None or run.setup.state == "Running"):
        if before is None or before.setup is None or run.setup.digest != _digest(before.setup):
            return ()
        known = examined(before.setup.flow).saved
    if run.setup is not None and run.setup.digest == _digest(spec.setup):
        return ()
    flows = [(archetype.steps, f"archetypes[{number}].flow") for number, archetype in enumerate(spec.archetypes)]
    flows += [(spec.teardown.flow, "teardown.flow")] if spec.teardown else []
    return tuple(
        Problem(field=field, reason=f"{{{{{name}}}}} is not saved by this run's setup; that of the edit is the next's")
        for flow, where in flows
        for field, name in examined(flow, where).missing
        if name not in known
    )


def _id(run: Run, kind: Kind) -> str:
    return f"{run.id}-{kind}"


def _digest(once: Once) -> str:
    return hash8(once.model_dump(mode="json"))


def _ended(status: TaskStatus, now_ms: int, cause: str = "") -> TaskStatus:
    return status.model_copy(
        update={
            "state": "Failed" if cause else "Done", "message": cause[:_MESSAGE], "ended": format_instant(now_ms),
        }
    )  # fmt: skip
