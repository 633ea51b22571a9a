"""
A whole Kubernetes node for the tests in this directory, and a namespace for each.

A node that is up (`make cluster`) is used and left as it is; otherwise one is started, and ended with the tests.
"""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_kubernetes.providers.base import AClusterManager

from e2e.pods import busybox
from e2e.providers import provider
from levels import unavailable
from trafficsim_operator.testing import Unavailable
from trafficsim_operator.testing.node import Cluster


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node that takes pods, with the image that the tests run on it."""
    cluster = Cluster()
    archive: Path = tmp_path_factory.mktemp("images") / "busybox.tar"
    try:
        archive.write_bytes(busybox())
        started = cluster.start()
    except Unavailable as error:
        unavailable("node", error)
    cluster.import_image(archive)
    yield cluster
    if started:
        cluster.stop()


@pytest.fixture
def namespace(node: Cluster) -> Iterator[str]:
    """A fresh namespace whose pods have to be as restricted as ours are."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node.kubectl(
        "apply",
        "-f",
        "-",
        stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
    )
    node.kubectl("--namespace", name, "wait", "serviceaccount/default", "--for=create", "--timeout=45s")
    try:
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(node: Cluster, namespace: str) -> Callable[..., Any]:
    """Kubectl in the test's namespace; see `Cluster.kubectl`."""

    def call(*arguments: str, **options: Any) -> Any:
        return node.kubectl("--namespace", namespace, *arguments, **options)

    return call


@pytest.fixture(scope="session")
def k8s_manager(request: pytest.FixtureRequest) -> Callable[[str | None], type[AClusterManager]]:
    """pytest-kubernetes' choice of a provider, with ours in it."""
    return lambda name=None: provider(name, request.config)
