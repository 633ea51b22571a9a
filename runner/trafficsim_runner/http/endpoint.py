"""Where the load goes: the target's URL taken apart, its addresses, and which of them policy lets us connect to."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from trafficsim_api.protocol import Allowed, Load
from trafficsim_api.resource import Target

__all__ = ["Address", "Endpoint", "endpoint_of", "is_allowed", "look_up", "tls_of"]

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
"""Address family and socket address."""

_URL: Final = re.compile(r"^(https?)://(\[[^\]]+\]|[^:/]+)(?::([0-9]+))?(/.*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One target: *authority* is what the Host header says, *prefix* what every path begins with; time-outs in ns."""

    host: str
    port: int
    is_tls: bool
    authority: str
    prefix: str
    server_name: str
    connect_ns: int
    request_ns: int


def endpoint_of(target: Target) -> Endpoint:
    """Return the endpoint *target* names."""
    match = _URL.match(target.url)
    if match is None:
        raise ValueError(f"target.url: {target.url} is not a URL")
    scheme, host, port, prefix = match.groups()
    bare = host.strip("[]")
    name = target.tls.server_name if target.tls and target.tls.server_name else bare
    return Endpoint(
        host=bare,
        port=int(port or (443 if scheme == "https" else 80)),
        is_tls=scheme == "https",
        authority=f"{host}:{port}" if port else host,
        prefix=(prefix or "").rstrip("/"),
        server_name=name,
        connect_ns=target.timeouts.connect // timedelta(microseconds=1) * 1000,
        request_ns=target.timeouts.request // timedelta(microseconds=1) * 1000,
    )


def tls_of(load: Load) -> ssl.SSLContext:
    """Return the TLS context for *load*: certificate and name are always verified, against its CA or the system's."""
    context = ssl.create_default_context(cadata=load.ca) if load.ca else ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def look_up(host: str, port: int) -> list[Address]:
    """Return the addresses of *host*, in the resolver's order (blocking; raises OSError)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def is_allowed(address: Address, allowed: Iterable[Allowed]) -> bool:
    """Say whether policy lets us connect to *address*: its network must be named, and its port when any port is."""
    ip = ipaddress.ip_address(address[1][0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(_covers(rule, ip, address[1][1]) for rule in allowed)


def _covers(rule: Allowed, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> bool:
    ports: Sequence[int] = rule.ports
    return ip in ipaddress.ip_network(rule.network, strict=False) and (not ports or port in ports)
