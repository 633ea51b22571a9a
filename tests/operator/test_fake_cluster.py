"""The fakes of API server, cluster and runners: held to what the real ones are held to."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from component.fleet_contract import REVISION, FleetContract, FleetStand, a_template
from component.kube_contract import KubeContract, KubeStand
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.kubernetes import KubernetesFleet
from trafficsim_operator.keys import keys_of
from trafficsim_operator.kube import SIMULATIONS
from trafficsim_operator.testing.fake_apiserver import FakeApiServer, FakeKubeApi
from trafficsim_operator.testing.fake_cluster import FakeCluster, FakePods

SIGNING = keys_of(Ed25519PrivateKey.generate())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def server() -> FakeApiServer:
    return FakeApiServer(now_ms=now_ms, namespaces={"test"})


@pytest.fixture
def fake_cluster(server: FakeApiServer) -> FakeCluster:
    # Instants are told to the second: what is ready a second later can be told from what never was.
    return FakeCluster(server=server, start_ms=50, ready_ms=1_050, probe_ms=50, settles_ms=20)


@pytest.fixture
def kube_stand(server: FakeApiServer, fake_cluster: FakeCluster) -> KubeStand:
    assert fake_cluster.server is server
    return KubeStand(api=FakeKubeApi(server), namespace="test", patience_s=5.0)


class TestFakeApiServer(KubeContract):
    """The fake of the API server."""


class _WithImage(FleetStand):
    """The stand with the image in the template, as decide pins it."""

    async def ensure(self, replicas, revision=REVISION, template=None):
        await super().ensure(replicas, revision, {"image": "trafficsim/runner:1"} | dict(template or a_template()))


@pytest.fixture
def fleet_stand(server: FakeApiServer, fake_cluster: FakeCluster) -> FleetStand:
    made = server.put(SIMULATIONS, "test", "shop", {"spec": {}})

    async def kill(name: str) -> None:
        fake_cluster.kill(name)

    return _WithImage(
        fleet=KubernetesFleet(FakeKubeApi(server), image="trafficsim/runner:1", keys=SIGNING.public, now_ms=now_ms),
        owner=Owner(namespace="test", name="shop", uid=made["metadata"]["uid"]),
        stranger=Owner(namespace="test", name="shop", uid="7b0c3c1e-0000-4000-8000-000000000002"),
        kill=kill,
        signer=SIGNING.signer,
        way=FakePods(fake_cluster),
        patience_s=10.0,
    )


class TestFleetOnFakes(FleetContract):
    """The real fleet over the fake of a cluster."""
