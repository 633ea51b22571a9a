"""What a pod says about its runner: how it stands, and why it doesn't start. Pure, over the API's plain values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from trafficsim_api.names import Label
from trafficsim_api.protocol import PORT
from trafficsim_operator.manifests.deployment import CONTAINER
from trafficsim_operator.observed import Runner, RunnerState

__all__ = ["cause_of", "end_unseen", "is_lost", "is_node_lost", "replica_failure", "runner_of", "state_of"]

Object = Mapping[str, Any]

# How long after its grace a terminating pod may still be listed before it counts as lost: its node is likely gone.
_OVERDUE: Final = timedelta(seconds=10)
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing", ""})
# What a kubelet gives as the reason of Ready when only a readiness gate is missing.
_GATES: Final = "ReadinessGatesNotReady"


def runner_of(pod: Object) -> Runner:
    """Return the runner in *pod*."""
    meta, status = pod["metadata"], pod.get("status") or {}
    container = _container(pod)
    return Runner(
        name=meta["name"],
        uid=meta["uid"],
        revision=(meta.get("labels") or {}).get(Label.REVISION, ""),
        state=state_of(pod),
        address=_address(status.get("podIP") or ""),
        cause=cause_of(pod),
        restarts=int(container.get("restartCount") or 0),
        started_ms=_milliseconds(meta["creationTimestamp"]),
        placed_ms=_placed_ms(pod),
        killed_ms=_killed_ms(container),
        node_lost=is_node_lost(pod),
        grace_ends_ms=_milliseconds(end) if (end := meta.get("deletionTimestamp")) else 0,
    )


def is_lost(pod: Object, now: datetime) -> bool:
    """
    Say whether the runner is gone for good: its container ended and won't be restarted, or its grace is long over.

    A pod that is being deleted carries the instant at which its grace ends. On a node that is gone nobody takes it
    away; ten seconds later it counts as lost all the same.
    """
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    end = pod["metadata"].get("deletionTimestamp")
    return end is not None and now > _instant(end) + _OVERDUE


def end_unseen(pod: Object) -> bool:
    """
    Say whether nobody saw the runner of a pod that is lost end, so that it may still be at work.

    The node's kubelet says how a container ended. Without its word a pod is only overdue; or it was ended on paper,
    since its node is gone. One whose container never started was never told of a user.
    """
    container = _container(pod)
    state = container.get("state") or {}
    if not (state.get("running") or state.get("terminated") or container.get("lastState")):
        return False
    if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
        return True
    return _condition(pod, "DisruptionTarget").get("reason") == "DeletionByPodGC" and not state.get("terminated")


def is_node_lost(pod: Object) -> bool:
    """
    Say whether the pod's node is not ready, by what is to be seen on the pod: nodes are not ours to read.

    Subtle: the node controller sets the condition Ready of the node's pods to False and touches nothing else. A kubelet
    sets it together with ContainersReady, so that the one without the other is the controller's word; or the kubelet's
    that a readiness gate is closed, which it says.
    """
    if (pod.get("status") or {}).get("reason") == "NodeLost":
        return True
    ready, containers = _condition(pod, "Ready"), _condition(pod, "ContainersReady")
    is_gate = ready.get("reason") == _GATES
    return (ready.get("status"), containers.get("status"), is_gate) == ("False", "True", False)


def state_of(pod: Object) -> RunnerState:
    """
    Return how the runner in *pod* stands.

    Not ready means two things: it has not been ready since its container started (starting), or it was and is no more
    (unready: retired and drained, or failing its probe). The Ready condition changes when a container starts anew, so
    a change *after* the start is one of the second kind.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return RunnerState.LEAVING
    ready = _condition(pod, "Ready")
    if ready.get("status") == "True":
        return RunnerState.READY
    running = (_container(pod).get("state") or {}).get("running")
    if not running or not running.get("startedAt"):
        return RunnerState.STARTING
    changed = ready.get("lastTransitionTime")
    later = changed is not None and _instant(changed) > _instant(running["startedAt"])
    return RunnerState.UNREADY if later else RunnerState.STARTING


def cause_of(pod: Object) -> str:
    """Return why the runner is not at work, as `Reason: message`; "" when it is, or is merely being started."""
    if is_node_lost(pod):
        end = pod["metadata"].get("deletionTimestamp")
        until = f"; it keeps its users until {end}" if end else ""
        return f"NodeNotReady: the node of {pod['metadata']['name']} is not ready{until}"
    container = _container(pod)
    state = container.get("state") or {}
    last = (container.get("lastState") or {}).get("terminated")
    if waiting := state.get("waiting"):
        reason, message = waiting.get("reason") or "", waiting.get("message") or ""
        if last and reason in ("CrashLoopBackOff", ""):
            return _sentence(reason or "Restarting", f"{message} (last end: {_end(last)})".strip())
        if reason not in _STARTING:
            return _sentence(reason, message)
    if terminated := state.get("terminated"):
        return f"Ended: {_end(terminated)}"
    if last and state.get("running") and _condition(pod, "Ready").get("status") != "True":
        return f"Restarted: {_end(last)}"
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _sentence(scheduled.get("reason") or "Unschedulable", scheduled.get("message") or "")
    status = pod.get("status") or {}
    return _sentence(status["reason"], status.get("message") or "") if status.get("reason") else ""


def replica_failure(deployment: Object) -> str:
    """Return why the Deployment's pods can't be made (a quota, a webhook, pod security), "" when they can."""
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return _sentence(condition.get("reason") or "FailedCreate", condition.get("message") or "")
    return ""


def _placed_ms(pod: Object) -> int:
    """Return when the pod got its node, 0 where nobody says so."""
    scheduled = _condition(pod, "PodScheduled")
    at = scheduled.get("lastTransitionTime") if scheduled.get("status") == "True" else None
    return _milliseconds(at) if at else 0


def _killed_ms(container: Object) -> int:
    """
    Return when the container was last killed for want of memory, 0 for never.

    The kernel kills it whole then, the supervisor too: nobody inside is left to count it.
    """
    ends = ((container.get(name) or {}).get("terminated") or {} for name in ("state", "lastState"))
    killed = [end["finishedAt"] for end in ends if end.get("reason") == "OOMKilled" and end.get("finishedAt")]
    return max(map(_milliseconds, killed), default=0)


def _end(terminated: Object) -> str:
    reason = terminated.get("reason") or "Error"
    code = terminated.get("exitCode")
    message = (terminated.get("message") or "").strip().splitlines()
    return f"{reason}, exit code {code}" + (f": {message[-1][:200]}" if message else "")


def _sentence(reason: str, message: str) -> str:
    return f"{reason}: {message[:500]}" if message else reason


def _container(pod: Object) -> Object:
    """Return the runner container's status: a mesh may have put other containers beside it."""
    statuses: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    return next((status for status in statuses if status.get("name") == CONTAINER), {})


def _condition(pod: Object, kind: str) -> Object:
    conditions: list[Object] = (pod.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def _address(ip: str) -> str | None:
    if not ip:
        return None
    return f"[{ip}]:{PORT}" if ":" in ip else f"{ip}:{PORT}"


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _milliseconds(text: str) -> int:
    return int(_instant(text).timestamp() * 1000)
