"""The users of simulation.yaml, which the image brings along."""

from __future__ import annotations

from trafficsim_runner.scenario import Counter, Scenario


class Buyer(Scenario):
    """Logs in once, then places an order and now and then cancels it."""

    actions = {"login": "auth", "order": "orders", "cancel": "orders"}
    kept = Counter()

    async def start(self) -> None:
        """Log in; the token is this user's own."""
        answer = await self.post("/auth/login", action="login", json={"user": f"user-{self.user.id}"})
        self.headers = {"authorization": f"Bearer {answer.json()['token']}"}

    async def run(self) -> None:
        """Place one order."""
        order = await self.post("/orders", action="order", headers=self.headers, json={"items": [1, 2]})
        if not self.check(order.ok):
            return
        await self.think(median=1.0, p95=4.0)
        if self.draw() < 0.2:
            await self.delete(f"/orders/{order.json()['id']}", action="cancel", headers=self.headers)
        else:
            self.kept.add()
