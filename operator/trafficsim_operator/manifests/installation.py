"""
The objects of an installation without Helm: those of the chart, for another namespace and with other images.

They are rendered once, with the release, and lie beside this module; what differs is put in its place object by object,
so that a name which reads like the namespace is not mistaken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from trafficsim_api.crd import crd
from trafficsim_operator.manifests.text import as_yaml, read_documents
from trafficsim_operator.plan.policy import repository_of

__all__ = ["NAMESPACE", "RUNNER_VARIABLE", "SCOPES", "Wanted", "installation"]

NAMESPACE: Final = "trafficsim"
SCOPES: Final[Mapping[bool, str]] = {False: "install.yaml", True: "install-namespaced.yaml"}
"""The file by whether a Role is all there is."""
RUNNER_VARIABLE: Final = "TRAFFICSIM_RUNNER_IMAGE"
"""Where the operator's container names the runners' image."""
_BY_NAME: Final = "kubernetes.io/metadata.name"
_SERVED: Final = "TRAFFICSIM_NAMESPACES"
_POLICY: Final = "policy.yaml"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    What is to be installed: the operator in *namespace*, of *image*, with runners of *runner_image* ("": as released).

    *role_only*: it serves that namespace alone, and nothing of it belongs to the whole cluster. *policy* is the text of
    the policy document ("": as released, with the repository of *runner_image*).
    """

    namespace: str = NAMESPACE
    role_only: bool = False
    image: str = ""
    runner_image: str = ""
    policy: str = ""


def installation(wanted: Wanted) -> tuple[Object, ...]:
    """Return the objects, in the order in which they can be applied."""
    found = read_documents(Path(__file__).with_name(SCOPES[wanted.role_only]).read_text(encoding="utf-8"))
    objects = [_with_choices(_moved(one, wanted.namespace), wanted) for one in found]
    return (*(() if wanted.role_only else (_namespace(wanted.namespace), crd())), *objects)


def _namespace(name: str) -> Object:
    """Return the namespace; what is installed is good for the restricted Pod Security Standard, and so are runners."""
    restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}}


def _moved(node: Any, namespace: str) -> Any:
    """Return *node* with *namespace* wherever the one it was rendered for is meant as such."""
    if isinstance(node, list):
        return [_moved(item, namespace) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _moved(value, namespace) for key, value in node.items()}
    for key in ("namespace", _BY_NAME):
        if found.get(key) == NAMESPACE:
            found[key] = namespace
    if found.get("key") == _BY_NAME:
        found["values"] = [namespace if value == NAMESPACE else value for value in found["values"]]
    if found.get("name") == _SERVED:
        found["value"] = namespace
    return found


def _with_choices(found: Object, wanted: Wanted) -> Object:
    """Return *found* with the images, the operator's and the runners', and a policy that allows the latter."""
    if found["kind"] == "Deployment":
        for container in found["spec"]["template"]["spec"]["containers"]:
            container["image"] = wanted.image or container["image"]
            for variable in container["env"]:
                if variable["name"] == RUNNER_VARIABLE:
                    variable["value"] = wanted.runner_image or variable["value"]
    elif found["kind"] == "ConfigMap" and wanted.policy:
        found["data"][_POLICY] = wanted.policy
    elif found["kind"] == "ConfigMap" and wanted.runner_image:
        policy = yaml.safe_load(found["data"][_POLICY])
        found["data"][_POLICY] = as_yaml(policy | {"images": [repository_of(wanted.runner_image)]})
    return found
