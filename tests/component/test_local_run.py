"""Whole local runs: the command line as a process, real runners, the demo shop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from component.local_command import (
    a_shop,
    a_short_simulation,
    children_of,
    counted_by,
    is_alive,
    line_of,
    log_of,
    trafficsim,
    until_requests,
)
from trafficsim_operator.fleet.workspace import workspace

pytestmark = [pytest.mark.component, pytest.mark.timeout(90)]


def a_document(url: str, **spec: Any) -> dict[str, Any]:
    flow = [
        {"action": "login", "group": "auth", "request": {"post": "/auth/login", "json": {"user": "user-{{user.id}}"}}},
        {"action": "list", "request": {"get": "/users"}},
        {"think": {"constant": "20ms"}},
    ]
    usual = {
        "users": 8,
        "duration": "6s",
        "profile": [{"ramp": {"to": "100%", "over": "500ms"}}],
        "thresholds": [{"rule": "p95 < 2s"}, {"rule": "error_rate < 1%"}],
    }
    return a_short_simulation(url, flow, **usual | spec)


@pytest.fixture
async def shop() -> AsyncIterator[str]:
    async with a_shop() as url:
        yield url


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(document: dict[str, Any]) -> str:
        (tmp_path / "short.yaml").write_text(yaml.safe_dump(document))
        return str(tmp_path / "short.yaml")

    return to_file


async def test_a_run_passes_and_its_numbers_are_the_servers(shop: str, write: Any, tmp_path: Path) -> None:
    async with trafficsim("run", write(a_document(shop)), "--json", home=tmp_path) as run:
        assert 0 == await run.ends()
    found = run.document
    assert ("Passed", 0, 0) == (found["verdict"], found["exit"], found["failed"])
    assert {"login", "list"} == {row["action"] for row in found["actions"]}
    assert ["True", "True"] == [rule["holds"] for rule in found["rules"]]
    assert "" == run.err
    assert await counted_by(shop) == found["requests"]


async def test_a_broken_rule_fails_by_name(shop: str, write: Any, tmp_path: Path) -> None:
    document = a_document(shop, thresholds=[{"rule": "p95(login) < 1ms"}, {"rule": "error_rate < 1%"}])
    async with trafficsim("run", write(document), home=tmp_path) as run:
        assert 1 == await run.ends()
    assert "Failed  short  p95(login) < 1ms: " in run.out
    assert "✗  p95(login) < 1ms" in run.out


async def test_errors_are_named(shop: str, write: Any, tmp_path: Path) -> None:
    flow = [{"action": "nowhere", "request": {"get": "/nowhere"}}, {"think": {"constant": "20ms"}}]
    document = a_document(shop, archetypes=[{"name": "lost", "flow": flow}], thresholds=[{"rule": "success > 99%"}])
    async with trafficsim("run", write(document), "--json", home=tmp_path) as run:
        assert 1 == await run.ends()
    (row,) = run.document["actions"]
    assert row["requests"] == row["checks_failed"] > 100
    assert 0 == run.document["failed"], "a 404 misses its check; it is no failure of the target"
    assert run.document["classes"]["4xx"] == run.document["requests"]


async def test_a_killed_runner_is_replaced_and_the_loss_stated(shop: str, write: Any, tmp_path: Path) -> None:
    async with trafficsim("run", write(a_document(shop, duration="12s")), "--json", home=tmp_path) as run:
        await until_requests(shop)
        (first,) = run.runners()
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(20):
            while not (others := [pid for pid in run.runners() if pid != first]):
                await asyncio.sleep(0.05)
        assert 1 == len(others)
        before = (await log_of(shop))["finished"]
        await until_requests(shop, before + 20)
        assert 2 == await run.ends()
    found = run.document
    assert "Inconclusive" == found["verdict"]
    assert ["killed by SIGKILL"] == [loss.partition(" ")[2] for loss in found["losses"]]
    assert found["missing"]
    assert 1 == found["status"]["run"]["lostRunners"]


async def test_ctrl_c_drains_and_still_reports(shop: str, write: Any, tmp_path: Path) -> None:
    async with trafficsim("run", write(a_document(shop, duration="10m")), "--json", home=tmp_path) as run:
        await until_requests(shop, 250)
        await asyncio.sleep(1.5)  # part of the load, not a condition: beyond the warm-up
        await run.signal(signal.SIGINT)
        assert 0 == await run.ends(20)
    found = run.document
    assert "stopped by SIGINT" in found["reason"]
    assert await counted_by(shop) == found["requests"], "users finished their action, and every one was counted"


async def test_a_second_ctrl_c_stops_at_once(shop: str, write: Any, tmp_path: Path) -> None:
    """Even with a request in flight that would take minutes; nothing is left running."""
    document = a_document(shop, duration="10m")
    document["spec"]["target"]["timeouts"] = {"request": "2m"}
    async with trafficsim("run", write(document), home=tmp_path) as run:
        await until_requests(shop)
        runners = run.runners()
        began = time.monotonic()
        await run.signal(signal.SIGINT)
        await run.signal(signal.SIGTERM)
        assert 2 == await run.ends(10)
    assert time.monotonic() - began < 5
    assert "Inconclusive  short  stopped at once" in run.out
    assert [] == [pid for pid in runners if Path(f"/proc/{pid}").exists()]


async def test_a_killed_command_leaves_nothing_behind(shop: str, write: Any, tmp_path: Path) -> None:
    """Runners die with the command, their workers with them; no load goes on that nobody watches."""
    async with trafficsim("run", write(a_document(shop, duration="10m")), home=tmp_path) as run:
        await until_requests(shop)
        family = [pid for runner in run.runners() for pid in (runner, *children_of(runner))]
        assert len(family) >= 2
        run.process.kill()
        async with asyncio.timeout(10):
            while any(is_alive(pid) for pid in family):
                await asyncio.sleep(0.05)
    with workspace() as directory:  # the next run sweeps what this one could not
        assert [] == list(directory.parent.glob("trafficsim-run-*/runners/short-*"))


async def test_an_edit_changes_the_users_of_a_running_simulation(shop: str, write: Any, tmp_path: Path) -> None:
    document = a_document(shop, duration="10m", users=4)
    async with trafficsim("run", write(document), "--watch", home=tmp_path) as run:
        await until_requests(shop)
        (runner,) = run.runners()
        write({**document, "spec": {**document["spec"], "users": "many"}})
        assert run.process.stderr is not None
        seen = await line_of(run, "edit ignored")
        assert "users: " in seen
        write({**document, "metadata": {"name": "other"}})
        assert "metadata.name: it stays short" in await line_of(run, "edit ignored")
        write({**document, "spec": {**document["spec"], "users": 12}})
        assert "as generation 2: users: 4 → 12" in await line_of(run, "edit taken over")
        await line_of(run, "users 12/12")
        assert [runner] == run.runners(), "an edit of users restarts nobody"
        await run.signal(signal.SIGINT)
        await run.ends()


async def test_a_target_that_is_not_there(write: Any, tmp_path: Path) -> None:
    """Nothing was measured: the environment is at fault, and what is wrong is said."""
    file = write(a_document("http://127.0.0.1:9"))
    async with trafficsim("run", file, "--start-within", "4s", home=tmp_path) as run:
        assert 3 == await run.ends()
    assert "Not run  short  not begun within 4 s: the target's health: " in run.out
    assert "127.0.0.1:9 refuses the connection" in run.out


async def test_a_target_that_policy_refuses(write: Any, tmp_path: Path) -> None:
    """The snippet that would allow it is printed; nothing was connected to."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("targets: [{cidr: 10.0.0.0/8}]\nmaxUsers: 5\n")
    file = write(a_document("http://127.0.0.1:9"))
    async with trafficsim("run", file, "--policy", str(policy), home=tmp_path) as run:
        assert 3 == await run.ends()
    assert "Not run  short" in run.out
    assert "users: 8 are more than the policy's 5" in run.out
    assert "maxUsers: 8" in run.out
    assert "ports: [9]" in run.out
    assert "--allow-target 127.0.0.1:9" in run.out


async def test_what_was_allowed_is_written_into_the_history(shop: str, write: Any, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("targets: [{cidr: 10.0.0.0/8}]\n")
    target = shop.removeprefix("http://")
    options = ["--policy", str(policy), "--allow-target", target, "--history", str(tmp_path / "runs.db")]
    async with trafficsim("run", write(a_document(shop)), *options, home=tmp_path) as run:
        assert 0 == await run.ends()
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as database:
        rows = database.execute("SELECT name, allowed, verdict FROM simulations").fetchall()
    assert [("short", json.dumps([target]), "Passed")] == rows


async def test_more_than_one_runner(shop: str, write: Any, tmp_path: Path) -> None:
    """Each user is somewhere, whatever the number of runners."""
    scaling = {"minRunners": 2, "maxRunners": 2}
    async with trafficsim("run", write(a_document(shop, scaling=scaling)), "--json", home=tmp_path) as run:
        assert 0 == await run.ends()
    assert 2 == run.document["runners"]["most"]
