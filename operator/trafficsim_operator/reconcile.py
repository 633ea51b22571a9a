"""
One look at one simulation: observe, decide, put the intent on record, act. What an act did is seen at the next look.

    observe → decide(desired, observed, now) → write status (compare-and-set; on a conflict nothing is done)
            → events → actions → the time of the next look
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from pydantic import ValidationError

from trafficsim_api.document import load_spec
from trafficsim_api.errors import Problem, SpecError, Unavailable
from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_api.policy import Policy
from trafficsim_api.protocol import SUPPORTED as SERVED
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.sealed import public_of
from trafficsim_api.statistics import Answer
from trafficsim_api.status import Status
from trafficsim_operator.actions import Action, Assign, EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.decide import decide
from trafficsim_operator.fleet import Fleet, Owner
from trafficsim_operator.fleet.runners import RunnerRefused, Runners
from trafficsim_operator.fleet.scalers import foreign_scaler
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import Command, Desired, Observed, RevisionSeen, Runner, RunnerState, TargetFacts
from trafficsim_operator.saved import saved_values
from trafficsim_operator.store import Conflict, Document, Record

__all__ = ["World", "observe", "reconcile"]

log = logging.getLogger(__name__)

# How soon to look again after a conflict or an unanswered call, ms.
_SOON_MS = 500
_COMMAND_BYTES = 4096
# How much later than we asked a call may be answered and still tell a clock apart, ms.
_PROMPT_MS = 200


@dataclass(slots=True, kw_only=True)
class World:
    """Everything outside the decision: where simulations are recorded, runners live, numbers gather; and the clock."""

    record: Record
    fleet: Fleet
    runners: Runners
    ledgers: Ledgers
    policy: Callable[[], Policy]
    now_ms: Callable[[], int]
    watched: bool = False
    stop: str = ""
    """Set to a reason by the local run when the user asks to end."""


async def reconcile(namespace: str, name: str, world: World) -> int | None:
    """Bring one simulation closer to what its owner asked for; return the ms until the next look, None for no hurry."""
    document = await world.record.read(namespace, name)
    if document is None or document.deleted:
        for address in world.ledgers.forget(namespace, name):
            await world.runners.forget(address)
        return None
    desired = read(document)
    observed = await observe(desired, document, world)
    decision = decide(desired, observed, world.now_ms())
    if decision.status != desired.status:
        try:
            await world.record.write(document, decision.status)  # intent first
        except Conflict:
            return _SOON_MS
    owner = Owner(namespace=namespace, name=name, uid=document.uid)
    _, *troubles = await asyncio.gather(
        world.record.tell(document, decision.happenings),
        *(_apply(action, owner, document, world) for action in decision.actions),
    )
    ledger = world.ledgers.get(namespace, name)
    if ledger is not None:
        ledger.trouble = next((trouble for trouble in troubles if trouble), "")
        ledger.accepted = desired.spec if decision.accepted else ledger.accepted
    return min(decision.next_look_ms or _SOON_MS, _SOON_MS) if any(troubles) else decision.next_look_ms


def read(document: Document) -> Desired:
    """Return what *document* asks for; whatever is wrong with it becomes problems, never an exception."""
    body = document.body
    spec: TrafficSimulationSpec | None = None
    problems: tuple[Problem, ...] = ()
    try:
        spec = load_spec({key: value for key, value in body.items() if key != "status"}).spec
    except SpecError as error:
        problems = error.problems
    try:
        status = Status.model_validate_json(json.dumps(body.get("status") or {}))
    except (ValidationError, ValueError):
        # A status that is not ours to read is as good as lost: epochs go on from what the runners acknowledge.
        status = Status()
    return Desired(
        namespace=document.namespace,
        name=document.name,
        uid=document.uid,
        generation=document.generation,
        spec=spec,
        problems=problems,
        status=status,
        command=_command(body.get("metadata", {}).get("annotations")),
        scaler=foreign_scaler(body, "users"),
    )


def _command(annotations: object) -> Command | None:
    text = annotations.get(COMMAND_ANNOTATION) if isinstance(annotations, dict) else None
    if not text:
        return None
    if not isinstance(text, str):  # a file may hold anything, an API server takes text only
        return Command(id=str(text)[:64], action="", problem=f"{COMMAND_ANNOTATION}: text is needed, in quotes")
    try:
        if len(text) > _COMMAND_BYTES:
            raise ValueError
        raw = json.loads(text)
        attempt = raw.get("attempt")
        return Command(
            id=str(raw["id"])[:64], action=str(raw["action"])[:64], attempt=None if attempt is None else int(attempt)
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Command(id=text[:64], action="", problem='a JSON object {"id", "action"} is needed')


async def observe(desired: Desired, document: Document, world: World) -> Observed:
    """Look at the fleet, ask every runner what it does, read the numbers that are due."""
    owner = Owner(namespace=desired.namespace, name=desired.name, uid=desired.uid)
    policy = world.policy()
    revisions = await world.fleet.observe(owner)
    facts, ca, ca_problem = TargetFacts(host="", port=0), None, ""
    if desired.spec is not None:
        facts, ca, ca_problem = await world.fleet.look_up(owner, desired.spec, policy)
    ledger = await world.ledgers.of(document, desired.status, world.record, world.now_ms())
    spec = desired.spec or ledger.accepted
    data = await world.fleet.rows(owner, spec) if spec is not None and spec.data else {}
    seen = {name: await _ask(revision, ledger.remembered, world) for name, revision in revisions.items()}
    runners = tuple(runner for revision in seen.values() for runner in revision.runners)
    for address in ledger.addresses() - {runner.address for runner in runners}:
        await world.runners.forget(address)
    for uid, answer in (await ledger.read(runners, world.runners, world.now_ms(), spec)).items():
        await _keep(document, uid, answer, world)
    saved = await saved_values(document, desired.status, runners, ledger, world.record, world.runners)
    return Observed(
        revisions=seen,
        target=facts,
        policy=policy,
        image=world.fleet.image,
        cores=world.fleet.cores,
        evidence=ledger.evidence(spec),
        ca=ca,
        ca_problem=ca_problem,
        data=data,
        stop=world.stop,
        saved=saved,
        reader=public_of(world.runners.signer.reader) if spec is not None and spec.setup else "",
        accepted=ledger.accepted,
        trouble=ledger.trouble,
        watched=world.watched,
    )


async def _ask(revision: RevisionSeen, remembered: dict[str, Runner], world: World) -> RevisionSeen:
    async def ask(runner: Runner) -> Runner:
        known = remembered.get(runner.uid)
        if runner.address is not None and runner.state is not RunnerState.STARTING:
            try:
                asked = world.now_ms()
                answer = await world.runners.acknowledgement(runner.address)
                if answer.runner not in ("", runner.uid):
                    raise Unavailable(f"{runner.address} is another runner's address by now")
                if answer.protocol not in SERVED:
                    raise Unavailable(f"it speaks protocol {answer.protocol}; this operator serves {SERVED}")
                offset = _offset(answer.clock_ms, asked, world.now_ms(), known)
                runner = replace(
                    runner, acknowledgement=answer, answered=True, clock_offset_ms=offset, heard_ms=world.now_ms()
                )
            except Unavailable as error:
                log.info("runner does not answer", extra={"runner": runner.name, "error": str(error)})
                runner = replace(runner, heard_ms=world.now_ms())
        if not runner.answered and known is not None:
            heard_ms = known.heard_ms or runner.heard_ms
            runner = replace(runner, acknowledgement=known.acknowledgement, heard_ms=heard_ms)
        if not runner.answered and runner.heard_ms:
            runner = replace(runner, silent_ms=world.now_ms() - runner.heard_ms)
        remembered[runner.uid] = runner
        return runner

    return replace(revision, runners=tuple(await asyncio.gather(*(ask(runner) for runner in revision.runners))))


def _offset(clock_ms: int, asked: int, answered: int, known: Runner | None) -> int:
    """Return how far the runner's clock is ahead, by the middle of the round trip; a slow one tells nothing new."""
    if not clock_ms or answered - asked > _PROMPT_MS:
        return known.clock_offset_ms if known else 0
    return clock_ms - (asked + answered) // 2


