"""What a target's host is inside a cluster: a Service of the simulation's own namespace, or any other name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from trafficsim_operator.fleet import Owner
from trafficsim_operator.kube import CONFIG_MAPS, ENDPOINT_SLICES, SERVICES, KubeApi
from trafficsim_operator.observed import TargetFacts

__all__ = ["own_service_name", "service_facts", "trusted_certificates"]

_CA_KEY = "ca.crt"


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

    Only a Service with a selector is an own one: an ExternalName, or one with hand-made endpoints, points anywhere.
    """
    name = own_service_name(host, owner.namespace)
    service = await api.get(SERVICES, owner.namespace, name) if name else None
    if name is None or service is None:
        return None
    spec = service.get("spec") or {}
    own = bool(spec.get("selector")) and spec.get("type") != "ExternalName"
    if spec.get("type") == "ExternalName":
        return None
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]
    if not addresses:
        addresses = await _endpoints(api, owner.namespace, name)
    problem = "" if addresses else f"Service {name} has no ready endpoints"
    return TargetFacts(
        host=host, port=port, addresses=tuple(sorted(set(addresses))), own_service=own, problem=problem
    )  # fmt: skip


async def trusted_certificates(api: KubeApi, namespace: str, name: str) -> tuple[str | None, str]:
    """Return the PEM in ConfigMap *name*, or why there is none."""
    field = "target.tls.caFrom.configMap"
    found = await api.get(CONFIG_MAPS, namespace, name)
    if found is None:
        return None, f"{field}: there is no ConfigMap {name} in namespace {namespace}"
    pem = (found.get("data") or {}).get(_CA_KEY)
    if not pem or "BEGIN CERTIFICATE" not in pem:
        return None, f"{field}: ConfigMap {name} has no certificates under {_CA_KEY}"
    return str(pem), ""


def is_address(host: str) -> bool:
    """Say whether *host* is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _endpoints(api: KubeApi, namespace: str, service: str) -> list[str]:
    """Return the addresses behind a headless Service."""
    slices = await api.list(ENDPOINT_SLICES, namespace, {"kubernetes.io/service-name": service})
    return [address for part in slices for endpoint in part.get("endpoints") or () for address in _ready(endpoint)]


def _ready(endpoint: Mapping[str, Any]) -> list[str]:
    ready = (endpoint.get("conditions") or {}).get("ready")
    return list(endpoint.get("addresses") or ()) if ready is not False else []
