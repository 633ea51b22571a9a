"""A visitor whose image may be a bad one: what it does wrong stands in the runner's environment, for tests."""

from __future__ import annotations

import os
from typing import ClassVar

from trafficsim_runner.scenario import RequestFailed, Scenario

FAULT = os.environ.get("FAULT", "")
SHARE = 0.2


class Visitor(Scenario):
    """Asks for the list five times a second; one visit in five goes wrong as FAULT says."""

    actions: ClassVar = {"list": "bulk"}

    async def run(self) -> None:
        """Visit once."""
        fault = FAULT if self.draw() < SHARE else ""
        if fault == "checks":
            await self.get("/users", action="list", expect="404")
        elif fault == "slow":  # the shop takes 0.2 ms for each
            await self.post("/users/bulk", action="list", json=[{}] * 2000)
        elif fault == "errors":  # and 2 s are more than the simulation's request time-out
            await self._try([{}] * 10_000)
        else:
            await self._try()
        await self.think(0.2)

    async def _try(self, users: list[object] | None = None) -> None:
        try:
            if users is None:
                await self.get("/users", action="list")
            else:
                await self.post("/users/bulk", action="list", json=users)
        except RequestFailed:
            return
