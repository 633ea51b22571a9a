"""A local run whose runner is lost, over real processes: borne with or not; one that is only stopped is not lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml

from component.local_command import a_shop, a_short_simulation, children_of, log_of, trafficsim, until_requests

pytestmark = [pytest.mark.component, pytest.mark.timeout(90)]

FLOW = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "50ms"}}]


async def test_a_stopped_runner_is_none_that_is_lost_and_a_dead_one_ends_the_run(tmp_path: Path) -> None:
    """With onRunnerLoss: end the run goes on while a runner is silent; when one dies it ends, Inconclusive."""
    async with a_shop() as shop:
        document = a_short_simulation(
            shop, FLOW, users=8, scaling={"minRunners": 2, "maxRunners": 2, "onRunnerLoss": "end"},
            profile=[{"hold": {"for": "1ms"}}],
        )  # fmt: skip
        (tmp_path / "short.yaml").write_text(yaml.safe_dump(document))
        async with trafficsim("run", str(tmp_path / "short.yaml"), "--json", home=tmp_path) as run:
            await until_requests(shop, 40)
            stopped, dead = run.runners()
            for pid in (stopped, *children_of(stopped)):
                os.kill(pid, signal.SIGSTOP)
            # The other's four users need more than a look's five seconds for so many.
            await until_requests(shop, (await log_of(shop))["finished"] + 600)
            assert [stopped, dead] == run.runners()
            for pid in (stopped, *children_of(stopped)):
                os.kill(pid, signal.SIGCONT)
            os.kill(dead, signal.SIGKILL)
            assert 2 == await run.ends(within_s=60)
    found = run.document
    (lost,) = found["status"]["run"]["lost"]
    assert ("Inconclusive", f"{lost['name']} was lost, and scaling.onRunnerLoss is end") == (
        found["verdict"],
        found["reason"],
    )
    assert (4, False) == (lost["users"], lost["endUnseen"])
    assert lost["name"] in found["losses"][0]
