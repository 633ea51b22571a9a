"""Where users connect to, the target or where it redirects them, and a request's way over several of them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trafficsim_api.protocol import Allowed
from trafficsim_runner.http.endpoint import Address, Endpoint, is_allowed
from trafficsim_runner.http.names import Names

if TYPE_CHECKING:
    from trafficsim_runner.program import RequestStep

__all__ = ["Chain", "Origin"]


class Origin:
    """
    An endpoint with its addresses.

    Those that policy allows are usable; one that cannot be connected to is passed over until the name is looked up
    again. *answered* is called after every look-up.
    """

    __slots__ = ("_answered", "_usable", "endpoint", "names", "tls")

    def __init__(
        self, endpoint: Endpoint, tls: ssl.SSLContext | None, answered: Callable[[Origin], None]
    ) -> None:  # fmt: skip
        self.endpoint = endpoint
        self.tls = tls
        self.names = Names(endpoint, self._heard)
        self._answered = answered
        self._usable: list[Address] | None = None

    def _heard(self) -> None:
        self._usable = None
        self._answered(self)

    def forget(self) -> None:
        """Look at the addresses anew: policy changed."""
        self._usable = None

    def permitted(self, allowed: Sequence[Allowed]) -> list[Address]:
        """Return the addresses that are *allowed* and were not passed over."""
        if self._usable is None:
            self._usable = [address for address in self.names.addresses if is_allowed(address, allowed)]
        return self._usable

    def pass_over(self, address: Address) -> bool:
        """Leave *address* out when others are left; say whether there are."""
        others = [other for other in self._usable or () if other != address]
        if others:
            self._usable = others
        return bool(others)


class Chain:
    """
    A request that was redirected: it is one action, from its first send at *since_ns* to its last answer.

    *hops* counts the redirects followed, *wire* is the request on its way to *origin* now, *path* its path.
    """

    __slots__ = ("has_body", "hops", "origin", "path", "since_ns", "step", "verb", "wire")

    def __init__(self, step: RequestStep, origin: Origin, path: bytes, since_ns: int) -> None:
        self.step = step
        self.origin = origin
        self.path = path
        self.since_ns = since_ns
        self.verb = step.verb
        self.has_body = True
        self.hops = 0
        self.wire = b""
