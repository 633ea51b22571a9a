"""One look as the rules see it: inputs, and what was found on the way; and how soon to look again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trafficsim_api.phases import Phase
from trafficsim_api.profile import Shape, shape
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import LastCommand, RolloutStatus, Run, Status
from trafficsim_api.units import milliseconds, parse_instant
from trafficsim_operator.actions import Action
from trafficsim_operator.observed import Desired, Observed, Runner
from trafficsim_operator.plan.acceptance import Accepted, Refused
from trafficsim_operator.plan.assignments import held_by
from trafficsim_operator.plan.barrier import is_open
from trafficsim_operator.plan.lifecycle import Life, start_at
from trafficsim_operator.plan.once import is_at_setup
from trafficsim_operator.plan.places import Deal
from trafficsim_operator.plan.rollout import SETTLED
from trafficsim_operator.plan.scaling import Scaled
from trafficsim_operator.plan.versions import Versions

__all__ = ["ENDED", "IN_MOTION_MS", "ON", "STEADY_MS", "WATCHED_MS", "Look", "figures_are_due", "next_look"]

IN_MOTION_MS: Final = 250
STEADY_MS: Final = 5_000
WATCHED_MS: Final = 1_000
ON: Final = (Phase.PREFLIGHT, Phase.STARTING, Phase.RUNNING, Phase.SUSPENDED, Phase.DRAINING)
ENDED: Final = (Phase.COMPLETED, Phase.FAILED)
# Of a rollout: users are moving, or about to.
_SHIFTS: Final = (RolloutPhase.PREPARING, RolloutPhase.SHIFTING, RolloutPhase.ABORTING, RolloutPhase.SUPERSEDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The inputs of one decision, and what was found on the way."""

    desired: Desired
    observed: Observed
    now_ms: int
    accepted: Accepted
    refused: Refused | None = None
    """Why the newest edit is not acted on; the run goes on by *accepted*, the one before."""
    life: Life
    total: int
    """The T that places are dealt for now."""
    command: LastCommand | None
    versions: Versions
    """The runner versions after this look: pointers, and what each is to have."""
    runners: tuple[Runner, ...]
    """The runners of those versions, and any others that hold places of the run."""
    scaling: Scaled
    """What the load asks of the runners."""
    excess: Mapping[str, frozenset[str]]
    """The names of the runners that are too many, by revision."""

    @property
    def going(self) -> frozenset[str]:
        """Return the names of the runners that are to give their places away and drain now."""
        return frozenset().union(*self.excess.values()) if self.life.phase is Phase.RUNNING else frozenset()

    @property
    def before(self) -> Status:
        """Return the status before this look."""
        return self.desired.status

    @property
    def run(self) -> Run:
        """Return the present run."""
        assert self.life.run is not None
        return self.life.run

    @property
    def profile(self) -> Shape:
        """Return the profile as straight pieces."""
        return shape(self.accepted.spec.profile)

    def reason_of(self, revision: str) -> str:
        """Return in one sentence why the revision has the runners it has."""
        rollout = self.versions.rollout
        if rollout is None or revision == self.versions.stable.revision:
            return self.accepted.sizing.reason
        version = self.scaling.version(revision)
        is_scaled = version is not None and version.wanted > version.static
        return f"rollout {rollout.attempt}" + (f"; {version.message}" if version is not None and is_scaled else "")

    def is_drifted(self, revision: str) -> bool:
        """Say whether the revision's object is not as it was applied."""
        seen = self.observed.revisions.get(revision)
        return seen is not None and seen.drifted

    @property
    def elapsed_ms(self) -> int:
        """Return the ms since the run's origin, -1 while it has none."""
        return self.now_ms - start_at(self.run) if self.run.origin else -1


def figures_are_due(before: Status, now_ms: int, *, is_waited_for: bool) -> bool:
    """Say whether figures are to be told anew: every five seconds, every second while somebody or a rollout waits."""
    at = parse_instant(before.figures.at) if before.figures.at else 0
    return now_ms - at >= (WATCHED_MS if is_waited_for else STEADY_MS)


def next_look(look: Look, dealt: Deal, actions: tuple[Action, ...]) -> int | None:
    """
    Return when to look again: at once while things are in motion, leisurely while nothing is.

    None where only what the watch or the resync shows can change anything: a thousand simulations that are suspended
    are to cost no more than a look each at every resync.
    """
    phase = look.life.phase
    if phase in ENDED:
        return IN_MOTION_MS * 4 if actions else None
    pace = WATCHED_MS if look.observed.watched or look.versions.in_progress else STEADY_MS
    if phase is Phase.SUSPENDED:
        return IN_MOTION_MS if actions else None if _is_at_rest(look) else pace
    if actions or dealt.moving:
        return IN_MOTION_MS
    settled = all(ack.settled for runner in look.runners if (ack := held_by(runner, look.run.id)) is not None)
    if phase is not Phase.RUNNING or dealt.unplaced or not settled:
        # The longer it waits, the less a look more would hurry it.
        waited = look.now_ms - parse_instant(look.run.phase_since)
        return min(pace, max(IN_MOTION_MS, waited // 10)) if phase is not Phase.RUNNING else 2 * IN_MOTION_MS
    rollout = look.versions.rollout
    if rollout is not None:
        pace = min(pace, _of_rollout(look, rollout))
    if is_open(look.run, look.now_ms):
        pace = min(pace, IN_MOTION_MS)
    if look.accepted.spec.duration is not None:
        left = start_at(look.run) + milliseconds(look.accepted.spec.duration) - look.now_ms
        pace = max(IN_MOTION_MS, min(pace, left))
    return pace


def _is_at_rest(look: Look) -> bool:
    """
    Say whether a suspended simulation has no runner, and nobody who looks on or waits for its setup.

    Not at the look that makes it so: what that one put on record is seen, and told in full, at the next.
    """
    before = look.before
    is_told = before.run is not None and (before.phase, before.run.id, before.observed_generation) == (
        Phase.SUSPENDED, look.run.id, look.desired.generation,
    )  # fmt: skip
    is_empty = not any(seen.replicas or seen.runners for seen in look.observed.revisions.values())
    return is_told and is_empty and not look.observed.watched and not is_at_setup(look.run)


def _of_rollout(look: Look, rollout: RolloutStatus) -> int:
    """Return how soon a rollout wants to be looked at: often while users move or runners go, else when they may."""
    if rollout.phase in _SHIFTS and rollout.pause is None:
        return 2 * IN_MOTION_MS
    if rollout.phase is RolloutPhase.PROMOTING or (
        rollout.phase is RolloutPhase.ANALYZING and rollout.settled < SETTLED
    ):
        return IN_MOTION_MS
    if any(not seen.foreign and not look.versions.replicas.get(name) for name, seen in look.observed.revisions.items()):
        return 2 * IN_MOTION_MS
    left = parse_instant(rollout.scale_down_at) - look.now_ms if rollout.scale_down_at is not None else 0
    return max(IN_MOTION_MS, left) if left > 0 else STEADY_MS
