"""A run whose runner was above 80 % of its CPU and let flows wait cannot pass, and says why."""

from __future__ import annotations

import json
from pathlib import Path

from driven.run import a_document, a_run
from targets.scripted import Route, Scripted
from trafficsim_api.names import Condition
from trafficsim_api.phases import Verdict
from trafficsim_api.policy import LOCAL_DEFAULT
from trafficsim_operator.plan.report import Report

# An answer that costs the generator more than the target: it writes it ready made, the generator reads and checks it.
LARGE = json.dumps({"items": [{"id": number, "name": f"item {number}"} for number in range(300)], "last": "end"})


async def test_flows_that_waited_end_it_inconclusive(tmp_path: Path) -> None:
    """A twentieth of a core for users that never pause, ten requests allowed: six are out, the others wait."""
    with Scripted([Route(path="/a", body=LARGE), Route(path="/healthz")]) as server:
        flow = [{"action": "a", "request": {"get": "/a"}, "expect": {"json": {"last": "end"}}}]
        archetypes = [{"name": "late", "priority": 9, "flow": flow}, {"name": "soon", "priority": 0, "flow": flow}]
        document = a_document(
            server.url, archetypes=archetypes, users=10, scaling={"maxProcesses": 1},
            runner={"resources": {"limits": {"cpu": "50m", "memory": "1Gi"}}},
        )  # fmt: skip
        async with a_run(document, directory=tmp_path) as run:
            run.world.policy = lambda: LOCAL_DEFAULT.model_copy(update={"max_concurrency": 10})
            status = await run.ends()
            evidence, report = run.evidence(), run.ledger.report()
    assert evidence.held_back > 0
    assert Verdict.INCONCLUSIVE is status.verdict
    assert "delayed or dropped by runners above 80 % of their CPU" in status.verdict_reason
    condition = next(c for c in status.conditions if c.type == Condition.GENERATOR_SATURATED)
    assert ("True", "GeneratorSaturated") == (condition.status, condition.reason)
    assert isinstance(report, Report)
    held_back = report.counters["starts_delayed"] + report.drops.get("generator_saturated", 0)
    assert held_back >= evidence.held_back
