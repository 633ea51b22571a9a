"""The status document of a look: phase, intent, figures and conditions, complete at every write."""

from __future__ import annotations

from typing import Final

from trafficsim_api.names import Condition, Reason
from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.status import (
    Accounts,
    Figures,
    MetricStatus,
    Revision,
    RuleStatus,
    Run,
    Runners,
    SizingTerms,
    Status,
    Users,
)
from trafficsim_api.units import format_instant
from trafficsim_operator.observed import Evidence, Runner, RunnerState
from trafficsim_operator.plan import once, verdict
from trafficsim_operator.plan.assignments import cause_of, held_by
from trafficsim_operator.plan.bounds import fitted, named
from trafficsim_operator.plan.colour_status import of_pause, of_rollout, places_of, rollout_of
from trafficsim_operator.plan.conditions import MESSAGE, Finding, conditions, of_phase, of_verdict, verdict_reason
from trafficsim_operator.plan.lifecycle import Life
from trafficsim_operator.plan.look import ENDED, ON, Look, figures_are_due
from trafficsim_operator.plan.losses import fatal_losses, losses_on, short_on
from trafficsim_operator.plan.measured import NS, MetricRow
from trafficsim_operator.plan.numbers import rounded
from trafficsim_operator.plan.places import Deal
from trafficsim_operator.plan.planned import planned_user_ms
from trafficsim_operator.plan.scaling_told import of_conflict, scaling_of
from trafficsim_operator.plan.unwilling import sentences

__all__ = ["status_of"]

# As many missing shares as a status has room for.
_SHARES: Final = 8


def status_of(look: Look, dealt: Deal, epoch: int) -> Status:
    """Return the complete status after *look*, with the newest assignment's *epoch*."""
    before, accepted, life, now = look.before, look.accepted, look.life, format_instant(look.now_ms)
    ended = life.phase is Phase.COMPLETED and before.phase is not Phase.COMPLETED
    fresh = life.phase is Phase.PENDING or look.run.id != (before.run.id if before.run else 0)
    wanted, users = _users(look, dealt)
    is_due = ended or _is_due(look, users)
    run, judged, why, reason = _judged(look, _short(look, dealt), ended=ended, fresh=fresh, is_due=is_due)
    figures, accounts, rules, users = _figures(look, users, final=ended, fresh=fresh, is_due=is_due)
    sizing, versions = accepted.sizing, look.versions
    ready = sum(runner.state is RunnerState.READY for runner in look.runners)
    rollout = rollout_of(look, dealt, is_due=is_due)
    standing = of_phase(life.phase, life.reason, why if life.phase is Phase.COMPLETED else life.message)
    found = [
        *of_rollout(standing, look, rollout),
        _acceptance(look),
        *_preflight(before, life),
        *_health(look),
        *_saturation(look),
        *of_pause(rollout),
        *of_conflict(look),
        *of_verdict(judged, reason, why, "; ".join(r.rule for r in rules if r.holds == "False")),
    ]
    return fitted(
        Status(
            observed_generation=look.desired.generation,
            phase=life.phase,
            message=(why if life.phase is Phase.COMPLETED else life.message)[:MESSAGE],
            run=run,
            epoch=epoch,
            tier=sizing.tier.name if sizing.tier else "",
            strategy=sizing.tier.strategy if sizing.tier else "",
            users=users,
            runners=Runners(wanted=wanted, ready=ready),
            sizing=SizingTerms(
                capacity=sizing.capacity,
                per_process=sizing.per_process,
                processes=sizing.processes,
                reason=sizing.reason,
            ),
            version=accepted.revision.label,
            stable=_stable(look, dealt, users.placed),
            candidate=_placed(look, dealt, versions.candidate, 0),
            previous=_placed(look, dealt, versions.previous, 0),
            rollout=rollout,
            scaling=scaling_of(look),
            figures=figures,
            accounts=accounts,
            rules=rules,
            verdict=judged,
            verdict_reason=why[:MESSAGE],
            last_command=look.command or before.last_command,
            conditions=conditions(before.conditions, found, generation=look.desired.generation, now=now),
        )
    )


def _short(look: Look, dealt: Deal) -> int:
    """Return how many places no runner has room for, as far as that is known."""
    return len(dealt.unplaced) if look.life.phase is Phase.RUNNING and not dealt.unknown else 0


