"""The ConfigMaps beside a simulation: the keys its runners trust, totals of ended runners, and what setup saved."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from trafficsim_api import names
from trafficsim_operator.fleet import Owner
from trafficsim_operator.manifests.deployment import owner_reference

__all__ = ["keys_map", "saved_map", "totals_map"]


def keys_map(owner: Owner, keys: Mapping[str, str]) -> dict[str, Any]:
    """Return the ConfigMap with the public *keys* (PEM by key id); runners read each as `<kid>.pem`."""
    return {
        "metadata": _metadata(owner, names.keys_name(owner.name, owner.uid)),
        "data": {f"{kid}.pem": pem for kid, pem in keys.items()},
    }


def totals_map(owner: Owner, totals: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the ConfigMap with the gzipped last answers of ended runners, by runner UID."""
    return {
        "metadata": _metadata(owner, names.totals_name(owner.name, owner.uid)),
        "binaryData": {runner: base64.b64encode(answer).decode() for runner, answer in totals.items()},
    }


def saved_map(owner: Owner, task: str, sealed: str) -> dict[str, Any]:
    """Return the ConfigMap with what the setup *task* saved, *sealed*: only the operator's key opens it."""
    return {"metadata": _metadata(owner, names.saved_name(owner.name, owner.uid)), "data": {task: sealed}}


def _metadata(owner: Owner, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": names.labels(owner.name, uid=owner.uid),
        "ownerReferences": [owner_reference(owner)],
    }
