"""A runner's control API over real processes: what it takes, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from supervised.control_contract import ControlContract, counted
from supervised.running import Running, a_load, until
from trafficsim_api.protocol import LAST_READ_S, Allowed, Limits, sign
from trafficsim_api.statistics import total


@pytest.fixture
def runner(tmp_path):
    with Running(tmp_path / "runner") as running:
        yield running


class TestSupervisor(ControlContract):
    """The real supervisor, with workers that count."""

    def test_metrics_are_served(self, runner):
        assert 200 == runner.call("/metrics")[0]


def test_users_are_spread_and_counted(runner):
    """Places over two workers, all of them active in the newest window."""
    runner.assign(places=10)
    assert 2 == len(runner.workers())
    until(lambda: counted(runner), lambda done: done > 100)
    assert 10 == runner.statistics().windows[-1].active


def test_a_key_that_comes_later_is_found(runner):
    """The directory of keys is read again when an unknown one is named."""
    key = Ed25519PrivateKey.generate()
    body = sign(runner.assignment(), "k2", key).model_dump_json().encode()
    assert 403 == runner.call("/v1/assignment", body)[0]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (runner.directory / "keys" / "k2.pem").write_bytes(public)
    until(lambda: runner.call("/v1/assignment", body)[0], lambda status: status == 200)


def test_places_lost_and_gained_stay_with_their_workers(runner):
    """A users edit restarts nobody."""
    runner.assign(places=40)
    before = runner.workers()
    assert 60 == runner.assign(places=60).active
    assert 5 == runner.assign(places=5).active
    assert before == runner.workers()


def test_more_processes_leave_the_first_one_alone(runner):
    """When the process count rises the worker that is there goes on; it never falls."""
    runner.assign(places=10, processes=1)
    (first,) = runner.workers()
    runner.assign(places=20, processes=2)
    assert first == runner.workers()[0]
    assert 2 == len(runner.workers())
    assert 2 == runner.assign(places=20, processes=1).processes


def test_new_actions_keep_the_counts(runner):
    """A load edit brings a wider layout; what was counted stays."""
    runner.assign(places=10)
    until(lambda: counted(runner), lambda done: done > 20)
    before = runner.statistics()
    runner.assign(places=10, load=a_load(actions=("first", "ping")))
    after = until(runner.statistics, lambda found: len(found.layout.actions) == 2)
    assert (("ping", "user"), ("first", "user")) == after.layout.actions
    assert total(after.layout, after.total, "done") >= total(before.layout, before.total, "done")
    assert before.boot == after.boot


def test_a_new_run_starts_from_nothing(runner):
    """Counts, workers and windows are those of the new run; the sequence goes on."""
    runner.assign(places=10)
    until(lambda: counted(runner), lambda done: done > 100)
    before, workers = runner.statistics(), runner.workers()
    runner.assign(places=1, run=2)
    after = runner.statistics(before.boot, before.sequence)
    assert 2 == after.run
    assert total(after.layout, after.total, "done") < 50
    assert after.sequence >= before.sequence
    assert not set(workers) & set(runner.workers())


def test_the_end_drains_alone(runner):
    """At its end the runner drains without being told, and goes on answering with the last request counted."""
    now = time.time_ns() // 1_000_000
    runner.put(runner.assignment(10, end_ms=now + 4000))
    until(runner.acknowledgement, lambda held: held.active == 10)
    until(runner.acknowledgement, lambda held: held.drained and held.settled)
    done = counted(runner)
    assert done > 0
    time.sleep(1.2)  # long enough for a look that would bring more
    assert done == counted(runner)


def test_term_drains_and_exits_0(runner):
    """SIGTERM: users leave, the last account is waited to be read for 5 s, workers end, exit code 0."""
    runner.assign(places=10)
    workers = runner.workers()
    began = time.monotonic()
    runner.signal(signal.SIGTERM)
    until(lambda: runner.call("/readyz")[0], lambda status: status == 503)
    assert (503, {"error": "the runner is going down"}) == runner.put(runner.assignment(20))
    assert 0 == runner.ended()
    assert LAST_READ_S <= time.monotonic() - began
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


def test_a_clock_that_is_off_does_not_move_the_start(runner):
    """The operator tells the start by the runner's clock, give or take some ms: one start. A suspension moves it."""
    origin = lambda: json.loads((runner.directory / "state" / "origin.json").read_text())["origin_ns"]  # noqa: E731
    runner.assign(places=4)
    first, start_at_ms = origin(), runner.start_at_ms
    runner.assign(places=4, start_at_ms=start_at_ms + 40)
    runner.assign(places=4, start_at_ms=start_at_ms - 40)
    assert first == origin()
    runner.assign(places=4, start_at_ms=start_at_ms + 5000)
    assert abs(origin() - first - 5_000_000_000) < 100_000_000


