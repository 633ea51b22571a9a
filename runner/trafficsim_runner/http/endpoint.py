"""Where the load goes: the target's URL taken apart, its addresses, and which of them policy lets us connect to."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from trafficsim_api.protocol import Allowed, Load, covers
from trafficsim_api.resource import Target

__all__ = ["Address", "Endpoint", "endpoint_of", "is_allowed", "look_up", "tls_of"]

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
"""Address family and socket address."""

_URL: Final = re.compile(r"(https?)://(\[[^\]]+\]|[^:/]+)(?::([0-9]+))?(/.*)?")


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
    match = _URL.fullmatch(target.url)
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
    """Say whether policy lets us connect to *address*."""
    host, port = address[1][:2]
    return covers(allowed, host, port)
