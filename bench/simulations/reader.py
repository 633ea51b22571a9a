"""The user of scenario.yaml."""

from trafficsim_runner.scenario import Scenario


class Reader(Scenario):
    """One fixed GET in each iteration, its status checked."""

    actions = {"read": "user"}

    async def run(self) -> None:
        await self.get("/read", action="read", expect="200")
