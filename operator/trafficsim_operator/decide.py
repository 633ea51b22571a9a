"""
The one entry to policy: desired and observed in, status and actions out. Pure; `now_ms` is wall-clock ms.

    accept the document → answer a command → take the phase on → deal places → say what is to be done → write the status
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trafficsim_api.names import Condition, Reason
from trafficsim_api.phases import Phase
from trafficsim_api.status import LastCommand, Status
from trafficsim_api.units import format_instant, milliseconds, parse_instant
from trafficsim_operator.actions import Action, Assign, Decision
from trafficsim_operator.observed import Desired, Observed, Runner, RunnerState, TargetFacts
from trafficsim_operator.plan import barrier, commands, once, verdict
from trafficsim_operator.plan.acceptance import Accepted, Refused, accept
from trafficsim_operator.plan.arrivals import course_on, turning_of
from trafficsim_operator.plan.assignments import Terms, assign, at_rest, cause_of, held_by, holders
from trafficsim_operator.plan.colours import written_off
from trafficsim_operator.plan.data import gives_first
from trafficsim_operator.plan.document import status_of
from trafficsim_operator.plan.fence import is_up, raising, repeated, unfenced
from trafficsim_operator.plan.handover import NO_TURNS, HandOver, hand_over
from trafficsim_operator.plan.happenings import happenings
from trafficsim_operator.plan.lifecycle import NEVER_MS, Life, Seen, live, next_run, start_at
from trafficsim_operator.plan.look import ENDED, ON, Look, figures_are_due, next_look
from trafficsim_operator.plan.losses import ending_loss
from trafficsim_operator.plan.objects import objects
from trafficsim_operator.plan.places import Deal, deal
from trafficsim_operator.plan.planned import plan_on
from trafficsim_operator.plan.refusal import name_taken, refuse, told
from trafficsim_operator.plan.resuming import asked_for
from trafficsim_operator.plan.rolling import SILENT_MS
from trafficsim_operator.plan.scaling import scaled
from trafficsim_operator.plan.split import SPLIT, is_rolling
from trafficsim_operator.plan.unwilling import out, to_be_sent
from trafficsim_operator.plan.versions import excess, runners_of_run, versions

__all__ = ["decide"]


def decide(desired: Desired, observed: Observed, now_ms: int) -> Decision:
    """Return what to record and to do about one simulation now."""
    before = desired.status
    on = before.phase in ON
    waits = before.phase is Phase.SUSPENDED and (before.run is None or before.run.origin is None)
    begun = on and (not waits or once.is_at_setup(before.run))
    accepted = accept(desired, observed, before.stable if begun else None)
    refused: Refused | None = None
    if isinstance(accepted, Refused):
        refused, accepted = accepted, _as_before(desired, observed) if begun else accepted
    if isinstance(accepted, Refused):
        return refuse(desired, observed, accepted, now_ms)
    own = observed.revisions.get(accepted.revision.revision)
    if own is not None and own.foreign:
        return name_taken(desired, now_ms)
    command = commands.answer(
        desired.command,
        before.last_command,
        before.phase,
        running=on or before.phase is Phase.PENDING,
        rollout=before.rollout,
        paused=accepted.spec.rollout.paused,
        forbidden=accepted.forbidden,
    )
    look = _look(desired, observed, accepted, refused, command, now_ms)
    dealt = _deal(look)
    epoch, assigns = _assign(look, dealt)
    actions = (*_objects(look), *assigns)
    status = status_of(look, dealt, epoch)
    return Decision(
        status=status,
        actions=actions,
        happenings=(*happenings(look, status, actions), *told(before, status)),
        next_look_ms=next_look(look, dealt, actions),
        accepted=refused is None,
    )


def _look(
    desired: Desired,
    observed: Observed,
    accepted: Accepted,
    refused: Refused | None,
    command: LastCommand | None,
    now_ms: int,
) -> Look:
    """Take the phase and the rollout on, and return all that this look is about."""
    done = command.action if command is not None and command.result == "Done" else ""
    life = _live(desired, observed, accepted, done, now_ms, is_edit=refused is None)
    is_told = figures_are_due(desired.status, now_ms, is_waited_for=observed.watched or is_rolling(desired.status))
    scaling = scaled(desired, observed, accepted, life, now_ms, is_told=is_told)
    sizes = {name: sizing.runners for name, sizing in accepted.sizings.items()}
    accepted = scaling.of(accepted)
    total = _total(desired, observed, accepted, life, sizes, scaling.needed)
    found = versions(desired, observed, accepted, life, total, done, now_ms, scaling)
    accepted = accepted.with_stable(found.stable)
    life = replace(life, run=plan_on(life, desired.status.run, observed.accepted or accepted.spec, total, now_ms))
    life = replace(life, run=course_on(life, observed.accepted, accepted.spec, total, now_ms))
    run = life.run.id if life.run is not None else 0
    return Look(
        desired=desired,
        observed=observed,
        now_ms=now_ms,
        accepted=_with_saved(_with_course(accepted, life), observed, life),
        refused=refused,
        life=life,
        total=total,
        command=command,
        versions=found,
        scaling=scaling,
        runners=runners_of_run(observed, run, found),
        excess=excess(observed, run, found),
    )


def _with_course(accepted: Accepted, life: Life) -> Accepted:
    """Tell the runners from when on rate and profile count, in the open model."""
    if accepted.load.arrivals is None or life.run is None:
        return accepted
    course = {"since_ms": life.run.arrivals_since_ms, "before": life.run.arrivals_before}
    return replace(accepted, load=accepted.load.model_copy(update=course))


def _with_saved(accepted: Accepted, observed: Observed, life: Life) -> Accepted:
    """Tell the runners what setup saved, once it is done."""
    done = life.run is not None and life.run.setup is not None and life.run.setup.state == "Done"
    if not done or not observed.saved:
        return accepted
    return replace(accepted, load=accepted.load.model_copy(update={"saved": dict(observed.saved)}))


def _as_before(desired: Desired, observed: Observed) -> Accepted | Refused:
    """
    Return what was accepted before an edit that is refused: the run goes on by it while the user mends the edit.

    Refused as well where this operator has not seen it, or policy forbids it by now.
    """
    before, run = observed.accepted, desired.status.run
    if before is None or run is None or run.generation == desired.generation:
        return accept(desired, observed, desired.status.stable)
    target = observed.target
    if desired.spec is not None and desired.spec.target != before.target:
        # What was looked up is the refused target: nothing new is assigned by it.
        target = TargetFacts(host=target.host, port=target.port, problem="the edit of the target is refused")
    # Nor are the refused edit's rows those of the run: it goes on with what the runners have.
    data = observed.data if desired.spec is None or desired.spec.data == before.data else {}
    observed = replace(observed, target=target, data=data)
    return accept(replace(desired, spec=before, problems=()), observed, desired.status.stable)


def _live(
    desired: Desired,
    observed: Observed,
    accepted: Accepted,
    done: str,
    now_ms: int,
    *,
    is_edit: bool,
) -> Life:
    """Take the phase on by what was seen; *is_edit*: the newest generation counts as accepted."""
    before = desired.status
    seen = _seen(desired, observed, accepted, done, now_ms)
    run = before.run
    phase = before.phase
    if run is None or (phase is Phase.FAILED and _refused_before(before)):
        # What began, or had its setup, is not begun a second time under its number.
        run, phase = next_run(run, seen) if run is None or run.origin or run.setup else run, Phase.PENDING
        run = run.model_copy(update={"phase_since": format_instant(now_ms)})
    if is_edit and run.generation != desired.generation:
        run = run.model_copy(update={"generation": desired.generation})
        pinned = before.stable.revision if before.stable is not None else ""
        if not run.origin and pinned != accepted.revision.revision:
            run = run.model_copy(update={"phase_since": format_instant(now_ms)})  # its runners are yet to start
    return live(Life(phase=phase, run=run, reason=_reason_of(before), message=before.message), seen)


def _refused_before(status: Status) -> bool:
    taken = _reason_of(status) == Reason.NAME_TAKEN
    return taken or any(c.type == Condition.ACCEPTED and c.status == "False" for c in status.conditions)


def _reason_of(status: Status) -> str:
    return next((c.reason for c in status.conditions if c.type == Condition.READY), Reason.PENDING)


def _seen(desired: Desired, observed: Observed, accepted: Accepted, done: str, now_ms: int) -> Seen:
    before, spec, run, tier = desired.status, accepted.spec, desired.status.run, accepted.sizing.tier
    revision = observed.revisions.get(accepted.revision.revision)
    runners = revision.runners if revision else ()
    ready = [runner for runner in runners if runner.state is RunnerState.READY and runner.answered]
    # Before the first run there is no request to compare with; afterwards any new string counts.
    requested = run is not None and spec.run_request is not None and spec.run_request != run.request
    edited = before.phase is Phase.FAILED and run is not None and run.generation != desired.generation
    alive = [runner for runner in observed.runners if runner.answered]
    number = run.id if run else 0
    # A run begins when the workers are up: what they are late is lost user time.
    up = [runner for runner in ready if (ack := held_by(runner, number)) is not None and ack.settled]
    retired = [ack for runner in alive if (ack := held_by(runner, number)) is not None]
    has_values = observed.saved is not None
    # Not by a version that is not proven, or rejected, while there is another.
    cleaning = [runner for runner in alive if runner.revision == accepted.revision.revision] or alive
    return Seen(
        setup=once.chore("setup", spec, run, observed.runners, up=up, has_values=has_values),
        teardown=once.chore("teardown", spec, run, observed.runners, up=cleaning, has_values=has_values),
        now_ms=now_ms,
        generation=desired.generation,
        request=spec.run_request,
        suspend=spec.suspend,
        duration_ms=None if spec.duration is None else milliseconds(spec.duration),
        runners_wanted=asked_for(before, accepted, now_ms, cores=observed.cores),
        runners_ready=len(ready),
        runners_up=len(up),
        target=_target(ready, number),
        waiting=accepted.waiting,
        missing=accepted.missing,
        cause=cause_of(runners, (revision.problem if revision else "") or observed.trouble),
        stop=_stop(before, observed, accepted, done, now_ms),
        drained=all(ack.retire and ack.drained for ack in retired) and observed.evidence.complete,
        drain_ms=milliseconds(spec.target.timeouts.request) + 15_000,
        highest_run=max((r.acknowledgement.run for r in runners if r.acknowledgement), default=0),
        restart=requested or edited or done in ("start", "rerun"),
        lead_ms=barrier.lead_ms(accepted.sizing.runners) if tier is not None and tier.barrier else 0,
        untold=barrier.untold(runners, number),
        starts=barrier.starts(runners, run),
        attended_ms=observed.evidence.attended_in_phase_ms,
    )


def _target(ready: list[Runner], run: int) -> str:
    answers = [ack.target for runner in ready if (ack := held_by(runner, run)) is not None and ack.target]
    return "reachable" if "reachable" in answers else answers[0] if answers else ""


def _stop(before: Status, observed: Observed, accepted: Accepted, done: str, now_ms: int) -> str:
    """Return why the run is to end now, "" if it is not."""
    if observed.stop:
        return observed.stop
    if done == "stop":
        return "stopped by command"
    setup = before.run.setup if before.run is not None else None
    if before.phase in ON and setup is not None and setup.saved and observed.saved is None:
        return "what setup saved can no longer be read: its record or the operator's key is gone"
    if before.phase not in (Phase.RUNNING, Phase.SUSPENDED) or before.run is None or before.run.origin is None:
        return ""
    if lost := ending_loss(observed.evidence, before.run, accepted.spec):
        return f"{lost} was lost, and scaling.onRunnerLoss is end"
    if before.phase is Phase.SUSPENDED:
        return ""
    warm = start_at(before.run) + milliseconds(accepted.spec.warm_up)
    breached = verdict.breached_abort(observed.evidence, since_warm_up_ms=now_ms - warm)
    return f"aborted by {breached}" if breached else ""


def _total(
    desired: Desired,
    observed: Observed,
    accepted: Accepted,
    life: Life,
    sizes: Mapping[str, int],
    needed: Mapping[str, int],
) -> int:
    """
    Return the T to deal places for; 0 outside Running and Suspended.

    In a raise it stays what it was until the runners for the new one are ready (capacity first), so that the newcomers
    get the new places and nobody has to move: those of stable, and of a candidate that is to have all users. Where
    nobody is at work the *sizes* are enough: runners that load asks for (*needed*) keep nobody from it.
    """
    before, run, wanted = desired.status, life.run, accepted.sizing.users
    if run is None or not run.origin or life.phase not in (Phase.RUNNING, Phase.SUSPENDED):
        return 0
    dealt = before.users.dealt if before.run is not None and before.run.id == run.id else 0
    full = [accepted.revision.revision]
    if before.rollout is not None and before.rollout.phase in SPLIT and before.rollout.percent == 100:
        full += [before.candidate.revision] if before.candidate is not None else []
    # Subtle: runners that load asks for come in steps, so those asked for now may be fewer than the new T needs.
    least = {**sizes, **needed} if dealt else sizes
    has_room = all(_ready(observed, name) >= least.get(name, accepted.sizing.runners) for name in full)
    return wanted if wanted <= dealt or has_room else dealt


def _ready(observed: Observed, revision: str) -> int:
    seen = observed.revisions.get(revision)
    return sum(r.answered and r.state is RunnerState.READY for r in seen.runners) if seen else 0


def _deal(look: Look) -> Deal:
    """
    Deal the places; none that seem missing while a runner that is up has never been heard: it may hold them.

    So after a restart of the operator an unreachable runner keeps its places too. One of the new version that was never
    told anything holds none, and is waited for as long as any that is silent.
    """
    found = look.versions
    heard = [runner for runner in look.runners if runner.name not in found.silent]
    unknown = any(
        r.acknowledgement is None
        and (r.state in (RunnerState.READY, RunnerState.UNREADY) or (r.node_lost and not r.is_out))
        and found.may_hold(r.revision)
        and not _was_never_told(look, r)
        for r in heard
    )
    capacities = {name: max(1, sizing.capacity) for name, sizing in look.accepted.sizings.items()}
    known = holders(
        heard,
        look.run.id,
        look.going,
        capacities=capacities,
        may_take=found.may_take,
        unwilling=_unwilling(look),
        suspended=look.life.phase is Phase.SUSPENDED,
    )
    if not _is_fenced(look):
        return repeated(look.total, known, unknown=unknown)
    return deal(
        look.total,
        known,
        max(1, look.accepted.sizing.capacity),
        quota=found.quota,
        chunk=found.chunk,
        hasty=found.hasty,
        unknown=unknown,
        exclusive=gives_first(look.accepted.load),
        at_rest=at_rest(_waited_for(look), look.run.id),
    )


def _is_fenced(look: Look) -> bool:
    """Say whether places may move, as far as runners may still hear another operator; they do in a run only."""
    in_run = look.life.phase in (Phase.RUNNING, Phase.SUSPENDED)
    return not in_run or is_up(look.runners, look.observed.fence, look.now_ms)


def _objects(look: Look) -> tuple[Action, ...]:
    """Return what is to be done about revisions; until the fence is up only what takes no runner away."""
    found = objects(look)
    if _is_fenced(look):
        return found
    return raising(found, {name: seen.replicas for name, seen in look.observed.revisions.items()})


def _was_never_told(look: Look, runner: Runner) -> bool:
    """
    Say whether *runner*, of the new version and never heard, can't hold a place: only who answers is told of any.

        made ≥ 10 s after the looks without a break began, and silent for ≥ 10 s

    One that was there before may have been told by another operator. The first 10 s allow for clocks that differ.
    """
    candidate, attended_ms = look.versions.candidate, look.observed.evidence.attended_ms
    if candidate is None or runner.revision != candidate.revision or attended_ms is None:
        return False
    is_ours = runner.started_ms >= look.now_ms - attended_ms + SILENT_MS
    return is_ours and runner.silent_ms >= SILENT_MS


def _waited_for(look: Look) -> list[Runner]:
    """
    Return the runners whose word is waited for where a user must never be on twice: on the way back not green's silent.

    What those hold they keep until they are taken away, and one that is being taken away is waited for.
    """
    found = look.versions
    others = (r for r in look.observed.runners if r.revision != found.stable.revision)
    silent = written_off(r for r in others if r.state is not RunnerState.LEAVING) if found.hasty else frozenset()
    return [runner for runner in look.observed.runners if runner.name not in silent]


def _assign(look: Look, dealt: Deal) -> tuple[int, tuple[Assign, ...]]:
    """Return the epoch, and an assignment for each runner that does not hold what it should."""
    epoch = max([look.before.epoch, *(r.acknowledgement.epoch for r in look.observed.runners if r.acknowledgement)])
    if look.life.phase in (Phase.PENDING, *ENDED):
        return epoch, ()
    if look.life.phase is Phase.RUNNING and look.accepted.waiting:
        # The target's name does not resolve just now: limits without addresses would stop a load that runs.
        return epoch, ()
    run, spec = look.run, look.accepted.spec
    terms = Terms(
        simulation=look.desired.uid,
        run=run.id,
        accepted=look.accepted,
        start_at_ms=start_at(run) or NEVER_MS,
        warm_up_ms=milliseconds(spec.warm_up),
        end_ms=parse_instant(run.end) if run.end else NEVER_MS,
        total=look.total,
        suspended=look.life.phase is Phase.SUSPENDED,
        tasks={
            runner.uid: task
            for runner in look.runners
            if (task := once.task_for(runner, run, spec, look.observed.reader)) is not None
        },
    )
    going, digest, turns = look.going if _is_fenced(look) else _retired(look), terms.digest, _turns(look, dealt)
    unwilling = _unwilling(look)
    anew = unfenced(look.runners, look.observed.fence) | unwilling
    wishes = []
    for runner in look.runners:
        places = dealt.places.get(runner.name)
        if runner.name in unwilling and (ack := held_by(runner, run.id)) is not None:
            places = ack.held.below(look.total)
        if places is None or runner.state is RunnerState.STARTING:
            continue
        leaves = runner.name in going or runner.state is RunnerState.LEAVING
        retire = look.life.phase is Phase.DRAINING or (leaves and not places)
        over = turns.get(runner.name, NO_TURNS)
        action = assign(
            runner, places, terms, epoch=epoch + 1, retire=retire, digest=digest, over=over, anew=runner.name in anew
        )
        if action is not None:
            wishes.append((runner, action))
    found = to_be_sent(wishes, look.observed.unwilling, unwilling, look.now_ms)
    return epoch + bool(found), found


def _unwilling(look: Look) -> frozenset[str]:
    """Return the runners that refuse what they are told, and that nobody waits for any more."""
    return out(look.runners, look.observed.unwilling, look.now_ms)


def _retired(look: Look) -> frozenset[str]:
    """Return the runners that are to go and know it."""
    acks = {runner.name: held_by(runner, look.run.id) for runner in look.runners if runner.name in look.going}
    return frozenset(name for name, ack in acks.items() if ack is not None and ack.retire)


def _turns(look: Look, dealt: Deal) -> Mapping[str, HandOver]:
    """Return what each runner is told of arrivals that change hands; nothing in the closed model."""
    if look.life.phase not in (Phase.RUNNING, Phase.SUSPENDED):
        return {}
    turning = turning_of(look.run, look.accepted.spec, look.now_ms)
    if turning is None:
        return {}
    held = {r.name: held_by(r, look.run.id) for r in look.runners if not r.is_out}
    return hand_over(dealt.places, held, turning)
