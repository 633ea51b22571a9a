"""A whole run with pooled connections: the limits hold over worker processes, and the report says how it went."""

from __future__ import annotations

import pytest

from driven.run import a_document, a_run
from targets.counting import Counting

FLOW = [{"request": {"get": "/a"}}, {"group": "checkout", "request": {"get": "/b"}},
        {"group": "bulk", "request": {"get": "/c"}}, {"think": {"constant": "20ms"}}]  # fmt: skip


@pytest.mark.slow
async def test_limits_hold_over_processes(tmp_path):
    """100 users in two processes on 5 + 3 + 4 connections: never more, none starves, and every wait is told."""
    connections = {
        "mode": "pooled",
        "groups": {"user": {"max": 5}, "checkout": {"max": 3, "priority": "high"}, "bulk": {"max": 4}},
    }
    with Counting(0.004) as server:
        document = a_document(
            f"http://127.0.0.1:{server.port}", archetypes=[{"name": "one", "flow": FLOW}], users=100, duration="4s",
            connections=connections,
        )  # fmt: skip
        async with a_run(document, directory=tmp_path) as run:
            status = await run.ends()
            report = run.ledger.report()
        assert 2 == status.sizing.processes
        # The health check has a connection of its own.
        assert server.most <= 5 + 3 + 4 + 1
    assert {"user": 5, "checkout": 3, "bulk": 4} == {group: pool["max"] for group, pool in report.pools.items()}
    assert all(pool["waits"] and pool["most"] <= pool["max"] for pool in report.pools.values())
    assert sum(pool["waits"] for pool in report.pools.values()) == report.counters["pool_waits"]
    assert 0 == report.failed
    assert report.requests == report.sent
    assert 3 * 100 <= report.requests


async def test_pools_that_are_too_small_are_refused(tmp_path):
    """Each process needs a connection of each group; the message says which field to change."""
    document = a_document(
        "http://127.0.0.1:1", archetypes=[{"name": "one", "flow": FLOW}], users=100,
        connections={"mode": "pooled", "groups": {"checkout": {"max": 1}}},
    )  # fmt: skip
    async with a_run(document, directory=tmp_path) as run:
        await run.until(lambda run: run.status.message)
        assert "connections.groups.checkout.max: 1 is less than one for each" in run.status.message
