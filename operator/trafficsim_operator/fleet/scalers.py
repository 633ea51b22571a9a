"""
Who else scales: an autoscaler's mark in an object's managedFields. Pure, over the API's plain values.

Autoscalers write through the subresource `scale`. So does `kubectl scale`, but that is a person's hand: replicas are
put right after it, users are taken as asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trafficsim_api.names import FieldManager

__all__ = ["foreign_scaler"]

_OURS: Final = frozenset(manager.value for manager in FieldManager)
_PERSON: Final = "kubectl"
_SUBRESOURCE: Final = "scale"
_NAMES: Final = 128


def foreign_scaler(live: Mapping[str, Any], field: str) -> str:
    """
    Return under which name *field* of the spec of *live* was set through `scale`, "" where we or a person set it.

    Subtle: the API server does not say when: entries of the subresource carry no time.
    """
    entries = (live.get("metadata") or {}).get("managedFields")
    found = {
        str(entry.get("manager"))
        for entry in (entries if isinstance(entries, list) else ())
        # A local run's document is a file, in which anything may stand.
        if isinstance(entry, Mapping) and _scales(entry, field)
    }
    return ", ".join(sorted(found))[:_NAMES]


def _scales(entry: Mapping[str, Any], field: str) -> bool:
    manager, fields = str(entry.get("manager")), entry.get("fieldsV1")
    spec = fields.get("f:spec") if isinstance(fields, Mapping) else None
    is_other = manager not in _OURS and not manager.startswith(_PERSON)
    return is_other and entry.get("subresource") == _SUBRESOURCE and isinstance(spec, Mapping) and f"f:{field}" in spec
