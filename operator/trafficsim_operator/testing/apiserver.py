"""A small asynchronous client of the API server that speaks plain dicts: enough for a node, not a library."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import aiohttp
import yaml

Object: TypeAlias = dict[str, Any]

_REQUEST_LIMIT: Final = aiohttp.ClientTimeout(total=10)
_WATCH_SECONDS: Final = 300  # the server ends a watch after this; we list again
_WATCH_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_WATCH_SECONDS + 10)
_FIRST_RETRY, _LAST_RETRY = 0.1, 1.0  # seconds
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """An answer of the API server other than success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


# What an unreachable or restarting server looks like; every loop of ours retries these.
UNREACHABLE: Final = (aiohttp.ClientError, TimeoutError, ConnectionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The whole collection as it is now; what is absent is gone."""

    objects: tuple[Object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One object was added, modified or deleted."""

    object: Object
    deleted: bool


class Api:
    """Requests and watches with the credentials of one kubeconfig file."""

    def __init__(self, kubeconfig: Path) -> None:
        self._server, self._ssl, self._headers = _credentials(kubeconfig)
        self._session: aiohttp.ClientSession | None = None

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._server

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._ssl, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, **query: str) -> Object:
        """Return the object or list at *path*."""
        return await self._request("GET", path, query=query)

    async def create(self, path: str, body: Object) -> Object:
        """Post *body* to the collection or subresource at *path*."""
        return await self._request("POST", path, body=body)

    async def patch(self, path: str, body: Object, *, kind: str = MERGE) -> Object:
        """Patch the object at *path*; a `metadata.uid` in *body* makes the patch conditional."""
        return await self._request("PATCH", path, body=body, content_type=kind)

    async def delete(self, path: str, *, grace: int | None = None, uid: str | None = None) -> Object:
        """Delete the object at *path* if it still is *uid*, with *grace* seconds to go."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        return await self._request("DELETE", path, body=options)

    async def follow(self, path: str) -> AsyncIterator[Listed | Changed]:
        """
        Yield the collection at *path*, then every change, for ever.

        After a gap (server away, watch expired) the whole collection is yielded again, so that nothing is missed.
        """
        retry = _FIRST_RETRY
        while True:
            try:
                listed = await self.get(path)
                yield Listed(objects=tuple(listed.get("items") or ()))
                retry = _FIRST_RETRY
                async for change in self._watch(path, listed["metadata"]["resourceVersion"]):
                    yield change
            except (*UNREACHABLE, ApiError):
                await asyncio.sleep(retry)
                retry = min(2 * retry, _LAST_RETRY)

    async def _watch(self, path: str, version: str) -> AsyncIterator[Changed]:
        assert self._session is not None
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(_WATCH_SECONDS)}
        async with self._session.get(self._server + path, params=query, timeout=_WATCH_LIMIT) as response:
            if response.status != 200:
                raise await _error(response)
            rest = b""
            async for chunk in response.content.iter_any():  # `readline` would refuse objects above its limit
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # expired: the collection is listed again
                        return
                    yield Changed(object=event["object"], deleted=event["type"] == "DELETED")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        assert self._session is not None
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": content_type}
        async with self._session.request(
            method, self._server + path, data=data, headers=headers, params=query, timeout=_REQUEST_LIMIT
        ) as response:
            if response.status >= 300:
                raise await _error(response)
            answer: Object = await response.json(content_type=None)
            return answer


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    text = await response.text()
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    return ApiError(response.status, status.get("reason", response.reason or ""), status.get("message", text))


def _credentials(kubeconfig: Path) -> tuple[str, ssl.SSLContext, dict[str, str]]:
    """Read server, trust and token or client certificate (as files) of the current context."""
    document = yaml.safe_load(kubeconfig.read_text())

    def named(kind: str, name: str) -> Object:
        return next(entry for entry in document[f"{kind}s"] if entry["name"] == name)[kind]  # type: ignore[no-any-return]

    context = named("context", document["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
    if "client-certificate" in user:
        trust.load_cert_chain(user["client-certificate"], user["client-key"])
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    return cluster["server"], trust, headers
