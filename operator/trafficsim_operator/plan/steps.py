"""
The steps of a rollout: how many users a percentage is, and what an attempt is pinned to when it begins.

A step is judged by its requests. One whose forecast stays below minSamples within maxDwell is joined with the next:

    forecast = requests per second of a user · green users · (maxDwell - warmUp)

A simulation too small for any split takes one 50 % step, judged from 100 requests on, then 100 %. The plan's note says
what was made of the steps asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trafficsim_api.rollout import Rollout, RolloutStep
from trafficsim_api.status import PlannedStep, RolloutPlan
from trafficsim_api.units import milliseconds

__all__ = ["FEWEST_SAMPLES", "effective_percent", "fast_back", "green_users", "is_for_nobody", "pin"]

FEWEST_SAMPLES: Final = 100
"""Requests that the steps of a small simulation are judged by."""


def green_users(total: int, percent: int) -> int:
    """
    Return how many of *total* users the new version has at *percent*.

        (2·T·percent + 100) // 200, at least 1 and at most T-1 for 0 < percent < 100 and T ≥ 2

    Of 10 users 10 · 25 · 50 · 75 · 100 % are 1 · 3 · 5 · 8 · 10; of 1 user 10 % are none.
    """
    users = (2 * total * percent + 100) // 200
    if 0 < percent < 100 and total >= 2:
        return min(max(users, 1), total - 1)
    return users


def effective_percent(users: int, total: int) -> int:
    """Return what *users* of *total* are in whole percent: 3 of 10 are 30, 1 of 3 are 33."""
    return (200 * users + total) // (2 * total) if total else 0


def pin(rollout: Rollout, total: int, rps_per_user: float | None) -> RolloutPlan:
    """Return what an attempt with *total* users goes by; *rps_per_user* None or 0: not known, nothing is forecast."""
    room_s = milliseconds(rollout.max_dwell - rollout.warm_up) / 1000
    per_user = rps_per_user * room_s if rps_per_user else None
    steps, note, is_small = _steps(rollout, total, per_user)
    return RolloutPlan(
        steps=steps,
        max_dwell_ms=milliseconds(rollout.max_dwell),
        max_error_rate=rollout.max_error_rate,
        max_p95_ms=milliseconds(rollout.max_p95),
        min_success_rate=rollout.min_success_rate,
        on_failure=rollout.on_failure,
        comparison=rollout.comparison,
        auto_promote=rollout.auto_promote,
        scale_down_ms=milliseconds(rollout.scale_down_delay),
        abort_scale_down_ms=milliseconds(rollout.abort_scale_down_delay),
        warm_up_ms=milliseconds(rollout.warm_up),
        window_ms=milliseconds(rollout.window),
        min_samples=min(rollout.min_samples, FEWEST_SAMPLES) if is_small else rollout.min_samples,
        deadline_ms=milliseconds(rollout.deadline),
        note=note,
    )


def is_for_nobody(plan: RolloutPlan | None) -> bool:
    """Say whether *plan* is that of an attempt without users: its one step is not held."""
    return plan is not None and not plan.steps[0].dwell_ms


def fast_back(plan: RolloutPlan) -> RolloutPlan:
    """Return *plan* for the way back to the version before, whose runners stand: one step, not held, not judged."""
    step = PlannedStep(percent=100, dwell_ms=0)
    return plan.model_copy(
        update={"steps": (step,), "note": "back to the version before, whose runners still stand: one step, not held"}
    )


def _steps(rollout: Rollout, total: int, per_user: float | None) -> tuple[tuple[PlannedStep, ...], str, bool]:
    """Return the steps, what was made of those asked for, and whether there are too few samples for any split."""
    asked, last = rollout.steps, rollout.steps[-1]
    if not total:
        return (PlannedStep(percent=100, dwell_ms=0),), "0 users: there is nothing to judge", False
    split = [step for step in asked[:-1] if green_users(total, step.percent) not in (0, total)]
    if per_user is not None and _forecast(total, split[-1:] or [last], per_user) < rollout.min_samples:
        samples = int(_forecast(total, split[-1:] or [last], per_user))
        few = f"{total} users send about {samples} of {rollout.min_samples} requests in maxDwell at most"
        note = f"{few}: one step of 50% from {min(rollout.min_samples, FEWEST_SAMPLES)} requests on, then 100%"
        half = RolloutStep(percent=50, dwell=rollout.dwell, pause=any(step.pause for step in asked[:-1]))
        halves = _joined(rollout, total, (half, last) if total >= 2 and split else (last,), None)[0]
        return halves, note if total >= 2 and split else f"{few}: no split", True
    steps, joined = _joined(rollout, total, asked, per_user)
    return steps, f"joined with the next step: {', '.join(joined)}" if joined else "", False


def _forecast(total: int, steps: Sequence[RolloutStep], per_user: float) -> float:
    return green_users(total, steps[-1].percent) * per_user


def _joined(
    rollout: Rollout, total: int, asked: Sequence[RolloutStep], per_user: float | None
) -> tuple[tuple[PlannedStep, ...], list[str]]:
    """Return the steps that do for themselves, each with the longest dwell and any pause of those joined with it."""
    steps: list[PlannedStep] = []
    joined: list[str] = []
    dwell, pause = 0, False
    for index, step in enumerate(asked):
        dwell = max(dwell, milliseconds(step.dwell if step.dwell is not None else rollout.dwell))
        pause = pause or step.pause
        why = _why_joined(rollout, total, asked[index : index + 2], per_user)
        if why:
            joined.append(f"{step.percent}% ({why})")
            continue
        steps.append(PlannedStep(percent=step.percent, dwell_ms=dwell, pause=pause))
        dwell, pause = 0, False
    return tuple(steps), joined


def _why_joined(rollout: Rollout, total: int, pair: Sequence[RolloutStep], per_user: float | None) -> str:
    """Return why the first of *pair* is joined with the second, "" if it is a step of its own."""
    if len(pair) < 2:
        return ""
    users, following = (green_users(total, step.percent) for step in pair)
    if not users:
        return f"no user of {total}"
    if users == following:
        return f"{users} of {total} users as well"
    samples = None if per_user is None else int(users * per_user)
    if samples is not None and samples < rollout.min_samples:
        return f"about {samples} of {rollout.min_samples} requests in maxDwell"
    return ""
