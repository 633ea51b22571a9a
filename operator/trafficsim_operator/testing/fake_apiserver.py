"""
A fake of the API server: objects in memory, as far as the operator uses it, under a clock that is only moved.

It keeps versions, generations, field owners and preconditions, and says no with the status codes of the real one; one
suite of tests holds both to that. Nothing of a schema is checked but names, and a Deployment's default replicas.
`FakeKubeApi` is the operator's client over it: its own code, with the network taken out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from trafficsim_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    SIMULATIONS,
    KubeApi,
    Object,
    Resource,
)
from trafficsim_operator.testing import managed_fields
from trafficsim_operator.testing.managed_fields import Manager, Owners

__all__ = ["FakeApiServer", "FakeKubeApi", "Place", "Refusal", "instant"]

_KINDS: Final = (
    SIMULATIONS, DEPLOYMENTS, REPLICA_SETS, PODS, CONFIG_MAPS, SECRETS, SERVICES, ENDPOINT_SLICES, EVENTS,
)  # fmt: skip
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_WITH_STATUS: Final = frozenset({SIMULATIONS.plural, DEPLOYMENTS.plural, REPLICA_SETS.plural, PODS.plural})
_OF_US: Final = ("labels", "annotations", "ownerReferences", "finalizers")


class Place(NamedTuple):
    """Where an object stands."""

    plural: str
    namespace: str
    name: str


class Refusal(Exception):
    """The API server says no, with an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Request(NamedTuple):
    """What a path names."""

    kind: Resource | None
    group_version: str
    namespace: str
    name: str
    subresource: str


