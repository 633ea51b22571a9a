"""What a pod says about its runner."""

from datetime import UTC, datetime, timedelta

import pytest

from trafficsim_operator.fleet.pods import (
    cause_of,
    end_unseen,
    is_lost,
    is_node_lost,
    replica_failure,
    runner_of,
    state_of,
)
from trafficsim_operator.observed import RunnerState

T0 = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: int) -> str:
    return (T0 + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def a_pod(*, state=None, last=None, ready="False", ready_at=0, deleted=None, phase="Running", conditions=(), **status):
    container = {"name": "runner", "restartCount": 2, "state": state or {}, "lastState": last or {}}
    meta = {
        "name": "shop-1-abc",
        "uid": "u1",
        "creationTimestamp": at(0),
        "labels": {"trafficsim.io/revision": "r1"},
    } | ({"deletionTimestamp": at(deleted)} if deleted is not None else {})
    ready_condition = {"type": "Ready", "status": ready, "lastTransitionTime": at(ready_at)}
    mesh = {"name": "istio-proxy", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    return {
        "metadata": meta,
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": [ready_condition, *conditions],
            "containerStatuses": [mesh, container],
            **status,
        },
    }


RUNNING = {"running": {"startedAt": at(5)}}
OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


@pytest.mark.parametrize(
    ("pod", "state"),
    [
        pytest.param(a_pod(phase="Pending"), RunnerState.STARTING, id="no container yet"),
        pytest.param(a_pod(state=RUNNING, ready_at=0), RunnerState.STARTING, id="runs, not ready yet"),
        pytest.param(a_pod(state=RUNNING, ready="True", ready_at=8), RunnerState.READY, id="ready"),
        pytest.param(a_pod(state=RUNNING, ready_at=60), RunnerState.UNREADY, id="was ready, is no more"),
        pytest.param(a_pod(state=OOM, ready_at=60), RunnerState.STARTING, id="its container ended, another will come"),
        pytest.param(a_pod(state=RUNNING, ready="True", deleted=30), RunnerState.LEAVING, id="being deleted"),
    ],
)
def test_state_of(pod, state):
    """Unready is who was ready since its container started; everybody else that isn't ready is starting."""
    assert state is state_of(pod)


@pytest.mark.parametrize(
    ("pod", "cause"),
    [
        pytest.param(a_pod(state=RUNNING, ready="True"), "", id="at work"),
        pytest.param(a_pod(state={"waiting": {"reason": "ContainerCreating"}}), "", id="being created"),
        pytest.param(
            a_pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
            "ImagePullBackOff: no such image",
            id="no image",
        ),
        pytest.param(
            a_pod(state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, last=OOM),
            "CrashLoopBackOff: back-off 10s (last end: OOMKilled, exit code 137)",
            id="out of memory again and again",
        ),
        pytest.param(a_pod(state=OOM), "Ended: OOMKilled, exit code 137", id="just out of memory"),
        pytest.param(
            a_pod(
                state=RUNNING,
                last={"terminated": {"reason": "Error", "exitCode": 2, "message": "x\nTRAFFICSIM_KEYS is needed\n"}},
            ),
            "Restarted: Error, exit code 2: TRAFFICSIM_KEYS is needed",
            id="restarted, with its last words",
        ),
        pytest.param(
            a_pod(
                phase="Pending",
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ],
            ),
            "Unschedulable: 0/3 nodes",
            id="no node",
        ),
        pytest.param(a_pod(phase="Failed", reason="Evicted", message="disk"), "Evicted: disk", id="evicted"),
    ],
)
def test_cause_of(pod, cause):
    """The pod-level cause in one line, of the runner's container and not of a mesh's beside it."""
    assert cause == cause_of(pod)


