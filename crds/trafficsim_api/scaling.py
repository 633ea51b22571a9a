"""How users become runners: what a user may say about it, and the reasons for the runners that there are."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from trafficsim_api.model import Model, fault
from trafficsim_api.units import Duration, Percentage

__all__ = ["LONGEST_AHEAD", "SHORTEST_AHEAD", "Scaling", "ScalingReason"]

SHORTEST_AHEAD: Final = timedelta(seconds=15)
LONGEST_AHEAD: Final = timedelta(minutes=10)
_LEAST_TARGET: Final = 1000
_MOST_TARGET: Final = 9500


class ScalingReason(StrEnum):
    """Why a version has as many runners as it has, in a word; the sentence with the numbers stands beside it."""

    STATIC = "StaticSize"
    """What users, tier and capacity ask for: nothing was measured yet, or the measurement asks for no more."""
    LOAD = "MeasuredLoad"
    """What its runners were measured to carry asks for so many."""
    PROFILE = "ProfileAhead"
    """More users are due by the profile before another runner could be ready."""
    FORECAST = "Forecast"
    """The demand has been rising, and will need so many."""
    WITHIN_TOLERANCE = "WithinTolerance"
    """The load fits these runners within a tenth."""
    RATE_LIMITED = "RateLimited"
    """More are needed; they come in steps."""
    STABILIZING = "Stabilizing"
    """Fewer would do; they go step by step, once they have not been needed for 300 s."""
    METRICS_MISSING = "MetricsMissing"
    """Some runner's load is not known: none is taken away."""
    ROLLOUT = "RolloutInProgress"
    """None is taken away while a version is rolled out."""
    MAX_RUNNERS = "MaxRunners"
    """More are needed than maxRunners, or the policy, allows."""
    CONFLICT = "AutoscalerConflict"
    """Somebody else scales these runners: nothing is done."""
    OFF = "Off"
    """minRunners and maxRunners leave no choice."""


class Scaling(Model):
    """How users become runners and processes."""

    min_runners: Annotated[int, Field(ge=1, le=1000)] = 1
    """Never fewer runners than this."""
    max_runners: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Absent: the policy's. As many as minRunners: runners are not scaled by what they measure."""
    users_per_process: Annotated[int, Field(ge=1, le=50_000)] = 1000
    """The most users of one worker process."""
    max_processes: Annotated[int, Field(ge=1, le=64)] = 16
    """The most worker processes of one runner."""
    on_runner_loss: Literal["replace", "end"] = "replace"
    """A runner that is lost is replaced; or the run is ended and judged Inconclusive."""
    target_utilisation: Percentage = 7000
    """How busy runners are to be: of their CPU limit, or the busiest worker of one core. From 10% to 95%."""
    prediction: bool = True
    """Start runners ahead of users that are due by the profile or by a rising demand. False: when they have come."""
    look_ahead: Duration = timedelta(seconds=60)
    """How far ahead a rising demand is forecast where no profile tells it, from 15s to 10m."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_runners is not None and self.min_runners > self.max_runners:
            raise fault("minRunners", "must not be above maxRunners")
        if not _LEAST_TARGET <= self.target_utilisation <= _MOST_TARGET:
            raise fault("targetUtilisation", "from 10% to 95% is needed")
        if not SHORTEST_AHEAD <= self.look_ahead <= LONGEST_AHEAD:
            raise fault("lookAhead", "from 15s to 10m is needed")
        return self