def _judged(
    look: Look, short: int, *, ended: bool, fresh: bool, is_due: bool
) -> tuple[Run, Verdict | None, str, str]:  # fmt: skip
    """Return the run with what is known of its losses, and verdict, sentence and reason: given when it has *ended*."""
    before, life, run, evidence = look.before, look.life, look.run, look.observed.evidence
    judged, why, reason = before.verdict, before.verdict_reason, verdict_reason(before.conditions)
    if fresh:
        judged, why, reason = None, "", Reason.IN_PROGRESS
    if ended or (life.phase in ON and run.origin is not None):
        run = losses_on(run, evidence, look.accepted.spec, on=life.phase is Phase.RUNNING)
        run = short_on(run, look.accepted.spec, short, is_told=is_due, now_ms=look.now_ms)
    if ended:
        planned = planned_user_ms(run, look.accepted.spec, look.now_ms)
        lost = max(0, planned - evidence.wanted_user_ms, run.lost_user_ms)
        missed = max(0, run.arrivals_planned - (evidence.arrivals_planned - evidence.arrivals_twice))
        run = run.model_copy(update={"planned_user_ms": planned, "lost_user_ms": lost, "arrivals_lost": missed})
        judgement = verdict.judge(
            evidence,
            planned_user_ms=planned,
            lost_user_ms=lost,
            stopped=run.stop or "",
            lost=run.lost,
            fatal=fatal_losses(run, look.accepted.spec),
        )
        judged, why, reason = judgement.verdict, judgement.message, judgement.reason
    return run, judged, why, reason


def _stable(look: Look, dealt: Deal, placed: int) -> Revision | None:
    """Return the version that counts; after a run the one it ended with, whatever the next is asked to begin with."""
    before = look.before
    if look.life.phase in ENDED and before.phase in ENDED and before.stable is not None:
        return before.stable
    return _placed(look, dealt, look.versions.stable, placed)


def _placed(look: Look, dealt: Deal, version: Revision | None, placed: int) -> Revision | None:
    """Return *version* with the places its runners hold; *placed* where no other version may hold any."""
    if version is not None and look.versions.quota is not None:
        placed = places_of(look, dealt, version.revision)
    return version.model_copy(update={"places": placed}) if version is not None else None


def _acceptance(look: Look) -> Finding:
    """Return Accepted: of the newest document, also while the run goes on by the one before."""
    if look.refused is None:
        later = once.later(look.run, look.accepted.spec)
        return Finding(type=Condition.ACCEPTED, status=True, reason=Reason.ACCEPTED, message=later)
    reason = Reason.INVALID if look.refused.invalid else Reason.REFUSED
    return Finding(type=Condition.ACCEPTED, status=False, reason=reason, message=look.refused.message)


def _users(look: Look, dealt: Deal) -> tuple[int, Users]:
    """Return the runners wanted and the users as they are now."""
    total = look.total
    acks = [ack for runner in look.runners if (ack := held_by(runner, look.run.id)) is not None]
    on = look.life.phase is Phase.RUNNING
    wanted = look.profile.users_at(total, look.elapsed_ms) if on else 0
    placed = total - len(dealt.unplaced) if on or look.life.phase is Phase.SUSPENDED else 0
    runners = 0 if look.life.phase in (*ENDED, Phase.DRAINING) else sum(look.versions.replicas.values())
    active = sum(ack.active for ack in acks)
    return runners, Users(target=look.accepted.sizing.users, wanted=wanted, active=active, dealt=total, placed=placed)


def _is_due(look: Look, users: Users) -> bool:
    """Say whether figures are to be told anew: when it is time, with another phase or target, and what is missing."""
    before = look.before
    turned = look.life.phase is not before.phase or users.target != before.users.target
    is_waited_for = look.observed.watched or look.versions.in_progress
    seen, accounts, (missing, unkept) = look.observed.evidence, before.accounts, look.observed.said
    # Subtle: a status without room tells of less, which is no reason to tell it anew at each look.
    is_missed = bool(set(seen.missing) - missing - set(accounts.missing))
    is_missed = is_missed or seen.unkept not in (accounts.unkept, unkept)
    return turned or is_missed or figures_are_due(before, look.now_ms, is_waited_for=is_waited_for)


