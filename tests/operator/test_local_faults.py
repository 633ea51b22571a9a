"""A local run under bad circumstances: signals before anything was seen, a history that does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from trafficsim_api.errors import Unavailable
from trafficsim_api.phases import Phase
from trafficsim_api.policy import LOCAL_DEFAULT
from trafficsim_api.status import Run, Status, TaskStatus
from trafficsim_api.units import format_instant
from trafficsim_operator.edits import edits
from trafficsim_operator.fleet.local import LocalFleet
from trafficsim_operator.local import Options, Outcome, _Local
from trafficsim_operator.store import Document
from trafficsim_operator.store.sqlite import SqliteRecord
from trafficsim_operator.testing.fakes import FakeFleet, FakeRecord, FakeWorld

NOW = 1_800_000_000_000
DOCUMENT = {
    "apiVersion": "trafficsim.io/v1alpha1",
    "kind": "TrafficSimulation",
    "metadata": {"name": "shop", "namespace": "local"},
    "spec": {
        "target": {"url": "http://127.0.0.1:8080"},
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
    },
}


class History(FakeRecord):
    """A history whose reads fail as *faults* say: by number of the read."""

    def __init__(self, *faults: int) -> None:
        super().__init__()
        self.faults = faults
        self.reads = 0
        self.ends: list[str] = []
        self.at_first_read: Any = None

    async def put(self, body: Any, **_: Any) -> int:  # type: ignore[override]
        """Take the document."""
        super().put(body)
        return 1

    async def read(self, namespace: str, name: str) -> Document | None:
        """Return the document, or fail."""
        self.reads += 1
        if self.reads == 1 and self.at_first_read is not None:
            await self.at_first_read()
        if self.reads in self.faults:
            raise Unavailable("database is locked")
        return await super().read(namespace, name)

    async def finish(self, uid: str, *, verdict: str, **_: Any) -> None:
        """Keep the end, or fail."""
        if -1 in self.faults:
            raise Unavailable("database is locked")
        self.ends.append(verdict)


class Processes(FakeFleet):
    """A fleet that is told to go at once."""

    losses: tuple[str, ...] = ()
    is_killed = False

    async def aclose(self, *, at_once: bool = False) -> None:
        """Go."""

    def kill(self) -> None:
        """Hear of it."""
        self.is_killed = True


class Notes:
    """What somebody at the terminal reads."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def show(self, frame: Any) -> None:
        """See a look."""

    def note(self, text: str, *, warning: bool = False) -> None:
        """Read a line."""
        self.notes.append(text)

    def close(self) -> None:
        """See it go."""


def a_local(history: History, notes: Notes, *, stop: str = "") -> _Local:
    """Build a local run against *history*."""
    world = FakeWorld(record=history)
    world.world.stop = stop
    return _Local(
        options=Options(body=DOCUMENT, source="shop.yaml", policy=LOCAL_DEFAULT), view=notes, world=world.world,
        record=cast("SqliteRecord", history), fleet=cast("LocalFleet", Processes(clock=world)), uid="uid-shop",
    )  # fmt: skip


async def ended(history: History, *, stop: str = "") -> tuple[Outcome, list[str]]:
    """Run to the end against *history*; return the outcome and what was noted."""
    notes = Notes()
    local = a_local(history, notes, stop=stop)
    async with asyncio.timeout(20):
        return await local.run(), notes.notes


@pytest.mark.parametrize(("setup_ms", "elapsed_ms", "is_over"), [(90_000, 115_000, False), (90_000, 155_000, True)])
def test_setup_takes_nothing_of_the_time_to_start(setup_ms: int, elapsed_ms: int, is_over: bool) -> None:
    """Of 60 s to start within, 25 s beside a setup of 90 s are fine, also when it has just been done."""
    setup = TaskStatus(
        state="Done", runner="r", uid="u", digest="d", since=format_instant(NOW), deadline=format_instant(NOW),
        ended=format_instant(NOW + setup_ms),
    )  # fmt: skip
    run = Run(id=1, phase_since=format_instant(NOW), setup=setup)
    status = Status(phase=Phase.STARTING, run=run, message="1 of 2 runners are ready")
    local = a_local(History(), Notes())
    assert 60_000 == local.options.start_ms
    assert is_over == local._is_over(status, elapsed_ms)


async def test_two_ctrl_c_before_the_first_look() -> None:
    """An outcome like any other that was stopped at once, not a traceback; a third one changes nothing."""
    history = History()

    async def interrupt() -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    history.at_first_read = interrupt
    outcome, _ = await ended(history)
    assert (2, "stopped at once: the numbers since the last look are missing") == (outcome.exit, outcome.reason)
    assert ["Inconclusive"] == history.ends


async def test_a_history_that_does_not_answer_is_asked_again() -> None:
    """Neither the look after a decision nor the end is lost to it."""
    for faults in ((2,), (2, 3, 4), (5,), (-1,)):
        history = History(*faults)
        outcome, notes = await ended(history, stop="enough")
        assert "Inconclusive" == outcome.verdict
        assert (["Inconclusive"], []) == (history.ends, notes) or (
            [],
            ["the end of the run is not in the history: database is locked"],
        ) == (history.ends, notes)


async def test_a_file_that_cannot_be_watched_is_read_now_and_then(tmp_path: Path, monkeypatch: Any) -> None:
    """No watch is left, or the directory went: edits come all the same."""

    async def none_left(*_: Any, **__: Any) -> Any:
        raise OSError("no space left on device")
        yield

    monkeypatch.setattr("trafficsim_operator.edits.awatch", none_left)
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(DOCUMENT | {"spec": DOCUMENT["spec"] | {"users": 2}}))
    async with asyncio.timeout(10):
        edit = await anext(edits(file, DOCUMENT))
    assert "users: (default) → 2" == edit.what
