"""
One look at one simulation: observe, decide, put the intent on record, act. What an act did is seen at the next look.

    observe → decide(desired, observed, now) → write status (compare-and-set; on a conflict nothing is done)
            → events → actions → the time of the next look
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from pydantic import ValidationError

from trafficsim_api.errors import Unavailable
from trafficsim_api.phases import Phase
from trafficsim_api.places import Places
from trafficsim_api.policy import Policy
from trafficsim_api.protocol import SUPPORTED as SERVED
from trafficsim_api.sealed import public_of
from trafficsim_api.statistics import Answer
from trafficsim_api.status import Status
from trafficsim_operator.actions import Action, Assign, Decision, EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.decide import decide
from trafficsim_operator.fleet import Fleet, Owner
from trafficsim_operator.fleet.runners import RunnerRefused, Runners
from trafficsim_operator.fleet.scalers import foreign_scaler
from trafficsim_operator.ledger import Ledger, Ledgers
from trafficsim_operator.observed import Desired, Observed, RevisionSeen, Runner, RunnerState, TargetFacts
from trafficsim_operator.plan import unwilling
from trafficsim_operator.plan.commands import asked
from trafficsim_operator.plan.fence import fence_from
from trafficsim_operator.saved import saved_values
from trafficsim_operator.specs import Specs
from trafficsim_operator.store import Conflict, Document, NotKept, Record

__all__ = ["World", "observe", "reconcile"]

log = logging.getLogger(__name__)

# How soon to look again after a conflict or an unanswered call, ms.
_SOON_MS = 500
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
    specs: Specs = field(default_factory=Specs)
    watched: bool = False
    stop: str = ""
    """Set to a reason by the local run when the user asks to end."""


class _Passing(Unavailable):
    """What is over by the next look, as a rule: nobody is told of it."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What was wrong with an action, in words; *passing*: not to be told."""

    said: str
    passing: bool = False


async def reconcile(namespace: str, name: str, world: World) -> int | None:
    """Bring one simulation closer to what its owner asked for; return the ms until the next look, None for no hurry."""
    document = await world.record.read(namespace, name)
    if document is None or document.deleted:
        world.specs.forget(namespace, name)
        for address in world.ledgers.forget(namespace, name):
            await world.runners.forget(address)
        return None
    desired = read(document, world.specs)
    observed = await observe(desired, document, world)
    decision = decide(desired, observed, world.now_ms())
    if decision.status != desired.status:
        try:
            await world.record.write(document, decision.status)  # intent first
        except Conflict:
            return _SOON_MS
    ledger = world.ledgers.get(namespace, name)
    if ledger is not None:
        ledger.on_record = frozenset(share.uid for share in decision.status.accounts.unkept)
        ledger.said = frozenset(observed.evidence.missing), observed.evidence.unkept
    if ledger is not None and observed.fence is not None and decision.status.epoch >= observed.fence.epoch:
        ledger.fence = observed.fence  # on record by now: whoever wrote an epoch in between had made this write fail
    owner = Owner(namespace=namespace, name=name, uid=document.uid)
    _, troubles = await asyncio.gather(
        world.record.tell(document, decision.happenings), _carry_out(decision, observed, owner, document, world)
    )
    if ledger is not None:
        ledger.trouble = next((trouble.said for trouble in troubles if trouble and not trouble.passing), "")
        ledger.accepted = desired.spec if decision.accepted else ledger.accepted
    return min(decision.next_look_ms or _SOON_MS, _SOON_MS) if any(troubles) else decision.next_look_ms


