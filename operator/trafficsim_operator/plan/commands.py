"""
Commands: one-shot wishes from the annotation, done once per id and answered in status.lastCommand.

| action | does |
|---|---|
| stop | ends the run early: drain, judge what there is |
| start, rerun | begins the next run after a finished or failed one |
| promote | ends the rollout's pause; at the end of its steps, promotes |
| promote-full | moves all users to the new version and promotes it, unjudged |
| skip-step | passes the present step, unjudged |
| pause, resume | holds the rollout, lets it go on |
| abort | moves all users back |
| retry | tries the rejected version again |

Those of a rollout may name the attempt that they are meant for: a stale one never hits the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Literal

from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_api.phases import Phase
from trafficsim_api.status import LastCommand, RolloutStatus
from trafficsim_operator.observed import Command
from trafficsim_operator.plan import pauses

__all__ = ["ACTIONS", "answer", "asked"]

ACTIONS: Final = ("start", "stop", "rerun", *pauses.COMMANDS)
_ENDED: Final = (Phase.COMPLETED, Phase.FAILED)
_BYTES: Final = 4096


def asked(annotations: object) -> Command | None:
    """Return the command in a resource's *annotations*, None when there is none; one that can't be read says why."""
    text = annotations.get(COMMAND_ANNOTATION) if isinstance(annotations, Mapping) else None
    if not text:
        return None
    if not isinstance(text, str):  # a file may hold anything, an API server takes text only
        return Command(id=str(text)[:64], action="", problem=f"{COMMAND_ANNOTATION}: text is needed, in quotes")
    try:
        if len(text) > _BYTES:
            raise ValueError
        raw = json.loads(text)
        attempt = raw.get("attempt")
        return Command(
            id=str(raw["id"])[:64], action=str(raw["action"])[:64], attempt=None if attempt is None else int(attempt)
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Command(id=text[:64], action="", problem='a JSON object {"id", "action"} is needed')


def answer(
    command: Command | None,
    last: LastCommand | None,
    phase: Phase,
    running: bool,
    *,
    rollout: RolloutStatus | None = None,
    paused: bool = False,
    forbidden: str = "",
) -> LastCommand | None:
    """
    Return the answer to a new *command*, None when there is none or it was answered before.

    *running*: a run is on, so that there is something to stop; *paused*: `spec.rollout.paused` is set; *forbidden*: why
    the rejected version can't be tried again.
    """
    if command is None or (last is not None and last.id == command.id):
        return None
    why = command.problem or _refusal(command, phase, running, rollout or RolloutStatus(), paused)
    if not why and command.action == "retry":
        why = forbidden
    result: Literal["Done", "Refused"] = "Refused" if why else "Done"
    return LastCommand(id=command.id, action=command.action, result=result, reason=why)


def _refusal(command: Command, phase: Phase, running: bool, rollout: RolloutStatus, paused: bool) -> str:
    """Return why *command* can't be done, "" if it can."""
    match command.action:
        case "stop" if not running:
            return "no run is on"
        case "start" | "rerun" if phase not in _ENDED:
            return f"the present run is {phase}; stop it first"
        case "stop" | "start" | "rerun":
            return ""
        case action if action in pauses.COMMANDS:
            if command.attempt is not None and command.attempt != rollout.attempt:
                return f"it is meant for rollout {command.attempt}, the present one is {rollout.attempt}"
            return pauses.refusal(rollout, action, on=phase is Phase.RUNNING, paused=paused)
        case action:
            return f"unknown action {action!r}; one of {', '.join(ACTIONS)} is needed"
