"""
A stall of two seconds in the open model: all of it is in the response times, and in no service time but where it was.

When an arrival was due is told by its number alone: that is how the raw record of each request is judged here, not by
what the generator took for due.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from driven.run import Account, a_document, a_run, supervisors, workers_of
from targets.scripted import Route, Scripted
from trafficsim_api.histogram import bucket_of, upper_edge
from trafficsim_api.statistics import histogram
from trafficsim_runner.stats.raw import RawRecord, read_raw

SECOND = 1_000_000_000
MS = 1_000_000
RATE = 200
STALL_S = 2.0
QUANTILES = (0.5, 0.9, 0.99, 0.999)
STATED_ERROR = 0.01
# The upper edge of the bucket of a second: counts above it are the same in a histogram and among raw values.
LONG_NS = upper_edge(bucket_of(SECOND))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """A run with one stall: *since_ns* until *until_ns* (CLOCK_MONOTONIC); *raw* in the order of sending."""

    account: Account
    raw: list[RawRecord]
    origin_ns: int
    since_ns: int
    until_ns: int

    def due_ns(self, number: int) -> int:
        """Return when arrival *number* was due: evenly, the first one after a whole gap."""
        return self.origin_ns + (number + 1) * SECOND // RATE

    @property
    def responses(self) -> list[int]:
        """Return done - due of every arrival, in order."""
        return [record.done_ns - self.due_ns(number) for number, record in enumerate(self.raw)]

    @property
    def services(self) -> list[int]:
        """Return done - sent of every arrival, in order."""
        return [record.done_ns - record.sent_ns for record in self.raw]

    @property
    def within(self) -> list[int]:
        """Return the numbers of the arrivals that were due in the stall."""
        return [n for n in range(len(self.raw)) if self.since_ns <= self.due_ns(n) <= self.until_ns]


async def stall(tmp_path: Path, whose: str, *, for_s: float = STALL_S, **spec: Any) -> Stalled:
    """Run for 8 s, with *whose* ("target" or "generator") process stopped for a while when everybody is connected."""
    raw = tmp_path / "raw"
    raw.mkdir()
    with Scripted([Route(path="/healthz"), Route(path="/a", delay_s=0.005)]) as server:
        document = a_document(
            server.url, archetypes=[{"name": "a", "flow": [{"request": {"get": "/a"}}]}], duration="8s", users=500,
            arrivals={"rate": f"{RATE}/s"}, profile=[{"hold": {"for": "1s"}}], scaling={"maxProcesses": 1}, **spec,
        )  # fmt: skip
        async with a_run(document, directory=tmp_path / "run", raw=raw) as run:
            await run.begins()
            (kept,) = (tmp_path / "run").glob("runners/*/state/origin.json")
            origin_ns = json.loads(kept.read_text())["origin_ns"]
            await run.until(lambda run: run.account().worker("arrivals_planned") >= 540)
            pid = server.pid if whose == "target" else workers_of(supervisors()[0])[0]
            os.kill(pid, signal.SIGSTOP)
            since_ns = time.monotonic_ns()
            await asyncio.sleep(for_s)
            until_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGCONT)
            await run.ends()
            account = run.account()
        received = server.log.count(path="/a")
    records = sorted((r for file in raw.glob("*.raw") for r in read_raw(file)), key=lambda record: record.sent_ns)
    assert received == len(records) == account.worker("arrivals_planned") == account.worker("arrivals_started")
    assert all(record.status == 200 for record in records)
    return Stalled(account=account, raw=records, origin_ns=origin_ns, since_ns=since_ns, until_ns=until_ns)


def exact(values: list[int], q: float) -> int:
    """Return the quantile by its definition: the value of rank ceil(q·n)."""
    return sorted(values)[max(1, math.ceil(q * len(values) - 1e-9)) - 1]


def check(stalled: Stalled) -> None:
    """
    Every arrival that was due in the stall waited for its end at least, and the account knows all of it.

    Sums are exact, quantiles within 1 %, and as many are longer than a second as by the raw values.
    """
    due = stalled.within
    length_s = (stalled.until_ns - stalled.since_ns) / SECOND
    assert abs(len(due) - RATE * length_s) <= 1
    responses, services = stalled.responses, stalled.services
    assert min(responses) > 0
    assert all(responses[n] >= stalled.until_ns - stalled.due_ns(n) for n in due)
    # All of them that were due more than a second before its end: as many as come in that time.
    assert sum(response > LONG_NS for response in responses) >= RATE * (length_s - LONG_NS / SECOND) - 1
    account = stalled.account
    for which, values in (("response", responses), ("service", services)):
        assert sum(values) == account.count(f"{which}_ns")
        buckets = histogram(account.layout, account.whole, which)
        assert sum(value > LONG_NS for value in values) == int(buckets[bucket_of(LONG_NS) + 1 :].sum())
        for q, given in zip(QUANTILES, account.quantiles(QUANTILES, which=which), strict=True):
            true = exact(values, q)
            assert true <= given <= true * (1 + STATED_ERROR), f"{which} p{100 * q:g}: {true} → {given}"
    late = exact([record.sent_ns - stalled.due_ns(n) for n, record in enumerate(stalled.raw)], 0.5)
    print(f"{len(due)} arrivals in a stall of {length_s:.2f} s; sent {late / MS:.2f} ms after they were due (median)")
    # A share of the arrivals that does not depend on how busy the machine is: the stall is a quarter of the run.
    assert account.quantiles((0.87,), which="response")[0] > 0.4 * SECOND


async def test_a_stall_of_the_target_is_in_every_response_that_fell_into_it(tmp_path):
    """
    The generator goes on: what is due is sent, so all of it is in flight.

    A service time is long only where the request was under way in the stall.
    """
    stalled = await stall(tmp_path, "target")
    check(stalled)
    for record in stalled.raw:
        if record.done_ns - record.sent_ns > STALL_S * SECOND / 4:
            assert record.sent_ns <= stalled.until_ns <= record.done_ns


@pytest.mark.truth
@pytest.mark.timeout(120)
async def test_a_stall_of_the_generator_is_in_no_service_time(tmp_path):
    """The target answered quickly all the time: service times say so, but for the few that were in flight."""
    stalled = await stall(tmp_path, "generator")
    check(stalled)
    in_flight = [r for r in stalled.raw if r.sent_ns <= stalled.since_ns and r.done_ns >= stalled.until_ns]
    slow = [r for r in stalled.raw if r.done_ns - r.sent_ns > STALL_S * SECOND / 2]
    assert slow == in_flight
    assert len(in_flight) <= 10
    assert exact(stalled.services, 0.98) < 0.2 * SECOND


@pytest.mark.truth
@pytest.mark.timeout(120)
async def test_behind_a_pool_only_what_is_in_flight_is_slow_in_service(tmp_path):
    """With 8 connections for all a stall of the target holds 8 requests: the others wait, and are not served slowly."""
    pools = {"mode": "pooled", "groups": {"user": {"max": 8, "wait": "10s"}}}
    stalled = await stall(tmp_path, "target", connections=pools)
    check(stalled)
    slow = [r for r in stalled.raw if r.done_ns - r.sent_ns > STALL_S * SECOND / 2]
    assert 0 < len(slow) <= 8
    assert all(r.sent_ns <= stalled.until_ns <= r.done_ns for r in slow)
    assert exact(stalled.services, 0.99) < 0.2 * SECOND
    assert exact(stalled.responses, 0.87) > 0.4 * SECOND
