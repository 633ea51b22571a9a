"""A pod's status as a kubelet reports it, from what is known of its one container. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeAlias

from trafficsim_operator.testing.apiserver import Object

_SIGNALLED: Final = 128  # a process ended by signal n has exit code 128 + n


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The container has not started, or not again."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The container's process runs."""

    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """The container's process has ended."""

    exit_code: int
    reason: str
    began: datetime
    ended: datetime


State: TypeAlias = Waiting | Running | Terminated


class Phase(StrEnum):
    """A pod's phase, as the API spells it."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """Everything that a pod's status is made of."""

    state: State = Waiting(reason="ContainerCreating")
    last: Terminated | None = None  # how the run before ended
    restarts: int = 0
    started: bool = False  # past its start-up probe
    ready: bool = False  # what the readiness probe says
    phase: Phase = Phase.PENDING
    address: str = ""
    start_time: datetime | None = None
    run: str = ""  # containerID of the current or last run

    def ended(self, how: Terminated) -> "PodState":
        """Return the state after the container ended."""
        return replace(self, state=how, started=False, ready=False)


def terminated(returncode: int, *, oom: bool, began: datetime, ended: datetime) -> Terminated:
    """Name the end of a process: OOMKilled when its memory group killed somebody, else Completed or Error."""
    code = returncode if returncode >= 0 else _SIGNALLED - returncode
    reason = "OOMKilled" if oom else "Completed" if code == 0 else "Error"
    return Terminated(exit_code=code, reason=reason, began=began, ended=ended)


def restarts_after(policy: str, exit_code: int) -> bool:
    """Say whether restartPolicy wants the container to run again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def render(pod: Object, state: PodState, before: Iterable[Object], *, host_ip: str, now: datetime) -> Object:
    """Return the status document; a condition that did not change keeps its time from *before*."""
    container = pod["spec"]["containers"][0]
    status: Object = {
        "phase": state.phase,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "qosClass": pod.get("status", {}).get("qosClass", "Burstable"),
        "conditions": _conditions(state, before, now),
        "containerStatuses": [_container_status(container, state)],
    }
    if state.address:
        status |= {"podIP": state.address, "podIPs": [{"ip": state.address}]}
    if state.start_time:
        status["startTime"] = timestamp(state.start_time)
    return status


def is_changed(pod: Object, written: Iterable[Object]) -> bool:
    """
    Say whether somebody changed a condition of *pod* since the kubelet wrote it.

    The node controller calls the pods of a node that is away not ready, and leaves it to the kubelet to take that back.
    """
    found = {condition["type"]: condition["status"] for condition in pod.get("status", {}).get("conditions", ())}
    return any(found.get(condition["type"]) != condition["status"] for condition in written)


def timestamp(moment: datetime) -> str:
    """Return *moment* as the API writes times, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _conditions(state: PodState, before: Iterable[Object], now: datetime) -> list[Object]:
    ready = state.ready and isinstance(state.state, Running)
    unready = "PodCompleted" if state.phase is Phase.SUCCEEDED else "ContainersNotReady"
    known = {condition["type"]: condition for condition in before}
    rows = [
        ("PodReadyToStartContainers", bool(state.address), None),
        ("Initialized", True, None),
        ("Ready", ready, unready),
        ("ContainersReady", ready, unready),
        ("PodScheduled", True, None),
    ]
    conditions = []
    for kind, holds, reason in rows:
        status = "True" if holds else "False"
        same = known.get(kind, {}).get("status") == status
        moved = known[kind].get("lastTransitionTime") if same else timestamp(now)
        condition: Object = {"type": kind, "status": status, "lastTransitionTime": moved or timestamp(now)}
        # A strategic merge keeps what is absent: null takes an old reason away.
        condition |= {"reason": None if holds else reason, "message": None}
        conditions.append(condition)
    return conditions


def _container_status(container: Object, state: PodState) -> Object:
    running = isinstance(state.state, Running)
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "" if isinstance(state.state, Waiting) and not state.last else f"process://{container['image']}",
        "containerID": state.run,
        "restartCount": state.restarts,
        "started": running and state.started,
        "ready": running and state.ready,
        "state": _state(state.state, state.run),
        "lastState": {} if state.last is None else _state(state.last, state.run),
    }


def _state(state: State, run: str) -> Object:
    match state:
        case Waiting():
            return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
        case Running():
            return {"running": {"startedAt": timestamp(state.since)}}
        case Terminated():
            times = {"startedAt": timestamp(state.began), "finishedAt": timestamp(state.ended)}
            return {"terminated": {"exitCode": state.exit_code, "reason": state.reason, "containerID": run} | times}
