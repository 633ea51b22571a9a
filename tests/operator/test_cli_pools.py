"""What `plan` and the summary of a run say of pooled connections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from trafficsim_operator.cli import summary
from trafficsim_operator.cli.main import main
from trafficsim_operator.plan.report import Report

POOLED = {"mode": "pooled", "groups": {"user": {"max": 40}, "orders": {"max": 4, "wait": "500ms", "priority": "high"}}}


def a_file(directory: Path, **spec: Any) -> str:
    flow = [{"request": {"get": "/"}}, {"group": "orders", "request": {"post": "/orders"}},
            {"group": "bulk", "request": {"get": "/all"}}]  # fmt: skip
    document = {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 2000,
            "duration": "10m",
            "connections": POOLED,
            "archetypes": [{"name": "one", "flow": flow}],
            **spec,
        },
    }
    file = directory / "shop.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


def test_plan_shows_each_pool(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its bounds, what becomes of a connection, and what the runner's capacity is then."""
    assert 0 == main(["plan", a_file(tmp_path)])
    out = capfd.readouterr().out
    for term in (
        "capacity    4 000 users a runner = 4 × 1 000\n",
        "connections pooled: at most 144 of a runner's 1 000\n",
        "            user: 4 to 40, idle for 1m at most, priority medium, waits 3s at most\n",
        "            orders: 1 to 4, idle for 1m at most, priority high, waits 500ms at most\n",
        "            bulk: 10 to 100, closed after each answer, priority low, waits 3s at most\n",
    ):
        assert term in out


def test_plan_says_what_memory_tls_takes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["plan", a_file(tmp_path, target={"url": "https://127.0.0.1:8443"})])
    assert "⌊((1024 - 64 × 5) MiB - 144 × 36 KiB of TLS) ÷ 4 ÷ 2 KiB⌋" in capfd.readouterr().out


def test_plan_refuses_more_than_the_policy_allows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Naming the field."""
    connections = {"mode": "pooled", "groups": {"orders": {"max": 900}}}
    assert 3 == main(["plan", a_file(tmp_path, connections=connections)])
    assert (
        "connections.groups.orders.max: user 200 + orders 900 + bulk 100 = 1200 connections of a runner are more than "
        "the policy's 1000"
    ) in capfd.readouterr().err


def a_report() -> Report:
    figures = {"size": 3, "used": 1, "waiting": 0, "max": 4, "most": 4, "waits": 200, "wait_us": 3_000_000,
               "longest_us": 512_000, "dropped": 9}  # fmt: skip
    quiet = dict.fromkeys(figures, 0) | {"max": 40, "most": 31}
    return Report(
        requests=0, failed=0, sent=0, checks=0, checks_failed=0, judged=0, classes={}, errors={}, drops={}, counters={},
        actions=(), missing=(), pools={"orders": figures, "user": quiet},
    )  # fmt: skip


def test_the_summary_has_a_line_for_each_pool() -> None:
    """How many connections it had at most, and who waited how long."""
    assert [
        "orders: at most 4 of 4 connections; 200 requests waited 15 ms on average, 512 ms at most; 9 too long "
        "(pool_wait)",
        "user: at most 31 of 40 connections",
    ] == list(summary._pools(a_report()))
    assert [] == list(summary._pools(replace(a_report(), pools={})))
