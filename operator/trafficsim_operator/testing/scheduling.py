"""Which pods fit on a node. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from trafficsim_operator.testing.apiserver import Object
from trafficsim_operator.testing.podspec import quantity, requested

_COUNTED = ("cpu", "memory", "ephemeral-storage")


def why_not(pod: Object, bound: Iterable[Object], capacity: Mapping[str, str], labels: Mapping[str, str]) -> str | None:
    """
    Return why *pod* cannot be bound beside the *bound* ones, in the scheduler's words, or None if it can.

    nodeSelector and the sum of requests count; spread constraints, affinity and priorities do not.
    """
    wanted = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    others = list(bound)
    if "pods" in capacity and len(others) + 1 > quantity(capacity["pods"]):
        return "0/1 nodes are available: 1 Too many pods."
    for resource in _COUNTED:
        if resource not in capacity:
            continue
        used = sum((requested(other, resource) for other in others), Decimal(0))
        if used + requested(pod, resource) > quantity(capacity[resource]):
            return f"0/1 nodes are available: 1 Insufficient {resource}."
    return None