def _figures(
    look: Look, users: Users, *, final: bool, fresh: bool, is_due: bool
) -> tuple[Figures, Accounts, tuple[RuleStatus, ...], Users]:
    """Return the figures: new ones when it is time, written only when a printed digit changed."""
    before = look.before
    if fresh:
        return Figures(), Accounts(), (), users
    if not is_due or (look.life.phase in ENDED and not final):
        kept = users.model_copy(update={"wanted": before.users.wanted, "active": before.users.active})
        return before.figures, before.accounts, before.rules, users if look.life.phase in ENDED else kept
    seen = look.observed.evidence
    accounts = Accounts(
        requests=seen.requests if final else max(rounded(seen.requests), seen.requests_told),
        failed=_round(seen.failed, final),
        checks=_round(seen.checks, final),
        checks_failed=_round(seen.checks_failed, final),
        dropped=_round(seen.dropped, final),
        arrivals_planned=_round(seen.arrivals_planned, final),
        arrivals_started=_round(seen.arrivals_started, final),
        missing=_missing(seen, final=final),
        unkept=() if final else seen.unkept,
        metrics=tuple(
            MetricStatus(name=row.name, count=_round(row.count, final), p95=_value(row)) for row in seen.metrics[:8]
        ),
    )
    figures = Figures(
        at=before.figures.at,
        rps=f"{seen.rps:.0f}" if seen.rps >= 10 else f"{seen.rps:.1f}",
        p50=_ms(seen.p50),
        p95=_ms(seen.p95),
        p99=_ms(seen.p99),
        error_rate="" if seen.error_rate is None else f"{100 * seen.error_rate:.2f}",
    )
    rules = verdict.standing(seen)
    if (figures, accounts, rules, users) != (before.figures, before.accounts, before.rules, before.users):
        figures = figures.model_copy(update={"at": format_instant(look.now_ms)})
    return figures, accounts, rules, users


def _missing(seen: Evidence, *, final: bool) -> tuple[str, ...]:
    """Return the shares of the numbers that are missing; at the end those of runners that are still there as well."""
    return named((*seen.missing, *(seen.open if final else ())), _SHARES)


def _round(count: int, final: bool) -> int:
    """Return *count* exactly at the end, to three digits on the way there."""
    return count if final else rounded(count)


def _value(row: MetricRow) -> str:
    """Return a trend's p95 with its unit, "" when there is none."""
    if row.p95 is None or row.unit == NS:
        return _ms(row.p95)
    return f"{row.p95:.3g}{row.unit}" if row.p95 < 1000 else f"{float(f'{row.p95:.3g}'):.0f}{row.unit}"


def _ms(ns: int | None) -> str:
    return "" if ns is None else f"{ns / 1e6:.3g}ms" if ns < 1e9 else f"{ns / 1e9:.3g}s"


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


def _health(look: Look) -> tuple[Finding, ...]:
    """Return how the runners of the version that runs do, and whether any with users is silent."""
    kind = Condition.RUNNERS_HEALTHY
    refused = "; ".join(sentences(look.runners, look.observed.unwilling)) if look.life.phase in ON else ""
    if look.life.phase is not Phase.RUNNING:
        return (Finding(type=kind, status=None, reason=look.life.phase, message=refused),)
    silent = [
        runner.name
        for runner in look.runners
        if runner.address is not None
        and not runner.answered
        and runner.state is RunnerState.READY
        # One without users, of a version that is to have none, stands for its logs or for the way back.
        and (look.versions.may_take(runner.revision) or _has_users(look, runner))
    ]
    if silent:
        return (
            Finding(
                type=kind, status=False, reason=Reason.UNREACHABLE, message=f"no answer from {', '.join(silent[:5])}"
            ),
        )
    if refused:
        return (Finding(type=kind, status=False, reason=Reason.ASSIGNMENT_REFUSED, message=refused),)
    wanted = look.accepted.sizing.runners
    seen = look.observed.revisions.get(look.accepted.revision.revision)
    own = seen.runners if seen is not None else ()
    ready = sum(runner.state is RunnerState.READY for runner in own)
    cause = cause_of(own, (seen.problem if seen else "") or look.observed.trouble)
    if ready < wanted:
        text = f"{ready} of {wanted} runners are ready" + (f"; {cause}" if cause else "")
        return (Finding(type=kind, status=False, reason=Reason.RUNNERS_STARTING, message=text),)
    if cause:
        return (Finding(type=kind, status=False, reason=Reason.RUNNERS_FAILING, message=cause),)
    acks = [runner.acknowledgement for runner in own]
    fault = next((ack.fault for ack in acks if ack is not None and ack.fault), "")
    return (Finding(type=kind, status=True, reason=Reason.RUNNERS_READY, message=fault),)


def _has_users(look: Look, runner: Runner) -> bool:
    ack = held_by(runner, look.run.id)
    return ack is not None and bool(ack.held)


def _saturation(look: Look) -> tuple[Finding, ...]:
    saturated = look.observed.evidence.saturated
    reason = Reason.GENERATOR_SATURATED if saturated else Reason.WITHIN_LIMITS
    if look.life.phase in ENDED and look.before.phase in ENDED:
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
