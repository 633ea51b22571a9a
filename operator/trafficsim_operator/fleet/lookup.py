"""What a target's URL and its certificates mean on this machine."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from trafficsim_api.certificates import holds_certificates
from trafficsim_api.resource import CAFrom, TrafficSimulationSpec
from trafficsim_operator.observed import TargetFacts

__all__ = ["certificates_of", "host_and_port", "resolve"]

_DEADLINE_S: Final = 5.0
_MAX_PEM: Final = 1 << 20


def host_and_port(spec: TrafficSimulationSpec) -> tuple[str, int]:
    """Return host and port of the target's URL; 80 or 443 when it names none."""
    parts = urlsplit(spec.target.url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


async def resolve(host: str, port: int) -> TargetFacts:
    """Return the addresses of *host*, or the sentence that says why there are none."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return TargetFacts(host=host, port=port, problem=f"{host} could not be resolved within {_DEADLINE_S:.0f}s")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return TargetFacts(host=host, port=port, problem=f"{host} cannot be resolved: {reason}")
    addresses = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
    return TargetFacts(host=host, port=port, addresses=tuple(addresses))


def certificates_of(given: CAFrom | None, base: Path) -> tuple[str | None, str]:
    """
    Return the PEM that `target.tls.caFrom` leads to, and why it leads nowhere ("": it does).

    A relative path is relative to *base*, the directory of the simulation's file.
    """
    if given is None:
        return None, ""
    if given.inline is not None:
        return given.inline, ""
    if given.path is None:
        return None, "configMap: there is none outside a cluster; give path or inline"
    path = base / Path(given.path).expanduser()
    try:
        with path.open(encoding="ascii") as file:
            pem = file.read(_MAX_PEM + 1)
    except UnicodeDecodeError:
        pem = ""
    except OSError as error:
        return None, f"path: {path} cannot be read: {error.strerror}"
    if len(pem) > _MAX_PEM or not holds_certificates(pem):
        return None, f"path: {path} holds no certificates in PEM form"
    return pem, ""
