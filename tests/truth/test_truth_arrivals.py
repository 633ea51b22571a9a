"""The open model, seen by the target: as many arrivals as the integral says, when they are due, each once."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from driven.run import a_document, a_run, supervisors
from targets.scripted import Route, Scripted
from trafficsim_api.arrivals import UNIT, Course, Poisson
from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulation
from trafficsim_api.units import parse_rate
from trafficsim_runner.stats.raw import read_raw

ATTEMPTS = 3
# What delays may move the distribution of gaps by before the test would tell nothing: even gaps are off by 0.63.
MOST_MOVED = 0.05
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """A run's start, when each request was sent and when each one came (CLOCK_MONOTONIC, s), in order."""

    origin_s: float
    sent: list[float]
    came: list[float]
    dropped: int
    """Arrivals for which nobody was free: so long stood the machine still."""


async def arrive(tmp_path: Path, *, runners: int = 1, **spec: Any) -> Came:
    """Run, each arrival being one request."""
    raw = tmp_path / "raw"
    raw.mkdir(parents=True)
    document = a_document(
        "", archetypes=[{"name": "a", "flow": FLOW}], scaling={"minRunners": runners, "maxProcesses": 1}, **spec
    )
    with Scripted([Route(path="/a"), Route(path="/healthz")], lines=tmp_path / "lines") as server:
        document["spec"]["target"]["url"] = server.url
        async with a_run(document, directory=tmp_path / "run", raw=raw) as run:
            await run.begins()
            origin_ns = {
                json.loads(file.read_text())["origin_ns"]
                for file in (tmp_path / "run").glob("runners/*/state/origin.json")
            }
            await run.ends(within_s=300)
            account = run.account()
    sent = sorted(record.sent_ns / 1e9 for file in raw.glob("*.raw") for record in read_raw(file))
    came = instants(tmp_path / "lines")
    assert len(sent) == len(came) == account.worker("arrivals_started")
    dropped = account.worker("drop_no_slot")
    assert account.worker("arrivals_planned") == len(sent) + dropped
    # Runners read their wall clocks one after the other.
    assert max(origin_ns) - min(origin_ns) < 20_000_000
    return Came(origin_s=min(origin_ns) / 1e9, sent=sent, came=came, dropped=dropped)


def moved(late: list[float], rate: float) -> float:
    """
    Return by how much delays can have moved the distribution of the gaps between arrivals.

        |F moved(x) - F(x)| ≤ P(a gap changed by more than d) + rate · d       for any d: the one that gives least
    """
    changes = sorted(abs(b - a) for a, b in itertools.pairwise(late))
    n = len(changes)
    return min((n - 1 - i) / n + rate * change for i, change in enumerate(changes))


def furthest_off(at: list[float], rate: float) -> float:
    """Return the Kolmogorov-Smirnov distance of the gaps between *at* from the exponential distribution."""
    gaps = sorted((b - a) * rate for a, b in itertools.pairwise(at))
    n = len(gaps)
    return max(max((i + 1) / n - f, f - i / n) for i, f in enumerate(1 - math.exp(-gap) for gap in gaps))


async def poisson(tmp_path: Path, *, rate: int, seconds: int, seed: int) -> int:
    """
    Each arrival comes when its process says, and the gaps pass a Kolmogorov-Smirnov test at 0.1 %.

    What generator and machine add is measured, and allowed for by what it can have done at most. A machine on which
    that is too much for the test to tell anything is measured again, twice at most. Return the number.
    """
    for attempt in range(ATTEMPTS):
        n, misses = await poisson_once(tmp_path / str(attempt), rate=rate, seconds=seconds, seed=seed)
        if not misses:
            return n
    pytest.fail(f"in {ATTEMPTS} runs; the last: {misses}")


