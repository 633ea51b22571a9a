"""Drift: where a live Deployment differs from what was applied. Pure, over the API's plain values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from trafficsim_api.names import APPLIED_ANNOTATION, FieldManager, Label, hash8
from trafficsim_operator.fleet.scalers import foreign_scaler
from trafficsim_operator.manifests.deployment import HISTORY_LIMIT, STRATEGY, selector

__all__ = ["applied_template", "differs", "fingerprint", "has_additions", "has_other_selector", "is_drifted"]

_OURS: Final = frozenset({FieldManager.OBJECTS.value, FieldManager.SCALE.value})
# What others may not add, since it changes what a runner is: beside it in the pod, inside it, or on its node.
_LISTS: Final = ("containers", "initContainers", "volumes")
_CONTAINER_LISTS: Final = ("env", "volumeMounts", "ports")
_CONTAINER_FIELDS: Final = ("command", "args", "envFrom", "lifecycle", "startupProbe")
_POD_FIELDS: Final = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
_DEPLOYMENT_FIELDS: Final = ("paused", "minReadySeconds")


def applied_template(deployment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the pod template as it was applied; None when the note about it is gone or unreadable."""
    text = (deployment["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION)
    try:
        template = json.loads(text or "")
    except ValueError:
        return None
    return template if isinstance(template, dict) else None


def is_drifted(deployment: Mapping[str, Any], borne: str = "") -> bool:
    """
    Say whether somebody changed what we applied, in *deployment* as the API server gives it.

    A field of ours with another value, or gone, is drift; so is what was added beside or inside a runner. Other fields
    that others added are theirs. Replicas that somebody else set are drift even at the number we want: who holds them
    next time would matter. Those of an autoscaler are not: it would set them again, and both would for ever. *borne* is
    the fingerprint of a Deployment that no repair makes any better.
    """
    if _replicas_taken(deployment):
        return True
    template, spec = applied_template(deployment), deployment["spec"]
    found = (
        template is None
        or differs(template, spec["template"])
        or differs({"strategy": STRATEGY, "revisionHistoryLimit": HISTORY_LIMIT}, spec)
        or has_additions(deployment)
        or has_other_selector(deployment)
    )
    return found and fingerprint(deployment) != borne


def has_additions(deployment: Mapping[str, Any]) -> bool:
    """
    Say whether others added what applying our part again leaves there: containers, variables, a command, a pause.

    Of an unreadable note nothing is known: then everything that may have been added counts.
    """
    spec = deployment["spec"]
    template = applied_template(deployment)
    if template is None or any(spec.get(name) for name in _DEPLOYMENT_FIELDS):
        return True
    applied, live = template.get("spec") or {}, spec["template"].get("spec") or {}
    if _more(_LISTS, applied, live) or _added(_POD_FIELDS, applied, live):
        return True
    ours = {container.get("name"): container for container in applied.get("containers") or ()}
    return any(
        _more(_CONTAINER_LISTS, ours[item["name"]], item) or _added(_CONTAINER_FIELDS, ours[item["name"]], item)
        for item in live.get("containers") or ()
    )


def has_other_selector(deployment: Mapping[str, Any]) -> bool:
    """Say whether *deployment* selects other pods than ours, which only making it anew can mend."""
    labels = deployment["metadata"].get("labels") or {}
    ours = selector(labels.get(Label.SIMULATION_UID, ""), labels.get(Label.REVISION, ""))
    return bool(deployment["spec"].get("selector") != ours)


def fingerprint(deployment: Mapping[str, Any]) -> str:
    """Return what stays the same while nobody changes the Deployment, its replicas left out."""
    note = (deployment["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION)
    return hash8(note, {key: value for key, value in deployment["spec"].items() if key != "replicas"})


def differs(applied: Any, live: Any) -> bool:
    """
    Say whether something in *applied* is otherwise in *live*.

    Lists whose items have names (containers, env, volumes) are compared by name, other lists as a whole.
    """
    if applied == live:  # most of it is, and what the API server filled in stands in few places
        return False
    match applied:
        case Mapping():
            return not isinstance(live, Mapping) or any(differs(value, live.get(key)) for key, value in applied.items())
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


def _more(lists: tuple[str, ...], applied: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Say whether one of *lists* has a name in *live* that it has not, or less often, in *applied*."""

    def named(owner: Mapping[str, Any], field: str) -> Counter[str]:
        return Counter(str(item.get("name")) for item in owner.get(field) or ())

    return any(named(live, field) - named(applied, field) for field in lists)


def _added(fields: tuple[str, ...], applied: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    return any(live.get(field) and not applied.get(field) for field in fields)


def _replicas_taken(deployment: Mapping[str, Any]) -> bool:
    """Say whether spec.replicas is held, but neither by us nor by an autoscaler."""
    if foreign_scaler(deployment, "replicas"):
        return False
    holders = {
        entry.get("manager")
        for entry in deployment["metadata"].get("managedFields") or ()
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }
    return bool(holders) and not holders & _OURS
