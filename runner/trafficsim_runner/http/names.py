"""A name's addresses: looked up in a thread, again for each connect but at most once a second."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final

from trafficsim_runner.http.endpoint import Address, Endpoint, look_up

__all__ = ["Names"]

FRESH_NS: Final = 1_000_000_000


class Names:
    """
    The addresses of one endpoint.

    They are fresh for 1 s, so that users who connect together share one look-up. The old ones stay when a look-up
    fails. An address in the URL is not looked up.
    """

    def __init__(self, endpoint: Endpoint, answered: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._answered = answered
        self._asked_ns = 0
        self._task: asyncio.Task[None] | None = None
        self._is_literal = _is_literal(endpoint.host)
        self.addresses: list[Address] = look_up(endpoint.host, endpoint.port) if self._is_literal else []

    def ask(self, now_ns: int) -> bool:
        """Look the addresses up unless they are fresh; say whether there is an answer to wait for."""
        if self._is_literal:
            return False
        if self._task is None and not (self.addresses and now_ns - self._asked_ns < FRESH_NS):
            self._asked_ns = now_ns
            self._task = asyncio.get_running_loop().create_task(self._look_up())
        return self._task is not None

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self.addresses = await loop.run_in_executor(None, look_up, self._endpoint.host, self._endpoint.port)
        except Exception:  # noqa: BLE001 - whatever a resolver may raise, users wait for us
            pass  # the old addresses stay: a name server's hiccup must not look like the target's
        self._task = None
        self._answered()

    def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
