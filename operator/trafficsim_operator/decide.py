"""
The one entry to policy: desired and observed in, status and actions out. Pure; `now_ms` is wall-clock ms.

    accept the document → answer a command → take the phase on → deal places → say what is to be done → write the status
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from trafficsim_api.names import Condition, Event, Reason
from trafficsim_api.phases import Phase
from trafficsim_api.profile import Shape, shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import (
    Accounts,
    Figures,
    LastCommand,
    Revision,
    RuleStatus,
    Run,
    Runners,
    SizingTerms,
    Status,
    Users,
)
from trafficsim_api.units import format_instant, milliseconds, parse_instant
from trafficsim_operator.actions import Action, Assign, Decision, EnsureRevision, Happening, RemoveRevision, Retire
from trafficsim_operator.observed import Desired, Observed, Runner, RunnerState
from trafficsim_operator.plan import commands, verdict
from trafficsim_operator.plan.acceptance import Accepted, Refused, accept
from trafficsim_operator.plan.assignments import Terms, assign, held_by, holders, retiring
from trafficsim_operator.plan.conditions import Finding, conditions, of_phase, of_verdict
from trafficsim_operator.plan.lifecycle import Life, Seen, live, next_run, start_at
from trafficsim_operator.plan.places import Deal, deal

__all__ = ["decide"]

_IN_MOTION_MS: Final = 250
_STEADY_MS: Final = 5_000
_WATCHED_MS: Final = 1_000
# Suspended this long, the runners are let go: the seed's clean-up delay.
_SCALE_DOWN_MS: Final = 60_000
_ON: Final = (Phase.PREFLIGHT, Phase.STARTING, Phase.RUNNING, Phase.SUSPENDED, Phase.DRAINING)
_ENDED: Final = (Phase.COMPLETED, Phase.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The inputs of one decision, and what was found on the way."""

    desired: Desired
    observed: Observed
    now_ms: int
    accepted: Accepted
    life: Life
    command: LastCommand | None

    @property
    def before(self) -> Status:
        return self.desired.status

    @property
    def run(self) -> Run:
        assert self.life.run is not None
        return self.life.run

    @property
    def runners(self) -> tuple[Runner, ...]:
        seen = self.observed.revisions.get(self.accepted.revision.revision)
        return seen.runners if seen else ()

    @property
    def profile(self) -> Shape:
        return shape(self.accepted.spec.profile)

    @property
    def elapsed_ms(self) -> int:
        return self.now_ms - start_at(self.run) if self.run.origin else -1


def decide(desired: Desired, observed: Observed, now_ms: int) -> Decision:
    """Return what to record and to do about one simulation now."""
    before = desired.status
    on = before.phase in _ON
    accepted = accept(desired, observed, before.stable if on else None)
    if isinstance(accepted, Refused):
        return _refused(desired, observed, accepted, now_ms)
    if any(seen.foreign for seen in observed.revisions.values()):
        return _name_taken(desired, now_ms)
    command = commands.answer(
        desired.command, before.last_command, before.phase, running=on or before.phase is Phase.PENDING
    )
    life = _live(desired, observed, accepted, command, now_ms)
    look = _Look(desired=desired, observed=observed, now_ms=now_ms, accepted=accepted, life=life, command=command)
    dealt = _deal(look)
    epoch, assigns = _assign(look, dealt)
    actions = (*_objects(look, dealt), *assigns)
    status = _status(look, dealt, epoch)
    return Decision(
        status=status,
        actions=actions,
        happenings=_happenings(before, status, command, actions),
        next_look_ms=_next_look(look, dealt, actions),
    )


def _live(desired: Desired, observed: Observed, accepted: Accepted, command: LastCommand | None, now_ms: int) -> Life:
    """Take the phase on by what was seen."""
    before, spec = desired.status, accepted.spec
    done = command.action if command is not None and command.result == "Done" else ""
    seen = _seen(desired, observed, accepted, done, now_ms)
    run = before.run
    phase = before.phase
    if run is None or (phase is Phase.FAILED and _refused_before(before)):
        run, phase = next_run(run, seen) if run is None or run.origin else run, Phase.PENDING
        run = run.model_copy(update={"phase_since": format_instant(now_ms)})
    if run.generation != desired.generation:
        run = run.model_copy(update={"generation": desired.generation})
    life = live(Life(phase=phase, run=run, reason=_reason_of(before), message=before.message), seen)
    assert life.run is not None
    return replace(life, run=_plan_on(life, run, before, spec, now_ms))


