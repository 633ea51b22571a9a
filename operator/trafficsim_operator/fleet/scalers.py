"""
Who else scales: an autoscaler's mark in an object's managedFields. Pure, over the API's plain values.

Autoscalers write through the subresource `scale`. So does `kubectl scale`, but that is a person's hand: replicas are
put right after it, users are taken as asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trafficsim_api.names import FieldManager
from trafficsim_api.units import parse_instant
from trafficsim_operator.observed import ForeignScaler

__all__ = ["foreign_scaler"]

_OURS: Final = frozenset(manager.value for manager in FieldManager)
_PERSON: Final = "kubectl"
_SUBRESOURCE: Final = "scale"
_NAME: Final = 128  # a manager's name may be as long at most


def foreign_scaler(live: Mapping[str, Any], field: str) -> ForeignScaler | None:
    """Return who set *field* of the spec of *live* through `scale`: neither we nor a person; the newest of several."""
    entries = (live.get("metadata") or {}).get("managedFields")
    found = [
        ForeignScaler(name=str(entry.get("manager"))[:_NAME], wrote_ms=_instant(entry.get("time")))
        for entry in (entries if isinstance(entries, list) else ())
        # A local run's document is a file, in which anything may stand.
        if isinstance(entry, Mapping) and _scales(entry, field)
    ]
    return max(found, key=lambda scaler: scaler.wrote_ms, default=None)


def _scales(entry: Mapping[str, Any], field: str) -> bool:
    manager, fields = str(entry.get("manager")), entry.get("fieldsV1")
    spec = fields.get("f:spec") if isinstance(fields, Mapping) else None
    is_other = manager not in _OURS and not manager.startswith(_PERSON)
    return is_other and entry.get("subresource") == _SUBRESOURCE and isinstance(spec, Mapping) and f"f:{field}" in spec


def _instant(text: object) -> int:
    """Return when an entry was written last, 0 where it does not say."""
    try:
        return parse_instant(str(text))
    except (TypeError, ValueError):
        return 0
