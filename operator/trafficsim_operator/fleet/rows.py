"""
Finding the rows of test data: inline, in a file of this machine, in a ConfigMap.

What was read is believed until the file changes, and for 10 s where it stands in a ConfigMap: a look follows a look at
intervals of seconds, and most rows never change.
"""

from __future__ import annotations

import binascii
import os
import stat
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trafficsim_api.data import ConfigMapKey, Feeder
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.tables import CONTENT_BYTES, Table, parsed
from trafficsim_operator.observed import RowsSeen

if TYPE_CHECKING:
    from trafficsim_operator.kube import KubeApi

__all__ = ["ConfigMapRows", "FileRows", "inline_rows", "local_rows"]

BELIEVED_MS: Final = 10_000
_KEPT: Final = 256


def inline_rows(feeder: Feeder) -> RowsSeen:
    """Return the rows that stand in the document."""
    return _seen(feeder.from_.table)


def local_rows(spec: TrafficSimulationSpec, files: FileRows) -> Mapping[str, RowsSeen]:
    """Return the rows of each feeder of *spec* on a machine of its own, where there is no ConfigMap."""
    found: dict[str, RowsSeen] = {}
    for feeder in spec.data:
        if feeder.from_.path is not None:
            found[feeder.name] = files.read(feeder.from_.path)
        elif feeder.from_.config_map is not None:
            found[feeder.name] = RowsSeen(problem="configMap: there is none outside a cluster; give path or inline")
        else:
            found[feeder.name] = inline_rows(feeder)
    return found


def _seen(table: Table) -> RowsSeen:
    return RowsSeen(columns=table.columns, count=len(table.rows), digest=table.digest, packed=table.packed)


def _read(data: bytes, name: str, what: str) -> RowsSeen:
    try:
        return _seen(parsed(data, name))
    except ValueError as error:
        return RowsSeen(problem=f"{what}: {error}")


class FileRows:
    """Rows in files; a relative path is relative to *base*, the directory of the simulation's file."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._known: dict[Path, tuple[tuple[int, int, int], RowsSeen]] = {}

    def read(self, written: str) -> RowsSeen:
        """Return the rows in the file at *written*."""
        path = self._base / Path(written).expanduser()
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return RowsSeen(problem=f"path: {path} is no file")
            look = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._known.get(path)
            if known is not None and known[0] == look:
                return known[1]
            with path.open("rb") as file:
                data = file.read(CONTENT_BYTES + 1)
        except OSError as error:
            return RowsSeen(problem=f"path: {path} cannot be read: {error.strerror or os.strerror(error.errno or 0)}")
        seen = _read(data, path.name, f"path: {path}")
        self._known[path] = look, seen
        return seen


class ConfigMapRows:
    """Rows in the ConfigMaps of a cluster."""

    def __init__(self, api: KubeApi, now_ms: Callable[[], int]) -> None:
        self._api = api
        self._now_ms = now_ms
        self._known: dict[tuple[str, str, str], tuple[int, str, RowsSeen]] = {}
        """By namespace, name and key: until when it is believed, the object's version, and what it said."""

    async def read(self, namespace: str, given: ConfigMapKey) -> RowsSeen:
        """Return the rows under a key of a ConfigMap in *namespace*."""
        key, now = (namespace, given.name, given.key), self._now_ms()
        until, version, seen = self._known.get(key, (0, "", None))
        if seen is not None and now < until:
            return seen
        # Here, because a local run has no use for the cluster's client and starts without it.
        from trafficsim_operator.kube import CONFIG_MAPS

        found = await self._api.get(CONFIG_MAPS, namespace, given.name)
        if found is None:
            self._known.pop(key, None)
            cause = f"configMap: there is no ConfigMap {given.name} in namespace {namespace}"
            return RowsSeen(problem=cause, absent=True)
        newest = f"{found['metadata'].get('uid', '')}/{found['metadata'].get('resourceVersion', '')}"
        if seen is None or newest != version:
            seen = _in_config_map(found, given)
        if len(self._known) >= _KEPT:
            self._known.pop(next(iter(self._known)))
        if seen.problem:  # somebody is about to mend it
            self._known.pop(key, None)
        else:
            self._known[key] = now + BELIEVED_MS, newest, seen
        return seen


def _in_config_map(found: Mapping[str, Any], given: ConfigMapKey) -> RowsSeen:
    what = f"configMap: {given.name}, key {given.key}"
    text = (found.get("data") or {}).get(given.key)
    if text is not None:
        return _read(str(text).encode(), given.key, what)
    packed = (found.get("binaryData") or {}).get(given.key)
    if packed is None:
        return RowsSeen(problem=f"configMap: ConfigMap {given.name} has no key {given.key}", absent=True)
    try:
        return _read(b64decode(str(packed)), given.key, what)
    except binascii.Error:
        return RowsSeen(problem=f"{what}: is not base64")
