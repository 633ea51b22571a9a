"""Scaling as people read it: why a version has other runners than its size asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from trafficsim_api.scaling import ScalingReason
from trafficsim_api.status import ScalingStatus, Status, VersionScaling

__all__ = ["scaling_lines"]

# What goes without saying.
_PLAIN: Final = frozenset({ScalingReason.STATIC, ScalingReason.OFF})


def scaling_lines(status: Mapping[str, Any] | Status) -> tuple[str, ...]:
    """Return a sentence for each version whose runners follow their load; none of those that have just their size."""
    scaling = _scaling_of(status)
    versions = scaling.versions if scaling is not None else ()
    told = [version for version in versions if version.reason not in _PLAIN]
    return tuple(_line(version, is_one=len(versions) == 1) for version in told)


def _line(version: VersionScaling, *, is_one: bool) -> str:
    which = "" if is_one else f"{version.revision}: "
    busy = f", {version.utilisation}% busy" if version.utilisation else ""
    return f"{which}{version.wanted} wanted{busy}: {version.message}"


def _scaling_of(status: Mapping[str, Any] | Status) -> ScalingStatus | None:
    """Return `status.scaling`; None where there is none, or a newer operator's that can't be read."""
    if isinstance(status, Status):
        return status.scaling
    found = status.get("scaling")
    try:
        return ScalingStatus.model_validate_json(json.dumps(found)) if found else None
    except ValidationError:
        return None
