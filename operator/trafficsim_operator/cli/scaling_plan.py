"""How the runners of a file would follow the load: from how many to how many, how fast, and how far ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from trafficsim_api.profile import Shape, shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.units import format_duration, format_percentage
from trafficsim_operator.cli.figures import count, counted
from trafficsim_operator.plan.autoscale import ahead_ms
from trafficsim_operator.plan.sizing import Sizing

__all__ = ["planned_scaling_lines", "scaling_document"]


def planned_scaling_lines(spec: TrafficSimulationSpec, sizing: Sizing) -> Iterator[str]:
    """Say what the runners of *spec* would follow; *sizing* is where they begin."""
    scaling, most = spec.scaling, sizing.max_runners
    if not sizing.runners:
        yield "0 users need no runner"
        return
    if most is not None and most <= sizing.runners:
        yield f"off: {counted(sizing.runners, 'runner')} at least, {counted(most, 'runner')} at most"
        return
    who = "scaling.maxRunners" if most == scaling.max_runners else "the policy"
    upper = "without a limit" if most is None else f"at most {count(most)} ({who})"
    yield f"{counted(sizing.runners, 'runner')} at first and at least, {upper}"
    target = format_percentage(scaling.target_utilisation)
    yield f"as many as keep them {target} busy: users a runner carries so are measured in the run, never above capacity"
    yield "up at once, by as many again or 4 in 15s; down after 5m without need, by 1 or a tenth a minute"
    yield _ahead(spec)


def _ahead(spec: TrafficSimulationSpec) -> str:
    """Say how far ahead runners are started."""
    if not spec.scaling.prediction:
        return "no prediction: runners are started for users that have come"
    if spec.arrivals is not None:
        return f"a demand that keeps rising is forecast {format_duration(spec.scaling.look_ahead)} ahead"
    until_ms = ahead_ms(None)
    within = format_duration(timedelta(milliseconds=until_ms))
    rise = steepest(shape(spec.profile), spec.users, until_ms)
    return f"ahead of the profile, which rises by at most {counted(rise, 'user')} in {within}: a start-up time and 15s"


def steepest(profile: Shape, users: int, within_ms: int) -> int:
    """
    Return by how many users *profile* rises within *within_ms* at most, from where one of its pieces begins or ends.

    400 users ramping to 100 % over 90 s rise by 200 in 45 s.
    """
    begins = {at for piece in profile.segments for at in (piece.begin_ms, piece.begin_ms + piece.length_ms)}
    starts = begins | {max(0, at - within_ms) for at in begins}
    rises = (profile.peak(users, at, at + within_ms) - profile.users_at(users, at) for at in starts)
    return max(rises, default=0)


def scaling_document(spec: TrafficSimulationSpec, sizing: Sizing) -> Mapping[str, Any]:
    """Return the same for machines."""
    scaling = spec.scaling
    return {
        "leastRunners": sizing.runners,
        "mostRunners": sizing.max_runners,
        "targetUtilisation": format_percentage(scaling.target_utilisation),
        "usersPerRunner": None,  # measured in the run
        "prediction": scaling.prediction,
        "aheadMs": ahead_ms(None),
    }
