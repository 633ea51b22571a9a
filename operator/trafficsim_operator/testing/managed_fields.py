"""
Who owns which field of an object, as the API server keeps it under server-side apply, for the fake of one.

A field is a path of keys down to what is no object; lists count as a whole, which is less than the real one keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Manager", "Owners", "fields_of", "rendered"]

Path = tuple[str, ...]
_ABSENT = object()


class Manager(NamedTuple):
    """Who wrote: field manager, Apply or Update, and the subresource that was written."""

    name: str
    operation: str = "Apply"
    subresource: str = ""


Owners = dict[Manager, set[Path]]


def fields_of(value: Mapping[str, Any], within: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every field in *value* with its path."""
    for key, item in value.items():
        path = (*within, key)
        if isinstance(item, Mapping) and item:
            yield from fields_of(item, path)
        else:
            yield path, item


def value_at(body: Mapping[str, Any], path: Path) -> Any:
    """Return what stands at *path*, a marker of its own when nothing does."""
    found: Any = body
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return _ABSENT
        found = found[key]
    return found


def put(body: dict[str, Any], path: Path, value: Any) -> None:
    """Set what stands at *path*."""
    for key in path[:-1]:
        if not isinstance(body.get(key), dict):
            body[key] = {}
        body = body[key]
    body[path[-1]] = value


def drop(body: dict[str, Any], path: Path) -> None:
    """Remove what stands at *path*, and the objects around it that are empty then."""
    parents = [body]
    for key in path[:-1]:
        if not isinstance(parents[-1].get(key), dict):
            return
        parents.append(parents[-1][key])
    for parent, key in zip(reversed(parents), reversed(path), strict=True):
        if isinstance(parent.get(key), dict) and parent[key] and key != path[-1]:
            return
        parent.pop(key, None)


def take(owners: Owners, manager: Manager, live: dict[str, Any], part: Mapping[str, Any]) -> list[str]:
    """
    Apply *part* to *live* as *manager*: its fields are set, those it no longer names and nobody else owns go.

    Returns the managers from whom a field was taken, since they held it with another value.
    """
    wanted = dict(fields_of(part))
    before = owners.get(manager, set())
    others = [held for owner, held in owners.items() if owner != manager]
    for path in before - wanted.keys():
        if not any(path in held for held in others):
            drop(live, path)
    robbed = []
    for path, value in wanted.items():
        if value_at(live, path) == value:
            continue
        put(live, path, value)
        for owner, held in owners.items():
            if owner != manager and path in held:
                held.discard(path)
                robbed.append(owner.name)
    owners[manager] = set(wanted)
    return robbed


def updated(owners: Owners, manager: Manager, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Note that *manager* made *after* of *before*: what it changed is its own, what is gone nobody's."""
    changed = {path for path, value in fields_of(after) if value_at(before, path) != value}
    for owner, held in list(owners.items()):
        if owner.subresource != manager.subresource:
            continue
        held -= changed
        held -= {path for path in held if value_at(after, path) is _ABSENT}
        if not held and owner != manager:
            del owners[owner]
    if changed:
        owners.setdefault(manager, set()).update(changed)


def rendered(owners: Owners, api_version: str) -> list[dict[str, Any]]:
    """Return metadata.managedFields."""
    found = []
    for manager, paths in owners.items():
        tree: dict[str, Any] = {}
        for path in sorted(paths):
            node = tree
            for key in path:
                node = node.setdefault(f"f:{key}", {})
        entry = {"manager": manager.name, "operation": manager.operation, "apiVersion": api_version, "fieldsType":
                 "FieldsV1", "fieldsV1": tree}  # fmt: skip
        found.append(entry | ({"subresource": manager.subresource} if manager.subresource else {}))
    return found
