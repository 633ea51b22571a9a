"""Rollouts of a local run: the file's runner is edited while the command goes on, real processes take over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from component.local_command import (
    Run,
    a_shop,
    a_short_simulation,
    children_of,
    counted_by,
    trafficsim,
    until_requests,
)

pytestmark = [pytest.mark.component, pytest.mark.timeout(150)]

STEPS = [{"percent": 25}, {"percent": 100}]


@pytest.fixture
async def shop() -> AsyncIterator[str]:
    async with a_shop() as url:
        yield url


def a_document(url: str, version: str, users: int = 12, **rollout: Any) -> dict[str, Any]:
    """Build a document of a few users that are never idle; its *version* stands in the runner's environment."""
    quick = {"steps": STEPS, "dwell": "3s", "warmUp": "1s", "window": "1s", "minSamples": 100, "scaleDownDelay": "2s"}
    flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "20ms"}}]
    return a_short_simulation(
        url,
        flow,
        users=users,
        profile=[{"ramp": {"to": "100%", "over": "500ms"}}],
        runner={
            "env": [{"name": "VERSION", "value": version}],
            "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}},
        },
        rollout=quick | rollout,
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    def to_file(document: dict[str, Any]) -> str:
        new = tmp_path / "short.yaml.new"
        new.write_text(yaml.safe_dump(document))
        os.replace(new, tmp_path / "short.yaml")
        return str(tmp_path / "short.yaml")

    return to_file


def versions_of(run: Run) -> dict[int, str]:
    """Return the version that each runner has in its environment."""
    found = {}
    for pid in run.runners():
        variables = dict(pair.partition("=")[::2] for pair in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        found[pid] = variables.get("VERSION", "")
    return found


async def until(home: Path, is_there: Callable[[dict[str, Any]], bool], within_s: float = 60) -> dict[str, Any]:
    """Wait until the status that the run keeps on record is as asked for."""
    status: dict[str, Any] = {}
    try:
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.closing(sqlite3.connect(home / "trafficsim" / "history.db")) as database:
                    ((text,),) = database.execute("SELECT status FROM simulations").fetchall()
                status = json.loads(text)
                if is_there(status):
                    return status
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not there: {status.get('rollout')}, {status.get('users')}") from None


def phase(name: str, percent: int) -> Callable[[dict[str, Any]], bool]:
    """Return whether the rollout is in phase *name* at *percent*."""
    return lambda status: (name, percent) == tuple(status.get("rollout", {}).get(key) for key in ("phase", "percent"))


def has_windows(count: int) -> Callable[[dict[str, Any]], bool]:
    """Return whether the step is held so long; what its first users were late is then no share of the run."""
    return lambda status: len(status.get("rollout", {}).get("windows", ())) >= count


async def ended(run: Run) -> dict[str, Any]:
    """Stop the run in an orderly way and return its document."""
    await run.signal(signal.SIGINT)
    assert 0 == await run.ends()
    return run.document


async def test_a_good_version_is_promoted(shop: str, write: Any, tmp_path: Path) -> None:
    """Two processes side by side, then one; no request is lost to any number, no runner to the verdict."""
    async with trafficsim("run", write(a_document(shop, "1")), "--watch", "--json", home=tmp_path) as run:
        await until_requests(shop)
        (first,) = run.runners()
        write(a_document(shop, "2"))
        await until(tmp_path, phase("Analyzing", 25))
        assert {"1", "2"} == set(versions_of(run).values())
        await until(tmp_path, phase("Analyzing", 100))
        async with asyncio.timeout(40):
            while first in run.runners():
                await asyncio.sleep(0.1)
        assert ["2"] == list(versions_of(run).values())
        found = await ended(run)
    status = found["status"]
    assert "Promoted" == status["rollout"]["reason"]
    assert [{"name": "VERSION", "value": "2"}] == status["stable"]["runner"]["env"]
    assert ("Passed", 0, []) == (found["verdict"], status["run"]["lostRunners"], found["losses"])
    assert await counted_by(shop) == found["requests"], "what the old version's runner counted stays counted"


async def test_a_version_that_crashes_at_its_start_is_rejected_with_the_cause(
    shop: str, write: Any, tmp_path: Path
) -> None:
    """No user ever meets it; the run goes on as it was, and the cause is the last line that the runner wrote."""
    broken = tmp_path / "broken" / "trafficsim_runner"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "__main__.py").write_text("raise SystemExit('no database for version 2')\n")
    mapped = f"shop:2={broken.parent}"
    arguments = ["run", write(a_document(shop, "1")), "--watch", "--json", "--runner", mapped]
    async with trafficsim(*arguments, home=tmp_path) as run:
        await until_requests(shop)
        before = run.runners()
        document = a_document(shop, "1")
        document["spec"]["runner"]["image"] = "shop:2"
        write(document)
        status = await until(tmp_path, phase("Rejected", 0))
        assert "rejected before its first user: " in status["rollout"]["message"]
        assert "exited with 1: no database for version 2" in status["rollout"]["message"]
        assert set(before) <= set(run.runners())
        found = await ended(run)
    status = found["status"]
    assert "CandidateFailing" == status["rollout"]["reason"]
    assert (0, []) == (status["run"]["lostRunners"], status["accounts"]["missing"])
    assert await counted_by(shop) == found["requests"]


async def test_users_are_edited_in_mid_rollout(shop: str, write: Any, tmp_path: Path) -> None:
    """They are split anew at the step's percentage, in the same attempt; every one of them is on."""
    async with trafficsim("run", write(a_document(shop, "1")), "--watch", "--json", home=tmp_path) as run:
        await until_requests(shop)
        write(a_document(shop, "2", dwell="30s"))
        await until(tmp_path, phase("Analyzing", 25))
        write(a_document(shop, "2", users=20, dwell="30s"))

        def is_split(status: dict[str, Any]) -> bool:
            rollout = status["rollout"]
            return phase("Analyzing", 25)(status) and (5, 15) == (rollout["green"]["active"], rollout["blue"]["active"])

        await until(tmp_path, is_split)
        await until(tmp_path, has_windows(6))
        found = await ended(run)
    rollout = found["status"]["rollout"]
    assert (1, "SimulationEnded", 25) == (rollout["attempt"], rollout["reason"], rollout["plan"]["steps"][0]["percent"])
    assert 0 == found["status"]["run"]["lostRunners"]
    assert await counted_by(shop) == found["requests"]


async def test_ctrl_c_in_mid_rollout_drains_both_versions(shop: str, write: Any, tmp_path: Path) -> None:
    """Users of both finish their action, the numbers of both are read to the end, nobody is left behind."""
    async with trafficsim("run", write(a_document(shop, "1")), "--watch", "--json", home=tmp_path) as run:
        await until_requests(shop)
        write(a_document(shop, "2", dwell="30s"))
        await until(tmp_path, has_windows(6))
        family = [pid for runner in run.runners() for pid in (runner, *children_of(runner))]
        assert {"1", "2"} == set(versions_of(run).values())
        found = await ended(run)
    assert "stopped by SIGINT" in found["reason"]
    assert "SimulationEnded" == found["status"]["rollout"]["reason"]
    assert await counted_by(shop) == found["requests"], json.dumps(found["status"]["accounts"])
    assert [] == [pid for pid in family if Path(f"/proc/{pid}").exists()]
