"""
Every kind of call that the operator makes, to the API server and to runners, broken in every way.

The points are drawn by a printed seed (TRAFFICSIM_FAULT_SEED repeats one): at which stage of a simulation's life, and
at which call of its kind. Each has to be reached, and the world has to be as without it afterwards. A sample is told in
every test run; `make faults` tells the whole.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from cluster.fault_points import KINDS, TOLD, Drawn, drawn, sample, stories
from cluster.fault_story import STAGES, Lane, Told, lanes, tell
from cluster.faulty_server import KILLS, kind_of
from trafficsim_operator.settings import LEASE
from trafficsim_operator.testing import ControlPlane

SEED: Final = int(os.environ.get("TRAFFICSIM_FAULT_SEED") or random.randrange(10**6))
ONLY: Final = os.environ.get("TRAFFICSIM_FAULT_ONLY", "")
LANES: Final = 3


def test_the_kinds_of_calls_are_told_apart() -> None:
    """By verb and resource, as a role names them."""
    of_shop = "/apis/trafficsim.io/v1alpha1/namespaces/shop/trafficsimulations"
    assert "list trafficsimulations" == kind_of("GET", of_shop)
    assert "watch trafficsimulations" == kind_of("GET", of_shop, watch=True)
    assert "get trafficsimulations" == kind_of("GET", f"{of_shop}/web")
    assert "patch trafficsimulations/status" == kind_of("PATCH", f"{of_shop}/web/status")
    assert "list trafficsimulations" == kind_of("GET", "/apis/trafficsim.io/v1alpha1/trafficsimulations")
    assert "get discovery" == kind_of("GET", "/apis/trafficsim.io/v1alpha1")
    assert "delete pods" == kind_of("DELETE", "/api/v1/namespaces/shop/pods/p")
    assert "create configmaps" == kind_of("POST", "/api/v1/namespaces/shop/configmaps")


def test_every_kind_is_broken_in_every_way() -> None:
    """Whatever the seed, no pair is left out, and each stands where such a call is made."""
    for seed in range(20):
        points = drawn(seed)
        assert len(KINDS) * 6 == len({(p.kind, "kill" if p.fault in KILLS else p.fault) for p in points})
        assert all(point.stage in KINDS[point.kind] for point in points)
        told = stories(points)
        assert len(points) == sum(map(len, told))
        assert all(stage in STAGES for story in told for stage in story)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_sample_of_faults(control_plane: ControlPlane, tmp_path: Path) -> None:
    """One fault in each stage of one life: each is reached, and everything comes about as it should all the same."""
    chosen = sample(SEED)
    print(f"TRAFFICSIM_FAULT_SEED={SEED}", *chosen.values(), sep="\n  ")
    async with lanes(control_plane, tmp_path, 1) as [lane]:
        try:
            told = await tell(lane, "sample", {stage: point.point(1) for stage, point in chosen.items()})
            print({stage: round(seconds, 1) for stage, seconds in told.seconds.items()})
        finally:
            print(lane.operator.log.read_text()[-5000:])
    assert {} == told.unreached


@dataclass(kw_only=True)
class Whole:
    """All stories of a seed, told in several lanes, and what came of them."""

    like: Told
    waiting: list[dict[str, Drawn]]
    tried: list[Drawn] = field(default_factory=list)
    unreached: list[Drawn] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    number: int = 0

    async def tell_all(self, lane: Lane) -> None:
        """Tell stories in *lane* until none waits."""
        while self.waiting:
            story = self.waiting.pop(0)
            self.number += 1
            await self._tell(lane, f"story-{self.number}", story)

    async def _tell(self, lane: Lane, name: str, story: dict[str, Drawn]) -> None:
        points = {stage: point.point(self.like.counts[stage][point.kind]) for stage, point in story.items()}
        print(f"{name}:", ", ".join(f"{stage}: {point}" for stage, point in points.items()), flush=True)
        reached: list[str] = []
        try:
            await tell(lane, name, points, self.like, reached)
        except (AssertionError, TimeoutError) as error:
            broken = reached[-1]
            print(f"{name} FAILED in {broken}: {error}", flush=True)
            self.failed[f"{name}: {story.get(broken, broken)}"] = f"{error}\n{lane.operator.log.read_text()[-4000:]}"
            if rest := {stage: point for stage, point in story.items() if stage not in reached}:
                self.waiting.append(rest)
            await lane.clear()
        for stage in set(reached) & story.keys():
            (self.tried if points[stage].fired.is_set() else self.unreached).append(story[stage])


@pytest.mark.faults
@pytest.mark.timeout(2400)
async def test_every_kind_of_call(control_plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every kind of call × every fault, each reached, each survived: the world is as without it."""
    points = drawn(SEED, ONLY)
    print(f"\nTRAFFICSIM_FAULT_SEED={SEED}: {len(points)} points", flush=True)
    async with lanes(control_plane, tmp_path, LANES, lease=LEASE) as found:
        kinds = {stage: [kind for kind in KINDS if stage in KINDS[kind]] for stage in STAGES}
        like = await tell(found[0], "undisturbed", {}, kinds=kinds)
        print({stage: round(seconds, 1) for stage, seconds in like.seconds.items()}, flush=True)
        made = {kind: {stage for stage in like.counts if like.counts[stage][kind]} for kind in _kinds(like)}
        assert set() == made.keys() - KINDS.keys()
        assert {} == {kind: gone for kind in KINDS if (gone := set(KINDS[kind]) - made.get(kind, set()))}
        whole = Whole(like=like, waiting=stories(points))
        await asyncio.gather(*(whole.tell_all(lane) for lane in found))
        # What depends on how often a call was made this time is tried once more, at its first.
        again, whole.unreached = whole.unreached, []
        for point in again:
            point.far = 0.0
        whole.waiting = stories(again)
        await asyncio.gather(*(whole.tell_all(lane) for lane in found))
    request.config.stash[TOLD] = (len(whole.tried), len(whole.tried) - len(whole.failed))
    assert {} == whole.failed
    assert [] == whole.unreached
    assert len(points) == len(whole.tried)


def _kinds(told: Told) -> set[str]:
    return {kind for counts in told.counts.values() for kind in counts}
