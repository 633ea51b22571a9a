"""What was sent is what arrived: the run's account against the target's own log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from driven.everything import CLASSES, ROUTES, check, everything
from driven.run import Account, a_document, a_run
from targets.scripted import Log, Scripted


async def drive(tmp_path: Path, *, users: int, duration: str, runners: int) -> tuple[Account, Log]:
    with Scripted(ROUTES) as server:
        document = everything(server.url, users=users, duration=duration, scaling={"minRunners": runners})
        async with a_run(document, directory=tmp_path) as run:
            await run.ends(within_s=200)
            assert () == run.evidence().missing
            account = run.account()
    return account, server.log


async def test_every_request_is_counted_as_the_target_received_it(tmp_path):
    """sent = done = received, by action and class, over all framings, checks and time-outs."""
    account, log = await drive(tmp_path, users=30, duration="6s", runners=1)
    assert log.received > 1000
    check(account, log)


@pytest.mark.truth
@pytest.mark.timeout(300)
async def test_every_request_is_counted_over_two_runners_for_a_minute(tmp_path):
    """sent = done = received, by action and class, merged over runners."""
    account, log = await drive(tmp_path, users=120, duration="60s", runners=2)
    assert log.received > 50_000
    check(account, log)


@contextlib.asynccontextmanager
async def a_shop() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trafficsim_runner.demo", "--listen", "127.0.0.1:0", "--until-stdin-closes",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[-1]
    finally:
        process.stdin.close()
        await process.wait()


def log_of(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/__log", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


async def test_the_command_line_prints_what_the_shop_received(tmp_path):
    """`trafficsim run --json` prints the shop's own account: requests, classes, and 401 for a user without a token."""
    async with a_shop() as url:
        signed = {"authorization": "Bearer {{token}}"}
        flow = [
            {"action": "login", "request": {"post": "/auth/login", "json": {"user": "user-{{user.id}}"}},
             "save": {"token": "json.token"}},
            {"action": "profile", "request": {"get": "/users/{{user.id}}", "headers": signed}},
            {"action": "refused", "request": {"get": "/users/{{user.id}}"}, "expect": {"status": 401}},
            {"action": "order", "request": {"post": "/orders", "json": {"item": 1}}, "save": {"order": "json.id"}},
            {"action": "cancel", "request": {"delete": "/orders/{{order}}"}, "expect": {"status": 204}},
            {"action": "report", "request": {"get": "/reports/sales"}},
            {"think": {"min": "5ms", "max": "40ms"}},
        ]  # fmt: skip
        document = a_document(url, archetypes=[{"name": "v", "flow": flow}], users=20)
        file = tmp_path / "shop.yaml"
        file.write_text(yaml.safe_dump(document))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trafficsim_operator.cli.main", "run", str(file), "--json", "--history", "none",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(45):
            out, _ = await process.communicate()
        printed = json.loads(out)
        log = await asyncio.to_thread(log_of, url)
    assert 0 == process.returncode, printed["reason"]
    counts = {key: n for key, n in log["counts"].items() if "/healthz" not in key}
    assert sum(counts.values()) == printed["requests"] > 1000
    for name in CLASSES:
        assert sum(n for key, n in counts.items() if key.rsplit(" ", 1)[1][0] == name[0]) == printed["classes"][name]
    assert counts["GET /users/{id} 401"] == printed["classes"]["4xx"]
    assert 0 == printed["failed"] == sum(row["checks_failed"] for row in printed["actions"])
