"""
Commands to a simulation: the annotation is written, the answer in status.lastCommand waited for.

In a cluster it is written by the API server, for a run on this machine into its history: there the document stands that
`trafficsim run` goes by, so both see it at their next look and answer it by the same rules.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import click

from trafficsim_api import names
from trafficsim_api.units import format_duration
from trafficsim_operator.cli.faults import FAULT, as_json
from trafficsim_operator.cli.objects import fault, looks, one
from trafficsim_operator.kube import SIMULATIONS, KubeApi, Object

__all__ = ["PATIENCE", "Answered", "InCluster", "Simulation", "conclude", "give", "given_id"]

PATIENCE: Final = timedelta(minutes=1)
"""How long an answer is waited for unless told."""
_MANAGER: Final = "trafficsim-cli"


class Simulation(Protocol):
    """A simulation that commands can be given to; *unanswered* asks what may be wrong when no answer comes."""

    name: str
    unanswered: str

    async def read(self) -> Object:
        """Return it as it stands; raise SpecError when it is not there."""

    async def annotate(self, annotations: Mapping[str, str]) -> None:
        """Write *annotations* onto it."""

    def looks(self) -> AsyncIterator[Object]:
        """Yield it again and again."""


@dataclass(slots=True, kw_only=True)
class InCluster:
    """One in a cluster."""

    api: KubeApi
    namespace: str
    name: str
    unanswered: str = "is the operator running?"

    async def read(self) -> Object:
        """Return it as it stands; raise SpecError when it is not there."""
        return await one(self.api, self.namespace, self.name)

    async def annotate(self, annotations: Mapping[str, str]) -> None:
        """Write *annotations* onto it."""
        patch = {"metadata": {"annotations": dict(annotations)}}
        await self.api.merge(SIMULATIONS, self.namespace, self.name, patch, _MANAGER)

    def looks(self) -> AsyncIterator[Object]:
        """Yield it again and again."""
        return looks(self.api, self.namespace, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer to *action*: *result* Done or Refused with its *reason*, and the *status* it was found in."""

    action: str
    result: str
    reason: str
    status: Mapping[str, Any]


async def give(to: Simulation, action: str, *, to_rollout: bool = False, patience: timedelta = PATIENCE) -> Answered:
    """
    Give *to* the command *action* and return the answer.

    One *to_rollout* names the attempt that is on record now, so that it cannot hit the next one when it comes late.
    """
    found = await to.read()
    given: dict[str, Any] = {"id": uuid.uuid4().hex[:16], "action": action}
    if to_rollout:
        given["attempt"] = ((found.get("status") or {}).get("rollout") or {}).get("attempt", 0)
    try:
        async with asyncio.timeout(patience.total_seconds()):
            await to.annotate({names.COMMAND_ANNOTATION: json.dumps(given)})
            async for found in to.looks():
                status = found.get("status") or {}
                last = status.get("lastCommand") or {}
                if last.get("id") == given["id"]:
                    return Answered(
                        action=action, result=last["result"], reason=last.get("reason") or "", status=status
                    )  # fmt: skip
                if given_id(found) != given["id"]:
                    raise fault(f"another command was given to {to.name} meanwhile; whether {action} was done is open")
    except TimeoutError:
        raise fault(f"no answer to {action} within {format_duration(patience)}: {to.unanswered}") from None
    raise AssertionError("looks never end")


def given_id(found: Object) -> str | None:
    """Return the id of the command that was given last, None where there is none to be read."""
    text = (found["metadata"].get("annotations") or {}).get(names.COMMAND_ANNOTATION)
    try:
        given: str | None = json.loads(text)["id"] if text else None
    except (ValueError, KeyError, TypeError):
        return None
    return given


def conclude(answer: Answered, name: str, as_json_: bool, *, after: str = "", **beside: Any) -> int:
    """Print *answer*, and *after* it how things stand; *beside* it goes into the JSON. Return the exit code."""
    is_done = answer.result == "Done"
    code = 0 if is_done else FAULT
    if as_json_:
        document = {"command": answer.action, "result": answer.result, "reason": answer.reason, "exit": code, **beside}
        click.echo(as_json(document))
        return code
    text = f"{name}: {answer.action} {answer.result.lower()}" + (f": {answer.reason}" if answer.reason else "")
    click.echo(text, err=not is_done)
    if after:
        click.echo(after, err=not is_done)
    return code
