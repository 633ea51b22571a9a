"""
Commands: one-shot wishes from the annotation, done once per id and answered in status.lastCommand.

| action | does |
|---|---|
| stop | ends the run early: drain, judge what there is |
| start, rerun | begins the next run after a finished or failed one |
"""

from __future__ import annotations

from typing import Final

from trafficsim_api.phases import Phase
from trafficsim_api.status import LastCommand
from trafficsim_operator.observed import Command

__all__ = ["ACTIONS", "answer"]

ACTIONS: Final = ("start", "stop", "rerun")
_ENDED: Final = (Phase.COMPLETED, Phase.FAILED)


def answer(command: Command | None, last: LastCommand | None, phase: Phase, running: bool) -> LastCommand | None:
    """
    Return the answer to a new *command*, None when there is none or it was answered before.

    *running*: a run is on, so that there is something to stop.
    """
    if command is None or (last is not None and last.id == command.id):
        return None

    def refused(reason: str) -> LastCommand:
        return LastCommand(id=command.id, action=command.action, result="Refused", reason=reason)

    if command.problem:
        return refused(command.problem)
    match command.action:
        case "stop" if not running:
            return refused("no run is on")
        case "start" | "rerun" if phase not in _ENDED:
            return refused(f"the present run is {phase}; stop it first")
        case "stop" | "start" | "rerun":
            return LastCommand(id=command.id, action=command.action, result="Done")
        case _:
            return refused(f"unknown action {command.action!r}; one of {', '.join(ACTIONS)} is needed")
