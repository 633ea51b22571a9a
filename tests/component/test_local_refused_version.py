"""A version whose users cannot even be loaded, in a local run: it is rejected, and hinders nothing after it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from component.local_command import a_shop, a_short_simulation, line_of, trafficsim, until_requests

pytestmark = [pytest.mark.component, pytest.mark.slow, pytest.mark.timeout(150)]

VISITOR = """
from trafficsim_runner.scenario import Scenario


class Visitor(Scenario):
    actions = {"list": "bulk"}

    async def run(self):
        await self.get("/users", action="list")
        await self.think(0.05)
"""


def a_document(url: str, version: str) -> dict[str, Any]:
    return a_short_simulation(
        url,
        users=4,
        profile=[{"ramp": {"to": "100%", "over": "500ms"}}],
        archetypes=[{"name": "visitor", "scenario": "visits:Visitor"}],
        runner={"image": f"shop:{version}", "resources": {"limits": {"cpu": "1", "memory": "512Mi"}}},
        rollout={
            "steps": [{"percent": 50}, {"percent": 100}],
            "warmUp": "1s", "window": "1s", "dwell": "1s", "maxDwell": "60s", "minSamples": 20,
        },
    )  # fmt: skip


async def test_a_version_that_cannot_be_loaded_hinders_no_later_one(tmp_path: Path) -> None:
    """Its runner stays for its logs, never settled; users move to the next version, and the run ends without it."""
    images = []
    for version, text in (("1", VISITOR), ("2", "raise RuntimeError('no such thing')\n"), ("3", VISITOR + "\n")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "visits.py").write_text(text)
        images += ["--runner", f"shop:{version}={tmp_path / version}"]
    file = tmp_path / "short.yaml"
    async with a_shop() as shop:
        file.write_text(yaml.safe_dump(a_document(shop, "1")))
        async with trafficsim("run", str(file), "--watch", *images, home=tmp_path) as run:
            await until_requests(shop)
            file.write_text(yaml.safe_dump(a_document(shop, "2")))
            assert "no such thing" in await line_of(run, "CandidateFailing", 60)
            file.write_text(yaml.safe_dump(a_document(shop, "3")))
            await line_of(run, "rollout 2: ", 30)
            await line_of(run, "is stable", 60)
            run.process.terminate()
            began = time.monotonic()
            assert 0 == await run.ends()
    assert time.monotonic() - began < 30, "what never took its load is not waited for: that would be 45 s"
    assert "1 → 2: rejected before its first user" in run.out
    assert "1 → 3: " in run.out
