"""
Specs as they were read: one whose text is the same is not validated anew at each look.

Nothing stale can come of it. What is read is a function of the text alone, and the text of each look is compared, by
its digest; what is kept for it is the very value that the run goes by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from trafficsim_api.document import load_spec
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.store import Document

__all__ = ["Read", "Specs"]

# Of the metadata the rest is the API server's, and other than at the look before.
_OURS: Final = ("name", "namespace", "uid", "generation")
Read = tuple[TrafficSimulationSpec | None, tuple[Problem, ...]]


@dataclass(slots=True)
class Specs:
    """What was read of each simulation, by namespace and name: the digest of the text, spec and problems."""

    _known: dict[tuple[str, str], tuple[bytes, Read]] = field(default_factory=dict)

    def read(self, document: Document) -> Read:
        """Return the spec in *document*, None with what is wrong with it; never an exception."""
        asked = _asked(document.body)
        mark, place = _digest(asked), (document.namespace, document.name)
        known, found = self._known.get(place, (b"", (None, ())))
        if mark is None or mark != known:
            found = _read(asked)
            self._known[place] = mark or b"", found
        return found

    def forget(self, namespace: str, name: str) -> None:
        """Forget a simulation that is gone."""
        self._known.pop((namespace, name), None)


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the user wrote, and what the object is called."""
    asked = {key: value for key, value in body.items() if key != "status"}
    if isinstance(meta := asked.get("metadata"), dict):
        asked["metadata"] = {key: meta[key] for key in _OURS if key in meta}
    return asked


def _digest(asked: dict[str, Any]) -> bytes | None:
    """Return the digest of *asked*; None where it can't be written as JSON, and is no document of ours."""
    try:
        return sha256(json.dumps(asked).encode()).digest()
    except (TypeError, ValueError, RecursionError):
        return None


def _read(asked: dict[str, Any]) -> Read:
    try:
        return load_spec(asked).spec, ()
    except SpecError as error:
        return None, error.problems
