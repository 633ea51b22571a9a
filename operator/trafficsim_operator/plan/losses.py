"""
What is lost with runners, told while the run goes on.

    of a lost runner                 its places · level, from its last account until it was seen lost
    of places no runner has room for   their number · level, for as long as that is so
    level = u(t) ÷ T, by the profile

It is the least that was lost: what planned time was not given at all is known when the run has ended, and then the
larger of the two stands. While places move some are on twice, which would hide in the sum what is missing elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import LostRunner, Run
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.observed import Evidence, Loss

__all__ = ["MOST_TOLD", "ending_loss", "fatal_losses", "fresh_losses", "losses_on", "share_ms", "short_on"]

MOST_TOLD: Final = 8


def fresh_losses(evidence: Evidence, known: int) -> tuple[Loss, ...]:
    """Return the losses that are not among the *known* first ones of the run."""
    fresh = evidence.lost_runners - known
    return evidence.losses[-fresh:] if fresh > 0 else ()


def ending_loss(evidence: Evidence, run: Run, spec: TrafficSimulationSpec) -> str:
    """Return the name of a runner whose loss ends the run: a new one since it began, where the spec says so."""
    if spec.scaling.on_runner_loss != "end" or run.origin is None:
        return ""
    origin_ms = parse_instant(run.origin)
    found = (loss.name for loss in fresh_losses(evidence, run.lost_runners) if loss.at_ms >= origin_ms)
    return next(found, "")


def fatal_losses(run: Run, spec: TrafficSimulationSpec) -> tuple[str, ...]:
    """Return the names of the runners whose loss the spec does not bear with: all since the run began, or none."""
    if spec.scaling.on_runner_loss != "end" or run.origin is None:
        return ()
    return tuple(lost.name for lost in run.lost if parse_instant(lost.at) >= parse_instant(run.origin))


def losses_on(run: Run, evidence: Evidence, spec: TrafficSimulationSpec, *, on: bool) -> Run:
    """Return the run with its newest losses on record, and the user time that went with them while it was *on*."""
    lost_ms, lost = run.lost_user_ms, list(run.lost)
    for loss in fresh_losses(evidence, run.lost_runners):
        lost_ms += share_ms(run, spec, loss.users, loss.since_ms, loss.at_ms) if on else 0
        lost.append(
            LostRunner(
                name=loss.name,
                users=loss.users,
                since=format_instant(loss.since_ms),
                at=format_instant(loss.at_ms),
                end_unseen=loss.end_unseen,
            )
        )
    told = {"lost": _newest(lost), "lost_user_ms": lost_ms, "lost_runners": evidence.lost_runners}
    return run.model_copy(update=told)


def short_on(run: Run, spec: TrafficSimulationSpec, short: int, *, is_told: bool, now_ms: int) -> Run:
    """
    Return the run with *short* places that no runner has room for now; their time is added when that changes.

    It is as well when figures are told anew (*is_told*): what is written then costs no write of its own.
    """
    since = run.short_since
    if since is not None and (short != run.short_users or is_told):
        lost = share_ms(run, spec, run.short_users, parse_instant(since), now_ms)
        run = run.model_copy(update={"lost_user_ms": run.lost_user_ms + lost, "short_since": None})
    if short != run.short_users or (short and run.short_since is None):
        run = run.model_copy(
            update={"short_users": short, "short_since": format_instant(now_ms) if short else None},
        )
    return run


def share_ms(run: Run, spec: TrafficSimulationSpec, users: int, from_ms: int, until_ms: int) -> int:
    """
    Return the user time that *users* of the run's T places had between two instants (wall clock ms).

        ⌊users · ∫ u(t) dt ÷ T⌋     100 of 400 places, 2 s in a hold at 50 %: 100 000 user-ms
    """
    if run.origin is None or run.planned_users <= 0:
        return 0
    origin_ms = parse_instant(run.origin)
    until_ms = min(until_ms, parse_instant(run.end)) if run.end else until_ms
    planned = shape(spec.profile).user_ms(run.planned_users, max(0, from_ms - origin_ms), until_ms - origin_ms)
    return planned * min(users, run.planned_users) // run.planned_users


def _newest(lost: Sequence[LostRunner]) -> tuple[LostRunner, ...]:
    """Return the newest losses; of those whose end nobody saw as many as there is room for, since the verdict asks."""
    if len(lost) <= MOST_TOLD:
        return tuple(lost)
    kept = sorted(range(len(lost)), key=lambda number: (lost[number].end_unseen, number))[-MOST_TOLD:]
    return tuple(lost[number] for number in sorted(kept))
