"""
The record in a cluster: the resource itself.

Status is written by server-side apply with the resourceVersion that was read: whoever comes second gets a conflict and
looks again. Spec, labels and annotations of the resource are never written.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from trafficsim_api import names
from trafficsim_api.errors import Unavailable
from trafficsim_api.statistics import Answer
from trafficsim_api.status import Status
from trafficsim_operator.actions import Happening
from trafficsim_operator.fleet import Owner
from trafficsim_operator.kube import (
    CONFIG_MAPS,
    EVENTS,
    SIMULATIONS,
    Changed,
    Forbidden,
    Gone,
    KubeApi,
    Object,
    Unacceptable,
)
from trafficsim_operator.manifests import saved_map, totals_map
from trafficsim_operator.store import Conflict, Document, NotKept

__all__ = ["KubernetesRecord"]

log = logging.getLogger(__name__)

_MAX_TOTALS: Final = 256 * 1024
_UNDECLARED: Final = re.compile(r"\.status\.([A-Za-z.]+): field not declared in schema")
# Events are told beside what is done; they may not hold up the next look.
_EVENT_S: Final = 2.0
# Far more than any account: what was spoilt from outside must not fill the memory.
_MAX_ANSWER: Final = 32 << 20
_MAX_NOTE: Final = 1000  # the API allows 1 KiB


class KubernetesRecord:
    """Reads and writes TrafficSimulations; see store.Record for what each call promises."""

    def __init__(
        self,
        api: KubeApi,
        *,
        identity: str,
        now_ms: Callable[[], int],
        told: Callable[[Happening, bool], None] = lambda *_: None,
        wrote: Callable[[Document, Status], None] = lambda *_: None,
    ) -> None:
        """Publish events as *identity*; *told* hears of each and whether it came through, *wrote* of each status."""
        self._api, self._identity, self._now_ms = api, identity, now_ms
        self._told, self._wrote = told, wrote
        self._unknown: set[str] = set()

    async def read(self, namespace: str, name: str) -> Document | None:
        """Return the document, None when there is none (any more)."""
        body = await self._api.get(SIMULATIONS, namespace, name)
        if body is None:
            return None
        meta = body["metadata"]
        return Document(
            namespace=namespace,
            name=name,
            uid=meta["uid"],
            generation=int(meta.get("generation") or 0),
            version=meta["resourceVersion"],
            body=body,
            deleted=bool(meta.get("deletionTimestamp")),
        )

    async def write(self, document: Document, status: Status) -> None:
        """Write the complete status if the resource still has *document*'s version; raise Conflict if not."""
        meta = {
            "name": document.name,
            "namespace": document.namespace,
            "uid": document.uid,
            "resourceVersion": document.version,
        }
        content = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        try:
            await self._write(meta, content)
        except (Changed, Gone) as error:
            raise Conflict(str(error)) from error
        self._wrote(document, status)

    async def _write(self, meta: Object, content: Object) -> None:
        """
        Apply *content*, without the fields that the cluster's CRD does not know.

        Subtle: server-side apply refuses the whole document for one unknown field, so an operator that is newer than
        the CRD would write nothing at all.
        """
        body = {"metadata": meta, "status": _without(content, self._unknown)}
        try:
            await self._api.apply(SIMULATIONS, body, names.FieldManager.STATUS, subresource="status")
        except (Changed, Gone):
            raise
        except Unavailable as error:
            fresh = set(_UNDECLARED.findall(str(error))) - self._unknown
            if not fresh:
                raise
            log.warning("the CRD is older than the operator: fields left out", extra={"fields": sorted(fresh)})
            self._unknown |= fresh
            await self._write(meta, content)

    async def tell(self, document: Document, happenings: tuple[Happening, ...]) -> None:
        """Publish events, all at once, within two seconds; a failure is logged and counted, never raised."""
        at = datetime.fromtimestamp(self._now_ms() / 1000, UTC)
        # A microsecond apart, so that they are shown in their order.
        events = [
            (happening, self._event(document, happening, at + timedelta(microseconds=number)))
            for number, happening in enumerate(happenings)
        ]
        await asyncio.gather(*(self._publish(happening, event) for happening, event in events))

    async def _publish(self, happening: Happening, event: Object) -> None:
        try:
            async with asyncio.timeout(_EVENT_S):
                await self._api.create(EVENTS, event)
        except (Unavailable, TimeoutError) as error:
            why = str(error) or f"no answer within {_EVENT_S:.0f}s"
            log.warning("event not published", extra={"reason": happening.reason, "error": why})
            self._told(happening, False)
        else:
            self._told(happening, True)

    async def totals(self, document: Document) -> Mapping[str, bytes]:
        """Return the encoded last answers of ended runners by runner UID; b"" for what was spoilt from outside."""
        found = await self._api.get(CONFIG_MAPS, document.namespace, names.totals_name(document.name, document.uid))
        return dict.fromkeys((found or {}).get("binaryData") or {}, b"") | _unpacked(found or {})

    async def keep_totals(self, document: Document, runner: str, answer: bytes) -> None:
        """
        Keep the last answer of a runner that ends, gzipped, in a ConfigMap of at most 256 KiB.

        What earlier runs left goes first, and what nobody can read. Raises NotKept for a share that does not fit all
        the same, or that may not be written.
        """
        try:
            await self._keep_totals(document, runner, answer)
        except (Forbidden, Unacceptable) as error:
            raise NotKept(str(error)) from error

    async def _keep_totals(self, document: Document, runner: str, answer: bytes) -> None:
        name = names.totals_name(document.name, document.uid)
        packed = gzip.compress(answer, mtime=0)
        found = await self._api.get(CONFIG_MAPS, document.namespace, name)
        if found is None:
            owner = Owner(namespace=document.namespace, name=document.name, uid=document.uid)
            # Subtle: two that end at once must both be kept, and who applies second would take the first one's out.
            try:
                await self._api.create(CONFIG_MAPS, totals_map(owner, {runner: packed}))
                return
            except Changed:
                found = await self._api.get(CONFIG_MAPS, document.namespace, name) or {}
        text = base64.b64encode(packed).decode()
        there = {uid: kept for uid, kept in (found.get("binaryData") or {}).items() if uid != runner}
        run = Answer.decode(answer).run
        readable = _unpacked(found)
        # Those of a later run stay: an operator that was stopped for long must not take them out.
        old = {uid for uid in there if (kept := _run_of(uid, readable.get(uid))) is None or kept < run}
        if len(text) + sum(len(kept) for uid, kept in there.items() if uid not in old) > _MAX_TOTALS:
            raise NotKept(f"no room: the ConfigMap {name} has {_MAX_TOTALS // 1024} KiB")
        patch = {"binaryData": {runner: text} | dict.fromkeys(old)}
        await self._api.merge(CONFIG_MAPS, document.namespace, name, patch, names.FieldManager.OBJECTS)

    async def saved(self, document: Document, task: str) -> str | None:
        """Return what the setup *task* saved, sealed as it was kept; None when nothing of it was."""
        found = await self._api.get(CONFIG_MAPS, document.namespace, names.saved_name(document.name, document.uid))
        kept: str | None = ((found or {}).get("data") or {}).get(task)
        return kept

    async def keep_saved(self, document: Document, task: str, sealed: str) -> None:
        """Keep what the setup *task* saved, *sealed* for the operator, in a ConfigMap, in place of earlier ones."""
        owner = Owner(namespace=document.namespace, name=document.name, uid=document.uid)
        await self._api.apply(CONFIG_MAPS, saved_map(owner, task, sealed), names.FieldManager.OBJECTS)

    def _event(self, document: Document, happening: Happening, at: datetime) -> Object:
        regarding = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "namespace": document.namespace,
            "name": document.name,
            "uid": document.uid,
        }
        note = happening.message
        return {
            "metadata": {"namespace": document.namespace, "name": f"{document.name[:230]}.{uuid4().hex[:16]}"},
            "eventTime": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": "trafficsim.io/operator",
            "reportingInstance": self._identity[:128],
            "action": happening.reason,
            "reason": happening.reason,
            "type": "Warning" if happening.warning else "Normal",
            "note": note if len(note) <= _MAX_NOTE else note[: _MAX_NOTE - 1] + "…",
            "regarding": regarding,
        }


