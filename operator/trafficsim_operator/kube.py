"""
The one way to the API server: plain dicts over the official asynchronous client.

Every call has a deadline, and every failure is told as one of the errors here, once, at this boundary. Typed models are
not used: they drop fields they do not know, and a server-side apply needs partial objects.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from trafficsim_api.errors import Unavailable
from trafficsim_api.names import GROUP, KIND, PLURAL, VERSION

__all__ = [
    "CONFIG_MAPS",
    "DEPLOYMENTS",
    "ENDPOINT_SLICES",
    "EVENTS",
    "LEASES",
    "PODS",
    "REPLICA_SETS",
    "SECRETS",
    "SERVICES",
    "SIMULATIONS",
    "Changed",
    "Forbidden",
    "Gone",
    "KubeApi",
    "Object",
    "Resource",
    "Unacceptable",
    "allow_deep_json",
    "default_namespace",
    "load_configuration",
    "owned_by",
]

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_DEADLINE: Final = aiohttp.ClientTimeout(total=15, sock_connect=3)
_APPLY: Final = "application/apply-patch+yaml"
_HALF_A_PAIR: Final = re.compile("[\ud800-\udfff]")
# Beside what JSON escapes anyway (YAML 1.1, 5.1 and 5.4: printable characters and breaks of lines).
_NOT_OF_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# A page is in memory at once, as text and parsed.
_PAGE: Final = 100
# The API server takes JSON of 10 000 levels; a list or an event of the watch is some more around it. To parse as much
# takes 1.3 MB of the stack of 8.
_LEVELS: Final = 12_000

Object = dict[str, Any]


class Changed(Unavailable):
    """The object is not as it was read, or is there already (409)."""


class Forbidden(Unavailable):
    """The operator may not do this: its role, a quota or an admission plug-in says no (401, 403)."""


class Gone(Unavailable):
    """There is no such object, namespace or kind (404)."""


class Unacceptable(Unavailable):
    """The API server does not take the object as it is (400, 422)."""


_ERRORS: Final[Mapping[int, type[Unavailable]]] = {
    400: Unacceptable, 401: Forbidden, 403: Forbidden, 404: Gone, 409: Changed, 422: Unacceptable,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind of namespaced object, as it stands in URLs and in bodies."""

    group: str = ""
    version: str = "v1"
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """Return what stands as apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Return the path of one object, of a namespace's, or of the whole cluster's."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")


SIMULATIONS: Final = Resource(group=GROUP, version=VERSION, plural=PLURAL, kind=KIND)
DEPLOYMENTS: Final = Resource(group="apps", plural="deployments", kind="Deployment")
REPLICA_SETS: Final = Resource(group="apps", plural="replicasets", kind="ReplicaSet")
PODS: Final = Resource(plural="pods", kind="Pod")
CONFIG_MAPS: Final = Resource(plural="configmaps", kind="ConfigMap")
SECRETS: Final = Resource(plural="secrets", kind="Secret")
SERVICES: Final = Resource(plural="services", kind="Service")
ENDPOINT_SLICES: Final = Resource(group="discovery.k8s.io", plural="endpointslices", kind="EndpointSlice")
EVENTS: Final = Resource(group="events.k8s.io", plural="events", kind="Event")
LEASES: Final = Resource(group="coordination.k8s.io", plural="leases", kind="Lease")


def allow_deep_json() -> None:
    """
    Let this process parse whatever the API server may hold.

    Python's own limit is 1000 levels. A single document that is nested deeper, which anybody may apply, would fail
    every list and end the watch, and with it the operator: for all, until somebody deletes it.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _LEVELS))