def read(document: Document, specs: Specs | None = None) -> Desired:
    """
    Return what *document* asks for; whatever is wrong with it becomes problems, never an exception.

    *specs* has what was read of it before.
    """
    body = document.body
    spec, problems = (specs or Specs()).read(document)
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
        command=asked(body.get("metadata", {}).get("annotations")),
        scaler=foreign_scaler(body, "users"),
    )


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
    unseen = tuple(runner for revision in revisions.values() for runner in revision.unseen)
    last = await ledger.read(runners, world.runners, world.now_ms(), spec, unseen)
    for uid, answer in (ledger.owed(world.now_ms()) | last).items():
        await _keep(document, ledger, uid, answer, world)
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
        trouble="; ".join(unwilling.sentences(runners, ledger.unwilling)) or ledger.trouble,
        watched=world.watched,
        fence=ledger.fence or fence_from(desired.status, runners, world.now_ms()),
        unwilling=dict(ledger.unwilling),
        said=ledger.said,
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
                offset, error = _offset(answer.clock_ms, asked, world.now_ms(), known)
                runner = replace(
                    runner,
                    acknowledgement=answer,
                    answered=True,
                    clock_offset_ms=offset,
                    clock_error_ms=error,
                    heard_ms=world.now_ms(),
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


def _offset(clock_ms: int, asked: int, answered: int, known: Runner | None) -> tuple[int, int]:
    """
    Return how far the runner's clock is ahead, by the middle of the round trip, and by how much that may be wrong.

        error = ⌈round trip ÷ 2⌉ + 1 ms for what was cut off; a slow one tells nothing new
    """
    if not clock_ms or answered - asked > _PROMPT_MS:
        return (known.clock_offset_ms, known.clock_error_ms) if known else (0, 0)
    return clock_ms - (asked + answered) // 2, -(-(answered - asked) // 2) + 1


async def _keep(document: Document, ledger: Ledger, uid: str, answer: Answer, world: World) -> None:
    """Put the last answer of a runner that has ended on record; what fails is owed, and tried at the next look."""
    try:
        await world.record.keep_totals(document, uid, answer.encode())
    except Unavailable as error:
        ledger.not_kept(uid, answer, str(error), refused=isinstance(error, NotKept), now_ms=world.now_ms())
        log.warning("totals not kept yet", extra={"simulation": document.name, "error": str(error)})
    else:
        ledger.unkept.pop(uid, None)


async def _keep_ending(document: Document, runners: tuple[str, ...], world: World, *, is_over: bool) -> None:
    """
    Put the last answers of *runners*, which end by our hand, on record: that they go is no loss.

    Raises Unavailable where one could not be: a runner that is still there is a better place for its numbers than the
    memory of this process alone. And once where some will be missing: what is lost is said before it is. *is_over*: the
    run has ended, and its numbers are told.
    """
    ledger = world.ledgers.get(document.namespace, document.name)
    if ledger is None:
        return
    if names := ledger.unread_of(runners, world.now_ms()):
        raise Unavailable(f"the last numbers of {', '.join(names)} could not be read yet")
    last, is_missing = ledger.ending(runners, is_over=is_over)
    for uid, answer in last.items():
        await _keep(document, ledger, uid, answer, world)
    if is_missing:
        raise _Passing(f"of the numbers of {', '.join(runners)} some will be missing: they go when that is on record")
    if names := ledger.unkept_of(runners, world.now_ms()):
        raise Unavailable(f"the last numbers of {', '.join(names)} are not on record yet")


async def _assign(action: Assign, document: Document, world: World) -> None:
    """
    Tell a runner, and remember what it says it holds then.

    Until it has said so it may hold what it held and what it was told: whoever does not answer keeps its places, and
    one whose answer was lost, and the next as well, must not have its users started elsewhere.
    """
    ledger, told = world.ledgers.get(document.namespace, document.name), action.assignment
    known = ledger.remembered.get(told.runner) if ledger is not None else None
    if ledger is None or known is None or known.acknowledgement is None:
        await world.runners.assign(action.address, told)
        return
    before = known.acknowledgement
    held = before.held if before.run == told.run else Places()
    maybe = {"run": told.run, "epoch": max(before.epoch, told.epoch), "places": (held | told.held).ranges,
             "users": told.users, "settled": False, "retire": False}  # fmt: skip
    ledger.remembered[told.runner] = replace(known, acknowledgement=before.model_copy(update=maybe))
    try:
        after = await world.runners.assign(action.address, told)
    except RunnerRefused as error:
        ledger.remembered[told.runner] = known
        word, was = unwilling.word_of(told, before.boot), ledger.unwilling.get(told.runner)
        no = ledger.unwilling[told.runner] = unwilling.after(was, word, str(error), world.now_ms())
        if no.tries == 1:
            raise _Passing(str(error)) from error
        raise
    ledger.unwilling.pop(told.runner, None)
    ledger.remembered[told.runner] = replace(known, acknowledgement=after)


async def _carry_out(
    decision: Decision, observed: Observed, owner: Owner, document: Document, world: World
) -> list[_Trouble | None]:
    """
    Carry out the decision's actions and return what was wrong with each.

    All at once, but that runners which take users are told after those that give some away in the same look: else, for
    as long as an answer takes, more would be at work than were decided on. They wait for the next look when a giver was
    not reached.
    """
    actions, is_over = decision.actions, decision.status.phase in (Phase.COMPLETED, Phase.FAILED)
    held = {r.name: r.acknowledgement.held for r in observed.runners if r.acknowledgement is not None}
    told = [action for action in actions if isinstance(action, Assign)]
    givers = [action for action in told if held.get(action.name, Places()) - action.assignment.held]
    takers = [action for action in told if givers and action.assignment.held - held.get(action.name, Places())]
    first = [action for action in actions if action not in takers]

    async def done(some: Sequence[Action]) -> list[_Trouble | None]:
        return list(await asyncio.gather(*(_apply(action, owner, document, world, is_over) for action in some)))

    troubles = await done(first)
    if any(trouble for action, trouble in zip(first, troubles, strict=True) if action in givers):
        return troubles
    return troubles + await done(takers)


async def _apply(action: Action, owner: Owner, document: Document, world: World, is_over: bool) -> _Trouble | None:
    """Carry out one action; return what was wrong, None when it came through."""
    try:
        match action:
            case Assign():
                await _assign(action, document, world)
            case Retire():
                await _keep_ending(document, action.runners, world, is_over=is_over)
                await world.fleet.apply(owner, action)
            case RemoveRevision():
                await _keep_ending(document, action.runners, world, is_over=is_over)
                await world.fleet.apply(owner, action)
            case EnsureRevision():
                await world.fleet.apply(owner, action)
            case _:
                assert_never(action)
    except (Unavailable, RunnerRefused) as error:
        log.warning(
            "action failed", extra={"action": type(action).__name__, "error": str(error), "simulation": owner.name}
        )
        if isinstance(action, Assign) and isinstance(error, RunnerRefused):
            return _Trouble(f"{action.name} refuses what it is told: {error}")
        return _Trouble(str(error), isinstance(error, _Passing))
    return None
