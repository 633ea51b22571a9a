"""An installation on a real API server: what is applied is taken, enough for the operator, and gone when removed."""

import asyncio
import json
import re
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import yaml

from cluster.conftest import Kubectl
from cluster.operator_process import as_installed
from cluster.operator_stand import install_kind, until
from levels import unavailable
from trafficsim_operator.chart.files import CHART
from trafficsim_operator.testing import Unavailable, helm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
NAME = "trafficsim-operator"
ROLES = [
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "install.md").read_text(), re.DOTALL)
    if "kind: ClusterRole" in block
]


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


def install(*arguments, kubeconfig, code=0):
    """Run `trafficsim install` and return what it printed: what it did, or with another *code* what was wrong."""
    command = [sys.executable, "-m", "trafficsim_operator.cli.main", "install", "--kubeconfig", str(kubeconfig)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert code == done.returncode, done.stderr
    return done.stderr if code else done.stdout


@contextmanager
def for_the_whole_cluster(control_plane, namespace):
    """Apply an installation there, yield what was told of it, and remove what the namespace does not take along."""
    kubectl = Kubectl(control_plane, namespace)
    try:
        yield json.loads(install("--apply", "-n", namespace, "--json", kubeconfig=control_plane.kubeconfig))["applied"]
    finally:
        kubectl("delete", f"clusterrole/{NAME}", f"clusterrolebinding/{NAME}", "--ignore-not-found")


def versions(kubectl, applied):
    """Return the version of each object that was applied."""
    return {
        (entry["kind"], entry["name"]): kubectl(
            "get", entry["kind"], entry["name"], "-o", "jsonpath={.metadata.resourceVersion}"
        )
        for entry in applied
        if entry["kind"] not in ("Deployment", "PodDisruptionBudget", "Namespace")  # controllers write to these
    }


async def test_the_whole_cluster(control_plane, namespace, kubectl):
    """Every object is taken; a second time nothing changes; a restricted namespace lets the pods in."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with for_the_whole_cluster(control_plane, namespace) as applied:
        kinds = [entry["kind"] for entry in applied]
        assert {"CustomResourceDefinition", "ClusterRole", "Deployment", "NetworkPolicy"} <= set(kinds)
        before = versions(kubectl, applied)
        again = json.loads(install("--apply", "-n", namespace, "--json", kubeconfig=control_plane.kubeconfig))
        assert [entry for entry in applied if entry["kind"] != "ConfigMap"] == again["applied"]
        assert [f"namespace {namespace}, as it is"] == [line for line in again["kept"] if line.startswith("namespace")]
        assert before == versions(kubectl, applied)

        async def pods():
            selector = f"app.kubernetes.io/name={NAME}"
            return (await asyncio.to_thread(kubectl, "get", "pods", "-l", selector, "-o", "json"))["items"]

        assert await until(pods, lambda found: len(found) == 2, 30, "both replicas' pods are admitted")


@asynccontextmanager
async def allowed(kube, user, role, *what):
    """Aggregate the *role* that the page on installing shows; yield when *user* has got the right to do *what*."""
    [shown] = [found for found in ROLES if found["metadata"]["name"] == role]
    asked = ("auth", "can-i", *what, f"--as={user}")
    assert "no" == (await kube(*asked, check=False)).split()[0]
    await kube("apply", "--server-side", "-f", "-", stdin=shown)
    try:
        await until(lambda: kube(*asked, check=False), lambda told: told.startswith("yes"), 30, f"{role} counts")
        yield
    finally:
        await kube("delete", "clusterrole", role)


async def test_a_namespaces_administrator_needs_no_other_rights(control_plane, namespace, kube):
    """Without the role that is shown Kubernetes does not let its rights be handed on."""
    user = f"installer-{namespace}"
    kubeconfig = control_plane.user(user)
    await kube("create", "rolebinding", "installer", "--clusterrole=admin", f"--user={user}")
    role_only = ("--role-only", "-n", namespace, "--apply")
    refused = install(*role_only, kubeconfig=kubeconfig, code=3)
    assert "attempting to grant RBAC permissions not currently held" in refused
    what = ("patch", "trafficsimulations.trafficsim.io", "--subresource=status")
    async with allowed(kube, user, "trafficsim-install", *what):
        assert f"deployment {namespace}/{NAME} applied" in install(*role_only, kubeconfig=kubeconfig)


async def test_who_may_edit_a_namespace_may_write_simulations(namespace, kube):
    """By the other role that is shown."""
    user = f"editor-{namespace}"
    await kube("create", "rolebinding", "editor", "--clusterrole=edit", f"--user={user}")
    async with allowed(kube, user, "trafficsim-edit", "create", "trafficsimulations.trafficsim.io"):
        asked = ("auth", "can-i", "update", "trafficsimulations.trafficsim.io", "--subresource=scale", f"--as={user}")
        assert "yes" == (await kube(*asked)).split()[0]


@pytest.mark.parametrize("role_only", [True, False], ids=["a Role is all there is", "the whole cluster"])
async def test_what_is_installed_is_enough(control_plane, namespace, kubectl, tmp_path, role_only):
    """The operator runs with the account, the environment and the policy of its Deployment; `--check` finds it well."""
    if role_only:
        install("--role-only", "-n", namespace, "--apply", kubeconfig=control_plane.kubeconfig)
        await runs_as_installed(control_plane, namespace, kubectl, tmp_path)
    else:
        with for_the_whole_cluster(control_plane, namespace):
            await runs_as_installed(control_plane, namespace, kubectl, tmp_path)


async def runs_as_installed(control_plane, namespace, kubectl, directory):
    operator = as_installed(control_plane, namespace, kubectl, directory)
    try:
        await operator.start()
        command = [sys.executable, "-m", "trafficsim_operator", "--check", f"http://{operator.address}"]
        checked = await asyncio.to_thread(
            subprocess.run, command, env=operator.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert 0 == checked.returncode, checked.stderr
        lease = await asyncio.to_thread(kubectl, "get", "lease", NAME, "-o", "json")
        assert lease["spec"]["holderIdentity"], "the rights are to the Lease it is told"
        await asyncio.to_thread(kubectl, "get", "secret", "trafficsim-signing-key")
        assert 0 == operator.stop()
        assert [] == operator.errors()
        denied = [line for line in operator.log.read_text().splitlines() if re.search(r": 403 |[Ff]orbidden", line)]
        # Over the whole cluster it also meets the namespaces of other tests on their way out.
        assert [] == [line for line in denied if "being terminated" not in line]
    finally:
        await operator.aclose()


def test_role_only_says_that_the_kind_is_missing(control_plane, namespace, kubectl):
    """And nothing was applied."""
    kubectl("delete", "crd", "trafficsimulations.trafficsim.io")
    try:
        told = install("--role-only", "-n", namespace, "--apply", kubeconfig=control_plane.kubeconfig, code=3)
    finally:
        install("--crd-only", "--apply", kubeconfig=control_plane.kubeconfig)
    assert "trafficsim install --crd-only --apply" in told
    assert "No resources found" in kubectl("get", "deployments,roles")


def test_with_helm(control_plane, namespace, kubectl):
    """Installed, upgraded and removed by Helm itself: the kind stays; meanwhile nobody else touches what is Helm's."""
    try:
        program = helm.find(build=False)
    except Unavailable as error:
        unavailable("helm", error)

    def run(*arguments):
        options = ("--namespace", namespace, "--kubeconfig", str(control_plane.kubeconfig))
        done = helm.run(program, *arguments, *options)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    crd = "crd/trafficsimulations.trafficsim.io"
    try:
        told = run("install", "trafficsim", str(ROOT / CHART), "--take-ownership")
        assert f"kubectl -n {namespace} rollout status deployment/{NAME}" in told
        assert f"helm test trafficsim -n {namespace}" in told
        refused = install("--apply", "-n", namespace, kubeconfig=control_plane.kubeconfig, code=3)
        assert "belongs to Helm's release trafficsim" in refused
        run("upgrade", "trafficsim", str(ROOT / CHART), "--reset-then-reuse-values", "--set", "replicas=3")
        assert "3" == kubectl("get", "deployment", NAME, "-o", "jsonpath={.spec.replicas}")
        run("uninstall", "trafficsim")
        assert "No resources found" in kubectl("get", "deployments,roles,rolebindings,networkpolicies,services,pdb")
        assert "trafficsimulations" in kubectl("get", crd, "-o", "name")
    finally:
        kubectl("annotate", crd, "meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-")
        kubectl("delete", f"clusterrole/{NAME}", f"clusterrolebinding/{NAME}", "--ignore-not-found")
