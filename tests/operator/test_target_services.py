"""What a target's host names in a cluster."""

import pytest
import trustme

from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.services import own_service_name, service_facts, trusted_certificates
from trafficsim_operator.kube import CONFIG_MAPS, ENDPOINT_SLICES, PODS, SERVICES

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
    """Objects by kind and name, a list of EndpointSlices for each look at them, and pods."""

    def __init__(self, *, slices=((),), pods=(), **objects):
        self.objects, self.slices, self.pods = objects, list(slices), pods

    async def get(self, resource, namespace, name):
        assert "shop" == namespace
        return self.objects.get(f"{resource.plural}/{name}")

    async def list(self, resource, namespace, labels=None):
        assert "shop" == namespace
        if resource == PODS:
            assert {"app": "web"} == labels
            return *({"status": {"podIPs": [{"ip": ip}]}} for ip in self.pods), {"status": {}}
        assert ENDPOINT_SLICES == resource
        assert {"kubernetes.io/service-name": "web"} == labels
        return self.slices.pop(0) if len(self.slices) > 1 else self.slices[0]


SELECTED = {"selector": {"app": "web"}, "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]}
HEADLESS = {"selector": {"app": "web"}, "clusterIP": "None"}


async def facts(spec, *slices, pods=()):
    api = FakeApi(**{f"{SERVICES.plural}/web": {"spec": spec}}, slices=slices or ((),), pods=pods)
    return await service_facts(api, OWNER, "web", 80)


def a_slice(*addresses, by="endpointslice-controller.k8s.io", **conditions):
    labels = {"endpointslice.kubernetes.io/managed-by": by} if by else {}
    return {
        "metadata": {"name": "web-1", "labels": labels},
        "endpoints": [{"addresses": [address], "conditions": conditions} for address in addresses],
    }


@pytest.mark.parametrize("slices", [(), (a_slice("10.1.0.1", "10.1.0.2"),)], ids=["no pods yet", "with pods"])
async def test_a_service_with_a_selector_is_an_own_one(slices):
    found = await facts(SELECTED, slices, pods=("10.1.0.1", "10.1.0.2"))
    assert (True, ("10.96.0.5",), "") == (found.own_service, found.addresses, found.not_own)


async def test_a_service_without_a_selector_is_no_own_service():
    """Whoever may write an EndpointSlice could point it anywhere."""
    found = await facts({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]})
    assert (False, "Service web has no selector") == (found.own_service, found.not_own)


@pytest.mark.looptime
@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(a_slice("192.0.2.1", by=None), id="made by hand"),
        pytest.param(a_slice("10.1.0.1", by="me"), id="made by hand, with a pod's address"),
        pytest.param(a_slice("192.0.2.1"), id="with the controller's label on it"),
        pytest.param(a_slice("192.0.2.1", ready=False, serving=True), id="while it ends"),
    ],
)
async def test_an_endpoint_that_is_no_pod_makes_it_no_own_service(strange):
    """A slice made by hand takes part in the Service's virtual address beside the controller's."""
    found = await facts(SELECTED, (a_slice("10.1.0.1"), strange), pods=("10.1.0.1",))
    assert not found.own_service
    assert "which is none of its pods" in found.not_own


@pytest.mark.looptime
async def test_a_pod_that_has_just_gone_is_looked_at_again():
    """Slices follow pods with a delay."""
    found = await facts(SELECTED, (a_slice("10.1.0.9"),), (a_slice("10.1.0.1"),), pods=("10.1.0.1",))
    assert found.own_service


async def test_an_external_name_is_any_other_name():
    assert await facts({"type": "ExternalName", "externalName": "example.com", "selector": {"app": "x"}}) is None


@pytest.mark.looptime
async def test_a_headless_service_is_its_ready_pods():
    slices = (
        a_slice("10.1.0.2", "10.1.0.1"),
        a_slice("10.1.0.3", ready=False),
        a_slice("192.0.2.1", by=None),
        a_slice("192.0.2.2", "evil.example.com"),
    )
    found = await facts(HEADLESS, slices, pods=("10.1.0.1", "10.1.0.2", "10.1.0.3"))
    assert (("10.1.0.1", "10.1.0.2"), True) == (found.addresses, found.own_service)
    none = await facts(HEADLESS)
    assert "Service web has no ready endpoints" == none.problem


async def test_a_headless_service_without_a_selector_is_its_addresses():
    """Policy judges each as any other address; names are none."""
    found = await facts({"clusterIP": "None"}, (a_slice("192.0.2.1", "evil.example.com", by=None),))
    assert (False, ("192.0.2.1",)) == (found.own_service, found.addresses)


async def test_certificates_from_a_config_map():
    """What is missing is told with the field's name."""
    certificate = trustme.CA().cert_pem.bytes().decode()
    garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    maps = {"ca": {"data": {"ca.crt": certificate}}, "bad": {"data": {"ca.crt": garbage}}}
    api = FakeApi(**{f"{CONFIG_MAPS.plural}/{name}": found for name, found in maps.items()})
    assert (certificate, "") == await trusted_certificates(api, "shop", "ca")
    assert "has no certificates under ca.crt" in (await trusted_certificates(api, "shop", "bad"))[1]
    pem, problem = await trusted_certificates(api, "shop", "nix")
    assert pem is None
    assert "target.tls.caFrom.configMap: there is no ConfigMap nix in namespace shop" == problem
