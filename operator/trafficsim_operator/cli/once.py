"""What is done once per run, in words: planned, and done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trafficsim_api.resource import Once, TrafficSimulationSpec, actions_in, examined
from trafficsim_api.status import Run, TaskStatus
from trafficsim_api.units import format_duration
from trafficsim_operator.cli.figures import count, counted

__all__ = ["done_lines", "planned", "planned_lines", "said"]

_KINDS: Final = ("setup", "teardown")


def planned_lines(spec: TrafficSimulationSpec) -> Sequence[tuple[str, str]]:
    """Return name and text of what will be done once."""
    return [(kind, _planned(once)) for kind in _KINDS if (once := getattr(spec, kind)) is not None]


def planned(spec: TrafficSimulationSpec) -> Mapping[str, Any]:
    """Return what will be done once as plain values; None where nothing is."""
    found: dict[str, Any] = {}
    for kind in _KINDS:
        once: Once | None = getattr(spec, kind)
        found[kind] = once and {
            "actions": _actions(once),
            "saves": sorted(examined(once.flow).saved),
            "timeout": format_duration(once.timeout),
        }
    return found


def done_lines(run: Run | None) -> Sequence[tuple[str, str]]:
    """Return name and text of what was done once."""
    if run is None:
        return []
    pairs = ((kind, getattr(run, kind)) for kind in _KINDS)
    return [(kind, _done(status)) for kind, status in pairs if status is not None]


def said(status: Mapping[str, Any]) -> Sequence[str]:
    """Return what the status of an object says of setup and teardown, a line each."""
    run = status.get("run") or {}
    return [
        f"{kind}: {_done(TaskStatus.model_validate(found))}" for kind in _KINDS if (found := run.get(kind)) is not None
    ]


def _planned(once: Once) -> str:
    saved = sorted(examined(once.flow).saved)
    saves = f", saves {', '.join(saved)}" if saved else ""
    return f"once, by one runner: {', '.join(_actions(once))}{saves}; within {format_duration(once.timeout)}"


def _actions(once: Once) -> list[str]:
    return [name for name, _ in actions_in(once.flow)]


def _done(status: TaskStatus) -> str:
    failed = f", {count(status.failed)} failed" if status.failed else ""
    where = f" on {status.runner}" if status.runner else ""
    numbers = f"{counted(status.requests, 'request')}{failed}{where}; in no other number"
    match status.state:
        case "Done":
            return f"done, {count(status.saved)} saved, {numbers}" if status.saved else f"done, {numbers}"
        case "Failed":
            return f"failed: {status.message} ({numbers})"
        case _:
            return f"is being done{where}"
