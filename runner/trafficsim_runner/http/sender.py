"""
What engine and worker ask of the client.

A protocol, so that a test's engine may have a client of its own, compiled modules or not.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trafficsim_api.connections import Pool
    from trafficsim_api.protocol import Allowed
    from trafficsim_runner.checks import Headers
    from trafficsim_runner.http.endpoint import Endpoint
    from trafficsim_runner.program import RequestStep
    from trafficsim_runner.scenario.asking import Ask
    from trafficsim_runner.timer import Timer
    from trafficsim_runner.users import User

__all__ = ["Sender"]


class Sender(Protocol):
    """The client as engine and worker use it: an instance of `http.client.Client`, or of a test's own."""

    timer: Timer
    in_flight: int
    fold_at: int
    max_age_ns: int
    hear: Callable[[User, int, Headers, bytes], None]
    reply: Callable[[User, int, Headers, bytes], Ask | None]

    @property
    def open_connections(self) -> int:
        """See `Opening.open_connections`."""

    def aim(
        self, endpoint: Endpoint, tls: ssl.SSLContext | None, make_tls: Callable[[], ssl.SSLContext] = ...
    ) -> None:  # fmt: skip
        """See `Opening.aim`."""

    def allow(
        self, allowed: Sequence[Allowed], *, connections: int, concurrency: int, verbs: Sequence[str] = ()
    ) -> None:  # fmt: skip
        """See `Opening.allow`."""

    def share(self, pools: Mapping[str, Pool] | None, otherwise: Pool | None = None) -> None:
        """See `Pooling.share`."""

    def rest(self) -> None:
        """See `Pooling.rest`."""

    def pool_figures(self) -> dict[str, list[int]]:
        """See `Pooling.pool_figures`."""

    def request(self, user: User, step: RequestStep, wire: bytes, now_ns: int, due_ns: int) -> None:
        """See `Exchange.request`."""

    def release(self, user: User) -> None:
        """See `Exchange.release`."""

    def is_sending(self, user: User) -> bool:
        """See `Exchange.is_sending`."""

    def cut(self, user: User, now_ns: int) -> None:
        """See `Exchange.cut`."""

    def give_up(self, user: User) -> None:
        """See `Exchange.give_up`."""

    def sweep(self, now_ns: int, most: int = ...) -> bool:
        """See `Exchange.sweep`."""

    def bury(self) -> None:
        """See `Opening.bury`."""

    def fileno(self) -> int:
        """See `Client.fileno`."""

    def drain(self) -> None:
        """See `Client.drain`."""

    def handle_ready(self) -> int:
        """See `Client.handle_ready`."""

    def close(self) -> None:
        """See `Client.close`."""
