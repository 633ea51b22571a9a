"""
Actions as values: what `decide` wants done. They are absolute, so a repeat is harmless.

`apply` in reconcile.py carries them out through a Fleet; what came of it is seen at the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trafficsim_api.protocol import Assignment
from trafficsim_api.status import Status

__all__ = ["Action", "Assign", "Decision", "EnsureRevision", "Happening", "RemoveRevision", "Retire"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureRevision:
    """Have the revision's object as *template* (normalised spec.runner, image resolved) says: *replicas* runners."""

    revision: str
    template: Mapping[str, Any]
    replicas: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Send *assignment* to the runner *name* at *address*."""

    name: str
    address: str
    assignment: Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Take away the drained, unready *runners* (names), leaving *replicas* of the revision."""

    revision: str
    runners: tuple[str, ...]
    replicas: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRevision:
    """Remove the revision's object and whatever still runs of it: *runners*, whose end is no loss."""

    revision: str
    reason: str
    runners: tuple[str, ...] = ()


Action = EnsureRevision | Assign | Retire | RemoveRevision


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An event to be told after the status write: *reason* from names.Event, *warning* or normal."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one look leads to; *next_look_ms* from now, None: not before something changes (the resync comes anyway)."""

    status: Status
    actions: tuple[Action, ...] = ()
    happenings: tuple[Happening, ...] = ()
    next_look_ms: int | None = None
    accepted: bool = False
    """The document itself was accepted: what a later, refused edit falls back to."""
