"""
The invariants of a rollout, asserted at every look of a history. A history that breaks one says its seed and look.

| | |
|---|---|
| I1 | no place that was on goes off, but by a loss, an edit of users, a suspension or the end |
| I2 | a look never lets more than c places be on twice; in calm at most T + c users are on at all |
| I3 | a step is judged only while the split is exactly the step's, and at rest every place is held once |
| I4 | places go to ready runners with room, of a version that may have users; runners go when their users have left |
| I5 | the epoch on record never falls and every assignment is by it; no epoch says two things |
| I6 | the way back goes on whatever green, its numbers or a pause say |
| I7, I12 | a step passes by a Pass, its dwell over, with three whole windows since the split was last disturbed |
| I8 | one verdict for a version and attempt |
| I9 | a look changes neither what the user asked for nor the command |
| I10 | users and runners of all versions come of one look's one decision |
| I11 | an attempt goes by one plan |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from trafficsim_api.names import Reason
from trafficsim_api.places import Places
from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.status import RolloutPlan, RolloutStatus
from trafficsim_operator.observed import RunnerState
from trafficsim_operator.plan.analysis import Outcome
from trafficsim_operator.plan.places import max_over
from trafficsim_operator.plan.rolling import SILENT_MS
from trafficsim_operator.plan.rollout import TRANSITIONS
from trafficsim_operator.testing.histories.operator import Look
from trafficsim_operator.testing.histories.runners import LightFleet, LightRunner, bits

__all__ = ["Checks", "green_of"]

_P = RolloutPhase
_SPLIT: Final = (_P.SHIFTING, _P.ANALYZING)
_BACK: Final = (_P.ABORTING, _P.SUPERSEDING)
_ATTEMPT: Final = (_P.PREPARING, *_SPLIT, *_BACK)
_UNJUDGED: Final = ("promote", "promote-full", "skip-step")
_CALM_LOOKS: Final = 20
_WINDOWS: Final = 3


def green_of(total: int, percent: int) -> int:
    """Return the users of the new version at *percent*, by the rule alone: half a user rounds up; no side is empty."""
    users = (2 * total * percent + 100) // 200
    return max(1, min(total - 1, users)) if 0 < percent < 100 and total >= 2 else users


def _is_for_nobody(plan: RolloutPlan) -> bool:
    # An attempt that began without users is planned anew when the first come.
    return [(step.percent, step.dwell_ms) for step in plan.steps] == [(100, 0)]


@dataclass(slots=True)
class Checks:
    """What has to be remembered from look to look to tell whether an invariant holds."""

    excused: int = 0
    """Places that are off by no fault of the rollout."""
    calm: int = 0
    """Looks since anything happened that may let more be on than a move."""
    plans: dict[int, RolloutPlan] = field(default_factory=dict)
    verdicts: dict[tuple[str, int], str] = field(default_factory=dict)
    judged_ms: int = 0
    """For how long the present step has been held, by the looks on record."""
    disturbed_ms: int = -1
    """Run time of the last look at which the split was not the step's."""
    entered_ms: int = 0
    is_kept: bool = False
    """The runners of the version that was rejected or replaced last are to be kept for a while."""
    last_ms: int = 0

    # Between looks.

    def excuse(self, places: int) -> None:
        """Let *places* (bits) be off until they are on again."""
        self.excused |= places

    def world(self, fleet: LightFleet, total: int, *, hasty: bool) -> None:
        """Check the floor, and in calm the ceiling, of what is on now."""
        on = may = 0
        for runner in fleet.runners.values():
            on |= runner.on
            may += runner.may.bit_count()
        missing = ((1 << total) - 1) & ~on
        self.excused &= missing
        lost = missing & ~self.excused
        assert not lost, f"I1: {lost.bit_count()} of {total} users went off"
        if self.calm >= _CALM_LOOKS and not hasty:
            assert may <= total + max_over(total), f"I2: {may} users may be on, {total} + {max_over(total)} at most"

    # At a look.

    def look(self, look: Look, fleet: LightFleet, now_ms: int) -> None:
        """Check one decision before anything comes of it."""
        self._split(look, self._unheard(look, fleet))
        self._gains(look)
        self._epochs(look)
        self._machine(look, now_ms)
        self._back(look)
        self._scale_down(look, now_ms)

    @staticmethod
    def _unheard(look: Look, fleet: LightFleet) -> int:
        """Return the places of runners that this operator has never heard, and does not write off."""
        found = 0
        for seen in look.runners:
            told = fleet.runners[seen.name].told
            if seen.acknowledgement is None and told is not None and seen.name not in look.silent:
                found |= bits(told.places)
        return found

    def _split(self, look: Look, unheard: int) -> None:
        total, dealt = look.after.total, look.dealt.places
        assert sum(look.quota.values()) == total, f"I3: quotas {look.quota} of {total} users"
        rollout = look.after.rollout
        green = look.after.candidate.revision if look.after.candidate is not None else ""
        wanted = 0
        if rollout.phase in _SPLIT:
            assert rollout.plan is not None
            wanted = green_of(total, rollout.plan.steps[rollout.step].percent)
        assert look.quota.get(green, 0) == wanted, f"I3: {look.quota} in {rollout.phase}, green is to have {wanted}"
        if rollout.phase in _SPLIT:
            assert rollout.wanted == wanted, "I5: what the split goes by is not what is on record"
        held = [(holder, bits(holder.held.below(total))) for holder in look.holders]
        before = after = union_before = union = 0
        for holder, had in held:
            has = bits(dealt[holder.name]) if holder.name in dealt else had
            before, after = before + had.bit_count(), after + has.bit_count()
            union_before, union = union_before | had, union | has
        assert not union_before & ~union, "I1: places that were held are dealt to nobody"
        assert not union & ~union_before & unheard, "I2: places are dealt that a runner not heard yet may hold"
        most = look.chunk if look.chunk is not None else max_over(total)
        twice, was = after - union.bit_count(), before - union_before.bit_count()
        assert twice <= max(was, most), f"I2: {twice} places are on twice, {was} were, {most} may"

    def _gains(self, look: Look) -> None:
        by_name = {runner.name: runner for runner in look.runners}
        for holder in look.holders:
            new = look.dealt.places.get(holder.name)
            if new is None or not bits(new) & ~bits(holder.held):
                continue
            runner = by_name[holder.name]
            is_ready = runner.answered and runner.state is RunnerState.READY
            assert is_ready, f"I4: {holder.name} is {runner.state} and gets users"
            assert holder.capacity is not None
            assert len(new) <= holder.capacity, f"I4: {holder.name} gets {len(new)} of {holder.capacity} places"
            assert holder.name not in look.going, f"I4: {holder.name} is to go and gets users"
            assert look.quota.get(runner.revision), (
                f"I4: {runner.revision} is to have no users and {holder.name} gets some"
            )

    def _epochs(self, look: Look) -> None:
        assert look.after.epoch >= look.before.epoch, "I5: the epoch falls"
        known = max((r.acknowledgement.epoch for r in look.runners if r.acknowledgement is not None), default=0)
        for name, told in look.acts.told.items():
            assert look.before.epoch < told.epoch == look.after.epoch, f"I5: {name} is told by epoch {told.epoch}"
            assert told.epoch > known, "I5: a runner knows of a later epoch"
        for name in look.acts.told.keys() & set(look.acts.removed):
            told = look.acts.told[name]
            assert told.retire and not told.places, f"I10: {name} is told to go on and taken away at once"

    def _machine(self, look: Look, now_ms: int) -> None:
        before, after, seen = look.before.rollout, look.after.rollout, look.seen
        if after.phase is not before.phase:
            near = TRANSITIONS[before.phase]
            is_way = after.phase in near or any(after.phase in TRANSITIONS[phase] for phase in near)
            assert is_way, f"there is no way from {before.phase} to {after.phase}"
        if after.attempt != before.attempt:
            assert after.attempt == before.attempt + 1 and after.phase is _P.PREPARING, "I8: attempts count by one"
            again = before.rejected and seen.wanted == before.rejected
            assert not again or look.action == "retry", f"I8: {seen.wanted} was rejected and is tried again"
            self.disturbed_ms = -1
        if after.phase in _ATTEMPT:
            assert after.plan is not None
            kept = self.plans.get(after.attempt, after.plan)
            assert kept == after.plan or _is_for_nobody(kept), f"I11: attempt {after.attempt} goes by another plan"
        if self._passes(before, after):
            self._may_pass(look, now_ms)
        if after.pause is not None:
            assert after.message and after.paused_at, f"{after.pause} without a word of why"
        if look.action == "abort":
            assert after.phase in (*_BACK, _P.REJECTED, _P.STABLE), "I6: abort is not done at once"

    @staticmethod
    def _passes(before: RolloutStatus, after: RolloutStatus) -> bool:
        if before.phase is not _P.ANALYZING or after.attempt != before.attempt or before.passed:
            return False
        goes_on = after.phase is _P.PROMOTING or (after.phase is _P.SHIFTING and after.step > before.step)
        return goes_on or after.passed or after.pause in (PauseReason.STEP, PauseReason.AWAITING_PROMOTION)

    def _may_pass(self, look: Look, now_ms: int) -> None:
        before, seen = look.before.rollout, look.seen
        assert before.plan is not None
        step = before.plan.steps[before.step]
        users = green_of(seen.total, step.percent)
        if look.action in _UNJUDGED or before.fast or (not users and (seen.total or not step.dwell_ms)):
            return  # told so, on the way back, or a step that is none because no user is left for it
        passed = seen.analysis is not None and seen.analysis.outcome is Outcome.PASS
        assert passed, f"I7: step {before.step} passes by {seen.analysis}"
        judged = self.judged_ms + now_ms - self.last_ms
        assert judged >= step.dwell_ms, f"I12: step {before.step} passes after {judged} of {step.dwell_ms} ms"
        assert before.windows_from_ms is not None
        windows = (seen.run_ms - before.windows_from_ms) // before.plan.window_ms
        assert windows >= _WINDOWS, f"I12: passes on {windows} windows"
        assert before.windows_from_ms >= self.disturbed_ms, (
            f"I12: windows from {before.windows_from_ms} ms on, the split was disturbed at {self.disturbed_ms} ms"
        )

    def _back(self, look: Look) -> None:
        rollout, seen = look.after.rollout, look.seen
        if rollout.phase not in _BACK:
            return
        assert rollout.pause is None, "I6: a pause holds up the way back"
        if not seen.on or look.unknown:
            return
        blue = [holder for holder in look.holders if holder.colour == seen.stable]
        held = sum(len(holder.held.below(seen.total)) for holder in blue)
        dealt = sum(len(look.dealt.places.get(h.name, h.held.below(seen.total))) for h in blue)
        room = sum(max(0, (h.capacity or 0) - len(h.held)) for h in blue if h.takes and not h.retiring)
        lacks = min(seen.total - held, room)
        others = [holder for holder in look.holders if holder.colour != seen.stable]
        if lacks <= 0:
            return
        if all(h.answers and h.settled for h in blue) and all(h.answers for h in others):
            # Subtle: what two of blue's held is dropped by one of them at the look at which others come.
            had = Places.union(holder.held.below(seen.total) for holder in blue)
            has = Places.union(look.dealt.places.get(h.name, h.held.below(seen.total)) for h in blue)
            assert len(has) > len(had), f"I6: blue has {len(had)} of {seen.total} users, room for {room}, and gets none"
        if seen.green.silent_ms >= SILENT_MS and not any(h.held for h in others):
            assert dealt - held == lacks, f"I6: green is silent and blue gets {dealt - held} of {lacks} users"

    def _scale_down(self, look: Look, now_ms: int) -> None:
        rollout, after, seen = look.after.rollout, look.after, look.seen
        gone = {r.revision for r in look.runners if r.name in look.acts.removed} | set(look.acts.dropped)
        if rollout.phase in _ATTEMPT and seen.on:
            kept = {after.stable.revision, after.candidate.revision if after.candidate is not None else ""}
            assert not gone & kept, f"I4: {gone} is made smaller in {rollout.phase}"
        if rollout.phase is not look.before.rollout.phase and rollout.phase in (_P.RETIRING, _P.REJECTED):
            self.entered_ms = now_ms
            self.is_kept = rollout.phase is _P.RETIRING or (
                look.before.rollout.phase is _P.ABORTING and (not seen.green.held or seen.green.gone) and not seen.ended
            )
        if rollout.plan is None or not self.is_kept or not seen.on:
            return
        for phase, version, keeps in (
            (_P.RETIRING, after.previous, rollout.plan.scale_down_ms),
            (_P.REJECTED, after.candidate, rollout.plan.abort_scale_down_ms),
        ):
            if rollout.phase is phase and version is not None and version.revision in gone:
                waited = now_ms - self.entered_ms
                assert waited >= keeps, f"I4: {version.revision} goes after {waited} of {keeps} ms in {phase}"

    def removed(self, runner: LightRunner, look: Look) -> None:
        """Check that a runner that is taken away has no users left, or is silent and by all that is known has none."""
        seen = next(seen for seen in look.runners if seen.name == runner.name)
        ack = seen.acknowledgement
        if seen.silent_ms >= SILENT_MS and (look.after.rollout.phase not in _SPLIT or ack is None or not ack.held):
            return
        assert not runner.may, f"I4: {runner.name} is taken away with {runner.may.bit_count()} users"

    # What of a look is on record.

    def recorded(self, look: Look, now_ms: int) -> None:
        """Remember what a look put on record."""
        before, after, seen = look.before.rollout, look.after.rollout, look.seen
        spent, self.last_ms = now_ms - self.last_ms, now_ms
        stays = before.phase is after.phase is _P.ANALYZING and before.step == after.step
        if not stays or before.attempt != after.attempt:
            self.judged_ms = 0
        elif before.pause is None and before.suspended_at is None:
            self.judged_ms += spent
        if after.phase is _P.ANALYZING and not self._is_split(look):
            self.disturbed_ms = seen.run_ms
        if after.plan is not None:
            self.plans[after.attempt] = after.plan
        self._verdict(look)

    def _is_split(self, look: Look) -> bool:
        rollout, seen = look.after.rollout, look.seen
        assert rollout.plan is not None
        users = green_of(seen.total, rollout.plan.steps[rollout.step].percent)
        exact = (seen.green.held, seen.blue.held) == (users, seen.total - users)
        return exact and seen.green.settled and seen.blue.settled and not seen.disturbed

    def _verdict(self, look: Look) -> None:
        before, after = look.before.rollout, look.after.rollout
        if after.phase is before.phase:
            return
        verdict = {_P.PROMOTING: "promoted", _P.REJECTED: "rejected"}.get(after.phase)
        if verdict is None or (after.phase is _P.REJECTED and before.phase is not _P.ABORTING):
            return
        revision = look.after.stable.revision if verdict == "promoted" else after.rejected
        key = revision, after.attempt
        assert key not in self.verdicts, f"I8: {key} was {self.verdicts[key]} and is {verdict} now"
        assert after.reason and after.message, f"{verdict} without a word of why"
        assert verdict != "rejected" or after.reason not in (Reason.WITHDRAWN, Reason.SUPERSEDED), (
            "I8: no verdict was due"
        )
        self.verdicts[key] = verdict