async def load_configuration(kubeconfig: str | None = None, context: str | None = None) -> Configuration:
    """
    Return how to reach the API server: as *kubeconfig* says, else as a pod, else as the user does.

    Raises Unavailable when there is none or it can't be read.
    """
    configuration: Configuration = Configuration()
    try:
        if kubeconfig is None and context is None and _ACCOUNT.exists():
            kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            _check_there(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, context=context, client_configuration=configuration, persist_config=False
            )
    except (kube_config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        where = kubeconfig or "the default kubeconfig"
        raise Unavailable(f"no way to a cluster ({where}): {error}") from error
    configuration.client_session_kwargs = {"trust_env": False}  # a proxy is what the kubeconfig says, no other
    configuration.connection_pool_maxsize = 32
    return configuration


def _check_there(paths: str) -> None:
    """Raise Unavailable when there is no file at any of *paths*; the client logs it, and fails for another reason."""
    if not any(path and Path(path).expanduser().exists() for path in paths.split(os.pathsep)):
        raise Unavailable(f"no way to a cluster: there is no kubeconfig {paths}")


def default_namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """Return the namespace that the kubeconfig's context names, in a pod the pod's own; else "default"."""
    if kubeconfig is None and context is None and _ACCOUNT.exists():
        return _ACCOUNT.with_name("namespace").read_text().strip()
    contexts, active = kube_config.list_kube_config_contexts(config_file=kubeconfig)  # type: ignore[no-untyped-call]
    chosen = next((entry for entry in contexts or () if entry["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


class KubeApi:
    """Reads and writes objects as dicts; use it as an asynchronous context manager."""

    def __init__(
        self, configuration: Configuration, heard: Callable[[str, str, int, float], None] = lambda *_: None
    ) -> None:
        """Talk as *configuration* says; *heard* is told verb, plural, status (0: none) and seconds of each call."""
        self._client = ApiClient(configuration)
        self._client.user_agent = "trafficsim"
        self._heard = heard
        self._may_write: Callable[[], bool] = lambda: True

    async def __aenter__(self) -> KubeApi:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    def guarded(self, may_write: Callable[[], bool]) -> KubeApi:
        """Return the same client, which writes only while *may_write* says so; then it raises Unavailable."""
        found = copy.copy(self)
        found._may_write = may_write
        return found

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return the object, None when there is none."""
        try:
            return await self._call("GET", resource, resource.path(namespace, name))
        except Gone:
            return None

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        keep: Callable[[Object], Object] | None = None,
    ) -> tuple[Object, ...]:
        """Return every object of a namespace (None: of the cluster) that carries *labels*: what *keep* makes of it."""
        query: dict[str, Any] = {"limit": _PAGE}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[Object] = []
        while True:
            page = await self._call("GET", resource, resource.path(namespace), query=query)
            items = page.get("items") or ()
            found += map(keep, items) if keep is not None else items
            proceed = page.get("metadata", {}).get("continue")
            if not proceed:
                return tuple(found)
            query["continue"] = proceed

    async def apply(self, resource: Resource, body: Object, manager: str, subresource: str = "") -> Object:
        """Apply *body* server-side as *manager*, taking what fields others hold; return the object as it now is."""
        meta = body["metadata"]
        path = resource.path(meta["namespace"], meta["name"]) + (f"/{subresource}" if subresource else "")
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self._call(
            "PATCH", resource, path, query={"fieldManager": manager, "force": "true"}, body=full,
            content=_APPLY,
        )  # fmt: skip

    async def create(self, resource: Resource, body: Object) -> Object:
        """Create *body*; raise Changed when the name is taken."""
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self._call("POST", resource, resource.path(body["metadata"]["namespace"]), body=full)

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Object, manager: str) -> Object:
        """Merge *patch* into the object."""
        return await self._call(
            "PATCH", resource, resource.path(namespace, name), query={"fieldManager": manager}, body=patch,
            content="application/merge-patch+json",
        )  # fmt: skip

    async def replace(self, resource: Resource, body: Object, manager: str) -> Object:
        """Put *body* in the place of the object, if that still has the UID in it; raise Changed if not."""
        meta = body["metadata"]
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        path = resource.path(meta["namespace"], meta["name"])
        return await self._call("PUT", resource, path, query={"fieldManager": manager}, body=full)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str, version: str = "") -> None:
        """
        Delete the object with *uid* and, in the background, what it owns; an object that is gone is fine.

        With *version* only if it has not changed since; one that has is left as it is.
        """
        known = {"uid": uid} | ({"resourceVersion": version} if version else {})
        body = {"preconditions": known, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", resource, resource.path(namespace, name), body=body)
        except (Gone, Changed):
            pass  # gone, or another object by now: not ours to delete

    async def served(self, resource: Resource) -> bool:
        """Say whether the API server knows the kind: by discovery, which needs no rights of its own."""
        path = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        try:
            found = await self._call("GET", resource, path)
        except Gone:
            return False
        return any(entry["name"] == resource.plural for entry in found.get("resources") or ())

    async def _call(
        self,
        method: str,
        resource: Resource,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        if method != "GET" and not self._may_write():
            raise Unavailable(f"{method} {path}: not sent, this operator does not hold the Lease")
        loop = asyncio.get_running_loop()
        began, status = loop.time(), 0
        try:
            status, raw = await self._exchange(method, path, query or {}, body, content)
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise Unavailable(f"the API server does not answer: {str(error) or type(error).__name__}") from error
        finally:
            self._heard(method, resource.plural, status, loop.time() - began)
        if status >= 300:
            raise _ERRORS.get(status, Unavailable)(f"{method} {path}: {status} {_message(raw)}")
        return _document(raw)

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, Any], body: Object | None, content: str
    ) -> tuple[int, bytes]:
        """
        Send one request and return status and body of the answer; what a connection raises is raised as it is.

        The body is not the client's to prepare: it would copy plain values, one by one, to plain values.
        """
        sent: Object | str | None = body
        if body is not None and content == _APPLY:
            # With a charset the client leaves text as it is; without, it would make JSON of it.
            sent, content = as_yaml(body), f"{_APPLY}; charset=utf-8"
        verb, url, headers, _, _ = await self._client.param_serialize(
            method, path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content},
            auth_settings=["BearerToken"],
        )  # fmt: skip
        response = await self._client.call_api(verb, url, headers, sent, _request_timeout=_DEADLINE)
        return response.status, await response.read()  # type: ignore[no-untyped-call]


def as_yaml(body: Object) -> str:
    """
    Return *body* as JSON that is also YAML of the same meaning, which is what a server-side apply is read as.

    YAML knows no surrogates, so what JSON escapes by a pair is sent as it is; what YAML takes for a break of lines, or
    not at all, is escaped; half a pair is no character and becomes U+FFFD.
    """
    text = _HALF_A_PAIR.sub("\ufffd", json.dumps(body, ensure_ascii=False))
    return _NOT_OF_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _document(raw: bytes) -> Object:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unavailable("the API server's answer is not JSON") from error
    if not isinstance(found, dict):
        raise Unavailable("the API server's answer is not an object")
    return found


def _message(raw: bytes) -> str:
    """Return what the API server says was wrong, for people."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return raw[:300].decode(errors="replace")
    return str(found.get("message", "")) if isinstance(found, dict) else ""


def owned_by(item: Object, uid: str) -> bool:
    """Say whether the owner references of *item* name *uid*."""
    return any(reference.get("uid") == uid for reference in item["metadata"].get("ownerReferences") or ())
