"""The open model, seen by the target: as many arrivals as the integral says, when they are due, each once."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import time
from collections import Counter
from pathlib import Path

from driven.run import a_document, a_run, supervisors
from targets.scripted import Route, Scripted
from trafficsim_api.arrivals import UNIT, Poisson

FLOW = [{"request": {"get": "/a"}}]


def instants(lines: Path) -> list[float]:
    """Return when each request came (CLOCK_MONOTONIC, s), in order."""
    entries = (json.loads(line) for line in lines.read_text().splitlines())
    return sorted(entry["at"] for entry in entries if entry["path"] == "/a")


async def test_two_runners_share_one_sequence(tmp_path: Path) -> None:
    """300/s from two runners for 6 s: 1800 arrivals and none twice; an edit to 100/s at mid-run leaves no gap."""
    document = a_document(
        "", archetypes=[{"name": "a", "flow": FLOW}], users=60, scaling={"minRunners": 2}, duration="9s",
        arrivals={"rate": "300/s"}, profile=[{"hold": {"for": "1s"}}],
    )  # fmt: skip
    with Scripted([Route(path="/a"), Route(path="/healthz")], lines=tmp_path / "lines") as server:
        document["spec"]["target"]["url"] = server.url
        async with a_run(document, directory=tmp_path / "run") as run:
            await run.begins()
            await run.until(lambda run: run.account().worker("arrivals_planned") >= 600)
            edited = {**document, "spec": {**document["spec"], "arrivals": {"rate": "100/s"}}}
            await run.record.put(edited, namespace="local", name="truth", uid="truth-0", source="test", allowed=())
            status = await run.ends()
            account = run.account()
    assert status.run is not None
    since, before = status.run.arrivals_since_ms, status.run.arrivals_before
    assert 2_000 < since < 8_000
    assert before >> 20 == since * 300 // 1000
    expected = (before >> 20) + (9_000 - since) // 10
    assert abs(expected - account.worker("arrivals_planned")) <= 1
    assert 0 == status.run.arrivals_lost
    came = instants(tmp_path / "lines")
    assert len(came) == account.worker("arrivals_started") == account.worker("arrivals_planned")
    origin = came[0] - 1 / 300
    early = Counter(int(at - origin) for at in came if at - origin < since // 1000)
    assert all(abs(count - 300) <= 12 for count in early.values()), early


async def test_poisson_arrivals(tmp_path: Path) -> None:
    """
    Each arrival comes when its process says, and the gaps pass a Kolmogorov-Smirnov test at 0.1 %.

    What the machine adds is measured and allowed for: a delay of d moves the distribution by rate · d at most.
    """
    document = a_document(
        "", archetypes=[{"name": "a", "flow": FLOW}], users=50, duration="20s", warmUp="1s", seed=11,
        arrivals={"rate": "50/s", "process": "poisson"}, profile=[{"hold": {"for": "1s"}}],
    )  # fmt: skip
    with Scripted([Route(path="/a"), Route(path="/healthz")], lines=tmp_path / "lines") as server:
        document["spec"]["target"]["url"] = server.url
        async with a_run(document, directory=tmp_path / "run") as run:
            origin_s = await run.begins() / 1000 - time.time() + time.monotonic()
            await run.ends()
    came, works = instants(tmp_path / "lines"), Poisson(11)
    n = len(came)
    assert abs(n - works.first_after(1000 * UNIT)) <= 1
    late = sorted(at - origin_s - works.work(k) / UNIT / 50 for k, at in enumerate(came))
    assert late[0] > -0.005  # the clocks were read one after the other
    assert late[n // 2] < 0.05
    gaps = sorted((b - a) * 50 for a, b in itertools.pairwise(came))
    furthest = max(abs(1 - math.exp(-gap) - (i + 0.5) / n) + 0.5 / n for i, gap in enumerate(gaps))
    assert furthest < 1.95 / math.sqrt(n) + 50 * max(0.001, late[n * 95 // 100] - late[0])


async def test_a_lost_runner_costs_its_share_until_it_is_dealt_again(tmp_path: Path) -> None:
    """One of two runners is killed: what was due of its places meanwhile is lost and counted; then all come again."""
    document = a_document(
        "", archetypes=[{"name": "a", "flow": FLOW}], users=60, scaling={"minRunners": 2}, duration="12s",
        arrivals={"rate": "200/s"}, profile=[{"hold": {"for": "1s"}}],
    )  # fmt: skip
    with Scripted([Route(path="/a"), Route(path="/healthz")], lines=tmp_path / "lines") as server:
        document["spec"]["target"]["url"] = server.url
        async with a_run(document, directory=tmp_path / "run") as run:
            await run.begins()
            await run.until(lambda run: run.account().worker("arrivals_planned") >= 400)
            os.kill(supervisors()[0], signal.SIGKILL)
            status = await run.ends()
            planned = run.account().worker("arrivals_planned")
    assert status.run is not None
    # The 2400th would be due right at the end: it is not sent.
    assert 2399 == status.run.arrivals_planned == planned + status.run.arrivals_lost
    # At the least the second until the loss is seen, at the most half of what came after it.
    assert 0 < status.run.arrivals_lost < 1000
    came = instants(tmp_path / "lines")
    last = [at for at in came if at > came[-1] - 2]
    assert 380 <= len(last) <= 404