def ended(at_s: int, reason: str = "OOMKilled") -> dict:
    return {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": at(at_s)}}


@pytest.mark.parametrize(
    ("pod", "at_s"),
    [
        pytest.param(a_pod(state=RUNNING), None, id="never"),
        pytest.param(a_pod(state=RUNNING, last=ended(40)), 40, id="runs again"),
        pytest.param(a_pod(state=ended(70), last=ended(40)), 70, id="twice"),
        pytest.param(a_pod(state=RUNNING, last=ended(40, "Error")), None, id="for another reason"),
        pytest.param(a_pod(state=RUNNING, last=OOM), None, id="nobody knows when"),
    ],
)
def test_when_it_was_killed_for_want_of_memory(pod, at_s):
    """The last time: the supervisor dies with the others, and cannot tell."""
    expected = 0 if at_s is None else int((T0 + timedelta(seconds=at_s)).timestamp() * 1000)
    assert expected == runner_of(pod).killed_ms


@pytest.mark.parametrize(
    ("condition", "at_s"),
    [
        pytest.param({"status": "True", "lastTransitionTime": at(40)}, 40, id="on a node"),
        pytest.param({"status": "False", "lastTransitionTime": at(40)}, None, id="none has room for it"),
        pytest.param({"status": "True"}, None, id="nobody knows since when"),
    ],
)
def test_when_it_got_its_node(condition, at_s):
    """As the scheduler said: until then no start began."""
    expected = 0 if at_s is None else int((T0 + timedelta(seconds=at_s)).timestamp() * 1000)
    assert expected == runner_of(a_pod(conditions=[{"type": "PodScheduled", **condition}])).placed_ms


@pytest.mark.parametrize(
    ("pod", "lost"),
    [
        pytest.param(a_pod(), False, id="runs"),
        pytest.param(a_pod(phase="Failed"), True, id="failed for good"),
        pytest.param(a_pod(deleted=100), False, id="within its grace"),
        pytest.param(a_pod(deleted=90), False, id="a little late"),
        pytest.param(a_pod(deleted=80), True, id="its node takes it away no more"),
    ],
)
def test_is_lost(pod, lost):
    assert lost is is_lost(pod, T0 + timedelta(seconds=95))


def test_runner_of():
    runner = runner_of(a_pod(state=RUNNING, ready="True"))
    assert ("shop-1-abc", "u1", "r1", "10.0.0.7:9646", 2) == (
        runner.name, runner.uid, runner.revision, runner.address, runner.restarts,
    )  # fmt: skip
    assert int(T0.timestamp() * 1000) == runner.started_ms


def test_an_address_of_the_new_kind_is_put_in_brackets():
    pod = a_pod(state=RUNNING)
    pod["status"]["podIP"] = "fd00::7"
    assert "[fd00::7]:9646" == runner_of(pod).address


def test_a_quota_is_told_from_the_deployment():
    """Pods that can't be made don't exist: the Deployment says why."""
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota: small",
    }
    assert "FailedCreate: exceeded quota: small" == replica_failure({"status": {"conditions": [condition]}})
    assert "" == replica_failure({"status": {"conditions": [condition | {"status": "False"}]}})


UNREADY_CONTAINERS = {"type": "ContainersReady", "status": "False"}
READY_CONTAINERS = {"type": "ContainersReady", "status": "True"}
BY_GC = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
BY_TAINT = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}


def gated(pod):
    """Return *pod* as a kubelet tells of it while a readiness gate is closed."""
    pod["status"]["conditions"][0]["reason"] = "ReadinessGatesNotReady"
    return pod


@pytest.mark.parametrize(
    ("pod", "is_lost"),
    [
        pytest.param(a_pod(state=RUNNING, ready="True", conditions=[READY_CONTAINERS]), False, id="at work"),
        pytest.param(a_pod(state=RUNNING, conditions=[UNREADY_CONTAINERS]), False, id="its probe fails"),
        pytest.param(a_pod(state=RUNNING, conditions=[READY_CONTAINERS]), True, id="the node controller's word alone"),
        pytest.param(
            gated(a_pod(state=RUNNING, conditions=[READY_CONTAINERS])), False, id="a webhook's readiness gate is closed"
        ),
        pytest.param(a_pod(state=RUNNING, ready="True", reason="NodeLost"), True, id="said in so many words"),
        pytest.param(
            a_pod(state=RUNNING, ready="True", deleted=30, conditions=[READY_CONTAINERS, BY_TAINT]),
            False,
            id="a taint drives it away, and the node hears it",
        ),
        pytest.param(a_pod(phase="Pending"), False, id="no condition yet"),
    ],
)
def test_is_node_lost(pod, is_lost):
    """The node controller takes Ready away and leaves ContainersReady, which a kubelet never does."""
    assert is_lost == is_node_lost(pod)


@pytest.mark.parametrize(
    ("pod", "unseen"),
    [
        pytest.param(a_pod(state=RUNNING, deleted=0), True, id="overdue"),
        pytest.param(a_pod(state=OOM, deleted=0), True, id="overdue, and about to be restarted"),
        pytest.param(
            a_pod(state={"waiting": {"reason": "ContainerCreating"}}, deleted=0), False, id="overdue, and never started"
        ),
        pytest.param(a_pod(state=OOM, phase="Failed"), False, id="its container ended"),
        pytest.param(a_pod(phase="Failed", reason="Evicted"), False, id="evicted by its kubelet"),
        pytest.param(a_pod(state=RUNNING, phase="Failed", conditions=[BY_GC]), True, id="ended on paper"),
        pytest.param(a_pod(state=OOM, phase="Failed", conditions=[BY_GC]), False, id="ended, then its node went"),
    ],
)
def test_end_unseen(pod, unseen):
    """Of a pod that counts as lost: only its node's word is worth something."""
    assert unseen == end_unseen(pod)


def test_why_a_runner_on_such_a_node_is_not_ready():
    """The cause says so, and until when a deleted one keeps its users."""
    pod = a_pod(state=RUNNING, conditions=[READY_CONTAINERS])
    assert "NodeNotReady: the node of shop-1-abc is not ready" == cause_of(pod)
    deleted = a_pod(state=RUNNING, deleted=30, conditions=[READY_CONTAINERS])
    assert cause_of(deleted).endswith(f"it keeps its users until {at(30)}")
    assert (True, int((T0 + timedelta(seconds=30)).timestamp() * 1000)) == (
        runner_of(deleted).node_lost,
        runner_of(deleted).grace_ends_ms,
    )