def test_who_reads_the_last_account_lets_the_runner_go(runner):
    """After SIGTERM the runner answers until its account was read once more; then it ends at once."""
    runner.assign(places=10)
    until(lambda: counted(runner) > 0)
    began = time.monotonic()
    runner.signal(signal.SIGTERM)
    held = until(runner.acknowledgement, lambda held: held.drained)
    last = counted(runner)
    with pytest.raises(subprocess.TimeoutExpired):
        runner.ended(1)  # somebody who looks on, and does not know the boot, is not who it waits for
    final = runner.statistics(held.boot)
    assert last == total(final.layout, final.total, "done")
    assert 0 == runner.ended(LAST_READ_S - 2)
    assert time.monotonic() - began < LAST_READ_S
    assert last > 0


def test_an_account_read_when_it_was_final_is_not_waited_for(runner):
    """A retired runner whose account is kept ends at once, and so does one that never began."""
    runner.assign(places=10)
    until(lambda: counted(runner) > 0)
    runner.assign(places=10, retire=True)
    held = until(runner.acknowledgement, lambda held: held.drained)
    assert runner.statistics(held.boot).sequence > 0
    runner.signal(signal.SIGTERM)
    assert 0 == runner.ended(LAST_READ_S - 1)


def test_what_keeps_an_assignment_from_being_carried_out_is_told(tmp_path):
    """A worker that refuses, workers that keep dying, and an assignment the runner refuses: each with its reason."""
    with Running(tmp_path / "refuses", FAKE_WORKER_REFUSES="1") as runner:
        runner.put(runner.assignment(10))
        problem = until(lambda: runner.acknowledgement().problem, within_s=30)
        assert problem.endswith(" refuses the assignment: ValueError: not today")
    with Running(tmp_path / "dies", FAKE_WORKER_DIES="1") as runner:
        runner.put(runner.assignment(10))
        problem = until(lambda: runner.acknowledgement().problem, within_s=30)
        assert problem.endswith(" keeps dying: exit code 3")


def test_workers_die_with_their_supervisor(runner):
    """Nobody generates load unsupervised."""
    runner.assign(places=10)
    workers = runner.workers()
    runner.signal(signal.SIGKILL)
    runner.ended()
    until(lambda: [pid for pid in workers if os.path.exists(f"/proc/{pid}")], lambda alive: not alive)


def test_the_target_that_does_not_answer_is_named(runner):
    """What came of asking the target's health is in the acknowledgement."""
    runner.assign(places=1)
    assert "127.1.0.8" in until(lambda: runner.acknowledgement().target)
    held = runner.assign(places=1, limits=Limits(targets=(Allowed(network="10.0.0.0/8"),)))
    assert held.epoch == 2
    assert "not among the addresses allowed" in until(lambda: runner.acknowledgement().target)


def test_logs_are_events(runner):
    """Every line on standard output is one JSON object with an action."""
    runner.assign(places=1)
    lines = (runner.directory / "log").read_text().splitlines()
    assert {"listening", "assigned"} <= {json.loads(line)["event.action"] for line in lines}