def _refused_before(status: Status) -> bool:
    return any(c.type == Condition.ACCEPTED and c.status == "False" for c in status.conditions)


def _reason_of(status: Status) -> str:
    return next((c.reason for c in status.conditions if c.type == Condition.READY), Reason.PENDING)


def _seen(desired: Desired, observed: Observed, accepted: Accepted, done: str, now_ms: int) -> Seen:
    before, spec, run = desired.status, accepted.spec, desired.status.run
    revision = observed.revisions.get(accepted.revision.revision)
    runners = revision.runners if revision else ()
    ready = [runner for runner in runners if runner.state is RunnerState.READY and runner.answered]
    # Before the first run there is no request to compare with; afterwards any new string counts.
    requested = run is not None and spec.run_request is not None and spec.run_request != run.request
    edited = before.phase is Phase.FAILED and run is not None and run.generation != desired.generation
    alive = [runner for runner in runners if runner.answered]
    number = run.id if run else 0
    retired = [ack for runner in alive if (ack := held_by(runner, number)) is not None]
    return Seen(
        now_ms=now_ms, generation=desired.generation, request=spec.run_request, suspend=spec.suspend,
        duration_ms=None if spec.duration is None else milliseconds(spec.duration),
        runners_wanted=accepted.sizing.runners, runners_ready=len(ready), target=_target(ready, number),
        waiting=accepted.waiting, cause=_cause(runners, revision.problem if revision else ""),
        stop=_stop(before, observed, accepted, done, now_ms),
        drained=all(ack.retire and ack.drained for ack in retired) and observed.evidence.complete,
        drain_ms=milliseconds(spec.target.timeouts.request) + 15_000, restart=requested or edited or done in ("start", "rerun"),
    )  # fmt: skip


def _target(ready: list[Runner], run: int) -> str:
    answers = [ack.target for runner in ready if (ack := held_by(runner, run)) is not None and ack.target]
    return "reachable" if "reachable" in answers else answers[0] if answers else ""


def _cause(runners: tuple[Runner, ...], problem: str) -> str:
    return next((runner.cause for runner in runners if runner.cause), problem)


def _stop(before: Status, observed: Observed, accepted: Accepted, done: str, now_ms: int) -> str:
    """Return why the run is to end now, "" if it is not."""
    if observed.stop:
        return observed.stop
    if done == "stop":
        return "stopped by command"
    if before.phase is not Phase.RUNNING or before.run is None or before.run.origin is None:
        return ""
    warm = start_at(before.run) + milliseconds(accepted.spec.warm_up)
    breached = verdict.breached_abort(observed.evidence, since_warm_up_ms=now_ms - warm)
    return f"aborted by {breached}" if breached else ""


def _plan_on(life: Life, run: Run, before: Status, spec: TrafficSimulationSpec, now_ms: int) -> Run:
    """
    Fold planned user time where T changes or load stops and starts again; at the end say what of it was lost.

    planned = ∫ u(t) dt of T and profile while running; the open piece begins at *planned_since*.
    """
    after = life.run
    assert after is not None
    running = life.phase is Phase.RUNNING
    since = after.planned_since
    if since is not None and (not running or after.planned_users != spec.users):
        after = after.model_copy(update={"planned_user_ms": planned_user_ms(run, spec, now_ms), "planned_since": None})
        since = None
    if running and since is None:
        at = max(now_ms, start_at(after))
        after = after.model_copy(update={"planned_since": format_instant(at), "planned_users": spec.users})
    return after


def planned_user_ms(run: Run, spec: TrafficSimulationSpec, now_ms: int) -> int:
    """Return the user time planned until *now_ms*, what was folded before included."""
    if run.planned_since is None or run.origin is None:
        return run.planned_user_ms
    origin = parse_instant(run.origin)
    until = min(now_ms, parse_instant(run.end)) if run.end else now_ms
    return run.planned_user_ms + shape(spec.profile).user_ms(
        run.planned_users, parse_instant(run.planned_since) - origin, until - origin
    )


def _deal(look: _Look) -> Deal:
    """Deal the places; nobody holds any outside Running and Suspended."""
    sizing = look.accepted.sizing
    total = sizing.users if look.life.phase in (Phase.RUNNING, Phase.SUSPENDED) and look.run.origin else 0
    going = retiring(look.runners, look.run.id, sizing.runners) if look.life.phase is Phase.RUNNING else frozenset()
    return deal(total, holders(look.runners, look.run.id, going), max(1, sizing.capacity))


