"""
The commands of the pages, typed as they stand there: installing, GitOps, troubleshooting.

The namespaces have the pages' names, so the control plane is one of its own. What needs a node stands in pages/told.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import Kubectl
from cluster.operator_process import DEPLOYMENT, Operator, a_shop, as_installed
from cluster.operator_stand import a_node, a_simulation, until
from levels import unavailable
from pages.commands import ROOT, Reader, command
from pages.told import ON_THE_API_SERVER, SINGLE_NAMESPACE, SINGLE_NAMESPACE_WITH_HELM, WITH_HELM, WITHOUT_HELM
from trafficsim_api.names import COMMAND_ANNOTATION, FieldManager
from trafficsim_operator.testing import ControlPlane, Image, Unavailable, helm

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

OURS = "trafficsim"
THEIRS = "shop"
KIND = "crd/trafficsimulations.trafficsim.io"
RUNNER_IMAGE = "registry.example.com/trafficsim/runner:0.1.0"
RUNNER = Image(argv=(sys.executable, "-m", "trafficsim_runner"))
POLICY = {"targets": [{"cidr": "127.0.0.0/8"}], "maxUsers": 500, "maxRunners": 4}
MADE_BY_THE_OPERATOR = ("secret/trafficsim-signing-key", f"lease/{DEPLOYMENT}")
FLUX = "kustomize-controller"


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    """One for this file: its namespaces have no names of their own."""
    found = ControlPlane()
    try:
        found.start()
    except Unavailable as error:
        unavailable("control-plane", error)
    yield found
    found.stop()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The namespace of somebody who writes simulations; afterwards the cluster is as it was."""
    kubectl = Kubectl(control_plane, THEIRS)
    kubectl("create", "namespace", THEIRS)
    kubectl("wait", "serviceaccount/default", "--for=create", "--timeout=45s")
    yield THEIRS
    kubectl("delete", KIND, f"clusterrole/{DEPLOYMENT}", f"clusterrolebinding/{DEPLOYMENT}", "--ignore-not-found")
    kubectl("delete", "namespace", THEIRS, OURS, "--ignore-not-found")


@pytest.fixture
def programs(control_plane: ControlPlane, tmp_path: Path) -> Path:
    """A directory with the programs that the pages name, helm among them where it can be had."""
    found = tmp_path / "bin"
    found.mkdir()
    (found / "kubectl").symlink_to(control_plane.kubectl)
    (found / "trafficsim").symlink_to(Path(sys.executable).with_name("trafficsim"))
    return found


@pytest.fixture
def with_helm(programs: Path) -> None:
    try:
        (programs / "helm").symlink_to(helm.find(build=False))
    except Unavailable as error:
        unavailable("helm", error)


@pytest.fixture
def reader(control_plane: ControlPlane, namespace: str, programs: Path, tmp_path: Path) -> Reader:
    """Somebody in a checkout, whose kubectl is at the cluster, in the namespace with the simulation."""
    kubeconfig = shutil.copy(control_plane.kubeconfig, tmp_path / "kubeconfig")
    environ = {"PATH": f"{programs}:{os.defpath}", "HOME": str(tmp_path), "KUBECONFIG": str(kubeconfig)}
    found = Reader(directory=ROOT, environ=environ)
    found.types(f"kubectl config set-context --current --namespace={namespace}")
    return found


@pytest.fixture
def ours(control_plane: ControlPlane) -> Kubectl:
    """Kubectl where the operator is."""
    return Kubectl(control_plane, OURS)


@asynccontextmanager
async def at_work(operator: Operator) -> AsyncIterator[None]:
    """Run what would be the operator's pod."""
    try:
        await operator.start()
        yield
        operator.stop()
        assert [] == operator.errors()
    finally:
        await operator.aclose()


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where an operator was installed, as it would be started there."""

    reader: Reader
    ours: Kubectl
    theirs: Kubectl
    operator: Operator


async def removed(site: Site, starts: tuple[str, ...]) -> None:
    """Type the page's commands from the deletion of all simulations on: there was one, and an operator at work."""
    reader, kubectl = site.reader, site.ours
    async with at_work(site.operator):
        held = await asyncio.to_thread(kubectl, "get", *MADE_BY_THE_OPERATOR, "-o", "name")
        assert len(MADE_BY_THE_OPERATOR) == len(held.split())
        await asyncio.to_thread(site.theirs, "apply", "-f", "-", stdin=a_simulation(THEIRS, suspend=True))
        deleted = await asyncio.to_thread(reader.types, command("install.md", starts[0]))
        assert '"shop" deleted' in deleted
    for start in starts[1:]:
        reader.types(command("install.md", start))
    assert "NotFound" in kubectl("get", KIND, check=False)
    assert "No resources found" in kubectl("get", "deployments,roles,rolebindings,networkpolicies,services,pdb,leases")
    assert "NotFound" in kubectl("get", "clusterrole", DEPLOYMENT, check=False)


async def test_installed_upgraded_and_removed_with_helm(control_plane, reader, with_helm, ours, kubectl, tmp_path):
    """By the page's commands alone, down to the kind."""
    install, upgrade, *rest = WITH_HELM
    assert "STATUS: deployed" in reader.types(command("install.md", install))
    assert "has been upgraded" in reader.types(command("install.md", upgrade))
    operator = as_installed(control_plane, OURS, ours, tmp_path)
    await removed(Site(reader=reader, ours=ours, theirs=kubectl, operator=operator), tuple(rest))


async def test_installed_upgraded_and_removed_without_helm(control_plane, reader, ours, kubectl, tmp_path):
    """The same, and an upgrade says what it keeps."""
    install, upgrade, *rest = WITHOUT_HELM
    assert f"deployment {OURS}/{DEPLOYMENT} applied" in reader.types(command("install.md", install))
    assert "kept" in reader.types(command("install.md", upgrade))
    operator = as_installed(control_plane, OURS, ours, tmp_path)
    await removed(Site(reader=reader, ours=ours, theirs=kubectl, operator=operator), tuple(rest))


