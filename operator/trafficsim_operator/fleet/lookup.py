"""What a target's URL and its certificates mean on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

from trafficsim_api.certificates import holds_certificates
from trafficsim_api.resource import CAFrom, TrafficSimulationSpec
from trafficsim_operator.observed import TargetFacts

__all__ = ["HostLookups", "address_in", "certificates_of", "host_and_port"]

_DEADLINE_S: Final = 5.0
# How long an answer is good: until the next look of those that gave up, who look every five seconds.
_KEPT_S: Final = 10.0
_SILENT_S: Final = 30.0
_THREADS: Final = 32
_MAX_PEM: Final = 1 << 20


def host_and_port(spec: TrafficSimulationSpec) -> tuple[str, int]:
    """Return host and port of the target's URL; 80 or 443 when it names none."""
    parts = urlsplit(spec.target.url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class HostLookups:
    """
    Look-ups of hosts, each on a thread of its own: one at a time for each host, and *threads* at a time at most.

    An answer is good for ten seconds, also one that comes when nobody waits for it any more. A host without one within
    five seconds is looked up again thirty seconds after that, or after the resolver gave up; until then it is said at
    once that there is none.

    The limit: a name without an answer keeps a thread for as long as the resolver tries, often half a minute. While
    *threads* such names are looked up all others wait, and may have no answer within their five seconds either. With
    twice as many of them, 64, that goes on for as long as they are asked for.

    Subtle: the loop's own threads are few, four of uvloop, and the way to the API server is looked up on them. A name
    of a user that leads nowhere keeps one of these here, and nobody else's; and none holds up the end of the process.
    """

    def __init__(self, find: Callable[..., Any] = socket.getaddrinfo, threads: int = _THREADS) -> None:
        self._find = find
        self._threads = threads
        self._free = asyncio.Semaphore(threads)
        self._asked: dict[str, asyncio.Task[Any]] = {}
        self._on_thread: set[str] = set()
        self._answers: dict[str, tuple[float, Any]] = {}
        self._silent: dict[str, float] = {}

    async def resolve(self, host: str, port: int) -> TargetFacts:
        """Return the addresses of *host*, or the sentence that says why there are none; within five seconds."""
        if (written := address_in(host)) is not None:
            return TargetFacts(host=host, port=port, addresses=(written,))
        try:
            found = await self._answer(host)
        except TimeoutError:
            why = f": {self._threads} others without an answer are before it"
            if host in self._silent:
                why = f"; it is looked up again {_SILENT_S:.0f}s later"
            problem = f"{host} could not be resolved within {_DEADLINE_S:.0f}s{why}"
            return TargetFacts(host=host, port=port, problem=problem)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return TargetFacts(host=host, port=port, problem=f"{host} cannot be resolved: {reason}")
        addresses = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
        return TargetFacts(host=host, port=port, addresses=tuple(addresses))

    async def _answer(self, host: str) -> Any:
        """Return what *host* is looked up to; raise TimeoutError when that takes too long, or did so a moment ago."""
        loop = asyncio.get_running_loop()
        until, found = self._answers.get(host, (0.0, None))
        if until > loop.time():
            return found
        if self._silent.get(host, 0.0) > loop.time():
            raise TimeoutError
        self._silent.pop(host, None)
        if host not in self._asked:
            self._asked[host] = loop.create_task(self._ask(host), name=f"look-up of {host}")
            self._asked[host].add_done_callback(lambda done: self._answered(host, done))
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await asyncio.shield(self._asked[host])
        except TimeoutError:
            if host in self._on_thread:  # else it was not its own fault
                self._silent = _kept(self._silent, loop.time()) | {host: loop.time() + _SILENT_S}
            raise

    async def _ask(self, host: str) -> Any:
        async with self._free:
            self._on_thread.add(host)
            return await _on_a_thread(lambda: self._find(host, None, 0, socket.SOCK_STREAM))

    def _answered(self, host: str, done: asyncio.Task[Any]) -> None:
        del self._asked[host]
        self._on_thread.discard(host)
        # An exception is asked for here: whoever still waits is told; if nobody does, it is no fault of ours.
        now = asyncio.get_running_loop().time()
        if done.cancelled() or done.exception() is not None:
            if host in self._silent:
                self._silent[host] = now + _SILENT_S
            return
        self._answers = {name: known for name, known in self._answers.items() if known[0] > now}
        self._answers[host] = (now + _KEPT_S, done.result())
        self._silent.pop(host, None)


def _kept(until: dict[str, float], now: float) -> dict[str, float]:
    """Return what of *until* is not over: names come and go with simulations."""
    return {name: end for name, end in until.items() if end > now}


def _on_a_thread(find: Callable[[], Any]) -> asyncio.Future[Any]:
    """Return what *find* will, on a thread that the end of the process does not wait for, as it does for a pool's."""
    answer: Future[Any] = Future()
    answer.set_running_or_notify_cancel()  # nothing takes it back from now on

    def look() -> None:
        try:
            answer.set_result(find())
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            answer.set_exception(error)

    Thread(target=look, name="host look-up", daemon=True).start()
    return asyncio.wrap_future(answer)


def address_in(host: str) -> str | None:
    """Return the address that *host* is, without its zone; None for a name."""
    try:
        return str(ipaddress.ip_address(host)).partition("%")[0]
    except ValueError:
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
