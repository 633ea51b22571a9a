"""How a new runner version is rolled out: the steps, what each is judged by, and the phases of it."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from trafficsim_api.model import Model, fault
from trafficsim_api.units import FULL, Duration, Percentage

__all__ = ["DEFAULT_STEPS", "PauseReason", "Rollout", "RolloutPhase", "RolloutStep"]


class RolloutPhase(StrEnum):
    """Where the rollout of a runner version stands; a pause is laid over a phase, not one of them."""

    STABLE = "Stable"
    PREPARING = "Preparing"
    SHIFTING = "Shifting"
    ANALYZING = "Analyzing"
    PROMOTING = "Promoting"
    RETIRING = "Retiring"
    ABORTING = "Aborting"
    REJECTED = "Rejected"
    SUPERSEDING = "Superseding"


class PauseReason(StrEnum):
    """Why a rollout is paused; the phase stays, its clock stands."""

    SPEC = "PausedBySpec"
    COMMAND = "PausedByCommand"
    STEP = "PausedAfterStep"
    AWAITING_PROMOTION = "AwaitingPromotion"
    INCONCLUSIVE = "Inconclusive"
    FAILED = "AnalysisFailed"
    """The analysis failed and onFailure is pause."""
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    TARGET_DEGRADED = "TargetDegraded"


class RolloutStep(Model):
    """One step: how many of the users the new version gets."""

    percent: Annotated[int, Field(ge=1, le=100)]
    """Of the users; at least one and not all of them below 100."""
    dwell: Duration | None = None
    """How long it is held at least; absent: the rollout's."""
    pause: bool = False
    """Wait after it for `trafficsim promote`."""


_LEAST: Final = timedelta(seconds=1)
DEFAULT_STEPS: Final = tuple(RolloutStep(percent=percent) for percent in (10, 25, 50, 75, 100))


class Rollout(Model):
    """How users move to a new runner version; pinned when a rollout begins, but for `paused`."""

    steps: Annotated[tuple[RolloutStep, ...], Field(min_length=1, max_length=16)] = DEFAULT_STEPS
    """Rising; the last is 100."""
    dwell: Duration = timedelta(seconds=30)
    """How long a step is held at least."""
    max_dwell: Duration = timedelta(minutes=10)
    """How long a step waits for samples; then the rollout is paused."""
    max_error_rate: Percentage = 500
    """A new version above it is rolled back: failed requests of all."""
    max_p95: Duration = timedelta(seconds=5)
    """A new version above it is rolled back: 95th percentile of the response time."""
    min_success_rate: Percentage = 9500
    """A new version below it is rolled back: checks passed of all."""
    on_failure: Literal["rollback", "pause"] = "rollback"
    """What a step that fails leads to."""
    comparison: Literal["absolute", "relative"] = "absolute"
    """`relative`: a limit that the old version breaks too is the target's fault and pauses the rollout."""
    auto_promote: bool = True
    """False: wait for `trafficsim promote` after the last step."""
    paused: bool = False
    """Hold the rollout where it is."""
    scale_down_delay: Duration = timedelta(seconds=60)
    """How long the old version's runners are kept after the promotion; the way back is fast until then."""
    abort_scale_down_delay: Duration = timedelta(seconds=300)
    """How long a rejected version's runners are kept, without users, for their logs."""
    warm_up: Duration = timedelta(seconds=10)
    """From a step's split on; its numbers don't count."""
    window: Duration = timedelta(seconds=5)
    """Both versions are compared window by window."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Requests of the new version that a step needs to pass."""
    deadline: Duration = timedelta(seconds=300)
    """How long the new version may take to start, and a shift to settle."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        percents = [step.percent for step in self.steps]
        for index, (before, after) in enumerate(pairwise(percents), start=1):
            if after <= before:
                raise fault(f"steps[{index}].percent", f"must be above {before}, the step before")
        if percents[-1] != 100:
            raise fault(f"steps[{len(percents) - 1}].percent", "the last step must be 100")
        for index, step in enumerate(self.steps):
            if step.dwell is not None and step.dwell < _LEAST:
                raise fault(f"steps[{index}].dwell", "at least 1s is needed")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("dwell", "window", "deadline"):
            if getattr(self, name) < _LEAST:
                raise fault(name, "at least 1s is needed")
        for name, share in (("maxErrorRate", self.max_error_rate), ("minSuccessRate", self.min_success_rate)):
            if share > FULL:
                raise fault(name, "at most 100% is possible")
        longest = max([self.dwell, *(step.dwell for step in self.steps if step.dwell is not None)])
        if self.max_dwell < max(longest, self.warm_up + 3 * self.window):
            raise fault("maxDwell", "must be as long as the longest dwell, and as warmUp and three windows")
        return self
