"""Times are true: histograms against the raw values of the same run, and against delays that the target was told."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from driven.machine import FOREIGN_CORE, Neighbours, served_first
from driven.run import Account, a_document, a_run, supervisors, workers_of
from targets.scripted import Route, Scripted
from trafficsim_api.phases import Phase
from trafficsim_runner.stats.raw import RawRecord, read_raw

MS = 1_000_000
DELAYS_MS = (50, 100, 200, 500)
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
STATED_ERROR = 0.01
ATTEMPTS = 3


Raw = dict[int, list[RawRecord]]


def raw_of(directory: Path) -> Raw:
    """Return the raw records of all workers by action number."""
    found: dict[int, list[RawRecord]] = defaultdict(list)
    for path in directory.glob("*.raw"):
        for record in read_raw(path):
            found[record.action].append(record)
    return found


def exact(values: list[int], q: float) -> int:
    """Return the quantile by its definition: the value of rank ceil(q·n)."""
    return values[max(1, math.ceil(q * len(values) - 1e-9)) - 1]


def check_against_raw(account: Account, raw: Raw) -> None:
    """
    Every quantile lies in [true, true · 1.01]; count, sum, least and most are exact.

    The quantile is its bucket's upper edge, so it never flatters the target.
    """
    assert set(range(len(account.layout.actions))) == set(raw)
    everything: list[int] = []
    for number, (action, _) in enumerate(account.layout.actions):
        assert len(raw[number]) == account.count("done", action)
        took = sorted(record.done_ns - record.sent_ns for record in raw[number] if record.status)
        everything += took
        assert sum(took) == account.count("service_ns", action) == account.count("response_ns", action)
        assert took[0] == account.extreme("service_min_ns", action) == account.extreme("response_min_ns", action)
        assert took[-1] == account.extreme("service_max_ns", action) == account.extreme("response_max_ns", action)
        assert_quantiles(took, account, action)
    assert_quantiles(sorted(everything), account, None)


def assert_quantiles(took: list[int], account: Account, action: str | None) -> None:
    for which in ("service", "response"):
        for q, given in zip(QUANTILES, account.quantiles(QUANTILES, action, which), strict=True):
            true = exact(took, q)
            assert true <= given <= true * (1 + STATED_ERROR), f"{which} p{100 * q:g} of {action}: {true} → {given}"


async def run_with_raw(
    tmp_path, *, users: int, duration: str, runners: int
) -> tuple[Account, dict[int, list[RawRecord]]]:
    raw = tmp_path / "raw"
    raw.mkdir()
    routes = [
        Route(path="/healthz"), Route(path="/fast"), Route(path="/slow", delay_s=0.03),
        Route(path="/chunked", framing="chunked", pieces=2, delay_s=0.008), Route(path="/late", delay_s=0.9),
    ]  # fmt: skip
    flow = [{"action": path, "request": {"get": f"/{path}"}} for path in ("fast", "slow", "chunked")]
    rare = [{"action": "fast", "request": {"get": "/fast"}}, {"action": "late", "request": {"get": "/late"}}]
    archetypes = [{"name": "often", "weight": 9, "flow": flow}, {"name": "rare", "weight": 1, "flow": rare}]
    with Scripted(routes) as server:
        document = a_document(
            server.url, archetypes=archetypes, users=users, duration=duration, scaling={"minRunners": runners},
            target={"timeouts": {"connect": "1s", "request": "950ms"}},
        )  # fmt: skip
        async with a_run(document, directory=tmp_path, raw=raw) as run:
            await run.ends(within_s=200)
            account = run.account()
    return account, raw_of(raw)


async def test_histograms_tell_what_the_raw_values_tell(tmp_path):
    """p50 to p99.9 within 1 %; count, sum and extremes exact; by action and merged."""
    account, raw = await run_with_raw(tmp_path, users=30, duration="6s", runners=1)
    assert sum(map(len, raw.values())) > 2_000
    check_against_raw(account, raw)


@pytest.mark.truth
@pytest.mark.timeout(300)
@pytest.mark.parametrize("runners", [2, 4])
async def test_merged_histograms_tell_what_the_raw_values_tell(tmp_path, runners):
    """The same over several runners: merging adds, it does not average."""
    account, raw = await run_with_raw(tmp_path, users=80, duration="30s", runners=runners)
    assert runners <= len({path.stem for path in (tmp_path / "raw").glob("*.raw") if path.stat().st_size})
    assert sum(map(len, raw.values())) > 20_000
    check_against_raw(account, raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run with scripted delays, and the cores that others kept busy meanwhile."""

    account: Account
    others: float


