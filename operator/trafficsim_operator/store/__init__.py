"""
Records: where a simulation's document is read and its status written. The resource itself in a cluster, SQLite locally.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trafficsim_api.errors import Unavailable
from trafficsim_api.status import Status
from trafficsim_operator.actions import Happening

__all__ = ["Conflict", "Document", "NotKept", "Record"]


class NotKept(Unavailable):
    """The record does not take it, and will not soon: nobody may write it, or there is no room. Says why."""


class Conflict(Exception):
    """Somebody wrote in between: nothing was written, look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One read of the record: the user's object as plain values, and the version a write must find unchanged."""

    namespace: str
    name: str
    uid: str
    generation: int
    version: str
    body: Mapping[str, Any]
    """The whole object: apiVersion, kind, metadata, spec, status."""
    deleted: bool = False


class Record(Protocol):
    """Reads the spec, writes status with compare-and-set, tells what happened."""

    async def read(self, namespace: str, name: str) -> Document | None:
        """Return the document, None when there is none (any more)."""
        ...

    async def write(self, document: Document, status: Status) -> None:
        """Write the complete status if the record still has *document*'s version; raise Conflict if not."""
        ...

    async def tell(self, document: Document, happenings: tuple[Happening, ...]) -> None:
        """Publish events; a failure is logged and counted, never raised."""
        ...

    async def totals(self, document: Document) -> Mapping[str, bytes]:
        """Return the encoded last answers of ended runners by runner UID; b"" where one can't be read any more."""
        ...

    async def keep_totals(self, document: Document, runner: str, answer: bytes) -> None:
        """Keep the last answer (statistics.Answer, encoded) of a runner that ends; raise NotKept for a no."""
        ...

    async def saved(self, document: Document, task: str) -> str | None:
        """Return what the setup *task* saved, sealed as it was kept; None when nothing of it was."""
        ...

    async def keep_saved(self, document: Document, task: str, sealed: str) -> None:
        """Keep what the setup *task* saved, *sealed* for the operator, in place of what an earlier one did."""
        ...
