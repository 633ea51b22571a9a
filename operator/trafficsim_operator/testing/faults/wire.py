"""
All calls of the operator, in their order, to the API server and to runners; one of them may meet a fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from trafficsim_operator.kube import Object
from trafficsim_operator.testing.fake_apiserver import FakeApiServer, FakeKubeApi
from trafficsim_operator.testing.fake_control import Reply
from trafficsim_operator.testing.faults.kinds import API_TIMEOUT_S, Fault, refusal

__all__ = ["Wire", "WiredKubeApi"]

# What a call takes; of two that begin at once the order is always the same.
_API_S: Final = 0.004
_RUNNER_S: Final = 0.002


class _Reset(Exception):
    """The connection ended."""


@dataclass(slots=True, kw_only=True)
class Wire:
    """
    The wire of one operator process after the other.

    While *armed* calls are numbered, and *meets* says which fault a call meets. *kill* ends the operator's process; a
    call of a process that has ended goes nowhere.
    """

    meets: Callable[[int, str], Fault | None] = lambda number, label: None
    kill: Callable[[], None] = lambda: None
    armed: bool = False
    calls: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    process: int = 0
    """The number of the operator's process that lives."""
    writes: int = 0
    """Calls that changed something, other than status."""

    async def carry(
        self, process: int, label: str, timeout_s: float, takes_s: float, refused: int, answered: Callable[[], Reply]
    ) -> Reply:
        """Take one call to the other side and its answer back, or what the fault leaves of it."""
        if process != self.process:
            await asyncio.Event().wait()  # it has ended; its tasks are being taken down
        fault = None
        if self.armed:
            number = len(self.calls)
            self.calls.append(label)
            fault = self.meets(number, label)
            if fault is not None:
                self.fired.append(f"{number}:{fault} {label}")
        if not label.startswith("GET") and not label.startswith("LIST") and not label.endswith("/status"):
            self.writes += 1
        match fault:
            case Fault.KILLED_BEFORE:
                await self._die()
            case Fault.TIME_OUT:
                await asyncio.sleep(timeout_s)
                raise TimeoutError
            case Fault.RESET:
                await asyncio.sleep(takes_s)
                raise _Reset
            case Fault.ERROR | Fault.REFUSED:
                await asyncio.sleep(takes_s)
                status = 500 if fault is Fault.ERROR else refused
                return status, b'{"message": "a fault that was asked for"}'
        reply = answered()
        if fault is Fault.KILLED_AFTER:
            await self._die()
        await asyncio.sleep(takes_s)
        if fault is Fault.LOST_ANSWER:
            raise _Reset
        return reply

    async def _die(self) -> None:
        self.process += 1
        self.kill()
        await asyncio.Event().wait()

    def to_runners(self, process: int) -> Callable[[str, float, Callable[[], Reply]], Awaitable[Reply]]:
        """Return the way to runners of the operator's *process*."""

        async def carry(label: str, timeout_s: float, answered: Callable[[], Reply]) -> Reply:
            method = label.partition(" ")[0]
            refused = refusal(method, is_runner=True)
            try:
                return await self.carry(process, f"{label} of a runner", timeout_s, _RUNNER_S, refused, answered)
            except TimeoutError as error:
                raise aiohttp.SocketTimeoutError("no answer") from error
            except _Reset as error:
                raise aiohttp.ClientOSError("the connection was reset") from error

        return carry


class WiredKubeApi(FakeKubeApi):
    """The operator's client, its calls on the wire."""

    def __init__(self, server: FakeApiServer, wire: Wire, process: int) -> None:
        super().__init__(server)
        self._wire, self._process = wire, process

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, Any], body: Object | None, content: str
    ) -> tuple[int, bytes]:
        def answered() -> Reply:
            return self.server.answer(method, path, query, body, content)

        refused = refusal(method, is_runner=False)
        label = _label(method, path)
        try:
            return await self._wire.carry(self._process, label, API_TIMEOUT_S, _API_S, refused, answered)
        except _Reset as error:
            raise aiohttp.ClientOSError("the connection was reset") from error


def _label(method: str, path: str) -> str:
    """Return what people call the request: GET deployments, LIST pods, PATCH trafficsimulations/status."""
    parts = path.strip("/").split("/")
    rest = parts[2 if parts[0] == "api" else 3 :]
    if not rest:
        return f"{method} discovery"
    is_named = len(rest) > 3 if rest[0] == "namespaces" else len(rest) > 1
    rest = rest[2:] if rest[0] == "namespaces" else rest
    verb = "LIST" if method == "GET" and not is_named else method
    return f"{verb} {rest[0]}" + (f"/{rest[2]}" if len(rest) > 2 else "")
