"""What a look brings for the rollout: one version as seen, and everything a step is decided by. Plain facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trafficsim_api.status import RolloutPlan

if TYPE_CHECKING:
    from trafficsim_operator.plan.analysis import Analysis

__all__ = ["SILENT_MS", "Colour", "Seen"]

SILENT_MS: Final = 10_000
"""From its last answer on: a version that doesn't answer so long is silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """One version as seen."""

    held: int = 0
    """Places its runners hold by acknowledgement; those that can't be reached keep theirs."""
    active: int = 0
    """Acknowledged active users."""
    runners: int = 0
    """Alive."""
    ready: int = 0
    """Ready, answering, workers up, the target reachable, and of the right revision."""
    settled: bool = True
    silent_ms: int = 0
    """For how long none of its runners with users has answered, 0: they answer."""
    cause: str = ""
    """Why it doesn't get on: the pods' cause, or the runner's problem."""
    crashed: bool = False
    """The cause is one that won't mend itself: a crash, an image that can't be had."""
    gone: bool = False
    """Nothing of it runs."""

    @property
    def is_silent(self) -> bool:
        """Say whether it counts as silent."""
        return self.silent_ms >= SILENT_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a step of the rollout is decided by. Revisions are "" where there is none; times in ms."""

    now_ms: int
    run_ms: int
    """Since the run's origin."""
    total: int
    """T: places dealt."""
    on: bool
    """The simulation is Running."""
    suspended: bool = False
    ended: bool = False
    """It is Draining, Completed or Failed."""
    stable: str
    candidate: str = ""
    """What is rolled out or was rejected last."""
    previous: str = ""
    wanted: str
    """What the accepted document asks for."""
    plan: RolloutPlan | None = None
    """`spec.rollout` pinned, for an attempt that begins now."""
    paused: bool = False
    """`spec.rollout.paused`."""
    command: str = ""
    """The command that was accepted at this look."""
    blue: Colour = Colour()
    green: Colour = Colour(gone=True)
    old: Colour = Colour(gone=True)
    """Of *previous*, after a promotion."""
    needed: int = 1
    """Runners that green needs for the present step."""
    analysis: Analysis | None = None
    """Of the present step, None when it was not asked for."""
    attended_ms: int | None = None
    """For how long looks have followed one another without a break; None: ever since."""
    disturbed: bool = False
    """Load, limits or target were edited since the last look: windows are void."""
