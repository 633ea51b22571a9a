"""
Users written in Python: subclass `Scenario`, name the class in the resource, put its module into the runner's image.

    from trafficsim_runner.scenario import Counter, Scenario, Trend

    class Exporter(Scenario):
        actions = {"export": "bulk"}
        exported = Counter()
        rows = Trend()

        async def run(self) -> None:
            answer = await self.get("/export", action="export")
            self.check(answer.status == 200)
            self.rows.record(len(answer.json()))
            self.exported.add()
            await self.think(1.0, 3.0)

docs/scenarios.md tells all of it. This module is what scenarios import; it is typed and light to import.
"""

from __future__ import annotations

from trafficsim_runner.scenario.answers import RequestFailed, Response
from trafficsim_runner.scenario.metrics import Counter, Trend
from trafficsim_runner.scenario.person import Person
from trafficsim_runner.scenario.scenario import Scenario

__all__ = ["Counter", "Person", "RequestFailed", "Response", "Scenario", "Trend"]
