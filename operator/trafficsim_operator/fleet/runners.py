"""
Talking to runners: one httpx client per runner, every call with a deadline, every assignment signed.

One client for all was measured at 58–138 requests/s over 200 runners, one per runner at 945–1350.

A look waits for every runner. So one that did not answer in five seconds gets one second from then on, until it does:
the others' users are moved away from it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError

from trafficsim_api.errors import Unavailable
from trafficsim_api.protocol import Acknowledgement, Assignment, sign
from trafficsim_api.sealed import reader_of
from trafficsim_api.statistics import Answer

__all__ = ["RunnerRefused", "Runners", "Signer"]

_DEADLINE = httpx.Timeout(5.0, connect=2.0)
_SILENT_DEADLINE = httpx.Timeout(1.0)


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
    """The clients of all runners, by address; an address that is gone is closed with `forget`."""

    signer: Signer
    silent: set[str] = field(default_factory=set)
    """The addresses that did not answer when they were last asked."""
    transport: httpx.AsyncBaseTransport | None = None
    """What carries requests and answers; None: the network."""
    may_assign: Callable[[], bool] = lambda: True
    """Whether this operator may tell runners anything now."""
    _clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    async def acknowledgement(self, address: str) -> Acknowledgement:
        """Return what the runner does now; raise Unavailable when it does not answer."""
        response = await self._call("GET", address, "/v1/acknowledgement")
        return _acknowledgement(response)

    async def assign(self, address: str, assignment: Assignment) -> Acknowledgement:
        """Send *assignment*, signed; raise RunnerRefused for a no, Unavailable when nothing came back."""
        if not self.may_assign():
            raise Unavailable(f"nothing is sent to {address}: this operator does not hold the Lease")
        envelope = sign(assignment, self.signer.kid, self.signer.key)
        response = await self._call("PUT", address, "/v1/assignment", content=envelope.model_dump_json())
        if response.status_code >= 400:
            raise RunnerRefused(f"{response.status_code}: {response.text[:500]}")
        return _acknowledgement(response)

    async def statistics(self, address: str, boot: str, since: int) -> Answer:
        """Return the runner's account and its windows after *since*; raise Unavailable when they can't be had."""
        response = await self._call("GET", address, "/v1/statistics", params={"boot": boot, "since": since})
        if response.status_code != 200:
            raise Unavailable(f"runner at {address} answered {response.status_code} to a statistics read")
        try:
            return Answer.decode(response.content)
        except ValueError as error:
            raise Unavailable(f"runner at {address}: {error}") from error

    async def forget(self, address: str) -> None:
        """Close the client of a runner that is gone."""
        self.silent.discard(address)
        client = self._clients.pop(address, None)
        if client is not None:
            await client.aclose()

    async def aclose(self) -> None:
        """Close every client."""
        for address in list(self._clients):
            await self.forget(address)

    async def _call(
        self,
        method: str,
        address: str,
        path: str,
        *,
        content: str | None = None,
        params: dict[str, str | int] | None = None,
    ) -> httpx.Response:
        client = self._clients.get(address)
        if client is None:
            client = httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, transport=self.transport)
            self._clients[address] = client
        deadline = _SILENT_DEADLINE if address in self.silent else _DEADLINE
        try:
            response = await client.request(method, path, content=content, params=params, timeout=deadline)
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            self.silent.add(address)
            # RuntimeError: another simulation, whose runner had this address before, closed the client meanwhile.
            raise Unavailable(f"runner at {address} does not answer: {str(error) or type(error).__name__}") from error
        self.silent.discard(address)
        return response


def _acknowledgement(response: httpx.Response) -> Acknowledgement:
    if response.status_code != 200:
        raise Unavailable(f"a runner answered {response.status_code}")
    try:
        return Acknowledgement.model_validate_json(response.content)
    except ValidationError as error:
        raise Unavailable(f"a runner answered nonsense: {error.errors()[0]['msg']}") from error
