"""Drift: where a live Deployment differs from what was applied. Pure, over the API's plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from trafficsim_api.names import APPLIED_ANNOTATION, FieldManager

__all__ = ["applied_template", "differs", "is_drifted"]

_OURS: Final = frozenset({FieldManager.OBJECTS.value, FieldManager.SCALE.value})


def applied_template(deployment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the pod template as it was applied; None when the note about it is gone or unreadable."""
    text = (deployment["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION)
    try:
        template = json.loads(text or "")
    except ValueError:
        return None
    return template if isinstance(template, dict) else None


def is_drifted(deployment: Mapping[str, Any]) -> bool:
    """
    Say whether somebody changed what we applied, in *deployment* as the API server gives it.

    Fields that others added are theirs; a field of ours with another value, or gone, is drift; so are replicas that
    somebody else set, even to the number we want: who holds them next time would matter.
    """
    template = applied_template(deployment)
    return template is None or differs(template, deployment["spec"]["template"]) or _replicas_taken(deployment)


def differs(applied: Any, live: Any) -> bool:
    """
    Say whether something in *applied* is otherwise in *live*.

    Lists whose items have names (containers, env, volumes) are compared by name, other lists as a whole.
    """
    match applied:
        case dict():
            return not isinstance(live, dict) or any(differs(value, live.get(key)) for key, value in applied.items())
        case list() if applied and all(isinstance(item, dict) and "name" in item for item in applied):
            named = {item.get("name"): item for item in live or () if isinstance(item, dict)}
            return any(differs(item, named.get(item["name"])) for item in applied)
        case list():
            there = live or []
            return len(applied) != len(there) or any(differs(a, b) for a, b in zip(applied, there, strict=True))
        case "":
            return live not in ("", None)  # the API server leaves an empty value out
        case _:
            return bool(applied != live)


def _replicas_taken(deployment: Mapping[str, Any]) -> bool:
    """Say whether spec.replicas is held, but not by us."""
    holders = {
        entry.get("manager")
        for entry in deployment["metadata"].get("managedFields") or ()
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }
    return bool(holders) and not holders & _OURS
