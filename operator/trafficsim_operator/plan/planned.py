"""
Planned user time: what T and the profile asked for, so that what was lost can be said.

    planned = ∫ u(t) dt over the time the run was on; an edit of T, a suspension and the end fold the open piece
"""

from __future__ import annotations

from trafficsim_api.phases import Phase
from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import Run
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.plan.lifecycle import Life, start_at

__all__ = ["plan_on", "planned_user_ms"]


def plan_on(life: Life, before: Run | None, spec: TrafficSimulationSpec, total: int, now_ms: int) -> Run:
    """
    Fold planned user time where T (*total*, as dealt) or the spec changes, or load stops and starts again.

    *before* is the run as it was at the last look, *spec* what was accepted then: the open piece is theirs.

    planned = ∫ u(t) dt of T and profile while running; the open piece begins at *planned_since*.
    """
    after = life.run
    assert after is not None
    running = life.phase is Phase.RUNNING
    since = after.planned_since
    is_edited = before is not None and before.generation != after.generation
    if since is not None and (not running or after.planned_users != total or is_edited):
        after = after.model_copy(
            update={"planned_user_ms": planned_user_ms(before or after, spec, now_ms), "planned_since": None}
        )
        since = None
    if running and since is None:
        at = max(now_ms, start_at(after))
        after = after.model_copy(update={"planned_since": format_instant(at), "planned_users": total})
    return after


def planned_user_ms(run: Run, spec: TrafficSimulationSpec, now_ms: int) -> int:
    """Return the user time planned until *now_ms*, what was folded before included."""
    if run.planned_since is None or run.origin is None:
        return run.planned_user_ms
    origin = parse_instant(run.origin)
    until = min(now_ms, parse_instant(run.end)) if run.end else now_ms
    return run.planned_user_ms + shape(spec.profile).user_ms(
        run.planned_users, parse_instant(run.planned_since) - origin, until - origin
    )
