"""Which faults are tried, at which kinds of calls and where in a simulation's life: drawn by a seed. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pytest

from cluster.faulty_server import KILLS, Fault, Point

__all__ = ["KINDS", "TOLD", "Drawn", "drawn", "sample", "stories"]

TOLD: Final = pytest.StashKey[tuple[int, int]]()
"""How many faults the long form tried, and how many were survived; told at the end of the tests."""

_WHILE_RUNNING: Final = ("start", "edit", "more users", "fewer users", "drift", "rollout", "a second simulation", "end")

# Where each kind of call is made. One that is made, and stands not here, fails the test.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "get discovery": ("boot",),
    "get secrets": ("boot",),
    "create secrets": ("boot",),
    "get leases": ("boot",),
    "create leases": ("boot",),
    "update leases": _WHILE_RUNNING,
    "list trafficsimulations": ("boot", *_WHILE_RUNNING, "delete"),
    "get trafficsimulations": (*_WHILE_RUNNING, "delete"),
    "patch trafficsimulations/status": ("start", "edit", "more users", "fewer users", "rollout", "end"),
    "list deployments": _WHILE_RUNNING,
    "list replicasets": _WHILE_RUNNING,
    "list pods": _WHILE_RUNNING,
    "get configmaps": ("start", "more users", "fewer users", "rollout"),
    "get deployments": ("start", "more users", "fewer users", "drift", "rollout", "end"),
    "patch deployments": ("start", "more users", "fewer users", "drift", "rollout", "end"),
    "create configmaps": ("fewer users",),
    "patch configmaps": ("start", "rollout", "end"),
    "update deployments": ("drift",),
    "delete deployments": ("rollout",),
    "get pods": ("fewer users",),
    "get services": ("a second simulation",),
    "list endpointslices": ("a second simulation",),
    "create events": ("start", "more users", "fewer users", "rollout", "end"),
    "get runner acknowledgement": ("edit", "more users", "fewer users", "drift", "rollout", "end"),
    "put runner assignment": ("start", "edit", "more users", "fewer users", "rollout", "end"),
    "get runner statistics": ("start", "more users", "fewer users", "rollout", "end"),
}


@dataclass(slots=True, kw_only=True)
class Drawn:
    """A fault for one kind of call, at a stage, and how far on among its calls (0 the first, 1 the last)."""

    kind: str
    fault: Fault
    stage: str
    far: float

    def point(self, calls: int) -> Point:
        """Return the point among *calls*; the first five are as good as any."""
        return Point(kind=self.kind, fault=self.fault, number=1 + int(self.far * min(calls, 5)))

    def __str__(self) -> str:
        return f"{self.stage}: {self.fault} at {self.kind}"


def drawn(seed: int, only: str = "") -> list[Drawn]:
    """Return every kind × every fault, each at a stage; a kill is before or after the call. *only* picks by words."""
    rng = random.Random(seed)
    taken: Counter[str] = Counter()
    found = []
    pairs = [(kind, fault) for kind in KINDS for fault in (*Fault, None) if fault not in KILLS]
    rng.shuffle(pairs)
    for kind, given in sorted(pairs, key=lambda pair: len(KINDS[pair[0]])):
        stages = rng.sample(KINDS[kind], k=len(KINDS[kind]))
        stage = min(stages, key=taken.__getitem__)
        taken[stage] += 1
        fault = given or rng.choice(sorted(KILLS))
        found.append(Drawn(kind=kind, fault=fault, stage=stage, far=rng.random()))
    return [one for one in found if only in str(one)]


def stories(points: Iterable[Drawn]) -> list[dict[str, Drawn]]:
    """Return the fewest stories that have all *points*, at most one in a stage."""
    found: list[dict[str, Drawn]] = []
    taken: Counter[str] = Counter()
    for point in points:
        if taken[point.stage] == len(found):
            found.append({})
        found[taken[point.stage]][point.stage] = point
        taken[point.stage] += 1
    return found


def sample(seed: int) -> dict[str, Drawn]:
    """Return one point for each stage, but no time-out of the API server's and none of the Lease: they take 15 s."""
    rng = random.Random(seed)
    found: dict[str, Drawn] = {}
    for point in rng.sample(drawn(seed), k=len(drawn(seed))):
        is_slow = point.fault is Fault.TIME_OUT and "runner" not in point.kind
        if not is_slow and not point.kind.endswith(" leases"):
            found.setdefault(point.stage, point)
    return found
