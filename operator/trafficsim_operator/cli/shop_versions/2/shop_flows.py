"""Version 2 of the demo's customers: they look around, order, and sometimes think better of it."""

from __future__ import annotations

from typing import ClassVar

from trafficsim_runner.scenario import Scenario


class Customer(Scenario):
    """Signs in once, then reads the list, looks three people up, orders and half the time cancels, again and again."""

    actions: ClassVar = {"login": "auth", "list": "shop", "look_up": "shop", "order": "shop", "cancel": "shop"}

    async def start(self) -> None:
        """Sign in; the token is this customer's own."""
        answer = await self.post("/auth/login", action="login", json={"user": f"user-{self.user.id}"})
        self.headers = {"authorization": f"Bearer {answer.json()['token']}"}

    async def run(self) -> None:
        """Visit the shop once: five or six requests."""
        people = (await self.get("/users", action="list")).json()["users"]
        for _ in range(3):
            await self.get(f"/users/{self.pick(people)['id']}", action="look_up", headers=self.headers)
            await self.think(0.05, 0.15)
        order = (await self.post("/orders", action="order", json={"item": "umbrella", "amount": 1})).json()
        await self.think(0.05, 0.15)
        if self.draw() < 0.5:
            await self.delete(f"/orders/{order['id']}", action="cancel")