def _assign(look: _Look, dealt: Deal) -> tuple[int, tuple[Assign, ...]]:
    """Return the epoch, and an assignment for each runner that does not hold what it should."""
    epoch = max([look.before.epoch, *(r.acknowledgement.epoch for r in look.runners if r.acknowledgement)])
    if look.life.phase in (Phase.PENDING, *_ENDED):
        return epoch, ()
    run, spec = look.run, look.accepted.spec
    terms = Terms(
        simulation=look.desired.uid, run=run.id, accepted=look.accepted, start_at_ms=start_at(run),
        warm_up_ms=milliseconds(spec.warm_up), end_ms=parse_instant(run.end) if run.end else 2**52,
        suspended=look.life.phase is Phase.SUSPENDED,
    )  # fmt: skip
    going = (
        retiring(look.runners, run.id, look.accepted.sizing.runners)
        if look.life.phase is Phase.RUNNING
        else frozenset()
    )
    digest = terms.digest
    found = []
    for runner in look.runners:
        places = dealt.places.get(runner.name)
        if places is None or runner.state is RunnerState.STARTING:
            continue
        retire = look.life.phase is Phase.DRAINING or (runner.name in going and not places)
        action = assign(runner, places, terms, epoch=epoch + 1, retire=retire, digest=digest)
        if action is not None:
            found.append(action)
    return epoch + bool(found), tuple(found)


def _objects(look: _Look, dealt: Deal) -> tuple[Action, ...]:
    """Return what is to be done about revisions: ensured, scaled, let go."""
    revision, sizing, phase = look.accepted.revision, look.accepted.sizing, look.life.phase
    seen = look.observed.revisions.get(revision.revision)
    others = tuple(
        RemoveRevision(revision=name, reason="superseded")
        for name in look.observed.revisions
        if name != revision.revision
    )
    if phase in _ENDED or _let_go(look):
        if seen is None or (not seen.replicas and not seen.runners):
            return others
        names = tuple(runner.name for runner in seen.runners)
        return (
            *others,
            *(
                (Retire(revision=revision.revision, runners=names, replicas=0, reason=f"{phase}"),)
                if seen.replicas
                else ()
            ),
        )
    if phase in (Phase.PENDING, Phase.DRAINING) or (phase is Phase.SUSPENDED and not look.run.origin):
        return others
    if not sizing.runners and seen is None:
        return others
    gone = _retired(look)
    if gone and seen is not None:
        left = max(sizing.runners, seen.replicas - len(gone))
        return (*others, Retire(revision=revision.revision, runners=gone, replicas=left, reason=sizing.reason))
    replicas = seen.replicas if seen else 0
    if seen is None or seen.drifted or replicas < sizing.runners:
        wanted = max(sizing.runners, 0 if seen is None or seen.drifted else replicas)
        return (
            *others,
            EnsureRevision(revision=revision.revision, template=revision.runner, replicas=wanted, reason=sizing.reason),
        )
    return others


def _let_go(look: _Look) -> bool:
    """Say whether a suspended simulation's runners have been idle long enough to go."""
    if look.life.phase is not Phase.SUSPENDED:
        return False
    return look.now_ms - parse_instant(look.run.phase_since) >= _SCALE_DOWN_MS


def _retired(look: _Look) -> tuple[str, ...]:
    """Return the runners that were told to retire, have drained, and are no longer ready."""
    going = retiring(look.runners, look.run.id, look.accepted.sizing.runners)
    return tuple(
        runner.name
        for runner in look.runners
        if runner.name in going and runner.state is RunnerState.UNREADY
        if (ack := held_by(runner, look.run.id)) is not None and ack.retire and ack.drained
    )