def _without(content: Object, unknown: Iterable[str]) -> Object:
    """Return *content* without the fields at the dotted paths *unknown*."""
    for path in unknown:
        head, _, rest = path.partition(".")
        if rest and isinstance(content.get(head), dict):
            content = content | {head: _without(content[head], (rest,))}
        elif not rest:
            content = {key: value for key, value in content.items() if key != head}
    return content


def _run_of(runner: str, kept: bytes | None) -> int | None:
    """Return the run that a kept answer is of, None when it can't be read: such a one is dropped, and said."""
    try:
        return Answer.decode(kept or b"").run
    except ValueError as error:
        log.error("a runner's totals can't be read: dropped", extra={"runner": runner, "error": str(error)})
        return None


def _unzipped(data: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        answer = file.read(_MAX_ANSWER + 1)
    if len(answer) > _MAX_ANSWER:
        raise ValueError(f"more than {_MAX_ANSWER} bytes")
    return answer


def _unpacked(config_map: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the answers in the ConfigMap; what was spoilt from outside is left out and said."""
    found = {}
    for runner, text in (config_map.get("binaryData") or {}).items():
        try:
            found[runner] = _unzipped(base64.b64decode(text))
        except (ValueError, TypeError, EOFError, OSError, zlib.error) as error:
            log.error("a runner's totals can't be read", extra={"runner": runner, "error": str(error)})
    return found
