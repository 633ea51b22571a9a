"""
The Deployment of one runner revision, over `spec.runner` alone: users, processes and flows stay out.

Requests equal limits (a runner's capacity must not depend on its neighbours), the pod is good for the restricted Pod
Security Standard, and everything the runner needs to know comes as environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from trafficsim_api import names
from trafficsim_api.protocol import LAST_READ_S, PORT
from trafficsim_api.template import Runner, Toleration
from trafficsim_operator.fleet import Owner

__all__ = [
    "CONTAINER",
    "DEFAULT_GRACE_S",
    "HISTORY_LIMIT",
    "STRATEGY",
    "deployment",
    "grace_after",
    "owner_reference",
    "selector",
]

CONTAINER: Final = "runner"
KEYS_PATH: Final = "/etc/trafficsim/keys"
STATE_PATH: Final = "/var/run/trafficsim"
# What is left of the grace when the last request has ended: the last account is read, and the processes end.
_AFTER_DRAIN_S: Final = LAST_READ_S + 5
_REQUEST_S: Final = 30
DEFAULT_GRACE_S: Final = _REQUEST_S + _AFTER_DRAIN_S
# A template never changes under its revision. If somebody edits it all the same, no runner goes for it.
STRATEGY: Final[Mapping[str, Any]] = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
}
HISTORY_LIMIT: Final = 1

# A pod on a node that is gone counts as lost after this; Kubernetes' own 300 s would be five minutes without load.
_TOLERATED_S: Final = 30
_AWAY: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def grace_after(request_s: int) -> int:
    """
    Return the seconds from SIGTERM to SIGKILL for requests that may take *request_s*.

        grace = request time-out + 10

    The default time-out of 30 s needs 40 s.
    """
    return request_s + _AFTER_DRAIN_S


def owner_reference(owner: Owner) -> dict[str, Any]:
    """Return the reference that lets the garbage collector delete with the simulation."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def deployment(
    owner: Owner, revision: str, template: Mapping[str, Any], replicas: int, grace_s: int = DEFAULT_GRACE_S
) -> dict[str, Any]:
    """
    Return the Deployment of *revision* with *replicas* runners.

    *template* is the normalised `spec.runner` with its image; *grace_s* the seconds from SIGTERM to SIGKILL.
    """
    pod = _pod_template(owner, revision, Runner.model_validate_json(json.dumps(dict(template))), grace_s)
    return {
        "metadata": {
            "name": names.deployment_name(owner.name, owner.uid, revision),
            "namespace": owner.namespace,
            "labels": names.labels(owner.name, revision, owner.uid),
            "annotations": {names.APPLIED_ANNOTATION: json.dumps(pod, sort_keys=True, separators=(",", ":"))},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": HISTORY_LIMIT,
            "strategy": dict(STRATEGY),
            "selector": selector(owner.uid, revision),
            "template": pod,
        },
    }


def selector(uid: str, revision: str) -> dict[str, Any]:
    """Return what selects the pods of *revision* of the simulation *uid*."""
    return {"matchLabels": {names.Label.SIMULATION_UID.value: uid, names.Label.REVISION.value: revision}}


def _pod_template(owner: Owner, revision: str, runner: Runner, grace_s: int) -> dict[str, Any]:
    labels = {"sidecar.istio.io/inject": "false"} | dict(runner.labels or {})
    annotations = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"} | dict(runner.annotations or {})
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": _tolerations(runner),
        "topologySpreadConstraints": [
            _spread(owner, revision, key) for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "containers": [_container(owner, revision, runner, grace_s)],
        "volumes": [
            {"name": "keys", "configMap": {"name": names.keys_name(owner.name, owner.uid)}},
            {"name": "state", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if runner.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret.name} for secret in runner.image_pull_secrets]
    if runner.service_account_name:
        spec["serviceAccountName"] = runner.service_account_name
    if runner.node_selector:
        spec["nodeSelector"] = dict(runner.node_selector)
    if runner.priority_class_name:
        spec["priorityClassName"] = runner.priority_class_name
    metadata = {"labels": labels | names.labels(owner.name, revision, owner.uid), "annotations": annotations}
    return {"metadata": metadata, "spec": spec}


def _container(owner: Owner, revision: str, runner: Runner, grace_s: int) -> dict[str, Any]:
    amounts = {"cpu": _cpu(runner.resources.cpu), "memory": _memory(runner.resources.memory)}
    return {
        "name": CONTAINER,
        "image": runner.image or "",
        "ports": [{"name": "control", "containerPort": PORT, "protocol": "TCP"}],
        "env": _environment(owner, revision, runner, grace_s),
        "resources": {
            "requests": amounts | {"ephemeral-storage": "256Mi"},
            "limits": amounts | {"ephemeral-storage": "10Gi"},
        },
        "readinessProbe": _probe("/readyz", period=2, failures=1),
        # The supervisor's own answer only: a busy runner is no dead one.
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "keys", "mountPath": KEYS_PATH, "readOnly": True},
            {"name": "state", "mountPath": STATE_PATH},
        ],
    }


def _environment(owner: Owner, revision: str, runner: Runner, grace_s: int) -> list[dict[str, Any]]:
    return [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "TRAFFICSIM_RUNNER_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "TRAFFICSIM_SIMULATION_UID", "value": owner.uid},
        {"name": "TRAFFICSIM_REVISION", "value": revision},
        {"name": "TRAFFICSIM_LISTEN", "value": f":{PORT}"},
        {"name": "TRAFFICSIM_KEYS", "value": KEYS_PATH},
        {"name": "TRAFFICSIM_STATE", "value": STATE_PATH},
        {"name": "TRAFFICSIM_CPU", "valueFrom": _limit("limits.cpu", "1m")},
        {"name": "TRAFFICSIM_MEMORY", "valueFrom": _limit("limits.memory", "1")},
        {"name": "TRAFFICSIM_GRACE", "value": str(max(1, grace_s - _AFTER_DRAIN_S))},
        *({"name": variable.name, "value": variable.value} for variable in runner.env),
    ]


def _limit(resource: str, divisor: str) -> dict[str, Any]:
    return {"resourceFieldRef": {"containerName": CONTAINER, "resource": resource, "divisor": divisor}}


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "control"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _tolerations(runner: Runner) -> list[dict[str, Any]]:
    away = [
        Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=_TOLERATED_S) for key in _AWAY
    ]
    given = {toleration.key for toleration in runner.tolerations}
    chosen = (*runner.tolerations, *(toleration for toleration in away if toleration.key not in given))
    return [toleration.model_dump(mode="json", exclude_none=True) for toleration in chosen]


def _spread(owner: Owner, revision: str, key: str) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector(owner.uid, revision),
    }


def _cpu(millicores: int) -> str:
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def _memory(size: int) -> str:
    for unit, factor in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