def _status(look: _Look, dealt: Deal, epoch: int) -> Status:
    before, accepted, life, now = look.before, look.accepted, look.life, format_instant(look.now_ms)
    ended = life.phase is Phase.COMPLETED and before.phase is not Phase.COMPLETED
    fresh = life.phase is Phase.PENDING or look.run.id != (before.run.id if before.run else 0)
    run, judged, why, reason = look.run, before.verdict, before.verdict_reason, _verdict_reason(before)
    if fresh:
        judged, why, reason = None, "", Reason.IN_PROGRESS
    if ended:
        planned = planned_user_ms(run, accepted.spec, look.now_ms)
        lost = max(0, planned - look.observed.evidence.wanted_user_ms)
        run = run.model_copy(update={"planned_user_ms": planned, "lost_user_ms": lost})
        judgement = verdict.judge(
            look.observed.evidence, planned_user_ms=planned, lost_user_ms=lost, stopped=run.stop or ""
        )
        judged, why, reason = judgement.verdict, judgement.message, judgement.reason
    if life.phase in (Phase.RUNNING, Phase.DRAINING):
        run = run.model_copy(update={"lost_runners": look.observed.evidence.lost_runners})
    wanted, users = _users(look, dealt)
    figures, accounts, rules, users = _figures(look, users, final=ended, fresh=fresh)
    sizing = accepted.sizing
    ready = sum(runner.state is RunnerState.READY for runner in look.runners)
    found = [
        *of_phase(life.phase, life.reason, why if life.phase is Phase.COMPLETED else life.message),
        Finding(type=Condition.ACCEPTED, status=True, reason=Reason.ACCEPTED, message=accepted.later),
        *_preflight(before, life),
        *_health(look, ready),
        *_saturation(look),
        *of_verdict(judged, reason, why, "; ".join(r.rule for r in rules if r.holds == "False")),
    ]
    return Status(
        observed_generation=look.desired.generation, phase=life.phase, message=why if life.phase is Phase.COMPLETED else life.message,
        run=run, epoch=epoch, tier=sizing.tier.name if sizing.tier else "", strategy=sizing.tier.strategy if sizing.tier else "",
        users=users, runners=Runners(wanted=wanted, ready=ready),
        sizing=SizingTerms(capacity=sizing.capacity, per_process=sizing.per_process, processes=sizing.processes, reason=sizing.reason),
        version=_version(accepted.revision), stable=accepted.revision.model_copy(update={"places": users.placed}),
        figures=figures, accounts=accounts, rules=rules, verdict=judged, verdict_reason=why,
        last_command=look.command or before.last_command,
        conditions=conditions(before.conditions, found, generation=look.desired.generation, now=now),
    )  # fmt: skip


def _verdict_reason(status: Status) -> str:
    return next((c.reason for c in status.conditions if c.type == Condition.PASSED), Reason.IN_PROGRESS)


def _users(look: _Look, dealt: Deal) -> tuple[int, Users]:
    """Return the runners wanted and the users as they are now."""
    total = look.accepted.sizing.users
    acks = [ack for runner in look.runners if (ack := held_by(runner, look.run.id)) is not None]
    on = look.life.phase is Phase.RUNNING
    wanted = look.profile.users_at(total, look.elapsed_ms) if on else 0
    placed = total - len(dealt.unplaced) if on or look.life.phase is Phase.SUSPENDED else 0
    runners = 0 if look.life.phase in (*_ENDED, Phase.DRAINING) else look.accepted.sizing.runners
    return runners, Users(target=total, wanted=wanted, active=sum(ack.active for ack in acks), placed=placed)


def _figures(
    look: _Look, users: Users, *, final: bool, fresh: bool
) -> tuple[Figures, Accounts, tuple[RuleStatus, ...], Users]:
    """Return the figures: those before, unless it is time for new ones; written anew only when a printed digit changed."""
    before = look.before
    at = parse_instant(before.figures.at) if before.figures.at else 0
    pace = _WATCHED_MS if look.observed.watched else _STEADY_MS
    turned = look.life.phase is not before.phase or users.target != before.users.target
    if not (final or fresh or turned or look.now_ms - at >= pace) or look.life.phase in _ENDED and not final:
        kept = users.model_copy(update={"wanted": before.users.wanted, "active": before.users.active})
        return before.figures, before.accounts, before.rules, users if look.life.phase in _ENDED else kept
    seen = look.observed.evidence
    accounts = Accounts(
        requests=_round(seen.requests, final), failed=_round(seen.failed, final), checks=_round(seen.checks, final),
        checks_failed=_round(seen.checks_failed, final), dropped=_round(seen.dropped, final), missing=seen.missing[:8],
    )  # fmt: skip
    figures = Figures(
        at=before.figures.at, rps=f"{seen.rps:.0f}" if seen.rps >= 10 else f"{seen.rps:.1f}", p50=_ms(seen.p50), p95=_ms(seen.p95),
        p99=_ms(seen.p99), error_rate="" if seen.error_rate is None else f"{100 * seen.error_rate:.2f}",
    )  # fmt: skip
    rules = verdict.standing(seen)
    if (figures, accounts, rules, users) != (before.figures, before.accounts, before.rules, before.users):
        figures = figures.model_copy(update={"at": format_instant(look.now_ms)})
    return figures, accounts, rules, users


