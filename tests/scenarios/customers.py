"""Users in Python that take rows of data, for tests."""

from __future__ import annotations

from typing import ClassVar

from trafficsim_runner.scenario import Scenario


class Customer(Scenario):
    """Says who it is, in which iteration, and which row it has."""

    actions: ClassVar = {"look": "user"}

    async def run(self) -> None:
        """Look once."""
        row = self.data("accounts")
        await self.get(f"/{self.user.id}/{self.user.iteration}/{row['user']}", action="look")
        assert row == self.data("accounts")
        await self.think(0.05)


class Stranger(Scenario):
    """Asks for rows that the simulation does not have."""

    actions: ClassVar = {"look": "user"}

    async def run(self) -> None:
        """Fail."""
        self.data("words")
