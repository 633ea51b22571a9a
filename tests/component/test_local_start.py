"""The start barrier over real processes: what a runner tells of its start, and three runners of a local run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from component.local_command import a_short_simulation, trafficsim
from supervised.running import REAL, Running, a_load, until
from targets.scripted import Route, Scripted
from trafficsim_api.units import parse_instant

pytestmark = [pytest.mark.component, pytest.mark.timeout(90)]

# Clocks that are read one after the other, in whole ms.
CLOCKS_MS = 5


def arrivals_ms(lines: Path) -> list[float]:
    """Return when the server received requests of users, wall clock in ms."""
    offset_ms = time.time() * 1000 - time.monotonic() * 1000
    entries = [json.loads(line) for line in lines.read_text().splitlines()]
    return sorted(entry["at"] * 1000 + offset_ms for entry in entries if entry["path"] == "/")


def test_a_runner_tells_how_late_its_first_user_was(tmp_path: Path) -> None:
    """
    The start is echoed; what it is off comes with the first send, and stays.

    The server sees that send no earlier than the runner says.
    """
    lines = tmp_path / "lines"
    routes = [Route(path="/"), Route(path="/healthz", statuses=(204,))]
    with Scripted(routes, lines=lines) as server, Running(tmp_path / "runner", REAL) as runner:
        load = a_load(server.url)
        load = load.model_copy(update={"target": load.target.model_copy(update={"health_path": "/healthz"})})
        runner.assign(0, load=load, start_at_ms=time.time_ns() // 1_000_000 + 3_600_000)  # its workers are up now
        start_ms = time.time_ns() // 1_000_000 + 3_000
        before = runner.assign(6, load=load, start_at_ms=start_ms)
        assert (start_ms, None, 0) == (before.start_at_ms, before.late_us, before.active)
        told = until(runner.acknowledgement, lambda held: held.late_us is not None).late_us
        assert told is not None
        assert told >= 0
        first = min(until(lambda: arrivals_ms(lines)))
        assert start_ms - CLOCKS_MS <= first
        assert start_ms + told / 1000 - CLOCKS_MS <= first
        later = runner.assign(8, load=load, start_at_ms=start_ms)
        assert told == later.late_us


async def test_three_runners_begin_at_one_instant(tmp_path: Path) -> None:
    """
    2001 users on three runners: nobody comes before the instant, and the runners begin close together.

    A ramp is looked at every 20 ms; the rest of the bound is what the kernel may take on a busy machine of two cores
    to let six workers have their turn, and the error of the clocks, which is stated beside it.
    """
    lines = tmp_path / "lines"
    flow = [{"request": {"get": "/"}}, {"think": {"constant": "5m"}}]
    with Scripted([Route(path="/"), Route(path="/healthz", statuses=(204,))], lines=lines) as server:
        document = a_short_simulation(
            server.url, flow, users=2001, duration="6s", profile=[{"ramp": {"to": "100%", "over": "60s"}}]
        )
        (tmp_path / "short.yaml").write_text(yaml.safe_dump(document))
        async with trafficsim("run", str(tmp_path / "short.yaml"), "--json", home=tmp_path) as run:
            await run.ends(within_s=75)
        first = min(arrivals_ms(lines))
    found = run.document["status"]["run"]
    barrier = found["barrier"]
    print(barrier)
    assert first >= parse_instant(found["origin"]) - CLOCKS_MS
    assert 3 == barrier["runners"] == run.document["runners"]["most"]
    assert 0 <= barrier["skewMs"] <= 250 + barrier["offsetErrorMs"]
    assert "large" == run.document["status"]["tier"]
