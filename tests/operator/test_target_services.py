"""What a target's host names in a cluster."""

import pytest

from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.services import own_service_name, service_facts, trusted_certificates
from trafficsim_operator.kube import CONFIG_MAPS, ENDPOINT_SLICES, SERVICES

OWNER = Owner(namespace="shop", name="load", uid="u1")


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("web", "web"),
        ("web.shop", "web"),
        ("web.shop.svc", "web"),
        ("web.shop.svc.cluster.local", "web"),
        ("web.other", None),
        ("web.other.svc.cluster.local", None),
        ("shop.example.com", None),
        ("10.0.0.1", None),
        ("web.shop.example.com", None),
    ],
)
def test_own_service_name(host, service):
    """A name of the own namespace in any of its spellings, and nothing else."""
    assert service == own_service_name(host, "shop")


class FakeApi:
    """Objects by kind and name."""

    def __init__(self, **objects):
        self.objects = objects

    async def get(self, resource, namespace, name):
        assert "shop" == namespace
        return self.objects.get(f"{resource.plural}/{name}")

    async def list(self, resource, namespace, labels=None):
        assert ENDPOINT_SLICES == resource
        assert {"kubernetes.io/service-name": "web"} == labels
        return self.objects.get("slices", ())


async def facts(spec, slices=()):
    return await service_facts(
        FakeApi(**{f"{SERVICES.plural}/web": {"spec": spec}, "slices": slices}), OWNER, "web", 80
    )


async def test_a_service_with_a_selector_is_an_own_one():
    found = await facts({"selector": {"app": "web"}, "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]})
    assert (True, ("10.96.0.5",)) == (found.own_service, found.addresses)


async def test_hand_made_endpoints_are_no_own_service():
    """Whoever may write an EndpointSlice could point it anywhere."""
    found = await facts({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]})
    assert not found.own_service


async def test_an_external_name_is_any_other_name():
    assert await facts({"type": "ExternalName", "externalName": "example.com", "selector": {"app": "x"}}) is None


async def test_a_headless_service_is_its_ready_endpoints():
    endpoints = [{"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.1"]}]
    endpoints.append({"addresses": ["10.1.0.3"], "conditions": {"ready": False}})
    found = await facts({"selector": {"app": "web"}, "clusterIP": "None"}, ({"endpoints": endpoints},))
    assert ("10.1.0.1", "10.1.0.2") == found.addresses
    none = await facts({"selector": {"app": "web"}, "clusterIP": "None"})
    assert "Service web has no ready endpoints" == none.problem


async def test_certificates_from_a_config_map():
    """What is missing is told with the field's name."""
    api = FakeApi(**{f"{CONFIG_MAPS.plural}/ca": {"data": {"ca.crt": "-----BEGIN CERTIFICATE-----\n"}}})
    assert (await trusted_certificates(api, "shop", "ca"))[0] is not None
    pem, problem = await trusted_certificates(api, "shop", "nix")
    assert pem is None
    assert "target.tls.caFrom.configMap: there is no ConfigMap nix in namespace shop" == problem