def _round(count: int, final: bool) -> int:
    """Return *count* exactly at the end, to three digits on the way there."""
    return count if final or count < 1000 else int(float(f"{count:.2e}"))


def _ms(ns: int | None) -> str:
    return "" if ns is None else f"{ns / 1e6:.3g}ms" if ns < 1e9 else f"{ns / 1e9:.3g}s"


def _version(revision: Revision) -> str:
    name = revision.image.rpartition("/")[2].partition("@")[0]
    return name.partition(":")[2] or revision.revision


def _preflight(before: Status, life: Life) -> tuple[Finding, ...]:
    if life.phase is Phase.PENDING:
        return (Finding(type=Condition.PREFLIGHT, status=None, reason=Reason.PENDING, message=life.message),)
    if life.phase is Phase.PREFLIGHT:
        return (Finding(type=Condition.PREFLIGHT, status=None, reason=Reason.IN_PROGRESS, message=life.message),)
    if life.phase is Phase.FAILED and before.phase in (Phase.PREFLIGHT, Phase.PENDING):
        return (Finding(type=Condition.PREFLIGHT, status=False, reason=life.reason, message=life.message),)
    old = next((c for c in before.conditions if c.type == Condition.PREFLIGHT and c.status == "False"), None)
    if old is not None and life.phase is Phase.FAILED:
        return (Finding(type=Condition.PREFLIGHT, status=False, reason=old.reason, message=old.message),)
    return (Finding(type=Condition.PREFLIGHT, status=True, reason=Reason.TARGET_REACHABLE),)


def _health(look: _Look, ready: int) -> tuple[Finding, ...]:
    kind = Condition.RUNNERS_HEALTHY
    if look.life.phase is not Phase.RUNNING:
        return (Finding(type=kind, status=None, reason=look.life.phase),)
    silent = [
        runner.name
        for runner in look.runners
        if runner.address is not None and not runner.answered and runner.state is RunnerState.READY
    ]
    if silent:
        return (
            Finding(
                type=kind, status=False, reason=Reason.UNREACHABLE, message=f"no answer from {', '.join(silent[:5])}"
            ),
        )
    wanted = look.accepted.sizing.runners
    if ready < wanted:
        seen = look.observed.revisions.get(look.accepted.revision.revision)
        cause = _cause(look.runners, seen.problem if seen else "")
        text = f"{ready} of {wanted} runners are ready" + (f"; {cause}" if cause else "")
        return (Finding(type=kind, status=False, reason=Reason.RUNNERS_STARTING, message=text),)
    return (Finding(type=kind, status=True, reason=Reason.RUNNERS_READY),)


def _saturation(look: _Look) -> tuple[Finding, ...]:
    saturated = look.observed.evidence.saturated
    reason = Reason.GENERATOR_SATURATED if saturated else Reason.WITHIN_LIMITS
    if look.life.phase in _ENDED and look.before.phase in _ENDED:
        old = next((c for c in look.before.conditions if c.type == Condition.GENERATOR_SATURATED), None)
        if old is not None:
            return (
                Finding(
                    type=Condition.GENERATOR_SATURATED,
                    status=old.status == "True",
                    reason=old.reason,
                    message=old.message,
                ),
            )
    return (
        Finding(type=Condition.GENERATOR_SATURATED, status=bool(saturated), reason=reason, message=saturated or ""),
    )


def _refused(desired: Desired, observed: Observed, refused: Refused, now_ms: int) -> Decision:
    """
    Say no. A run that is on keeps what it was told while the user mends an edit; if policy changed under it, it ends.
    """
    before, now = desired.status, format_instant(now_ms)
    reason = Reason.INVALID if refused.invalid else Reason.REFUSED
    said = Finding(type=Condition.ACCEPTED, status=False, reason=reason, message=refused.message)
    on = before.phase in _ON
    if on and before.run is not None and before.run.generation != desired.generation and not observed.stop:
        kept = [c for c in before.conditions if c.type != Condition.ACCEPTED]
        again = [
            Finding(
                type=Condition(c.type),
                status={"True": True, "False": False}.get(c.status),
                reason=c.reason,
                message=c.message,
            )
            for c in kept
        ]
        status = before.model_copy(
            update={
                "observed_generation": desired.generation,
                "conditions": conditions(before.conditions, [*again, said], generation=desired.generation, now=now),
            }
        )
        return Decision(status=status, happenings=_told(before, status, refused.message), next_look_ms=_STEADY_MS)
    if before.phase is Phase.COMPLETED:
        phase, message = Phase.COMPLETED, before.message
    else:
        phase, message = Phase.FAILED, refused.message
    found = [*of_phase(phase, Reason.REFUSED if phase is Phase.FAILED else Reason.COMPLETED, message), said]
    found += of_verdict(before.verdict, _verdict_reason(before), before.verdict_reason, "")
    status = before.model_copy(
        update={
            "observed_generation": desired.generation,
            "phase": phase,
            "message": message,
            "users": Users(),
            "runners": Runners(),
            "conditions": conditions(before.conditions, found, generation=desired.generation, now=now),
        }
    )
    actions = tuple(
        Retire(revision=name, runners=tuple(r.name for r in seen.runners), replicas=0, reason="refused")
        for name, seen in observed.revisions.items()
        if seen.replicas and not seen.foreign
    )
    return Decision(
        status=status,
        actions=actions,
        happenings=_told(before, status, refused.message),
        next_look_ms=_STEADY_MS if actions else None,
    )


