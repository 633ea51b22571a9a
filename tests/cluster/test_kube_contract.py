"""The real API server, held to what its fake is held to."""

import pytest

from cluster.operator_stand import client, install_kind
from component.kube_contract import KubeContract, KubeStand

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


@pytest.fixture
async def kube_stand(control_plane, namespace):
    async with client(control_plane) as api:
        yield KubeStand(api=api, namespace=namespace)


class TestApiServer(KubeContract):
    """The real one."""
