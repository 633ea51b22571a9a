"""Whether the target answers: one GET of its health path, to an address that policy allows."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from trafficsim_api.protocol import Allowed
from trafficsim_api.resource import Target
from trafficsim_api.units import milliseconds

__all__ = ["REACHABLE", "ask"]

REACHABLE: Final = "reachable"
RESOLVE_S: Final = 5.0
LONGEST_S: Final = 10.0
LONGEST_LINE: Final = 8192
BROKEN: Final = 500


async def ask(target: Target, ca: str | None, allowed: Sequence[Allowed]) -> str:
    """Return "reachable" when GET *target*.healthPath is answered below 500, else what was wrong."""
    parts = urlsplit(target.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(RESOLVE_S):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return f"resolving {host} took longer than {RESOLVE_S:g} s"
    except (OSError, UnicodeError) as error:
        return f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}"
    addresses = [str(entry[4][0]) for entry in found]
    permitted = [address for address in addresses if _is_allowed(address, port, allowed)]
    if not permitted:
        return f"{host}:{port} ({', '.join(addresses)}) is not among the addresses allowed"
    within = min(LONGEST_S, (milliseconds(target.timeouts.connect) + milliseconds(target.timeouts.request)) / 1000)
    try:
        async with asyncio.timeout(within):
            status = await _status(target, permitted[0], port, ca)
    except TimeoutError:
        return f"no answer from {host}:{port} within {within:g} s"
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {host}:{port} is not accepted: {error.verify_message}"
    except (OSError, ValueError, asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
        return f"{host}:{port}: {error}"
    return REACHABLE if status < BROKEN else f"GET {target.health_path} was answered with {status}"


def _is_allowed(address: str, port: int, allowed: Sequence[Allowed]) -> bool:
    at = ipaddress.ip_address(address.partition("%")[0])
    return any(
        at in ipaddress.ip_network(entry.network, strict=False) and (not entry.ports or port in entry.ports)
        for entry in allowed
    )


async def _status(target: Target, address: str, port: int, ca: str | None) -> int:
    parts = urlsplit(target.url)
    tls: ssl.SSLContext | None = None
    name: str | None = None
    if parts.scheme == "https":
        tls = ssl.create_default_context(cadata=ca)
        name = (target.tls.server_name if target.tls else None) or parts.hostname
    reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=name, limit=LONGEST_LINE)
    try:
        path = parts.path.rstrip("/") + target.health_path
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: trafficsim\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        line = (await reader.readuntil(b"\n")).split(b" ", 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/1.") or not line[1].strip().isdigit():
            raise ValueError("the answer is not HTTP/1.1")
        return int(line[1])
    finally:
        writer.close()
