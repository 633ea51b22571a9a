"""The supervisor over real workers, against a server that keeps its own account."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from supervised.running import REAL, Running, a_load, until
from targets.scripted import Route, Scripted
from trafficsim_api.statistics import total


@pytest.fixture
def target():
    with Scripted([Route(path="/health", statuses=(204,)), Route(path="/")]) as server:
        yield server


@pytest.fixture
def runner(tmp_path):
    with Running(tmp_path / "runner", REAL) as running:
        yield running


def the_load(server, **changes):
    load = a_load(server.url, **changes)
    return load.model_copy(update={"target": load.target.model_copy(update={"health_path": "/health"})})


def counts(runner):
    found = runner.statistics()
    return {name: total(found.layout, found.total, name) for name in ("sent", "done", "failed", "class_2xx")}


def received(server):
    """Return how many requests of the load the server saw."""
    return server.log.received - server.log.count(path="/health")


def test_the_account_is_the_servers(runner, target):
    """Through users edits, a suspend and the end: what the runner says it sent, the server received."""
    runner.assign(20, load=the_load(target))
    assert "reachable" == until(lambda: runner.acknowledgement().target)
    assert 40 == runner.assign(40, load=the_load(target)).active
    assert 7 == runner.assign(7, load=the_load(target)).active
    runner.assign(7, load=the_load(target), suspended=True)
    assert 7 == runner.assign(7, load=the_load(target, actions=("ping", "pong"))).active
    until(lambda: counts(runner), lambda found: found["done"] > 500, within_s=20)
    now = time.time_ns() // 1_000_000
    runner.assign(7, load=the_load(target, actions=("ping", "pong")), end_ms=now)
    until(runner.acknowledgement, lambda held: held.drained)
    found = counts(runner)
    assert {"sent": received(target), "done": received(target), "failed": 0, "class_2xx": received(target)} == found


def test_a_killed_worker_loses_no_more_than_its_users_requests(runner, target):
    """The counters stand in a file: what is missing was in flight or just done, at most one request a user."""
    runner.assign(20, load=the_load(target))
    until(lambda: counts(runner), lambda found: found["done"] > 200)
    os.kill(runner.workers()[0], signal.SIGKILL)
    until(lambda: runner.acknowledgement().active, lambda active: active < 20)
    until(runner.acknowledgement, lambda held: held.settled and held.active == 20, within_s=20)
    runner.assign(20, load=the_load(target), suspended=True)
    until(runner.acknowledgement, lambda held: held.drained)
    found, seen = counts(runner), received(target)
    assert seen - 10 <= found["sent"] <= seen
    assert found["done"] <= found["sent"]


def test_a_drain_leaves_nothing_behind(runner, target):
    """SIGTERM in full work: every request sent was answered, and the next boot knows them all."""
    runner.assign(20, load=the_load(target))
    until(lambda: counts(runner), lambda found: found["done"] > 100)
    runner.signal(signal.SIGTERM)
    assert 0 == runner.ended()
    seen = received(target)
    (runner.directory / "state" / "assignment").unlink()
    runner.start()
    runner.assign(0)
    found = counts(runner)
    assert {"sent": seen, "done": seen, "failed": 0, "class_2xx": seen} == found


def test_a_kill_of_the_whole_container_loses_little(runner, target):
    """Supervisor and workers die at once; the slabs stay."""
    runner.assign(20, load=the_load(target))
    until(lambda: counts(runner), lambda found: found["done"] > 200)
    runner.signal(signal.SIGKILL)
    runner.ended()
    runner.start()
    until(runner.acknowledgement, lambda held: held.settled and held.active == 20, within_s=20)
    runner.assign(20, load=the_load(target), suspended=True)
    until(runner.acknowledgement, lambda held: held.drained)
    found, seen = counts(runner), received(target)
    assert seen - 20 <= found["sent"] <= seen


def test_the_supervisor_costs_little(runner, target):
    """Two workers, ten actions, read every second: under 3 % of a core."""
    load = the_load(target, actions=tuple(f"action-{n}" for n in range(10)))
    runner.assign(20, load=load)
    before, began = _cpu_s(runner), time.monotonic()
    since, boot = 0, ""
    while time.monotonic() - began < 5:
        found = runner.statistics(boot, since)
        since, boot = found.sequence, found.boot
        time.sleep(1)  # how often it is read while watched
    assert (_cpu_s(runner) - before) / (time.monotonic() - began) < 0.03


def _cpu_s(runner):
    """Return the CPU seconds of the supervisor so far."""
    fields = Path(f"/proc/{runner.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
