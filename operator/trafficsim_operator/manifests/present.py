"""What is there before an installation: what of it stays as it is, and what forbids to write at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from trafficsim_operator.manifests.installation import RUNNER_VARIABLE, Wanted

__all__ = ["LOOKED_AT", "Present", "in_the_way", "kept", "settled"]

Object = dict[str, Any]
Present = Mapping[tuple[str, str], Object]
"""Objects in the cluster by kind and name."""

LOOKED_AT: Final = frozenset(
    {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Deployment", "ConfigMap"}
)
"""Kinds of objects that are another's, or hold what a user has set."""

_RELEASE: Final = "meta.helm.sh/release-name"
_RELEASE_NAMESPACE: Final = "meta.helm.sh/release-namespace"


def in_the_way(present: Present, namespace: str) -> str:
    """
    Return why nothing may be written for an operator in *namespace*; "": nothing is in the way.

    Objects of the whole cluster have one name, wherever the operator is: to apply them for this one would take the
    rights away from one in another namespace.
    """
    for (kind, name), found in present.items():
        annotations = found["metadata"].get("annotations") or {}
        if release := annotations.get(_RELEASE):
            where = annotations.get(_RELEASE_NAMESPACE, namespace)
            return (
                f"the {kind} {name} belongs to Helm's release {release} in namespace {where}: helm upgrade it. If that "
                f"release is gone: kubectl annotate {kind.lower()} {name} {_RELEASE}- {_RELEASE_NAMESPACE}-"
            )
        for subject in found.get("subjects") or ():
            if subject.get("namespace", namespace) != namespace:
                return (
                    f"the {kind} {name} is that of the operator in namespace {subject['namespace']}, which would lose "
                    f"its rights: remove it first, or install here with --role-only"
                )
    return ""


def kept(present: Present, wanted: Wanted) -> tuple[frozenset[tuple[str, str]], list[str]]:
    """Return which objects are not to be written, by kind and name, and in words what stays as it is."""
    staying = frozenset(
        key for key in present if key[0] == "Namespace" or (key[0] == "ConfigMap" and not wanted.policy)
    )
    told = [
        f"{kind.lower()} {name}, as it is" + (" (--policy FILE writes another)" if kind == "ConfigMap" else "")
        for kind, name in present
        if (kind, name) in staying
    ]
    then = settled(wanted, present)
    told += [
        f"{option} {after}"
        for option, before, after in (
            ("--image", wanted.image, then.image),
            ("--runner-image", wanted.runner_image, then.runner_image),
        )
        if before != after
    ]
    return staying, told


def settled(wanted: Wanted, present: Present) -> Wanted:
    """Return *wanted* with the images of the Deployment that is there, where it names none."""
    for (kind, _), found in present.items():
        if kind == "Deployment":
            return replace(
                wanted, image=wanted.image or _image(found), runner_image=wanted.runner_image or _runner_image(found)
            )
    return wanted


def _containers(deployment: Object) -> list[Object]:
    return [
        container
        for container in deployment.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())
        if container["name"] == "operator"
    ]


def _image(deployment: Object) -> str:
    return next((str(container["image"]) for container in _containers(deployment)), "")


def _runner_image(deployment: Object) -> str:
    variables = [variable for container in _containers(deployment) for variable in container.get("env") or ()]
    return next((str(one.get("value", "")) for one in variables if one["name"] == RUNNER_VARIABLE), "")
