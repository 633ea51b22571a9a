"""The users of scenario.yaml: found by `trafficsim run` because it stands beside that file."""

from __future__ import annotations

from trafficsim_runner.scenario import Counter, RequestFailed, Scenario, Trend


class Exporter(Scenario):
    """Logs in, looks users up until it finds one to export, and asks for a report of it."""

    actions = {"login": "auth", "list": "user", "look_up": "user", "report": "bulk"}
    exported = Counter()
    listed = Trend()
    report_bytes = Trend(unit="bytes")

    async def start(self) -> None:
        """Log in once; the token is this user's own."""
        answer = await self.post("/auth/login", action="login", json={"user": f"user-{self.user.id}"})
        self.headers = {"authorization": f"Bearer {answer.json()['token']}"}

    async def run(self) -> None:
        """Export one user."""
        people = (await self.get("/users", action="list", headers=self.headers)).json()["users"]
        self.check(len(people) > 0)
        self.listed.record(len(people))
        person = self.pick(people)
        found = await self.get(f"/users/{person['id']}", action="look_up", headers=self.headers)
        if not self.check(found.ok):
            return
        try:
            report = await self.get("/reports/daily-sales", action="report", headers=self.headers, expect="200")
        except RequestFailed:
            return
        self.report_bytes.record(len(report.body))
        self.exported.add()
        await self.think(0.5, 2.0)
