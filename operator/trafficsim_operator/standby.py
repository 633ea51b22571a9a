"""
What a standby serves of the holder's: every page but its own health and metrics is asked for there and handed on.

So a Service in front of all replicas answers the same from each. A request is handed on once: who is asked by another
replica and is not the holder either answers 503, since the Lease changes hands just then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import httpx
from aiohttp import web

__all__ = ["FORWARDED", "Standby"]

FORWARDED: Final = "X-Trafficsim-Forwarded"
_AGAIN_S: Final = 2
_DEADLINE: Final = httpx.Timeout(30.0, connect=2.0)
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}")
# Of the connection, not of the message; and what the client sets anew.
_HOP: Final = frozenset((
    "connection", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade",
))  # fmt: skip


class Standby:
    """Hands requests on to the holder at *address* ("": nobody is known); *own* is this replica's."""

    def __init__(self, address: Callable[[], str], own: str) -> None:
        self._address, self._own = address, own
        self._http = httpx.AsyncClient(trust_env=False, timeout=_DEADLINE)

    async def aclose(self) -> None:
        """Close the connections to the holder."""
        await self._http.aclose()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Return the holder's answer; 502 when it gives none, 503 while there is no holder to ask."""
        address = self._address()
        if FORWARDED in request.headers or address in ("", self._own) or not _ADDRESS.fullmatch(address):
            return _unavailable("no operator holds the Lease that could be asked")
        asked = self._http.build_request(
            request.method,
            f"http://{address}{request.rel_url}",
            headers=_passed(request.headers) | {FORWARDED: self._own or "standby"},
            content=await request.read(),
        )
        try:
            answer = await self._http.send(asked, stream=True)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            return web.Response(status=502, text=f"the operator at {address} does not answer: {why}\n")
        response = web.StreamResponse(status=answer.status_code, headers=_passed(answer.headers))
        try:
            await response.prepare(request)
            async for piece in answer.aiter_raw():
                await response.write(piece)
        except httpx.HTTPError:
            # Part of it is sent: the end of the connection says that the rest is missing.
            if request.transport is not None:
                request.transport.abort()
        finally:
            await answer.aclose()
        return response


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP}


def _unavailable(why: str) -> web.Response:
    return web.Response(status=503, text=f"{why}\n", headers={"Retry-After": str(_AGAIN_S)})
