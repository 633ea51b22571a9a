"""What a version's numbers say of a step: by its behaviour, and only of windows that somebody counted."""

from __future__ import annotations

from collections.abc import Sequence

from trafficsim_api.names import Reason
from trafficsim_api.rollout import PauseReason
from trafficsim_api.status import RolloutStatus
from trafficsim_api.units import parse_instant
from trafficsim_operator.plan.analysis import Analysis, Outcome

__all__ = ["analysis_of"]

_HOLD_MS = 5_000


def analysis_of(
    rollout: RolloutStatus, behaviour: str, outages: Sequence[tuple[int, int]], *, now_ms: int, run_ms: int
) -> Analysis:
    """Return the analysis of the present step of a version of that *behaviour*; nothing was counted in *outages*."""
    plan = rollout.plan
    assert plan is not None and rollout.step_started_at is not None and rollout.windows_from_ms is not None
    elapsed = now_ms - parse_instant(rollout.step_started_at)
    start, length = rollout.windows_from_ms, plan.window_ms
    whole = max(0, (run_ms - start) // length)
    told = [
        number
        for number in range(whole)
        if not any(out < start + (number + 1) * length and start + number * length < back for out, back in outages)
    ]
    is_over = elapsed >= plan.max_dwell_ms
    if any(out <= run_ms < back for out, back in outages):
        since = parse_instant(rollout.no_numbers_since) if rollout.no_numbers_since else now_ms
        is_long = now_ms - since >= _HOLD_MS or is_over
        return Analysis(
            outcome=Outcome.PAUSE if is_long else Outcome.HOLD,
            pause=PauseReason.METRICS_UNAVAILABLE if is_long else None,
            message=f"neither version has told its numbers for {now_ms - since} ms",
            no_numbers_since_ms=since,
        )
    seen = f"n={40 * len(told)}, {len(told)} windows"
    match behaviour:
        case "bad" if len(told) >= 2:
            return Analysis(
                outcome=Outcome.FAIL, reason=Reason.ANALYSIS_FAILED, message=f"error_rate 9.1% (blue 0.4%), {seen}"
            )
        case "empty" if len(told) >= 3:
            return Analysis(
                outcome=Outcome.FAIL,
                reason=Reason.CANDIDATE_SILENT,
                message="no request was finished",
                errors=len(told),
            )
        case "hung" if elapsed >= plan.steps[rollout.step].dwell_ms + _HOLD_MS:
            return Analysis(
                outcome=Outcome.PAUSE, pause=PauseReason.TARGET_DEGRADED, message=f"both are past a limit, {seen}"
            )
        case "good" if elapsed >= plan.steps[rollout.step].dwell_ms and len(told) >= 3:
            return Analysis(outcome=Outcome.PASS, message=f"error_rate 0.1%, {seen}")
        case _ if is_over:
            return Analysis(outcome=Outcome.PAUSE, pause=PauseReason.INCONCLUSIVE, message=seen)
        case _:
            return Analysis(outcome=Outcome.HOLD, message=seen)
