"""One worker's slot in the supervisor: its places, its process now, what that last said, and its slab."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from trafficsim_api.connections import POOL_FIGURES
from trafficsim_api.places import Places
from trafficsim_api.statistics import Vector
from trafficsim_api.turns import Turn
from trafficsim_runner.child import Child
from trafficsim_runner.stats.ledger import Seen, snapshot_of
from trafficsim_runner.stats.slab_reader import Slab, Snapshot

__all__ = ["Ack", "Slot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What a worker says of itself."""

    epoch: int = 0
    active: int = 0
    settled: bool = False
    drained: bool = False
    slab: str = ""
    in_flight: int = 0
    connections: int = 0
    pooled: int = 0
    parked: int = 0
    starts_waiting: int = 0
    starts_limit: int = 0
    late_us: int | None = None
    takes: tuple[Turn, ...] = ()
    pools: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By group: the POOL_FIGURES."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Return the acknowledgement in *fields*; raise ValueError when it is none."""
        try:
            takes = tuple(Turn.model_validate_json(json.dumps(turn)) for turn in fields.get("takes", ()))
            pools = {
                str(name): dict(zip(POOL_FIGURES, map(int, figures), strict=True))
                for name, figures in fields.get("pools", {}).items()
            }
            known = {name: kind(fields[name]) for name, kind in _KINDS.items() if name in fields}
            return cls(**known, takes=takes, pools=pools)
        except TypeError as error:
            raise ValueError(f"not an acknowledgement: {error}") from error


_KINDS = {"epoch": int, "active": int, "settled": bool, "drained": bool, "slab": str, "in_flight": int,
          "connections": int, "pooled": int, "parked": int, "starts_waiting": int, "starts_limit": int,
          "late_us": int}  # fmt: skip


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """
    Worker number *index*: it keeps its places over the deaths of its processes.

    *given* are the places it had whose arrivals it still begins until another runner does.
    *late* says that the present one began after the warm-up's end. *refusal* is why it will not take its assignment,
    *cause* why its last process ended, *deaths* how many died one after the other, none having lived long.
    """

    index: int
    places: Places = field(default_factory=Places)
    given: Places = field(default_factory=Places)
    child: Child | None = None
    ack: Ack | None = None
    heard_ns: int = 0
    late: bool = False
    leaving: bool = False
    began_ns: int = 0
    refusal: str = ""
    refused_ns: int = 0
    cause: str = ""
    deaths: int = 0
    path: Path | None = None
    slab: Slab | None = None
    _warm: Vector | None = None
    _last: Snapshot | None = None

    def begin(self, child: Child, path: Path, *, now_ns: int, late: bool) -> None:
        """Take a new process, which counts in the slab at *path*."""
        self.child, self.path, self.heard_ns, self.began_ns, self.late = child, path, now_ns, now_ns, late
        self.refusal = ""
        self.ack = self.slab = self._warm = self._last = None

    def open(self, path: Path) -> None:
        """Read the slab at *path* from now on; an older generation goes, since its counts are in the newer one."""
        if self.slab is not None and self.slab.path == path:
            return
        older, self.slab = self.slab, Slab.open(path)
        self._warm = None
        if older is not None:
            older.close()
            older.path.unlink(missing_ok=True)

    def end(self) -> None:
        """Let go of the process and its slab."""
        self.child = self.ack = self._warm = self._last = None
        if self.slab is not None:
            self.slab.close()
            self.slab = None

    def drained(self, epoch: int) -> bool:
        """Say whether the worker works by *epoch*, and nobody is active in it; one that never took any has nobody."""
        if self.ack is None:
            return bool(self.refusal)
        return self.ack.epoch == epoch and self.ack.drained

    def settled(self, epoch: int) -> bool:
        """Say whether the worker has done all that *epoch* asks."""
        return self.ack is not None and self.ack.epoch == epoch and self.ack.settled

    def seen(self, epoch: int) -> Seen | None:
        """Return the worker's account now, *epoch* being in force; None before its first snapshot."""
        if self.slab is None:
            return None
        self._last = snapshot_of(self.slab, self._last, quiet=self.drained(epoch))
        if self._last is None:
            return None
        if self._warm is None:
            self._warm = self.slab.warmup()
        return Seen(slab=self.slab, snapshot=self._last, warmup=self._warm, late=self.late)