async def run_with_delays(directory: Path, delays_ms: tuple[int, ...], *, users: int, duration: str) -> Measured:
    routes = [Route(path="/healthz"), *(Route(path=f"/{d}", delay_s=d / 1000) for d in delays_ms)]
    archetypes = [
        {"name": f"waits-{d}", "weight": d, "flow": [{"action": f"wait_{d}", "request": {"get": f"/{d}"}}]}
        for d in delays_ms
    ]
    with Scripted(routes) as server:
        document = a_document(server.url, archetypes=archetypes, users=users, duration=duration)
        async with a_run(document, directory=directory) as run:
            await run.begins()
            ours = [server.pid, *supervisors(), *(pid for runner in supervisors() for pid in workers_of(runner))]
            with served_first(*ours):
                neighbours = Neighbours(ours)
                await run.until(lambda run: run.status.phase is Phase.DRAINING)
                others = neighbours.cores()
            await run.ends()
            account = run.account()
        print(f"the server's own lateness: {dict(server.log.lateness)}; others kept {others:.2f} cores busy")
    return Measured(account=account, others=others)


def misses(account: Account, delays_ms: tuple[int, ...], *, least: int) -> list[str]:
    """
    Return what is not so: p50, p90 and p99 of a target that answers after d lie in [d, 1.008·d + 5 ms].

    0.8 % is the width of a bucket, 5 ms what target, kernel and generator may add together.
    """
    found = []
    for d in delays_ms:
        action = f"wait_{d}"
        assert least <= account.count("done", action)
        assert 0 == account.count("failed", action)
        given = account.quantiles((0.5, 0.9, 0.99), action)
        print(f"{d} ms, n = {account.count('done', action)}: {[round(ns / MS, 2) for ns in given]}")
        most = 1.008 * d * MS + 5 * MS
        assert all(d * MS <= ns for ns in given), f"{action}: below the delay: {given} ns"
        # Neighbours make some answers late, never most of them.
        assert given[0] <= most, f"{action}: p50 is {given[0] / MS} ms"
        if not all(ns <= most for ns in given):
            found.append(f"{action}: p50, p90, p99 are {[round(ns / MS, 2) for ns in given]} ms")
    return found


async def measure(tmp_path, delays_ms: tuple[int, ...], *, users: int, duration: str, least: int) -> None:
    """
    Measure, and judge what was measured on a machine of our own.

    p90 and p99 that are off while others kept the machine busy say nothing of the generator. They are measured again,
    twice at most; if the machine is never ours, what holds on any is what was tested: nothing is below the delay, and
    half of all is within the bound.
    """
    for attempt in range(ATTEMPTS):
        measured = await run_with_delays(tmp_path / str(attempt), delays_ms, users=users, duration=duration)
        found = misses(measured.account, delays_ms, least=least)
        if not found:
            return
        print(f"others kept {measured.others:.2f} cores busy: {found}")
        assert measured.others > FOREIGN_CORE, found


async def test_a_scripted_delay_is_measured_as_it_is(tmp_path):
    """d = 50, 100, 200, 500 ms side by side, n ≥ 500."""
    await measure(tmp_path, DELAYS_MS, users=102, duration="6s", least=500)


@pytest.mark.truth
@pytest.mark.timeout(120)
@pytest.mark.parametrize("delay_ms", DELAYS_MS)
async def test_a_scripted_delay_is_measured_as_it_is_5000_times(tmp_path, delay_ms):
    """n ≥ 5 000 of each delay."""
    await measure(tmp_path, (delay_ms,), users=delay_ms, duration="8s", least=5_000)