async def poisson_once(tmp_path: Path, *, rate: int, seconds: int, seed: int) -> tuple[int, list[str]]:
    """Return how many came, and what was wrong with their gaps."""
    found = await arrive(
        tmp_path, users=30, duration=f"{seconds}s", warmUp="1s", seed=seed,
        arrivals={"rate": f"{rate}/s", "process": "poisson"}, profile=[{"hold": {"for": "1s"}}],
    )  # fmt: skip
    works = Poisson(seed)
    n = len(found.sent)
    assert abs(n + found.dropped - works.first_after(seconds * rate * UNIT)) <= 1
    if found.dropped:
        return n, [f"{found.dropped} dropped"]
    planned = [found.origin_s + works.work(k) / UNIT / rate for k in range(n)]
    misses = []
    for name, instants_s in (("planned", planned), ("sent", found.sent), ("came", found.came)):
        late = [at - due for at, due in zip(instants_s, planned, strict=True)]
        assert min(late) > -0.0001
        allowed, off = moved(late, rate), furthest_off(instants_s, rate)
        said = f"{name}: n = {n}, {off:.4f} off; {1.95 / math.sqrt(n):.4f} + {allowed:.4f} for delays"
        print(said)
        if off >= 1.95 / math.sqrt(n) + min(allowed, MOST_MOVED):
            misses.append(said)
    return n, misses


async def test_poisson_arrivals(tmp_path: Path) -> None:
    """500 of them."""
    await poisson(tmp_path, rate=40, seconds=12, seed=11)


@pytest.mark.truth
@pytest.mark.timeout(300)
async def test_many_poisson_arrivals(tmp_path: Path) -> None:
    """10 000 of them, so few a second that what the machine adds is small."""
    assert await poisson(tmp_path, rate=85, seconds=120, seed=12) > 10_000


async def follow_rate(tmp_path: Path, profile: list[dict[str, Any]], *, rate: int, seconds: int, runners: int) -> None:
    """
    In every second as many come as the integral of the rate says, to 1 % (or to the one that rounding may take).

    A machine that stops for longer than a hundredth of a second moves arrivals into the next one, and that is no fault
    of the schedule: it is measured again then, twice at most.
    """
    for attempt in range(ATTEMPTS):
        found = await arrive(
            tmp_path / str(attempt), runners=runners, users=500, duration=f"{seconds}s", profile=profile,
            arrivals={"rate": f"{rate}/s"}, target={"timeouts": {"connect": "2s", "request": "5s"}},
        )  # fmt: skip
        spec = a_document("http://a", archetypes=[{"name": "a", "flow": FLOW}], profile=profile)
        pieces = TrafficSimulation.model_validate_json(json.dumps(spec)).spec.profile
        course = Course(shape=shape(pieces), rate=parse_rate(f"{rate}/s"))
        misses = [f"{found.dropped} dropped"] if found.dropped else []
        for name, instants_s in (("sent", found.sent), ("came", found.came)):
            counted = Counter(int(at - found.origin_s) for at in instants_s)
            for second in range(seconds - 1):
                due = (course.due(1000 * second + 1000) - course.due(1000 * second)) / UNIT
                if abs(counted[second] - due) > max(1, due / 100):
                    misses.append(f"second {second}: {counted[second]} {name}, {due:.1f} due")
        print(f"{len(found.sent)} arrivals; {misses or 'every second as it is due'}")
        if not misses:
            return
    pytest.fail(f"in {ATTEMPTS} runs; the last: {misses}")


async def test_a_ramp_of_the_rate(tmp_path: Path) -> None:
    """From nothing to 500/s in 6 s."""
    profile = [{"ramp": {"to": "100%", "over": "6s"}}]
    await follow_rate(tmp_path, profile, rate=500, seconds=8, runners=1)


@pytest.mark.truth
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(
            [{"ramp": {"to": "100%", "over": "15s"}}, {"hold": {"for": "3s"}}, {"ramp": {"to": "20%", "over": "10s"}}],
            id="up and down",
        ),
        pytest.param(
            [{"sine": {"low": "20%", "high": "100%", "period": "10s", "for": "30s"}}],
            id="a wave",
        ),
    ],
)
async def test_a_rate_that_changes_all_the_time(tmp_path: Path, profile: list[dict[str, Any]]) -> None:
    """Up to 800/s, from two runners together."""
    await follow_rate(tmp_path, profile, rate=800, seconds=30, runners=2)


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