@dataclass(slots=True, kw_only=True)
class FakeApiServer:
    """
    Objects in memory.

    *before* is called ahead of every request, *listeners* hear of every change: ADDED, MODIFIED or DELETED, and the
    object. UIDs are numbered, so that a history is the same each time.
    """

    now_ms: Callable[[], int]
    namespaces: set[str] = field(default_factory=lambda: {"default"})
    before: Callable[[], None] = lambda: None
    listeners: list[Callable[[str, Place, Object], None]] = field(default_factory=list)
    objects: dict[Place, Object] = field(default_factory=dict)
    version: int = 0
    made: int = 0
    _owners: dict[Place, Owners] = field(default_factory=dict)

    # Requests.

    def answer(
        self, method: str, path: str, query: Mapping[str, Any], body: Object | None, content: str
    ) -> tuple[int, bytes]:
        """Return status and body of the answer to one request."""
        self.before()
        try:
            found = self._answer(method, _parsed(path), query, body, content)
        except Refusal as refusal:
            return refusal.status, _failure(refusal.status, str(refusal))
        return 200, json.dumps(found).encode()

    def _answer(
        self, method: str, asked: _Request, query: Mapping[str, Any], body: Object | None, content: str
    ) -> Object:
        kind = asked.kind
        if kind is None:
            return _discovered(asked.group_version)
        place = Place(kind.plural, asked.namespace, asked.name)
        match method:
            case "GET" if asked.name:
                return self._there(place)
            case "GET":
                return self._list(kind, asked.namespace, query)
            case "POST":
                return self._create(kind, asked.namespace, body or {})
            case "PUT":
                return self._replace(place, body or {}, str(query.get("fieldManager", "")))
            case "DELETE":
                return self._delete(place, body or {})
            case "PATCH" if "apply" in content:
                manager = Manager(str(query["fieldManager"]), subresource=asked.subresource)
                return self._apply(kind, place, body or {}, manager, force=query.get("force") == "true")
            case "PATCH":
                return self._merge(place, body or {}, str(query.get("fieldManager", "")))
        raise Refusal(405, f"the server does not allow {method} here")

    def _there(self, place: Place) -> Object:
        found = self.objects.get(place)
        if found is None:
            raise Refusal(404, f'{place.plural} "{place.name}" not found in {place.namespace}')
        return found

    def _list(self, kind: Resource, namespace: str, query: Mapping[str, Any]) -> Object:
        labels = dict(part.split("=", 1) for part in str(query.get("labelSelector") or "").split(",") if part)
        places = sorted(
            place
            for place, item in self.objects.items()
            if place.plural == kind.plural
            and namespace in ("", place.namespace)
            and labels.items() <= (item["metadata"].get("labels") or {}).items()
        )
        begin, limit = int(query.get("continue") or 0), int(query.get("limit") or 0)
        page = places[begin : begin + limit] if limit else places
        meta: Object = {"resourceVersion": str(self.version)}
        if limit and begin + limit < len(places):
            meta["continue"] = str(begin + limit)
        items = [self.objects[place] for place in page]
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": items}

    def _create(self, kind: Resource, namespace: str, body: Object) -> Object:
        place = Place(kind.plural, namespace, body["metadata"]["name"])
        if namespace not in self.namespaces:
            raise Refusal(404, f'namespaces "{namespace}" not found')
        if place in self.objects:
            raise Refusal(409, f'{place.plural} "{place.name}" already exists')
        if kind is EVENTS and not body.get("reportingInstance"):
            raise Refusal(422, "Event is invalid: reportingInstance: Required value")
        part = _copy({key: value for key, value in body.items() if key != "status" or kind.plural not in _WITH_STATUS})
        return self._make(kind, place, part, Manager("unknown", "Update"))

    def _make(self, kind: Resource, place: Place, body: Object, manager: Manager) -> Object:
        if _NAME.fullmatch(place.name) is None:
            raise Refusal(422, f'{kind.kind} "{place.name}" is invalid: metadata.name: Invalid value: "{place.name}"')
        self.made += 1
        given = {key: value for key, value in body["metadata"].items() if key in _OF_US}
        meta = {
            "name": place.name,
            "namespace": place.namespace,
            "uid": f"00000000-0000-4000-8000-{self.made:012}",
            "creationTimestamp": instant(self.now_ms()),
        } | given
        live = body | {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}
        self._owners[place] = {manager: {path for path, _ in managed_fields.fields_of(_managed(live))}}
        if "spec" in live:
            meta["generation"] = 1
        self._put(place, live, "ADDED")
        return live

    def _apply(self, kind: Resource, place: Place, body: Object, manager: Manager, *, force: bool) -> Object:
        meta = body["metadata"]
        live = self.objects.get(place)
        if live is None:
            if manager.subresource:
                raise Refusal(404, f'{place.plural} "{place.name}" not found')
            if place.namespace not in self.namespaces:
                raise Refusal(404, f'namespaces "{place.namespace}" not found')
            if meta.get("uid") or meta.get("resourceVersion"):
                raise Refusal(409, f'Operation cannot be fulfilled on {place.plural} "{place.name}": it is not there')
            return self._make(kind, place, _copy(body), manager)
        _check(place, live, {"resourceVersion": meta.get("resourceVersion")})
        if not manager.subresource and meta.get("uid") not in (None, live["metadata"]["uid"]):
            raise Refusal(422, f'{kind.kind} "{place.name}" is invalid: metadata.uid: field is immutable')
        changed, owners = _copy(live), {owner: set(held) for owner, held in self._owners[place].items()}
        part = {"status": body.get("status") or {}} if manager.subresource else _managed(body)
        robbed = managed_fields.take(owners, manager, changed, _copy(part))
        if robbed and not force:
            raise Refusal(409, f"Apply failed with conflicts with {', '.join(sorted(set(robbed)))}")
        return self._store(place, live, changed, owners)

    def _merge(self, place: Place, patch: Object, manager: str) -> Object:
        live = self._there(place)
        # Of what has a status of its own the rest is written without it.
        own = {key: value for key, value in patch.items() if key != "status" or place.plural not in _WITH_STATUS}
        changed = _merged(_copy(live), _copy(own))
        return self._updated(place, live, changed, Manager(manager or "unknown", "Update"))

    def _replace(self, place: Place, body: Object, manager: str) -> Object:
        live = self._there(place)
        _check(place, live, body["metadata"])
        changed = _copy(body)
        changed["metadata"] = {key: value for key, value in live["metadata"].items() if key not in _OF_US} | {
            key: value for key, value in changed["metadata"].items() if key in _OF_US
        }
        if place.plural in _WITH_STATUS:
            changed.pop("status", None)
            changed |= {"status": live["status"]} if "status" in live else {}
        return self._updated(place, live, changed, Manager(manager or "unknown", "Update"))

    def _updated(self, place: Place, live: Object, changed: Object, manager: Manager) -> Object:
        owners = {owner: set(held) for owner, held in self._owners[place].items()}
        managed_fields.updated(owners, manager, _managed(live), _managed(changed))
        return self._store(place, live, changed, owners)

    def _store(self, place: Place, live: Object, changed: Object, owners: Owners) -> Object:
        """Put *changed* in the place of *live*; what changes nothing is no change."""
        if place.plural == DEPLOYMENTS.plural and live["spec"].get("selector") != changed["spec"].get("selector"):
            raise Refusal(422, f'Deployment "{place.name}" is invalid: spec.selector: field is immutable')
        for side in (live, changed):
            _default(place, side)
        is_same = _without_versions(live) == _without_versions(changed) and owners == self._owners[place]
        if is_same:
            return live
        if live.get("spec") != changed.get("spec"):
            changed["metadata"]["generation"] = int(live["metadata"].get("generation") or 0) + 1
        self._owners[place] = owners
        self._put(place, changed, "MODIFIED")
        return changed

    def _delete(self, place: Place, body: Object) -> Object:
        live = self._there(place)
        uid = (body.get("preconditions") or {}).get("uid")
        if uid is not None and uid != live["metadata"]["uid"]:
            raise Refusal(409, f"Precondition failed: UID in precondition: {uid}, UID in object meta differs")
        self.remove(place)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    # What controllers and tests do.

    def put(self, kind: Resource, namespace: str, name: str, body: Object) -> Object:
        """Make the object, or put its labels, spec and status in the place of those there, as no operator's call."""
        place = Place(kind.plural, namespace, name)
        live = self.objects.get(place)
        if live is None:
            return self._make(kind, place, _copy({"metadata": {}} | body), Manager("controller", "Update"))
        changed = live | _copy({key: value for key, value in body.items() if key != "metadata"})
        changed["metadata"] = live["metadata"] | _copy(body.get("metadata") or {})
        return self._updated(place, live, changed, Manager("controller", "Update"))

    def remove(self, place: Place) -> None:
        """Remove an object."""
        gone = self.objects.pop(place, None)
        self._owners.pop(place, None)
        if gone is not None:
            self.version += 1
            for listener in self.listeners:
                listener("DELETED", place, gone)

    def of(self, kind: Resource, namespace: str = "") -> list[Object]:
        """Return every object of a kind, as it stands."""
        return [
            item
            for place, item in self.objects.items()
            if place.plural == kind.plural and namespace in ("", place.namespace)
        ]

    def _put(self, place: Place, live: Object, event: str) -> None:
        _default(place, live)
        self.version += 1
        live["metadata"]["resourceVersion"] = str(self.version)
        owners = {owner: held for owner, held in self._owners[place].items() if not owner.subresource}
        live["metadata"]["managedFields"] = managed_fields.rendered(owners, live["apiVersion"])
        self.objects[place] = live
        for listener in self.listeners:
            listener(event, place, live)


