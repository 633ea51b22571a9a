"""What a target's host is inside a cluster: a Service of the simulation's own namespace, or any other name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from trafficsim_api.certificates import holds_certificates
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.lookup import address_in
from trafficsim_operator.kube import CONFIG_MAPS, ENDPOINT_SLICES, PODS, SERVICES, KubeApi
from trafficsim_operator.observed import TargetFacts

__all__ = ["own_service_name", "service_facts", "trusted_certificates"]

_CA_KEY: Final = "ca.crt"
_SERVICE_LABEL: Final = "kubernetes.io/service-name"
_MANAGED_LABEL: Final = "endpointslice.kubernetes.io/managed-by"
_CONTROLLER: Final = "endpointslice-controller.k8s.io"
# How long the controller of EndpointSlices may take to follow a pod that went.
_SETTLE_S: Final = 1.0


def own_service_name(host: str, namespace: str) -> str | None:
    """
    Return the Service that *host* names in *namespace*, None for everything else.

    In namespace shop `web`, `web.shop`, `web.shop.svc` and `web.shop.svc.cluster.local` are the Service web.
    """
    match = re.fullmatch(r"([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)(?:\.([a-z0-9-]+)(?:\.svc(?:\..+)?)?)?\.?", host)
    if match is None or match[2] not in (None, namespace):
        return None
    return match[1]


async def service_facts(api: KubeApi, owner: Owner, host: str, port: int) -> TargetFacts | None:
    """
    Return what is known when *host* is a Service of the own namespace; None when it is none of that name.

    Only a Service with a selector, whose endpoints are the pods that it selects, is an own one: an ExternalName, or
    endpoints made by hand, point anywhere. Of a headless Service the addresses of its pods count, and no others.
    """
    name = own_service_name(host, owner.namespace)
    service = await api.get(SERVICES, owner.namespace, name) if name else None
    if name is None or service is None:
        return None
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return None
    selector = spec.get("selector") or {}
    ends = await _ends(api, owner.namespace, name, selector) if selector else _Ends()
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]
    is_headless = not addresses
    if is_headless:
        addresses = list(ends.pods if selector else await _unselected(api, owner.namespace, name))
    not_own = "" if selector else f"Service {name} has no selector"
    if ends.strange and not is_headless:
        not_own = f"Service {name} has the endpoint {ends.strange[0]}, which is none of its pods"
    return TargetFacts(
        host=host,
        port=port,
        addresses=tuple(sorted(set(addresses))),
        own_service=not not_own,
        not_own=not_own,
        problem="" if addresses else f"Service {name} has no ready endpoints",
    )


async def trusted_certificates(api: KubeApi, namespace: str, name: str) -> tuple[str | None, str]:
    """Return the PEM in ConfigMap *name*, or why there is none."""
    field = "target.tls.caFrom.configMap"
    found = await api.get(CONFIG_MAPS, namespace, name)
    if found is None:
        return None, f"{field}: there is no ConfigMap {name} in namespace {namespace}"
    pem = (found.get("data") or {}).get(_CA_KEY)
    if not pem or not holds_certificates(pem):
        return None, f"{field}: ConfigMap {name} has no certificates under {_CA_KEY}"
    return str(pem), ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """Where a Service leads: addresses of its *pods*, and *strange* ones that are not."""

    pods: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()


async def _ends(api: KubeApi, namespace: str, service: str, selector: Mapping[str, str]) -> _Ends:
    """Return where the Service leads; what looks strange is looked at twice, since slices follow pods that went."""
    found = await _ends_now(api, namespace, service, selector)
    if not found.strange:
        return found
    await asyncio.sleep(_SETTLE_S)
    again = await _ends_now(api, namespace, service, selector)
    return replace(again, strange=tuple(sorted(set(found.strange) & set(again.strange))))


async def _ends_now(api: KubeApi, namespace: str, service: str, selector: Mapping[str, str]) -> _Ends:
    # In this order: a pod that came between is among the pods, and its address not yet in a slice.
    slices = await api.list(ENDPOINT_SLICES, namespace, {_SERVICE_LABEL: service})
    pods: set[str] = set()
    for pod in await api.list(PODS, namespace, selector):
        pods |= {entry["ip"] for entry in (pod.get("status") or {}).get("podIPs") or () if entry.get("ip")}
    ours: set[str] = set()
    strange: set[str] = set()
    for part in slices:
        managed = (part["metadata"].get("labels") or {}).get(_MANAGED_LABEL) == _CONTROLLER
        for endpoint in part.get("endpoints") or ():
            addresses = set(endpoint.get("addresses") or ())
            if _is_served(endpoint):
                strange |= addresses - pods if managed else addresses
            if managed and _is_ready(endpoint):
                ours |= addresses & pods
    return _Ends(pods=tuple(sorted(ours)), strange=tuple(sorted(strange)))


async def _unselected(api: KubeApi, namespace: str, service: str) -> list[str]:
    """Return the addresses behind a headless Service without a selector; policy judges each."""
    slices = await api.list(ENDPOINT_SLICES, namespace, {_SERVICE_LABEL: service})
    ready = [endpoint for part in slices for endpoint in part.get("endpoints") or () if _is_ready(endpoint)]
    return [address for endpoint in ready for address in endpoint.get("addresses") or () if address_in(address)]


def _is_ready(endpoint: Mapping[str, Any]) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _is_served(endpoint: Mapping[str, Any]) -> bool:
    """Say whether connections may go there: ready, or, when nobody is, serving while it ends."""
    return _is_ready(endpoint) or bool((endpoint.get("conditions") or {}).get("serving"))
