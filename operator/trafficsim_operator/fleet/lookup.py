"""What a target's URL and its certificates mean on this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from trafficsim_api.certificates import holds_certificates
from trafficsim_api.resource import CAFrom, TrafficSimulationSpec
from trafficsim_operator.observed import TargetFacts

__all__ = ["HostLookups", "certificates_of", "host_and_port"]

_DEADLINE_S: Final = 5.0
_THREADS: Final = 8
_MAX_PEM: Final = 1 << 20


def host_and_port(spec: TrafficSimulationSpec) -> tuple[str, int]:
    """Return host and port of the target's URL; 80 or 443 when it names none."""
    parts = urlsplit(spec.target.url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class HostLookups:
    """
    Look-ups of hosts: on *threads* of their own, and one at a time for each host, however many ask for it.

    Subtle: the loop's own threads are few, four of uvloop, and the way to the API server is looked up on them. A name
    server that does not answer keeps a thread for half a minute, whoever has given up meanwhile; so a name of a user
    that leads there keeps one of these, and nobody else's.
    """

    def __init__(self, find: Callable[..., Any] = socket.getaddrinfo, threads: int = _THREADS) -> None:
        self._find = find
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="host look-up")
        self._asked: dict[str, asyncio.Future[Any]] = {}

    async def resolve(self, host: str, port: int) -> TargetFacts:
        """Return the addresses of *host*, or the sentence that says why there are none; within five seconds."""
        try:
            async with asyncio.timeout(_DEADLINE_S):
                found = _written(host) or await asyncio.shield(self._look_up(host))
        except TimeoutError:
            return TargetFacts(host=host, port=port, problem=f"{host} could not be resolved within {_DEADLINE_S:.0f}s")
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return TargetFacts(host=host, port=port, problem=f"{host} cannot be resolved: {reason}")
        addresses = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
        return TargetFacts(host=host, port=port, addresses=tuple(addresses))

    def _look_up(self, host: str) -> asyncio.Future[Any]:
        asked = self._asked.get(host)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(self._threads, self._find, host, None, 0, socket.SOCK_STREAM)
            self._asked[host] = asked
            asked.add_done_callback(lambda done: self._answered(host, done))
        return asked

    def _answered(self, host: str, done: asyncio.Future[Any]) -> None:
        del self._asked[host]
        if not done.cancelled():
            done.exception()  # whoever still waits is told; if nobody does, it is no fault of ours


def _written(host: str) -> Any:
    """Return what *host* is looked up to when it is an address, None for a name: nobody is asked."""
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None


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
