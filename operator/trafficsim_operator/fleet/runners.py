"""
Talking to runners: one session for all, every call with a deadline, every assignment signed.

A look waits for every runner. So one that did not answer in five seconds gets one second from then on, until it does:
the others' users are moved away from it meanwhile.
"""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError

from trafficsim_api.errors import Unavailable
from trafficsim_api.protocol import Acknowledgement, Assignment, sign
from trafficsim_api.sealed import reader_of
from trafficsim_api.statistics import Answer

__all__ = ["Reply", "Request", "RunnerRefused", "Runners", "Signer", "Way"]

_DEADLINE = aiohttp.ClientTimeout(total=10.0, sock_connect=2.0, sock_read=5.0)
_SILENT_DEADLINE = aiohttp.ClientTimeout(total=2.0, sock_connect=1.0, sock_read=1.0)
# A runner is asked every five seconds; to connect anew costs as much as ten requests.
_KEPT_S: Final = 30.0

# As much of a no as is told.
_SAID: Final = 500

Reply = tuple[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a runner at *address* (host:port) is asked, and how long its answer may take."""

    method: str
    address: str
    path: str
    query: Mapping[str, str]
    body: bytes
    deadline: aiohttp.ClientTimeout


Way = Callable[[Request], Awaitable[Reply]]
"""What carries a request to a runner and its answer back; it raises aiohttp.ClientError, OSError, TimeoutError."""


class RunnerRefused(Exception):
    """A runner said no to an assignment; the message is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """The operator's signing key and the name runners know it by."""

    kid: str
    key: Ed25519PrivateKey

    @property
    def reader(self) -> X25519PrivateKey:
        """Return the key that opens what runners seal for this operator."""
        return reader_of(self.key)


@dataclass(slots=True, kw_only=True)
class Runners:
    """The way to all runners, by address; of an address that is gone `forget` keeps nothing."""

    signer: Signer
    silent: set[str] = field(default_factory=set)
    """The addresses that did not answer when they were last asked."""
    way: Way | None = None
    """What carries requests and answers; None: the network."""
    may_assign: Callable[[], bool] = lambda: True
    """Whether this operator may tell runners anything now."""
    _session: aiohttp.ClientSession | None = None

    async def acknowledgement(self, address: str) -> Acknowledgement:
        """Return what the runner does now; raise Unavailable when it does not answer."""
        return _acknowledgement(await self._call("GET", address, "/v1/acknowledgement"))

    async def assign(self, address: str, assignment: Assignment) -> Acknowledgement:
        """Send *assignment*, signed; raise RunnerRefused for a no, Unavailable when nothing came back."""
        if not self.may_assign():
            raise Unavailable(f"nothing is sent to {address}: this operator does not hold the Lease")
        envelope = sign(assignment, self.signer.kid, self.signer.key)
        body = envelope.model_dump_json().encode()
        status, answer = await self._call("PUT", address, "/v1/assignment", body=body)
        if status >= 400:
            raise RunnerRefused(_said(status, answer))
        return _acknowledgement((status, answer))

    async def statistics(self, address: str, boot: str, since: int) -> Answer:
        """Return the runner's account and its windows after *since*; raise Unavailable when they can't be had."""
        status, answer = await self._call("GET", address, "/v1/statistics", {"boot": boot, "since": str(since)})
        if status != 200:
            raise Unavailable(f"runner at {address} answered {status} to a statistics read")
        try:
            return Answer.decode(answer)
        except ValueError as error:
            raise Unavailable(f"runner at {address}: {error}") from error

    async def forget(self, address: str) -> None:
        """Forget a runner that is gone; its end closed the connection."""
        self.silent.discard(address)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(
        self, method: str, address: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        deadline = _SILENT_DEADLINE if address in self.silent else _DEADLINE
        request = Request(method=method, address=address, path=path, query=query or {}, body=body, deadline=deadline)
        try:
            reply = await (self.way or self._exchange)(request)
        except (aiohttp.ClientError, OSError) as error:
            self.silent.add(address)
            raise Unavailable(f"runner at {address} does not answer: {str(error) or type(error).__name__}") from error
        self.silent.discard(address)
        return reply

    async def _exchange(self, request: Request) -> Reply:
        if self._session is None:
            # As many connections as there are runners; none of them sends cookies or goes through a proxy.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_S)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        url = f"http://{request.address}{request.path}"
        # Rows may be megabytes: sent in pieces, so that others have their turn between them.
        data = io.BytesIO(request.body) if request.body else None
        async with self._session.request(
            request.method, url, params=request.query, data=data, timeout=request.deadline, allow_redirects=False
        ) as response:
            return response.status, await response.read()


def _said(status: int, body: bytes) -> str:
    """Return a runner's no in words that stay the same as long as it says it; a 409 tells all that it holds."""
    try:
        told = json.loads(body)
    except ValueError:
        return f"{status}: {body.decode(errors='replace')[:_SAID]}"
    if isinstance(told, dict) and "epoch" in told:
        return f"{status}: it holds epoch {told['epoch']} of run {told.get('run')}"
    return f"{status}: {(told.get('error') if isinstance(told, dict) else None) or told}"[:_SAID]


def _acknowledgement(reply: Reply) -> Acknowledgement:
    status, body = reply
    if status != 200:
        raise Unavailable(f"a runner answered {status}")
    try:
        return Acknowledgement.model_validate_json(body)
    except ValidationError as error:
        raise Unavailable(f"a runner answered nonsense: {error.errors()[0]['msg']}") from error
