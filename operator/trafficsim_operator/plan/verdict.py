"""
The verdict: Passed, Failed or Inconclusive, never silence. The first that applies:

| finding | verdict |
|---|---|
| generator saturated (saturation.py) | Inconclusive GeneratorSaturated |
| a runner was lost, and scaling.onRunnerLoss is end | Inconclusive RunnersLost |
| a runner counts as lost whose end nobody saw | Inconclusive PossibleDoubleLoad |
| more than 1 % of the planned user time was lost, and a runner was | Inconclusive RunnersLost |
| more than 1 % of it was lost, and no runner was | Inconclusive UserTimeLost |
| more than 1 % of the one-second windows were never seen | Inconclusive NumbersMissing |
| a rule broken, judged on n ≥ 100 | Failed, the rule named |
| a rule that names what no scenario declares | Inconclusive NumbersMissing |
| a rule, or the run as a whole, with n < 100 | Inconclusive TooFewSamples |
| else | Passed |

A lost runner's unread share counts as lost user time: the numbers tell what was given, the plan what was asked for.
Saturation comes first: a starved generator's latencies are its own, and neither pass nor fail the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trafficsim_api.names import Reason
from trafficsim_api.phases import Verdict
from trafficsim_api.rules import MIN_SAMPLES, Rule, parse_rule
from trafficsim_api.status import LostRunner, RuleStatus
from trafficsim_operator.observed import Evidence, RuleEvidence

__all__ = ["Judgement", "breached_abort", "format_value", "judge", "standing"]

# Lost user time that is still a whole answer: 1 %.
_TOLERANCE_DIVISOR: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict with its reason and one sentence that names rule or finding."""

    verdict: Verdict
    reason: Reason
    message: str


def judge(
    evidence: Evidence,
    *,
    planned_user_ms: int,
    lost_user_ms: int,
    stopped: str = "",
    lost: Sequence[LostRunner] = (),
    fatal: Sequence[str] = (),
) -> Judgement:
    """Return the verdict on a run that has ended; *fatal* names the *lost* runners that the spec does not bear with."""
    if evidence.saturated:
        return _inconclusive(Reason.GENERATOR_SATURATED, evidence.saturated)
    if fatal:
        were = "was" if len(fatal) == 1 else "were"
        return _inconclusive(
            Reason.RUNNERS_LOST, f"{', '.join(fatal)} {were} lost, and scaling.onRunnerLoss is end"
        )  # fmt: skip
    doubtful = [runner for runner in lost if runner.end_unseen]
    if doubtful:
        named = ", ".join(f"{runner.name} ({runner.users} users)" for runner in doubtful)
        return _inconclusive(
            Reason.POSSIBLE_DOUBLE_LOAD,
            f"nobody saw {named} end: those users may have been at work twice after they went to others",
        )
    if lost_user_ms * _TOLERANCE_DIVISOR > planned_user_ms:
        share = 100 * lost_user_ms / planned_user_ms if planned_user_ms else 100.0
        text = f"{lost_user_ms / 1000:.0f} user-seconds were lost, {share:.1f} % of those planned; 1 % are tolerated"
        if lost:
            return _inconclusive(Reason.RUNNERS_LOST, text)
        return _inconclusive(Reason.USER_TIME_LOST, f"{text}; no runner was lost")
    if evidence.unseen_windows * _TOLERANCE_DIVISOR > evidence.unseen_windows + evidence.seen_windows:
        return _inconclusive(Reason.NUMBERS_MISSING, f"{evidence.unseen_windows} one-second windows were never seen")
    broken = [rule for rule in evidence.rules if not _holds(rule) and rule.samples >= MIN_SAMPLES]
    if broken:
        text = "; ".join(_sentence(rule) for rule in broken)
        return Judgement(verdict=Verdict.FAILED, reason=Reason.FAILED, message=text)
    unknown = next((rule for rule in evidence.rules if rule.problem), None)
    if unknown is not None:
        return _inconclusive(Reason.NUMBERS_MISSING, f"{unknown.rule}: {unknown.problem}")
    few = [rule for rule in evidence.rules if rule.samples < MIN_SAMPLES]
    if few:
        return _inconclusive(
            Reason.TOO_FEW_SAMPLES,
            f"{few[0].rule}: {few[0].samples} {_judged(few[0])} after the warm-up, {MIN_SAMPLES} are needed",
        )
    if evidence.judged_requests < MIN_SAMPLES:
        return _inconclusive(
            Reason.TOO_FEW_SAMPLES, f"{evidence.judged_requests} requests after the warm-up, {MIN_SAMPLES} are needed"
        )
    kept = f"{len(evidence.rules)} of {len(evidence.rules)} rules hold" if evidence.rules else "no rule was asked for"
    tail = f" (ended early: {stopped})" if stopped else ""
    return Judgement(
        verdict=Verdict.PASSED,
        reason=Reason.PASSED,
        message=f"{kept}; {evidence.judged_requests} requests judged{tail}",
    )


def breached_abort(evidence: Evidence, *, since_warm_up_ms: int) -> str | None:
    """Return the abort rule that is broken now, judged on n ≥ 100 and not before 10 s past the warm-up."""
    if since_warm_up_ms < 10_000:
        return None
    for rule in evidence.rules:
        if rule.abort and rule.samples >= MIN_SAMPLES and not _holds(rule):
            return _sentence(rule)
    return None


def standing(evidence: Evidence) -> tuple[RuleStatus, ...]:
    """Return every rule as it stands, for the status."""
    return tuple(
        RuleStatus(
            rule=rule.rule,
            value=rule.problem or format_value(parse_rule(rule.rule), rule.value),
            samples=_coarse(rule.samples),
            holds="Unknown" if rule.samples < MIN_SAMPLES else "True" if _holds(rule) else "False",
        )
        for rule in evidence.rules
    )


def format_value(rule: Rule, value: float | None) -> str:
    """Return *value* as people write it in rules: three digits and the unit."""
    if value is None:
        return ""
    if rule.metric in ("error_rate", "check_failures", "success"):
        return f"{100 * value:.3g}%" if value < 0.9995 else f"{100 * value:.4g}%"
    if rule.metric in ("rps", "rate"):
        return f"{value:.3g}/s" if value < 100 else f"{value:.0f}/s"
    if rule.metric in ("requests", "count") or (rule.plain and value >= 100):
        return f"{value:.0f}"
    if rule.plain:
        return f"{value:.3g}"
    return f"{value / 1e6:.3g}ms" if value < 1e9 else f"{value / 1e9:.3g}s"


def _coarse(samples: int) -> int:
    """Round to two digits: the status is written only when a printed digit changed."""
    return samples if samples < 100 else int(float(f"{samples:.1e}"))


def _holds(rule: RuleEvidence) -> bool:
    if rule.breached_windows:
        return False
    return rule.value is not None and parse_rule(rule.rule).holds(rule.value)


def _sentence(rule: RuleEvidence) -> str:
    parsed = parse_rule(rule.rule)
    windows = f" in {rule.breached_windows} windows" if rule.breached_windows else ""
    return f"{parsed.text}: {format_value(parsed, rule.value)}{windows} on {rule.samples} {_judged(rule)}"


def _judged(rule: RuleEvidence) -> str:
    """Return what the samples of *rule* are: of a trend they are its values, and only such a rule has no unit."""
    return "values" if parse_rule(rule.rule).plain else "requests"


def _inconclusive(reason: Reason, message: str) -> Judgement:
    return Judgement(verdict=Verdict.INCONCLUSIVE, reason=reason, message=message)
