"""How a rollout of a file would go: its steps in whole users, its least duration, and the limits it is held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self

from trafficsim_api.errors import Problem
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import PlannedStep, RolloutPlan
from trafficsim_api.units import format_duration, format_percentage, milliseconds
from trafficsim_operator.cli.figures import count, counted
from trafficsim_operator.plan.places import max_over
from trafficsim_operator.plan.steps import green_users, pin

__all__ = ["RolloutCourse", "rollout_document", "rollout_lines"]

_WINDOWS: Final = 3
"""Windows with requests that a step needs to pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCourse:
    """The course of a rollout to *runners* of a new version beside as many of the old one, and what policy refuses."""

    spec: TrafficSimulationSpec
    plan: RolloutPlan
    runners: int
    refusals: tuple[Problem, ...]

    @classmethod
    def of(cls, spec: TrafficSimulationSpec, runners: int, refusals: tuple[Problem, ...]) -> Self:
        """Return it before any request was made: nothing is known of how many there will be."""
        return cls(spec=spec, plan=pin(spec.rollout, spec.users, None), runners=runners, refusals=refusals)

    def users(self, step: PlannedStep) -> int:
        """Return how many users the new version has at *step*."""
        return green_users(self.spec.users, step.percent)

    def held_ms(self, step: PlannedStep) -> int:
        """Return how long *step* is held at least: its dwell, and not less than the warm-up and three windows."""
        judged = self.plan.warm_up_ms + _WINDOWS * self.plan.window_ms if self.spec.users else 0
        return max(step.dwell_ms, judged)

    @property
    def least_ms(self) -> int:
        """Return what all steps take at least, without the moves between them and without pauses."""
        return sum(map(self.held_ms, self.plan.steps))

    @property
    def moves(self) -> int:
        """Return in how many moves all users change over: each of at most max(1, ⌊T ÷ 10⌋) of them."""
        total, had = 0, 0
        for step in self.plan.steps:
            total += -(-(self.users(step) - had) // max_over(self.spec.users))
            had = self.users(step)
        return total


def rollout_lines(course: RolloutCourse) -> Iterator[str]:
    """Say how the rollout would go."""
    plan, users = course.plan, course.spec.users
    steps = counted(len(plan.steps), "step")
    yield f"a changed runner gets the users in {steps}, {_ms(course.least_ms)} at least and what the moves take"
    for step in plan.steps:
        then = ", then waits for `trafficsim promote`" if step.pause else ""
        held = f"held {_ms(course.held_ms(step))} at least" if course.held_ms(step) else "not held"
        yield f"{f'{step.percent}%':>4}  {counted(course.users(step), 'user')}, {held}{then}"
    if plan.note:
        yield plan.note
    if users:
        most = max_over(users)
        yield f"{counted(course.moves, 'move')} of at most {most}: {count(users)} to {count(users + most)} users are on"
        yield from _judged(course)
        yield f"{counted(course.runners, 'runner')} beside {course.runners} until {_ms(plan.scale_down_ms)} after it"
    if course.spec.duration and milliseconds(course.spec.duration) <= course.least_ms:
        yield f"not within the run's {format_duration(course.spec.duration)}: it would end with the run"
    for problem in course.refusals:
        yield f"refused by the policy: {problem.reason}"


def _judged(course: RolloutCourse) -> Iterator[str]:
    """Say what each step is judged by, and what becomes of one that fails or can't be decided."""
    plan = course.plan
    limits = (
        f"error_rate ≤ {format_percentage(plan.max_error_rate)}, p95 ≤ {_ms(plan.max_p95_ms)}, "
        f"success ≥ {format_percentage(plan.min_success_rate)}"
    )
    yield f"each held to {limits}, on {count(plan.min_samples)} requests at least"
    first, room_ms = course.users(plan.steps[0]), plan.max_dwell_ms - plan.warm_up_ms
    if len(plan.steps) > 1:
        rate = plan.min_samples * 1000 / (first * room_ms)
        few = f"less than {rate:.2g} requests/s each: too few for it within {_ms(plan.max_dwell_ms)}"
        yield f"{plan.steps[0].percent}% is joined with the next step when its users do {few}"
    fails = "all users go back" if plan.on_failure == "rollback" else "it pauses"
    yield f"a step that fails: {fails}; undecided after {_ms(plan.max_dwell_ms)}: it pauses"
    if plan.comparison == "relative":
        yield "a limit that the old version breaks, too: it pauses, rolling back cannot help"
    if not plan.auto_promote:
        yield "after the last step it waits for `trafficsim promote`"
    if course.spec.rollout.paused:
        yield "it is held from the start: rollout.paused is true"


def rollout_document(course: RolloutCourse) -> Mapping[str, Any]:
    """Return the same as plain values."""
    plan = course.plan
    return {
        "steps": [
            {
                "percent": step.percent, "users": course.users(step), "heldMs": course.held_ms(step),
                "pause": step.pause,
            }
            for step in plan.steps
        ],
        "note": plan.note,
        "leastMs": course.least_ms,
        "moves": course.moves,
        "limits": {
            "errorRate": format_percentage(plan.max_error_rate),
            "p95": _ms(plan.max_p95_ms),
            "success": format_percentage(plan.min_success_rate),
            "minSamples": plan.min_samples,
        },
        "runners": 2 * course.runners,
        "refusals": [{"field": problem.field, "reason": problem.reason} for problem in course.refusals],
    }  # fmt: skip


def _ms(ms: int) -> str:
    return format_duration(timedelta(milliseconds=ms))
