"""
A whole Kubernetes node for the tests in this directory, and a namespace for each; what stories are told with.

A node that is up (`make cluster`) is used and left as it is; otherwise one is started, and ended with the tests, also
if they are killed, but for one that `make cluster` has found up meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_kubernetes.providers.base import AClusterManager

from e2e.hopeless import Hopeless, begin
from e2e.pods import busybox
from e2e.providers import provider
from e2e.story_stand import Stand, a_namespace, a_stand, give_images
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
        started = cluster.start(bound=True)
    except Unavailable as error:
        unavailable("node", error)
    cluster.import_image(archive)
    yield cluster
    if started:
        cluster.leave()


@pytest.fixture
def namespace(node: Cluster) -> Iterator[str]:
    """A fresh namespace whose pods have to be as restricted as ours are."""
    with a_namespace(node) as name:
        yield name


@pytest.fixture(scope="session")
def imaged(node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The node with the images of this checkout."""
    give_images(node, tmp_path_factory.mktemp("versions"))
    return node


@pytest.fixture(scope="session")
def stand(imaged: Cluster) -> Iterator[Stand]:
    """An operator of the whole cluster, installed by Helm; files with an operator of their own come before (a to r)."""
    with a_stand(imaged) as found:
        yield found


@pytest.fixture(scope="session")
def hopeless(stand: Stand) -> Mapping[str, Hopeless]:
    """What can't start, by cause. It takes five minutes to be given up: whoever has something else to do begins it."""
    return begin(stand)


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
