"""What a pod's spec means for a process, without a cluster."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from trafficsim_operator.testing.pod_status import (
    Phase,
    PodState,
    Running,
    Waiting,
    is_changed,
    render,
    restarts_after,
    terminated,
)
from trafficsim_operator.testing.podspec import (
    CannotRun,
    Facts,
    Image,
    expand,
    needed,
    program,
    quantity,
    resource_value,
    volume_files,
)
from trafficsim_operator.testing.scheduling import why_not
from trafficsim_operator.testing.volumes import holds, write_files

IMAGE = Image(argv=("server",), args=("--default",), env={"FROM_IMAGE": "yes"})
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def a_pod(container=None, *, volumes=()):
    container = {"name": "main", "image": "image"} | (container or {})
    meta = {"name": "pod", "namespace": "ns", "uid": "u-1", "labels": {"app": "web"}}
    return {"metadata": meta, "spec": {"containers": [container], "volumes": list(volumes)}}


def facts(**directories):
    paths = {name: Path(path) for name, path in directories.items()}
    return Facts(pod_ip="127.1.0.9", host_ip="127.0.0.1", allocatable={"cpu": "8"}, directories=paths)


def run(pod, sources=None, **directories):
    return program(pod, pod["spec"]["containers"][0], IMAGE, sources or {}, facts(**directories))


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("1500m", "1.5"), ("1Gi", 2**30), ("128Mi", 128 * 2**20), ("1k", 1000), ("1e3", 1000), ("0.5", "0.5")],
)
def test_quantities(text, value):
    """Decimal and binary suffixes are exact."""
    assert Decimal(value) == quantity(text)


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        pytest.param("limits.cpu", "1", "2", id="cores round up"),
        pytest.param("limits.cpu", "1m", "1500", id="millicores"),
        pytest.param("limits.cpu", "0", "2", id="an absent divisor is stored as 0"),
        pytest.param("limits.memory", "1Mi", "100", id="mebibytes"),
        pytest.param("requests.memory", "1", "0", id="no request is 0"),
    ],
)
def test_resource_values(resource, divisor, value):
    """A limit in units of the divisor, rounded up."""
    container = {"resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}}}
    assert value == resource_value(container, {"resource": resource, "divisor": divisor}, facts())


def test_an_absent_limit_is_what_the_node_can_give():
    """Without a limit the downward API gives the node's allocatable."""
    assert "8" == resource_value({}, {"resource": "limits.cpu"}, facts())


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        pytest.param({}, ("server", "--default"), id="image alone"),
        pytest.param({"args": ["a"]}, ("server", "a"), id="args replace the default"),
        pytest.param({"command": ["x"]}, ("x",), id="command drops the default"),
        pytest.param({"command": ["x"], "args": ["a"]}, ("x", "a"), id="both"),
    ],
)
def test_command_and_args(container, argv):
    """The same four cases as for an image's ENTRYPOINT and CMD."""
    assert argv == run(a_pod(container)).argv


@pytest.mark.parametrize(
    ("text", "result"),
    [("$(A)/x", "1/x"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A", "$A"), ("$$$(A)", "$1")],
)
def test_expansion(text, result):
    """$(NAME) is replaced where known, $$ escapes, everything else stays."""
    assert result == expand(text, {"A": "1"})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/data", "/real/d"),
        ("--file=/data/x.json", "--file=/real/d/x.json"),
        ("/data/sub/x", "/real/s/x"),
        ("/database", "/database"),
        ("/var/data", "/var/data"),
        ("http://host/data", "http://host/data"),
        ("/data:/data/sub", "/real/d:/real/s"),
    ],
)
def test_mount_paths_are_translated_as_whole_paths(text, result):
    """A mount path is replaced where it begins a path, the longest first, and nowhere else."""
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "sub", "mountPath": "/data/sub"}]
    pod = a_pod({"args": [text], "env": [{"name": "P", "value": text}], "volumeMounts": mounts})
    found = run(pod, data="/real/d", sub="/real/s")
    assert (("server", result), result) == (found.argv, found.env["P"])


def test_environment_from_configmaps_and_secrets():
    """Keys, prefixes and base64 as in a container; an optional one may be missing, another may not."""
    config = {"kind": "ConfigMap", "data": {"a": "1"}}
    secret = {"kind": "Secret", "data": {"b": "Mg=="}}
    key = {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "b"}}}
    gone = {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "c", "optional": True}}}
    container = {"envFrom": [{"prefix": "X_", "configMapRef": {"name": "c"}}], "env": [key, gone]}
    pod = a_pod(container)
    assert {("ConfigMap", "c"), ("Secret", "s"), ("ConfigMap", "none")} == needed(pod, pod["spec"]["containers"][0])
    env = run(pod, {("ConfigMap", "c"): config, ("Secret", "s"): secret}).env
    assert ("1", "2", "yes") == (env["X_a"], env["B"], env["FROM_IMAGE"])
    assert "C" not in env
    with pytest.raises(CannotRun, match='secret "s" not found'):
        run(pod, {("ConfigMap", "c"): config})


