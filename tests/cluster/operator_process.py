"""The operator as a process of its own, under exactly the rights it states, and the demo shop as its target."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cluster.operator_stand import client, until
from trafficsim_operator.kube import KubeApi, Resource
from trafficsim_operator.manifests.rbac import own_namespace_rules, simulation_rules
from trafficsim_operator.testing import ControlPlane
from trafficsim_operator.testing.ports import free_ports
from trafficsim_operator.testing.processes import bound_to_us

IMAGE = "trafficsim/runner:test"
DEPLOYMENT = "trafficsim-operator"
_RBAC = {"group": "rbac.authorization.k8s.io", "version": "v1"}
_NAMESPACE = Resource(plural="namespaces", kind="Namespace")


@dataclass(kw_only=True)
class Operator:
    """One operator, started and ended as often as a test wants."""

    environ: dict[str, str]
    address: str
    log: Path
    arguments: tuple[str, ...] = ()
    module: str = "trafficsim_operator"
    process: subprocess.Popen[bytes] | None = None
    _http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(trust_env=False, timeout=5))

    def launch(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            command = bound_to_us([sys.executable, "-m", self.module, *self.arguments])
            self.process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self.launch()
        await until(lambda: self.status("/readyz"), lambda status: status == 200, 30, "the operator is ready")

    async def status(self, path: str) -> int:
        """Return the status of an answer, 0 for none; raise AssertionError if the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"the operator ended: {self.log.read_text()[-3000:]}"
        try:
            return (await self._http.get(f"http://{self.address}{path}")).status_code
        except httpx.HTTPError:
            return 0

    async def text(self, path: str) -> str:
        return (await self._http.get(f"http://{self.address}{path}")).text

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End it as a kubelet does; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)

    async def aclose(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        await self._http.aclose()

    def errors(self) -> list[dict[str, Any]]:
        """Return what it logged as an error."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in map(json.loads, lines) if entry.get("severity") == "error"]


async def _grant(api: KubeApi, namespace: str, account: str, *, whole_cluster: bool) -> None:
    subject = [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}]
    kinds = [("Role", "RoleBinding", namespace, "own", own_namespace_rules())]
    if whole_cluster:
        kinds.append(("ClusterRole", "ClusterRoleBinding", "", account, simulation_rules()))
    else:
        kinds.append(("Role", "RoleBinding", namespace, "simulations", simulation_rules()))
    for role, binding, where, name, rules in kinds:
        meta = {"name": name} | ({"namespace": where} if where else {"namespace": None})
        roles = Resource(**_RBAC, plural=f"{role.lower()}s", kind=role)
        bindings = Resource(**_RBAC, plural=f"{binding.lower()}s", kind=binding)
        reference = {"apiGroup": _RBAC["group"], "kind": role, "name": name}
        await api.create(roles, {"metadata": meta, "rules": rules})
        await api.create(bindings, {"metadata": meta, "roleRef": reference, "subjects": subject})


@asynccontextmanager
async def an_operator(
    control_plane: ControlPlane,
    namespace: str,
    directory: Path,
    *,
    policy: Mapping[str, Any] | None = None,
    whole_cluster: bool = False,
    lease: str = "off",
) -> AsyncIterator[Operator]:
    """
    Yield an operator, not started yet, that serves *namespace* (or the cluster) and keeps its key there.

    Without a *lease* it works as soon as it is started again: one that was killed would wait for its own to run out. It
    runs as a service account with the rights of manifests/rbac.py: whatever else it tried would be an error here.
    """
    async with client(control_plane) as api:
        await api.create(
            Resource(plural="serviceaccounts", kind="ServiceAccount"),
            {"metadata": {"name": "operator", "namespace": namespace}},
        )
        await _grant(api, namespace, f"operator-{uuid.uuid4().hex[:8]}", whole_cluster=whole_cluster)
    kubeconfig = await asyncio.to_thread(control_plane.service_account, namespace, "operator")
    [port] = free_ports(1)
    environ = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(kubeconfig),
        "POD_NAMESPACE": namespace,
        "TRAFFICSIM_RUNNER_IMAGE": IMAGE,
        "TRAFFICSIM_LISTEN": f"127.0.0.1:{port}",
        "TRAFFICSIM_LEASE": lease,
        "POD_NAME": "operator-0",
    }
    if policy is not None:
        path = directory / "policy.yaml"
        path.write_text(json.dumps(policy))
        environ["TRAFFICSIM_POLICY"] = str(path)
    operator = Operator(
        environ=environ,
        address=f"127.0.0.1:{port}",
        log=directory / "operator.log",
        arguments=() if whole_cluster else ("--namespace", namespace),
    )
    try:
        yield operator
    finally:
        await operator.aclose()


def as_installed(control_plane: ControlPlane, namespace: str, kubectl: Callable[..., Any], directory: Path) -> Operator:
    """Return the operator as the Deployment in *namespace* would run it, but for where it listens."""
    pod = kubectl("get", "deployment", DEPLOYMENT, "-o", "json")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    of_the_pod = {"POD_NAMESPACE": namespace, "POD_NAME": "operator-0", "POD_IP": "127.0.0.1"}
    environ = {entry["name"]: entry.get("value", of_the_pod.get(entry["name"])) for entry in container["env"]}
    policy = directory / "policy.yaml"
    policy.write_text(kubectl("get", "configmap", f"{DEPLOYMENT}-policy", "-o", "jsonpath={.data.policy\\.yaml}"))
    [port] = free_ports(1)
    kubeconfig = control_plane.service_account(namespace, pod["serviceAccountName"])
    own = {"TRAFFICSIM_LISTEN": f"127.0.0.1:{port}", "TRAFFICSIM_POLICY": str(policy), "KUBECONFIG": str(kubeconfig)}
    return Operator(environ=environ | own, address=f"127.0.0.1:{port}", log=directory / "operator.log")


@asynccontextmanager
async def another(operator: Operator, number: int = 1, **changes: str) -> AsyncIterator[Operator]:
    """Yield one more replica of *operator*, not started yet: the same rights, a name, a port and a log of its own."""
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    own = {"TRAFFICSIM_LISTEN": address, "POD_NAME": f"operator-{number}"}
    replica = Operator(
        environ=operator.environ | own | changes,
        address=address,
        log=operator.log.with_name(f"operator-{number}.log"),
        arguments=operator.arguments,
    )
    try:
        yield replica
    finally:
        await replica.aclose()


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The demo shop and its own account of what it received."""

    url: str
    log: Path

    def received(self, endpoint: str) -> int:
        """Return how many requests it has received there, by its own count."""
        counts = json.loads(self.log.read_text())["counts"] if self.log.exists() else {}
        return sum(count for key, count in counts.items() if key.split()[1] == endpoint)


@asynccontextmanager
async def a_shop(directory: Path) -> AsyncIterator[Shop]:
    """Yield the demo shop on a port of its own."""
    [port] = free_ports(1)
    log = directory / "shop.json"
    command = [sys.executable, "-m", "trafficsim_runner.demo", "--listen", f"127.0.0.1:{port}", "--log", str(log)]
    process = subprocess.Popen(bound_to_us(command), stdout=subprocess.DEVNULL)
    try:
        await until(lambda: asyncio.to_thread(log.exists), bool, 20, "the shop is open")
        yield Shop(url=f"http://127.0.0.1:{port}", log=log)
    finally:
        process.terminate()
        process.wait(timeout=10)