class FakeKubeApi(KubeApi):
    """The operator's client over a fake of the API server."""

    def __init__(self, server: FakeApiServer, heard: Callable[[str, str, int, float], None] = lambda *_: None) -> None:
        self.server, self._heard = server, heard
        self._may_write = lambda: True

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, Any], body: Object | None, content: str
    ) -> tuple[int, bytes]:
        return self.server.answer(method, path, query, body, content)


def instant(now_ms: int) -> str:
    """Return an instant as Kubernetes writes them: to the second."""
    return datetime.fromtimestamp(now_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _failure(status: int, message: str) -> bytes:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
    return json.dumps(body).encode()


def _copy(value: Object) -> Object:
    found: Object = json.loads(json.dumps(value))
    return found


def _parsed(path: str) -> _Request:
    parts = path.strip("/").split("/")
    root = 2 if parts[0] == "api" else 3
    group_version, rest = "/".join(parts[1:root]), parts[root:]
    if not rest:
        return _Request(None, group_version, "", "", "")
    namespace = ""
    if rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    kind = next((kind for kind in _KINDS if (kind.plural, kind.api_version) == (plural, group_version)), None)
    if kind is None:
        raise Refusal(404, "the server could not find the requested resource")
    return _Request(kind, group_version, namespace, name, subresource)


def _discovered(group_version: str) -> Object:
    found = [{"name": kind.plural, "kind": kind.kind} for kind in _KINDS if kind.api_version == group_version]
    if not found:
        raise Refusal(404, "the server could not find the requested resource")
    return {"kind": "APIResourceList", "groupVersion": group_version, "resources": found}


def _managed(body: Object) -> Object:
    """Return what of an object has owners: not its names, versions and status."""
    found = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    meta = {key: value for key, value in body["metadata"].items() if key in _OF_US}
    return found | ({"metadata": meta} if meta else {})


def _check(place: Place, live: Object, given: Object) -> None:
    """Hold a write to the UID and version that it names."""
    for name in ("uid", "resourceVersion"):
        if given.get(name) and given[name] != live["metadata"][name]:
            text = f'Operation cannot be fulfilled on {place.plural} "{place.name}": '
            raise Refusal(409, text + f"{name} {given[name]} is not the object's {live['metadata'][name]}")


def _merged(target: Any, patch: Any) -> Any:
    """Return *target* after a JSON merge patch: null removes."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found


def _default(place: Place, body: Object) -> None:
    if place.plural == DEPLOYMENTS.plural:
        body["spec"].setdefault("replicas", 1)


def _without_versions(body: Object) -> Object:
    volatile = ("resourceVersion", "managedFields")
    return body | {"metadata": {key: value for key, value in body["metadata"].items() if key not in volatile}}
