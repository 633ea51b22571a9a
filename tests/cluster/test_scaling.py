"""
Runners that follow their load, on a real API server: pods of 200m, held to it by their cgroups, under a load that needs
three of them.

Visits take a millisecond of CPU (`scenarios/busy.py`), so that a runner carries some fifty users. In the long form they
take a fifth of one: a few long visits within one period of the quota are enough to have a pod throttled at 70 % of it,
and then it is not to be filled up to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.conftest import Kubectl
from cluster.operator_stand import until
from cluster.rollout_stand import PATIENCE_S, Subject, nobody_was_lost
from cluster.scaling_stand import BUSY, SMALL, a_subject
from trafficsim_operator.testing import ControlPlane

pytestmark = [pytest.mark.cluster]

TARGET: Final = 70
SHORT: Final = {**SMALL, "env": [{"name": "COST_MS", "value": "0.2"}, {"name": "EVERY_S", "value": "1"}]}


@pytest.fixture
async def subject(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> AsyncIterator[Subject]:
    async with a_subject(control_plane, kubectl, namespace, tmp_path, users=2000, runners=8) as found:
        yield found


@dataclass(kw_only=True)
class Course:
    """What became of the runners over time, by the status: (s, wanted, ready, percent busy, users a runner carries)."""

    subject: Subject
    begun: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    seen: list[tuple[float, int, int, int, int]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = ["    s  wanted ready busy carries"]
        lines += [f"{s:5.0f} {wanted:6} {ready:6} {busy:3}% {users:6}" for s, wanted, ready, busy, users in self.seen]
        return "\n".join(lines)

    async def follow(self) -> None:
        """Look once a second, for ever."""
        while True:
            status = await self.subject.status()
            version = version_in(status)
            now = (
                int(version.get("wanted", 0)), int((status.get("runners") or {}).get("ready", 0)),
                int(version.get("utilisation", 0)), int(version.get("usersPerRunner", 0)),
            )  # fmt: skip
            if not self.seen or now != self.seen[-1][1:]:
                self.seen.append((asyncio.get_running_loop().time() - self.begun, *now))
            await asyncio.sleep(1)

    @property
    def wanted(self) -> list[int]:
        """Return the runners wanted, one entry for each change."""
        return [wanted for _, wanted in self._changes]

    @property
    def steady_s(self) -> float:
        """Return for how long as many runners have been wanted."""
        return asyncio.get_running_loop().time() - self.begun - self._changes[-1][0] if self._changes else 0.0

    @property
    def _changes(self) -> list[tuple[float, int]]:
        found: list[tuple[float, int]] = []
        for at, wanted, *_ in self.seen:
            if wanted and (not found or found[-1][1] != wanted):
                found.append((at, wanted))
        return found


@asynccontextmanager
async def followed(subject: Subject) -> AsyncIterator[Course]:
    """Follow it while inside; what was seen is shown when the test fails."""
    course = Course(subject=subject)
    task = asyncio.create_task(course.follow())
    try:
        yield course
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        print(course)


def version_in(status: dict[str, Any]) -> dict[str, Any]:
    """Return how the stable version is scaled."""
    versions = (status.get("scaling") or {}).get("versions") or [{}]
    return dict(versions[0])


def a_spec(users: int, **spec: Any) -> dict[str, Any]:
    return {"users": users, "archetypes": BUSY, "runner": SMALL, **spec}


def is_settled(status: dict[str, Any]) -> bool:
    """Say whether its runners are as busy as they are to be, within ten points."""
    return abs(version_in(status).get("utilisation", 0) - TARGET) <= 10


async def settled(subject: Subject, course: Course, steady_s: float) -> None:
    """Await that its runners are as busy as they are to be, and that so many were wanted for *steady_s*."""

    async def look() -> tuple[dict[str, Any], float]:
        return await subject.status(), course.steady_s

    what = f"settled for {steady_s} s"
    await until(look, lambda found: is_settled(found[0]) and found[1] >= steady_s, steady_s + PATIENCE_S, what, 1)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_load_that_needs_three_runners_gets_them(subject: Subject) -> None:
    """
    One runner is measured, then users come whom three would carry: they get three, at once, and nobody is taken away
    again. Whoever was at work stays at work. How busy they are then is for the long form: others may use this machine.
    """
    subject.users = 30
    async with followed(subject) as course:
        await subject.begin(**a_spec(subject.users))
        async with subject.watched() as seen:
            found = await subject.until(lambda status: version_in(status).get("usersPerRunner", 0) > 0, "measured")
            assert [1] == course.wanted
            subject.users = round(2.6 * version_in(found)["usersPerRunner"])
            await subject.kube("scale", "tsim/shop", f"--replicas={subject.users}")
            await subject.at_work()
        nobody_was_lost(seen, 30)
        async with subject.watched() as seen:
            await asyncio.sleep(20)
        nobody_was_lost(seen, subject.users)
        assert [1, 3] == course.wanted[:2]
        assert sorted(course.wanted) == course.wanted
        assert len(await subject.answers()) >= 3
        assert "ScaledUp" in await subject.events()


@pytest.mark.truth
@pytest.mark.timeout(1800)
async def test_the_long_form(subject: Subject) -> None:
    """
    One runner is measured, at half of what it takes: a runner needs some CPU whoever is there, so that of a few users
    each seems to cost more. Then users come for whom three are just enough: scaled to what they take, within ten points
    of the target, without a change over five minutes. Then most of them leave, and runners go one by one. Never fewer
    at work than are due.
    """
    subject.users = begun = 300
    async with followed(subject) as course:
        await subject.begin(**a_spec(subject.users, runner=SHORT))
        async with subject.watched() as seen:
            found = await subject.until(lambda status: version_in(status).get("usersPerRunner", 0) > 0, "measured")
            assert [1] == course.wanted
            subject.users = round(2.9 * version_in(found)["usersPerRunner"])
            await subject.kube("scale", "tsim/shop", f"--replicas={subject.users}")
            await subject.at_work()
        nobody_was_lost(seen, begun)
        async with subject.watched() as seen:
            await settled(subject, course, steady_s=300)
        nobody_was_lost(seen, subject.users)
        risen = course.wanted
        assert risen == sorted(risen)
        assert 3 <= risen[-1] <= 4
        left, least = [risen[-1] - 1, risen[-1] - 2], subject.users // 5
        async with subject.watched() as seen:
            await subject.kube("scale", "tsim/shop", f"--replicas={least}")
            await until(subject.status, lambda status: version_in(status).get("wanted") == left[-1], 900, "two go", 1)
            await until(subject.answers, lambda answers: len(answers) == left[-1], 60, "two have gone", 1)
        nobody_was_lost(seen, least)
        assert [*risen, *left] == course.wanted
        assert "ScaledDown" in await subject.events()
