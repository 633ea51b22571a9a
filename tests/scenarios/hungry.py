"""A visitor that eats the runner's memory, for tests of what is said of a runner that is killed for want of it."""

from __future__ import annotations

from typing import ClassVar

from trafficsim_runner.scenario import Scenario

BITE = 4 * 2**20  # bytes
_EATEN: list[bytearray] = []


class Eater(Scenario):
    """Asks for the list ten times a second, and keeps a bite of memory each time."""

    actions: ClassVar = {"list": "bulk"}

    async def run(self) -> None:
        """Visit once."""
        await self.get("/users", action="list")
        _EATEN.append(bytearray(b"x" * BITE))
        await self.think(0.1)