def test_volume_files():
    """Items choose and rename keys; the downward API lists labels; a claim cannot be had."""
    sources = {("ConfigMap", "c"): {"kind": "ConfigMap", "data": {"a": "1", "b": "2"}}}
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    projected = {
        "name": "v",
        "projected": {
            "sources": [
                {"configMap": {"name": "c", "items": [{"key": "a", "path": "dir/a"}]}},
                {"downwardAPI": {"items": [labels]}},
                {"serviceAccountToken": {"path": "token"}},
            ]
        },
    }
    pod = a_pod(volumes=[projected])
    files = volume_files(pod, {}, projected, sources, facts(), {"": "t"})
    assert {"dir/a": b"1", "labels": b'app="web"', "token": b"t"} == files
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "x"}}
    with pytest.raises(CannotRun, match="persistentVolumeClaim is not supported"):
        volume_files(pod, {}, claim, sources, facts(), {})


def test_written_files_are_replaced_whole(tmp_path):
    """After a change exactly the new files are there, nested ones too, and the old content is gone."""
    first, second = {"a": b"1", "dir/b": b"2"}, {"a": b"3", "c": b"4"}
    write_files(tmp_path, first)
    assert b"2" == (tmp_path / "dir" / "b").read_bytes()
    assert holds(tmp_path, first)
    write_files(tmp_path, second)
    assert holds(tmp_path, second)
    assert {"a", "c"} == {path.name for path in tmp_path.iterdir() if not path.name.startswith("..")}
    assert 1 == len([path for path in tmp_path.iterdir() if path.name.startswith("..") and not path.is_symlink()])


@pytest.mark.parametrize(
    ("returncode", "oom", "reason", "code"),
    [(0, False, "Completed", 0), (3, False, "Error", 3), (-15, False, "Error", 143), (-9, True, "OOMKilled", 137)],
)
def test_how_a_container_ended(returncode, oom, reason, code):
    """A signal is 128 + its number, and a risen memory kill counter is OOMKilled."""
    how = terminated(returncode, oom=oom, began=NOW, ended=NOW)
    assert (reason, code) == (how.reason, how.exit_code)


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policy(policy, code, again):
    """Always restarts, OnFailure after an error, Never never."""
    assert again is restarts_after(policy, code)


def test_a_condition_keeps_its_time_until_it_changes():
    """lastTransitionTime moves with the status of its condition only."""
    state = PodState(state=Running(since=NOW), phase=Phase.RUNNING, address="127.1.0.1", ready=False)
    first = render(a_pod(), state, [], host_ip="127.0.0.1", now=NOW)
    later = NOW + timedelta(minutes=1)
    ready = PodState(state=Running(since=NOW), phase=Phase.RUNNING, address="127.1.0.1", ready=True)
    second = render(a_pod(), ready, first["conditions"], host_ip="127.0.0.1", now=later)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert ("2030-01-01T00:01:00Z", "2030-01-01T00:00:00Z") == (times["Ready"], times["Initialized"])


@pytest.mark.parametrize(
    ("ready", "written", "changed"),
    [
        pytest.param("True", True, False, id="as it was written"),
        pytest.param("False", True, True, id="the node controller called it not ready"),
        pytest.param("False", False, False, id="nothing was written yet"),
    ],
)
def test_what_others_change_in_a_status_is_noticed(ready, written, changed):
    """A kubelet that comes back says again what is so."""
    state = PodState(state=Running(since=NOW), phase=Phase.RUNNING, address="127.1.0.1", ready=True)
    status = render(a_pod(), state, [], host_ip="127.0.0.1", now=NOW)
    found = [{**c, "status": ready} if c["type"] == "Ready" else c for c in status["conditions"]]
    pod = a_pod() | {"status": {"conditions": found}}
    assert changed is is_changed(pod, status["conditions"] if written else [])


def test_a_waiting_container_is_never_ready():
    """Readiness belongs to a running container."""
    state = PodState(state=Waiting(reason="CrashLoopBackOff"), ready=True)
    assert not render(a_pod(), state, [], host_ip="127.0.0.1", now=NOW)["containerStatuses"][0]["ready"]


@pytest.mark.parametrize(
    ("cpu", "selector", "reason"),
    [
        pytest.param("2", {}, None, id="fits exactly"),
        pytest.param("2100m", {}, "Insufficient cpu", id="too large"),
        pytest.param("1", {"disk": "ssd"}, "node affinity/selector", id="another node is wanted"),
        pytest.param("1", {"zone": "a"}, None, id="this node is wanted"),
    ],
)
def test_which_pods_fit(cpu, selector, reason):
    """The sum of requests stays within the capacity, and a selector must match the node's labels."""
    other = a_pod({"resources": {"requests": {"cpu": "2"}}})
    pod = a_pod({"resources": {"requests": {"cpu": cpu}}})
    pod["spec"]["nodeSelector"] = selector
    found = why_not(pod, [other], {"cpu": "4", "memory": "1Gi", "pods": "10"}, {"zone": "a"})
    assert (found is None) if reason is None else (reason in found)
