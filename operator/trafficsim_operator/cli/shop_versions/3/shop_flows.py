"""Version 3 of the demo's customers, with a mistake: one request in five asks for somebody who is not there."""

from __future__ import annotations

from typing import ClassVar

from trafficsim_runner.scenario import Scenario


class Customer(Scenario):
    """Signs in once, then reads the list, looks three people up and orders, again and again."""

    actions: ClassVar = {"login": "auth", "list": "shop", "look_up": "shop", "order": "shop"}

    async def start(self) -> None:
        """Sign in; the token is this customer's own."""
        answer = await self.post("/auth/login", action="login", json={"user": f"user-{self.user.id}"})
        self.headers = {"authorization": f"Bearer {answer.json()['token']}"}

    async def run(self) -> None:
        """Visit the shop once: five requests."""
        people = (await self.get("/users", action="list")).json()["users"]
        for visited in range(3):
            number = self.pick(people)["id"]
            if visited == 2:  # the mistake: customers are numbered from 0 to 999 999
                number += 1_000_000
            await self.get(f"/users/{number}", action="look_up", headers=self.headers)
            await self.think(0.05, 0.15)
        await self.post("/orders", action="order", json={"item": "umbrella", "amount": 1})
        await self.think(0.05, 0.15)
