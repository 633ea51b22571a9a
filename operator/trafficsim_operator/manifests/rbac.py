"""
The rights the operator needs, and no more: no wildcard, no pods/exec, no Secret but its own key, one Lease.

With a Role per namespace instead of the ClusterRole the same rules do; discovery is everybody's right.
"""

from __future__ import annotations

from typing import Any

from trafficsim_api import names
from trafficsim_operator.keys import SECRET
from trafficsim_operator.settings import LEASE

__all__ = ["own_namespace_rules", "simulation_rules"]


def simulation_rules() -> list[dict[str, Any]]:
    """Return the rules for wherever simulations are, as a ClusterRole or a Role per namespace."""
    kinds = names.PLURAL
    return [
        _rule(names.GROUP, [kinds], ["get", "list", "watch"]),
        _rule(names.GROUP, [f"{kinds}/status"], ["patch"]),
        # Where OwnerReferencesPermissionEnforcement is on, blockOwnerDeletion needs this.
        _rule(names.GROUP, [f"{kinds}/finalizers"], ["update"]),
        # A server-side apply that creates is authorised as patch and as create. What others added, an update takes out.
        _rule("apps", ["deployments"], ["get", "list", "watch", "create", "patch", "update", "delete"]),
        _rule("apps", ["replicasets"], ["list"]),
        _rule("", ["pods"], ["get", "list", "watch"]),
        _rule("", ["configmaps"], ["get", "create", "patch"]),
        _rule("", ["services"], ["get"]),
        _rule("discovery.k8s.io", ["endpointslices"], ["list"]),
        _rule("events.k8s.io", ["events"], ["create"]),
    ]


def own_namespace_rules(lease: str = LEASE) -> list[dict[str, Any]]:
    """Return the rules for the operator's own namespace: key and Lease. Creation can't be limited to a name."""
    return [
        _rule("", ["secrets"], ["create"]),
        _rule("", ["secrets"], ["get", "update"]) | {"resourceNames": [SECRET]},
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "update"]) | {"resourceNames": [lease]},
    ]


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}
