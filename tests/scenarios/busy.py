"""A visitor whose visits take a runner's CPU, always as much, for tests."""

from __future__ import annotations

import os
import time
from typing import ClassVar

from trafficsim_runner.scenario import Scenario

COST_S = float(os.environ.get("COST_MS", "1")) / 1000
EVERY_S = float(os.environ.get("EVERY_S", "0.5"))


class Busy(Scenario):
    """Asks for the list every EVERY_S on the average, after COST_MS of this thread's CPU, not of waiting for it."""

    actions: ClassVar = {"list": "bulk"}

    async def run(self) -> None:
        """Visit once."""
        until = time.thread_time() + COST_S
        while time.thread_time() < until:
            pass
        await self.get("/users/1", action="list")
        await self.think(EVERY_S * (0.4 + 1.2 * self.draw()))
