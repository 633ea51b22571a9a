"""
Whether the target answers: one GET of its health path, to the addresses that policy allows.

Policy's verbs are about the load. This GET is no load: it is asked on behalf of whoever wrote the policy, and allowed
whatever verbs stand there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final

from trafficsim_api.protocol import Allowed, Load
from trafficsim_runner.http.endpoint import Address, Endpoint, endpoint_of, is_allowed, look_up, tls_of

__all__ = ["REACHABLE", "ask"]

REACHABLE: Final = "reachable"
RESOLVE_S: Final = 5.0
LONGEST_S: Final = 10.0
LONGEST_LINE: Final = 8192
BROKEN: Final = 500


async def ask(load: Load, allowed: Sequence[Allowed]) -> str:
    """Return "reachable" when GET target.healthPath is answered below 500 at any address, else what was wrong."""
    endpoint = endpoint_of(load.target)
    host, port = endpoint.host, endpoint.port
    try:
        async with asyncio.timeout(RESOLVE_S):
            addresses = await asyncio.get_running_loop().run_in_executor(None, look_up, host, port)
    except TimeoutError:
        return f"resolving {host} took longer than {RESOLVE_S:g} s"
    except (OSError, UnicodeError) as error:
        return f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}"
    permitted = [address for address in addresses if is_allowed(address, allowed)]
    if not permitted:
        found = ", ".join(address[1][0] for address in addresses)
        return f"{host}:{port} ({found}) is not among the addresses allowed"
    until = asyncio.get_running_loop().time() + LONGEST_S
    said = ""
    for address in permitted:
        said = await _ask_at(address, load, endpoint, until)
        if said == REACHABLE or asyncio.get_running_loop().time() >= until:
            break
    return said


async def _ask_at(address: Address, load: Load, endpoint: Endpoint, until: float) -> str:
    """Return "reachable", or what was wrong at *address*; it takes until *until* (the loop's clock) at most."""
    where = f"{endpoint.host}:{endpoint.port}"
    within = (endpoint.connect_ns + endpoint.request_ns) / 1e9
    within = max(0.0, min(within, until - asyncio.get_running_loop().time()))
    try:
        async with asyncio.timeout(within):
            status = await _status(address, load, endpoint)
    except TimeoutError:
        return f"no answer from {where} within {within:.3g} s"
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {where} is not accepted: {error.verify_message}"
    except ConnectionRefusedError:
        found = "" if address[1][0] == endpoint.host else f" ({address[1][0]})"
        return f"{where}{found} refuses the connection: nothing listens there"
    except (OSError, ValueError, asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
        return f"{where}: {error}"
    return REACHABLE if status < BROKEN else f"GET {load.target.health_path} was answered with {status}"


async def _status(address: Address, load: Load, endpoint: Endpoint) -> int:
    async with asyncio.timeout(endpoint.connect_ns / 1e9):
        reader, writer = await asyncio.open_connection(
            address[1][0],
            endpoint.port,
            ssl=tls_of(load) if endpoint.is_tls else None,
            server_hostname=endpoint.server_name if endpoint.is_tls else None,
            limit=LONGEST_LINE,
        )
    try:
        path = endpoint.prefix + load.target.health_path
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {endpoint.authority}\r\nUser-Agent: trafficsim\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        line = (await reader.readuntil(b"\n")).split(b" ", 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/1.") or not line[1].strip().isdigit():
            raise ValueError("the answer is not HTTP/1.1")
        return int(line[1])
    finally:
        writer.close()