async def _keep(document: Document, uid: str, answer: Answer, world: World) -> None:
    """Put the last answer of a runner that has ended on record; it stays in the ledger if that fails."""
    try:
        await world.record.keep_totals(document, uid, answer.encode())
    except Unavailable as error:
        log.warning("totals not kept", extra={"simulation": document.name, "error": str(error)})


async def _keep_ending(document: Document, runners: tuple[str, ...], world: World) -> None:
    """Put the last answers of *runners*, which end by our hand, on record: that they go is no loss."""
    ledger = world.ledgers.get(document.namespace, document.name)
    for uid, answer in ledger.ending(runners).items() if ledger else ():
        await _keep(document, uid, answer, world)


async def _apply(action: Action, owner: Owner, document: Document, world: World) -> str:
    """Carry out one action; return what was wrong, "" when it came through."""
    try:
        match action:
            case Assign():
                await world.runners.assign(action.address, action.assignment)
            case Retire():
                await _keep_ending(document, action.runners, world)
                await world.fleet.apply(owner, action)
            case RemoveRevision():
                await _keep_ending(document, action.runners, world)
                await world.fleet.apply(owner, action)
            case EnsureRevision():
                await world.fleet.apply(owner, action)
            case _:
                assert_never(action)
    except (Unavailable, RunnerRefused) as error:
        log.warning(
            "action failed", extra={"action": type(action).__name__, "error": str(error), "simulation": owner.name}
        )
        return str(error)
    return ""
