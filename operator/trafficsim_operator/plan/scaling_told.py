"""What status, conditions and events tell of scaling: the runners wanted and why, forecasts, and who else scales."""

from __future__ import annotations

from collections.abc import Iterator

from trafficsim_api.names import Condition, Event, Reason
from trafficsim_api.status import ScalingStatus, Status, VersionScaling
from trafficsim_operator.actions import Happening
from trafficsim_operator.plan.conditions import Finding
from trafficsim_operator.plan.look import ENDED, Look

__all__ = ["changed", "of_conflict", "scaling_of", "told_of_scaling"]


def scaling_of(look: Look) -> ScalingStatus | None:
    """Return `status.scaling`: while a run is on."""
    return None if look.life.phase in ENDED else look.scaling.status


def of_conflict(look: Look) -> tuple[Finding, ...]:
    """Return AutoscalerConflict, from the first conflict on."""
    known = any(condition.type == Condition.AUTOSCALER_CONFLICT for condition in look.before.conditions)
    conflict, kind = look.scaling.conflict, Condition.AUTOSCALER_CONFLICT
    if not conflict and not known:
        return ()
    reason = Reason.FOREIGN_SCALER if conflict else Reason.NO_CONFLICT
    return (Finding(type=kind, status=bool(conflict), reason=reason, message=conflict),)


def changed(before: ScalingStatus | None, after: ScalingStatus | None) -> Iterator[tuple[VersionScaling, int]]:
    """Yield each version with other runners wanted than before, and how many it had; not what an edit made of it."""
    known = {version.revision: version for version in (before.versions if before is not None else ())}
    for version in after.versions if after is not None else ():
        old = known.get(version.revision)
        if old is None or version.wanted == old.wanted:
            continue
        if old.wanted != old.static or version.wanted != version.static:
            yield version, old.wanted


def told_of_scaling(look: Look, status: Status) -> Iterator[Happening]:
    """Yield an event for each change of the runners wanted, of the forecast's standing, and for another scaler."""
    before, after = look.before.scaling, status.scaling
    for version, had in changed(before, after):
        reason = Event.SCALED_UP if version.wanted > had else Event.SCALED_DOWN
        text = f"revision {version.revision} from {had} to {_runners(version.wanted)}: {version.message}"
        yield Happening(reason=reason, message=text)
    if before is not None and after is not None and before.forecast.off is not after.forecast.off:
        mean = f"forecasts were {after.forecast.error} % off on the average"
        if after.forecast.off:
            yield Happening(reason=Event.FORECAST_OFF, message=f"{mean}: nothing is done by them until below 30 %")
        else:
            yield Happening(reason=Event.FORECAST_ON, message=f"{mean}: they count again")
    conflict = look.scaling.conflict
    said = (c.message for c in look.before.conditions if c.type == Condition.AUTOSCALER_CONFLICT and c.status == "True")
    # Subtle: a condition's message is cut where the status would grow too large.
    if conflict and not any(message and conflict.startswith(message) for message in said):
        yield Happening(reason=Event.AUTOSCALER_CONFLICT, message=conflict, warning=True)


def _runners(count: int) -> str:
    return f"{count} {'runner' if count == 1 else 'runners'}"