def test_installed_for_a_single_namespace(reader, kubectl):
    """The kind, and what is of the namespace."""
    for start in SINGLE_NAMESPACE:
        reader.types(command("install.md", start))
    assert DEPLOYMENT in kubectl("get", "deployments,roles", "-o", "name")
    assert "NotFound" in kubectl("get", "clusterrole", DEPLOYMENT, check=False)


def test_installed_for_a_single_namespace_with_helm(reader, with_helm, kubectl):
    """Nothing of the whole cluster is among it."""
    [start] = SINGLE_NAMESPACE_WITH_HELM
    reader.types(command("install.md", start))
    assert DEPLOYMENT in kubectl("get", "deployments,roles", "-o", "name")
    assert "NotFound" in kubectl("get", KIND, f"clusterrole/{DEPLOYMENT}", check=False)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A simulation `shop` that a tool applied from git, and that is at work; somebody looks at it."""

    reader: Reader
    kube: Callable[..., Any]
    file: dict[str, Any]

    async def types(self, page: str, start: str) -> str:
        return await asyncio.to_thread(self.reader.types, command(page, start))

    async def synced(self, **spec: Any) -> None:
        """Apply the file with *spec* in it as Flux does."""
        found = self.file | {"spec": self.file["spec"] | spec}
        options = ("--server-side", "--force-conflicts", f"--field-manager={FLUX}")
        await self.kube("apply", *options, "-f", "-", stdin=found)

    async def found(self) -> dict[str, Any]:
        return dict(await self.kube("get", "tsim", "shop", "--show-managed-fields", "-o", "json"))

    async def phase(self, phase: str) -> None:
        await until(self.found, lambda found: found.get("status", {}).get("phase") == phase, 90, f"it is {phase}")


@pytest.fixture
async def scene(control_plane, reader, ours, kube, tmp_path) -> AsyncIterator[Scene]:
    """The operator is the one that the page on installing installs, but for its policy: the target is no Service."""
    await asyncio.to_thread(reader.types, command("install.md", "trafficsim install --image"))
    operator = as_installed(control_plane, OURS, ours, tmp_path)
    Path(operator.environ["TRAFFICSIM_POLICY"]).write_text(json.dumps(POLICY))
    async with (
        a_node(control_plane, THEIRS, tmp_path / "node", {RUNNER_IMAGE: RUNNER}),
        a_shop(tmp_path) as shop,
        at_work(operator),
    ):
        flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "2s"}}]
        file = a_simulation(
            THEIRS,
            target={"url": shop.url, "healthPath": "/healthz"},
            duration="1h",
            profile=[{"ramp": {"to": "100%", "over": "1s"}}, {"hold": {"for": "1h"}}],
            archetypes=[{"name": "visitor", "flow": flow}],
            runner={"resources": {"limits": {"cpu": "500m", "memory": "512Mi"}}},
        )
        found = Scene(reader=reader, kube=kube, file=file)
        await found.synced()
        await found.phase("Running")
        yield found
        await kube("delete", "tsim", "shop")


async def test_by_hand_beside_git(scene: Scene) -> None:
    """It outlives a sync of what is not in git, and what is in git is set back; the operator writes status alone."""
    scale, stop, wait, rerun, get = ON_THE_API_SERVER["gitops.md"]
    await scene.types("gitops.md", scale)
    assert 20 == (await scene.found())["spec"]["users"]
    await scene.types("gitops.md", stop)
    assert "condition met" in await scene.types("gitops.md", wait)
    await scene.types("gitops.md", rerun)
    assert "shop" in await scene.types("gitops.md", get)
    await scene.phase("Running")

    await scene.synced()
    found = await scene.found()
    assert (20, 2) == (found["spec"]["users"], found["status"]["run"]["id"])
    command_given = json.loads(found["metadata"]["annotations"][COMMAND_ANNOTATION])
    assert (command_given["id"], "rerun") == (found["status"]["lastCommand"]["id"], command_given["action"])
    written = {entry["manager"]: entry.get("subresource") for entry in found["metadata"]["managedFields"]}
    # Of a field that nobody has set before, Kubernetes does not note who scaled it.
    assert {FLUX: None, "trafficsim-cli": None, FieldManager.STATUS: "status"} == written
    assert "finalizers" not in found["metadata"]

    await scene.synced(users=30)
    assert 30 == (await scene.found())["spec"]["users"]
    await scene.synced()
    assert 10 == (await scene.found())["spec"]["users"], "a field that is taken out of git is the default's again"


# Command of the page on troubleshooting → what it shows of a simulation that is well.
SHOWN = {
    "kubectl get tsim shop -o wide": "Running",
    "trafficsim get shop": "Running",
    "kubectl get tsim shop -o jsonpath": "Accepted=True Accepted",
    "kubectl get events": "PhaseChanged",
    "kubectl get pods": "Running",
    "kubectl describe pods": "trafficsim.io/simulation=shop",
    "kubectl get resourcequota": "few",
    "kubectl -n trafficsim get deployment,pods,lease": f"deployment.apps/{DEPLOYMENT}",
}


async def test_where_to_look(scene: Scene) -> None:
    """Each command shows what it is typed for."""
    assert set(ON_THE_API_SERVER["troubleshooting.md"]) == SHOWN.keys()
    await scene.kube("create", "quota", "few", "--hard=pods=10")
    seen = {start: await scene.types("troubleshooting.md", start) for start in SHOWN}
    assert {} == {start: text for start, text in seen.items() if SHOWN[start] not in text}
