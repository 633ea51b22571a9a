"""The control plane is a real one: it admits, controls, collects garbage and knows users apart."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from levels import unavailable
from trafficsim_operator.testing import ControlPlane, Unavailable
from trafficsim_operator.testing.binaries import find

pytestmark = pytest.mark.cluster


def eventually(claim, within=20.0):
    """Return what *claim* gives once it is true."""
    deadline = time.monotonic() + within
    while not (value := claim()):
        assert time.monotonic() < deadline, f"not true within {within} s"
        time.sleep(0.05)
    return value


def test_deployment_becomes_pods_and_goes_with_them(kubectl):
    """The controller manager makes pods from a Deployment, and the garbage collector removes them with it."""
    kubectl("create", "deployment", "web", "--image=nothing", "--replicas=3")
    eventually(lambda: len(kubectl("get", "pods", "-o", "json")["items"]) == 3)
    kubectl("delete", "deployment", "web")
    eventually(lambda: not kubectl("get", "pods", "-o", "json")["items"])


def test_users_have_what_rbac_gives_them(control_plane, namespace, kubectl):
    """A user and a service account may do nothing until a RoleBinding says so."""

    def can_list(kubeconfig):
        command = [control_plane.kubectl, "--kubeconfig", kubeconfig, "-n", namespace, "get", "pods"]
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0

    jane, account = control_plane.user("jane"), control_plane.service_account(namespace, "default")
    assert [False, False] == [can_list(jane), can_list(account)]
    subjects = ["--user=jane", f"--serviceaccount={namespace}:default"]
    kubectl("create", "rolebinding", "readers", "--clusterrole=view", *subjects)
    eventually(lambda: can_list(jane) and can_list(account))


def test_a_restarted_apiserver_keeps_objects_and_address(control_plane, kubectl):
    """While it is away nobody answers; afterwards everything is as before under the same URL."""
    kubectl("create", "configmap", "kept", "--from-literal=a=1")
    answers = []
    control_plane.restart_apiserver(lambda: answers.append(kubectl("get", "configmaps", check=False)))
    assert "refused" in answers[0]
    assert {"a": "1"} == kubectl("get", "configmap", "kept", "-o", "json")["data"]


def test_programs_die_with_a_killed_test_run(tmp_path):
    """A test process that is killed leaves no etcd and no API server behind."""
    script = (
        "import sys, pathlib; from trafficsim_operator.testing.controlplane import ControlPlane as C;"
        "c = C(pathlib.Path(sys.argv[1])); c.start(); print(*[p.pid for p in c._processes.values()], flush=True);"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    try:
        find(build=False)
    except Unavailable as error:
        unavailable("control-plane", error)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        pids = [int(word) for word in run.stdout.readline().split()]
        assert 3 == len(pids)
        run.kill()
    eventually(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_directory_is_kept_when_given(tmp_path):
    """State and logs stay for the reader where a directory was named."""
    try:
        find(build=False)
    except Unavailable as error:
        unavailable("control-plane", error)
    with ControlPlane(tmp_path) as second:
        assert second.kubeconfig.exists()
    assert (tmp_path / "logs" / "kube-apiserver.log").stat().st_size > 0
