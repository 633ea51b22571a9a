"""Scenarios that tests let users play; each shows one thing."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from trafficsim_runner.scenario import Counter, RequestFailed, Scenario, Trend


def note(text: str) -> None:
    """Write down what happened, for the test to read."""
    with Path(os.environ["ACTS_LOG"]).open("a") as log:
        log.write(f"{text}\n")


class Plain(Scenario):
    """One request an iteration, over and over, with metrics and a check."""

    actions = {"read": "user", "write": "bulk"}
    reads = Counter()
    size = Trend(unit="bytes")
    took = Trend(unit="ms")

    async def run(self) -> None:
        answer = await self.get("/echo/read", action="read", params={"a b": "c&d", "n": self.user.id})
        self.check(answer.ok and answer.json()["query"] == f"a+b=c%26d&n={self.user.id}")
        self.check(answer.header("Content-Type") == "application/json" == answer.headers["content-type"])
        self.reads.add()
        self.size.record(200)
        self.took.record(2.5)
        written = await self.post("/echo/write", action="write", json={"ü": [1]}, headers={"x-user": "me"})
        document = written.json()
        self.check(document["body"] == '{"ü":[1]}' and document["headers"]["content-type"] == "application/json")
        self.check(document["headers"]["x-user"] == "me")
        form = await self.put("/echo/write", action="write", form={"a": "ä b"})
        self.check(form.json()["body"] == "a=%C3%A4+b" and "read" not in form.text)
        await self.delete("/echo/write", action="write")
        await self.patch("/echo/write", action="write", body="raw")
        self.check((await self.head("/echo/read", action="read")).body == b"")
        await self.options("/echo/read", action="read", expect="200")


class Parts(Scenario):
    """start, run, stop, and what becomes of run when the user leaves."""

    actions = {"hello": "user", "work": "user", "bye": "user"}

    async def start(self) -> None:
        await self.post("/echo/hello", action="hello")
        note(f"start {self.user.id} {self.user.archetype}")

    async def run(self) -> None:
        try:
            await self.get("/echo/work", action="work")
            await self.think(0.02)
        except GeneratorExit:
            note(f"closed {self.user.id}")
            raise

    async def stop(self) -> None:
        await self.post("/echo/bye", action="bye")
        note(f"stop {self.user.id}")


class Endless(Scenario):
    """Its stop() never ends."""

    actions = {"work": "user"}

    async def run(self) -> None:
        await self.get("/echo/work", action="work")

    async def stop(self) -> None:
        while True:
            await self.think(0.05)


class Clinging(Scenario):
    """It awaits while it is closed."""

    actions = {"work": "user"}

    async def run(self) -> None:
        while True:
            try:
                await self.get("/echo/work", action="work")
                await self.think(30)
            finally:
                await self.get("/echo/work", action="work")


class Broken(Scenario):
    """Mistakes of every kind: each costs an iteration, and nobody else anything."""

    actions = {"work": "user"}

    async def run(self) -> None:
        await self.get("/echo/work", action="work")
        match self.user.id % 8:
            case 0:
                raise KeyError("lost")
            case 1:
                sys.exit(3)
            case 2:
                await self.get("/echo/work", action="undeclared")
            case 3:
                await self.get("http://elsewhere/", action="work")
            case 4:
                await self.get("/echo/work", action="work", headers={"x": "a\r\nb"})
            case 5:
                await _Strange()
            case 6:
                raise asyncio.CancelledError
            case _:
                pass


class _Strange:
    def __await__(self):
        yield "what is this"


class Stubborn(Scenario):
    """It goes on after failures without a pause of its own."""

    actions = {"work": "user"}
    failures = Counter()

    async def run(self) -> None:
        while True:
            try:
                await self.get("/echo/work", action="work")
            except RequestFailed as failure:
                if failure.kind == os.environ["ACTS_KIND"]:
                    self.failures.add()


class Waits(Scenario):
    """What asyncio offers, without a task."""

    actions = {"work": "user"}
    naps = Trend(unit="s")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0.05)
        await asyncio.sleep(0)
        assert 42 == await loop.run_in_executor(None, lambda: 42)
        assert 7 == await asyncio.create_task(_seven())
        self.naps.record(loop.time() - began)
        await self.get("/echo/work", action="work")


async def _seven() -> int:
    await asyncio.sleep(0.001)
    return 7


class InTask(Scenario):
    """What asyncio offers within a task: a time-out of its own around a request."""

    actions = {"slow": "user", "work": "user"}
    cut = Counter()
    task = True

    async def run(self) -> None:
        assert asyncio.current_task() is not None
        try:
            async with asyncio.timeout(0.05):
                await self.get("/slow", action="slow")
        except TimeoutError:
            self.cut.add()
        async with asyncio.timeout(5):
            await self.get("/echo/work", action="work")
        await self.think(0.01)
        await asyncio.sleep(0.001)

    async def stop(self) -> None:
        await self.get("/echo/work", action="work")
        note(f"stop {self.user.id}")


class Named(Scenario):
    """Says over and over what its archetype is called, within one iteration."""

    actions = {"work": "user"}

    async def run(self) -> None:
        for _ in range(20):
            await self.get("/echo/work", action="work")
            note(f"{self.user.archetype} {self.user.id}")
            await self.think(0.02)


class Impatient(Scenario):
    """Waits for its answer, or for its turn, no longer than it likes."""

    actions = {"slow": "user"}
    tried = Counter()
    task = True

    async def run(self) -> None:
        self.tried.add()
        try:
            async with asyncio.timeout(0.03):
                await self.get("/slow", action="slow")
        except TimeoutError:
            pass


class Draws(Scenario):
    """Draws, saved values and cookies are the user's own."""

    actions = {"work": "user"}

    async def start(self) -> None:
        note(f"{self.user.id} {self.draw():.6f} {self.pick('abc')} {sorted(self.saved)}")
        self.saved["mine"] = str(self.user.id)
        await self.get("/in", action="work")

    async def run(self) -> None:
        answer = await self.get("/echo/work", action="work")
        self.check(answer.json()["headers"].get("cookie") == "sid=s1")
        self.check(self.saved["mine"] == str(self.user.id))
        await self.think(0.001, 0.01)
        await self.think(median=0.001, p95=0.002)


class NotOne:
    """No Scenario."""


class NoActions(Scenario):
    """It declares nothing."""

    async def run(self) -> None:
        """Do nothing."""


class NotAsync(Scenario):
    """Its run is no coroutine."""

    actions = {"work": "user"}

    def run(self) -> None:  # type: ignore[override]
        """Do nothing."""
