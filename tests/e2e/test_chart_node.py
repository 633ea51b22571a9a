"""The chart on a real node with the real images: installed, tested and upgraded by Helm, and a run through it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from levels import unavailable
from trafficsim_api import __version__
from trafficsim_operator.testing import Unavailable, helm
from trafficsim_operator.testing.images import build

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
NAME = "trafficsim-operator"
SHOP = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [
                        {
                            "name": "shop",
                            "image": f"trafficsim/demo:{__version__}",
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                },
            },
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 8080}]},
    },
]
SIMULATION = {
    "apiVersion": "trafficsim.io/v1alpha1",
    "kind": "TrafficSimulation",
    "metadata": {"name": "shop"},
    "spec": {
        "target": {"url": "http://shop:8080", "healthPath": "/healthz"},
        "users": 5,
        "duration": "15s",
        "warmUp": "2s",
        "runner": {"resources": {"limits": {"cpu": "500m", "memory": "256Mi"}}},
        "archetypes": [
            {"name": "visitor", "flow": [{"request": {"get": "/healthz"}}, {"think": {"constant": "100ms"}}]},
        ],
        "thresholds": [{"rule": "error_rate < 1%"}],
    },
}


@pytest.fixture(scope="module")
def images(node):
    """The node with the images of this checkout."""
    try:
        built = build()
    except Unavailable as error:
        unavailable("node", error)
    for image in built.values():
        node.import_image(image.archive)
    return built


@pytest.fixture
def release(node, namespace, images):
    """Return what runs helm in the test's namespace, inside the node's network."""
    try:
        program = helm.find()
    except Unavailable as error:
        unavailable("node", error)

    def run(*arguments):
        with tempfile.TemporaryDirectory() as home:
            command = [program, *arguments, "--namespace", namespace, "--kubeconfig", node.kubeconfig]
            done = subprocess.run(
                node.inside(["/usr/bin/env", "-i", f"HOME={home}", *command]),
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
        assert 0 == done.returncode, done.stderr
        return done.stdout

    yield run
    node.kubectl("delete", f"clusterrole/{NAME}", f"clusterrolebinding/{NAME}", "--ignore-not-found")


def runners(kubectl):
    """Return the runners' UIDs."""
    found = kubectl("get", "pods", "-l", "trafficsim.io/simulation=shop", "-o", "json")["items"]
    return {pod["metadata"]["uid"] for pod in found}


def test_helm_installs_tests_and_upgrades_it(release, kubectl):
    """
    Both replicas become ready under the restricted standard, `helm test` passes, and a simulation does, through an
    upgrade by which another replica gets the Lease: no runner was restarted.
    """
    chart = str(ROOT / "charts" / "trafficsim")
    release("install", "trafficsim", chart, "--take-ownership", "--wait", "--timeout", "2m")
    assert "Phase:          Succeeded" in release("test", "trafficsim", "--timeout", "2m")
    kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": SHOP})
    kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    kubectl("apply", "-f", "-", stdin=SIMULATION)
    kubectl("wait", "tsim/shop", "--for=jsonpath={.status.phase}=Running", "--timeout=90s")
    before = kubectl("get", "lease", NAME, "-o", "json")["spec"]["holderIdentity"]
    before_runners = runners(kubectl)
    release("upgrade", "trafficsim", chart, "--reset-then-reuse-values", "--set", "logs.level=debug", "--wait")
    kubectl("wait", "tsim/shop", "--for=condition=Finished", "--timeout=120s")
    found = kubectl("get", "tsim", "shop", "-o", "json")["status"]
    assert "Passed" == found["verdict"], json.dumps(found, indent=1)
    assert before != kubectl("get", "lease", NAME, "-o", "json")["spec"]["holderIdentity"]
    assert runners(kubectl) <= before_runners, "no runner was started anew"
    release("uninstall", "trafficsim", "--wait")
    # Helm waits for the Deployment to go, and pods go a moment after it.
    kubectl("wait", "pods", "-l", f"app.kubernetes.io/name={NAME}", "--for=delete", "--timeout=60s")
    assert [] == kubectl("get", "pods", "-l", f"app.kubernetes.io/name={NAME}", "-o", "json")["items"]
    assert "trafficsimulations" in kubectl("get", "crd", "trafficsimulations.trafficsim.io", "-o", "name")