def _told(before: Status, status: Status, message: str) -> tuple[Happening, ...]:
    def said(of: Status) -> str:
        return next((c.message for c in of.conditions if c.type == Condition.ACCEPTED and c.status == "False"), "")

    return (Happening(reason=Event.REFUSED, message=message, warning=True),) if said(before) != said(status) else ()


def _name_taken(desired: Desired, now_ms: int) -> Decision:
    before = desired.status
    message = "an object of the runners' name belongs to somebody else; it is not touched"
    found = [
        *of_phase(Phase.FAILED, Reason.NAME_TAKEN, message),
        Finding(type=Condition.ACCEPTED, status=True, reason=Reason.ACCEPTED),
    ]
    status = before.model_copy(
        update={
            "observed_generation": desired.generation,
            "phase": Phase.FAILED,
            "message": message,
            "conditions": conditions(
                before.conditions, found, generation=desired.generation, now=format_instant(now_ms)
            ),
        }
    )
    return Decision(status=status, next_look_ms=_STEADY_MS)


def _happenings(
    before: Status, status: Status, command: LastCommand | None, actions: tuple[Action, ...]
) -> tuple[Happening, ...]:
    """Return one event per thing worth telling, the reason and the numbers in the message."""
    found: list[Happening] = []
    if command is not None:
        text = f"{command.action}: {command.result}" + (f" ({command.reason})" if command.reason else "")
        found.append(Happening(reason=Event.COMMAND, message=text, warning=command.result == "Refused"))
    if status.phase is not before.phase:
        if status.phase is Phase.COMPLETED:
            found.append(Happening(reason=Event.FINISHED, message=f"{status.verdict}: {status.verdict_reason}"))
        else:
            failed = status.phase is Phase.FAILED
            text = f"{before.phase} → {status.phase}" + (f": {status.message}" if status.message else "")
            found.append(Happening(reason=Event.FAILED if failed else Event.PHASE, message=text, warning=failed))
    for action in actions:
        if isinstance(action, EnsureRevision | Retire):
            found.append(
                Happening(
                    reason=Event.SCALED,
                    message=f"revision {action.revision} to {action.replicas} runners: {action.reason}",
                )
            )
    lost = (status.run.lost_runners if status.run else 0) - (before.run.lost_runners if before.run else 0)
    if lost > 0:
        found.append(Happening(reason=Event.RUNNER_LOST, message=f"{lost} runners were lost", warning=True))
    return tuple(found)


def _next_look(look: _Look, dealt: Deal, actions: tuple[Action, ...]) -> int | None:
    """Return when to look again: at once while things are in motion, leisurely while nothing is."""
    phase = look.life.phase
    if phase in _ENDED:
        return _IN_MOTION_MS * 4 if actions else None
    settled = all(ack.settled for runner in look.runners if (ack := held_by(runner, look.run.id)) is not None)
    waiting = phase in (Phase.PENDING, Phase.PREFLIGHT, Phase.STARTING, Phase.DRAINING)
    if actions or waiting or dealt.moving or dealt.unplaced or not settled:
        return _IN_MOTION_MS
    if phase is Phase.SUSPENDED:
        return _WATCHED_MS if look.observed.watched else _STEADY_MS
    pace = _WATCHED_MS if look.observed.watched else _STEADY_MS
    if look.accepted.spec.duration is not None:
        left = start_at(look.run) + milliseconds(look.accepted.spec.duration) - look.now_ms
        pace = max(_IN_MOTION_MS, min(pace, left))
    return pace
