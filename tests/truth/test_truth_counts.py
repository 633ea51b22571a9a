"""What was sent is what arrived: the run's account against the target's own log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml

from driven.run import Account, a_document, a_run
from targets.scripted import Log, Route, Scripted

CLASSES = ("2xx", "3xx", "4xx", "5xx")

ROUTES = (
    Route(path="/healthz"),
    Route(path="/plain", delay_s=0.002),
    Route(path="/mixed", statuses=(200, 404, 500, 201, 503, 302)),
    Route(path="/checked", body='{"state":"open","n":3}'),
    Route(path="/chunked", framing="chunked", pieces=3, delay_s=0.005),
    Route(path="/closing", keep_alive=False),
    Route(path="/to-the-end", framing="close"),
    Route(path="/form", method="POST", statuses=(201,)),
    Route(path="/late", delay_s=1.5),
)
PATHS = {
    "plain": "/plain", "mixed": "/mixed", "checked": "/checked", "missed": "/checked?missed", "chunked": "/chunked",
    "closing": "/closing", "to_the_end": "/to-the-end", "form": "/form", "late": "/late",
}  # fmt: skip

VISITOR = {
    "name": "visitor",
    "weight": 9,
    "flow": [
        {"action": "plain", "request": {"get": "/plain"}},
        {"action": "mixed", "request": {"get": "/mixed"}},
        {"think": {"min": "1ms", "max": "30ms"}},
        {"action": "checked", "request": {"get": "/checked"}, "expect": {"status": 200, "json": {"state": "open"}}},
        {"action": "chunked", "request": {"get": "/chunked"}},
        {"action": "closing", "request": {"get": "/closing"}},
        {"action": "to_the_end", "request": {"get": "/to-the-end"}},
        {"action": "form", "request": {"post": "/form", "form": {"user": "{{user.id}}"}}, "expect": {"status": "201"}},
        {"think": {"constant": "20ms"}},
    ],
}
UNLUCKY = {
    "name": "unlucky",
    "weight": 1,
    "flow": [
        {"action": "wrong", "request": {"get": "/checked"}, "expect": {"json": {"n": 4}}},
        {"action": "late", "request": {"get": "/late"}},
        {"think": {"constant": "50ms"}},
    ],
}


async def drive(tmp_path, *, users: int, duration: str, runners: int) -> tuple[Account, Log]:
    with Scripted(ROUTES) as server:
        document = a_document(
            server.url, archetypes=[VISITOR, UNLUCKY], users=users, duration=duration,
            target={"timeouts": {"connect": "1s", "request": "500ms"}}, scaling={"minRunners": runners},
            profile=[{"ramp": {"to": "100%", "over": "1s"}}],
        )  # fmt: skip
        async with a_run(document, directory=tmp_path) as run:
            await run.ends(within_s=200)
            assert () == run.evidence().missing
            account = run.account()
    return account, server.log


def by_class(counts: Counter[int]) -> dict[str, int]:
    return {name: sum(n for status, n in counts.items() if f"{status // 100}xx" == name) for name in CLASSES}


def statuses(log: Log, *paths: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for entry in log.counts:
        if entry.path in paths:
            found[entry.status] += entry.count
    return found


def check(account: Account, log: Log) -> None:
    """
    Every request of a drained run was received once, and counted under its action and class; nothing else was.

    What timed out was received as well; the target answered it 200 in vain.
    """
    received = log.received - log.count(path="/healthz")
    assert received == account.count("sent")
    assert received == account.count("done")
    for action in ("plain", "mixed", "chunked", "closing", "to_the_end", "form"):
        seen = statuses(log, PATHS[action])
        assert seen.total() == account.count("sent", action) == account.count("done", action), action
        assert by_class(seen) == {name: account.count(f"class_{name}", action) for name in CLASSES}, action
        broken = sum(n for status, n in seen.items() if status >= 500)
        assert broken == account.count("failed", action) == account.count("error_target_status_5xx", action), action
    mixed = statuses(log, "/mixed")
    assert sum(n for status, n in mixed.items() if status >= 400) == account.count("checks_failed", "mixed")
    assert mixed.total() == account.count("checks", "mixed")
    # One path, two actions with checks of its JSON: met by the one, missed by the other.
    assert statuses(log, "/checked")[200] == account.count("class_2xx", "checked") + account.count("class_2xx", "wrong")
    assert 2 * account.count("done", "checked") == account.count("checks", "checked")
    assert 0 == account.count("checks_failed", "checked")
    assert account.count("done", "wrong") == account.count("checks_failed", "wrong") > 0
    late = statuses(log, "/late").total()
    assert late == account.count("sent", "late") == account.count("error_network_request_timeout", "late") > 0
    assert late == log.abandoned
    assert 0 == account.count("class_2xx", "late")
    assert sum(account.count(f"error_{kind}") for kind in ("target_status_5xx", "network_request_timeout")) == (
        account.count("failed")
    )
    assert account.worker("connects") == account.worker("closes") <= log.opened_connections


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
