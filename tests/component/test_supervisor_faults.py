"""Workers and containers that die: the load goes on, and the loss is counted."""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from supervised.running import Running, until
from trafficsim_api.statistics import total


@pytest.fixture
def runner(tmp_path):
    with Running(tmp_path / "runner") as running:
        yield running


def counter(found, name):
    return int(found.total[found.layout.worker(name)])


def done(found):
    return total(found.layout, found.total, "done")


def test_a_killed_worker_comes_back_with_its_places(runner):
    """Restarted at once; its counts stay, its users are counted as lost."""
    runner.assign(places=10)
    before = until(runner.statistics, lambda found: done(found) > 50)
    first, second = runner.workers()
    os.kill(first, signal.SIGKILL)
    until(runner.workers, lambda alive: len(alive) == 2 and first not in alive)
    until(runner.acknowledgement, lambda held: held.settled and held.active == 10)
    after = until(runner.statistics, lambda found: done(found) > done(before) + 50)
    assert second in runner.workers()
    assert (1, 5) == (counter(after, "worker_restarts"), counter(after, "worker_lost_users"))
    assert before.boot == after.boot
    (died,) = [event for event in runner.events() if event.get("event.action") == "worker-died"]
    assert ("exit code -9", 5) == (died["worker.reason"], died["worker.users"])


def test_no_count_is_lost_with_a_worker(runner):
    """What stood in the slab when the worker died is in the total: windows still add up."""
    runner.assign(places=10)
    until(runner.statistics, lambda found: done(found) > 50)
    for _ in range(3):
        workers = until(runner.workers, lambda alive: len(alive) == 2)
        os.kill(workers[-1], signal.SIGKILL)
        until(runner.workers, lambda alive, gone=workers[-1]: len(alive) == 2 and gone not in alive)
    until(runner.acknowledgement, lambda held: held.settled)
    found = until(runner.statistics, lambda found: counter(found, "worker_restarts") == 3)
    index = found.layout.action(0, "done")
    assert done(found) == sum(int(window.counts[window.indices == index].sum()) for window in found.windows)


def deaths(runner):
    """Return the instants (s) at which a worker died."""
    events = [event for event in runner.events() if event.get("event.action") == "worker-died"]
    return [datetime.fromisoformat(event["@timestamp"]).timestamp() for event in events]


def test_a_worker_that_cannot_start_is_tried_with_growing_pauses(tmp_path):
    """0.1 s doubling between the tries, and the supervisor answers all the while."""
    with Running(tmp_path / "runner", FAKE_WORKER_DIES="1") as runner:
        assert 200 == runner.put(runner.assignment(processes=1))[0]
        died = until(lambda: deaths(runner), lambda found: len(found) >= 4, within_s=40)
        pauses = [after - before for before, after in zip(died, died[1:], strict=False)]
        assert [] == [(pause, least) for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=False) if pause < least]
        held = runner.acknowledgement()
        assert (False, False) == (held.settled, held.drained)
        assert 200 == runner.call("/healthz")[0]
        runner.signal(signal.SIGTERM)
        assert 0 == runner.ended()


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_restarted_container_goes_on(runner, ended_by):
    """The assignment and every count survive in the state directory; the boot is another."""
    held = runner.assign(places=10)
    before = until(runner.statistics, lambda found: done(found) > 100)
    runner.signal(ended_by)
    runner.ended()
    runner.start()
    again = until(runner.acknowledgement, lambda found: found.settled and found.active == 10)
    assert (held.epoch, held.places) == (again.epoch, again.places)
    assert held.boot != again.boot
    after = until(runner.statistics, lambda found: done(found) > done(before) and found.sequence > 1)
    assert after.boot == again.boot
    assert counter(after, "pod_cpu_ns") > counter(before, "pod_cpu_ns")
    # A drain loses nobody, a kill loses those at work.
    assert (10 if ended_by == signal.SIGKILL else 0) == counter(after, "worker_lost_users")
    index = after.layout.action(0, "done")
    in_windows = sum(int(window.counts[window.indices == index].sum()) for window in after.windows)
    assert done(after) >= done(before) + in_windows
    # The boot before is known no more: its reader gets all windows of this one.
    assert 1 == runner.statistics(before.boot, before.sequence).first


def test_three_restarts_count_once(runner):
    """A file is in the account or counted by itself, never both."""
    runner.assign(places=10)
    until(runner.statistics, lambda found: done(found) > 100)
    runner.assign(places=0)
    until(runner.acknowledgement, lambda held: held.drained)
    before = runner.statistics()
    for _ in range(3):
        runner.signal(signal.SIGKILL)
        runner.ended()
        runner.start()
        until(runner.acknowledgement, lambda held: held.epoch == 2)
    assert done(before) == done(runner.statistics())


def test_a_state_nobody_can_read_is_a_fresh_start(runner):
    """A broken file never keeps a runner from starting."""
    runner.assign(places=4)
    runner.signal(signal.SIGKILL)
    runner.ended()
    for name in ("assignment", "account", "origin.json"):
        (runner.directory / "state" / name).write_bytes(b"\x00garbage\n\xff")
    for path in (runner.directory / "state").glob("slab-*"):
        path.write_bytes(b"short")
    runner.start()
    assert 0 == runner.acknowledgement().epoch
    assert 4 == runner.assign(places=4).active


def test_a_second_signal_ends_at_once(tmp_path):
    """Whoever does not want to wait for the drain signals twice."""
    with Running(tmp_path / "runner", FAKE_WORKER_STUBBORN="1") as runner:
        runner.assign(places=4)
        workers = runner.workers()
        runner.signal(signal.SIGTERM)
        until(lambda: runner.call("/readyz")[0], lambda status: status == 503)
        assert 503 == runner.put(runner.assignment())[0]
        runner.signal(signal.SIGTERM)
        assert 128 + signal.SIGTERM == runner.ended(2)
        until(lambda: [pid for pid in workers if os.path.exists(f"/proc/{pid}")], lambda alive: not alive)


def test_a_worker_that_hangs_is_killed(tmp_path):
    """One that says nothing for longer than a worker may is started again, and its users counted as lost."""
    with Running(tmp_path / "runner", FAKE_SILENCE_S="6") as runner:
        runner.assign(places=4)
        workers = runner.workers()
        os.kill(workers[0], signal.SIGSTOP)
        until(runner.workers, lambda alive: len(alive) == 2 and workers[0] not in alive, within_s=40)
        assert "worker-silent" in {event.get("event.action") for event in runner.events()}
        until(runner.statistics, lambda found: counter(found, "worker_restarts") == 1)


@pytest.fixture
def memory_group():
    """A memory cgroup of 400 MiB; what is in it when the test ends is moved out."""
    group = Path("/sys/fs/cgroup/memory") / f"trafficsim-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(400 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup of version 1 can be made here: {error.strerror}")
    yield group
    until(lambda: (group / "cgroup.procs").read_text(), lambda left: not left)
    group.rmdir()


def test_a_worker_without_memory_is_named(tmp_path, memory_group):
    """The kernel's killer is told from any other by the cgroup's counter."""
    with Running(tmp_path / "runner", group=memory_group, FAKE_WORKER_EATS=str(600 << 20)) as runner:
        runner.assign(places=4, processes=1)
        time.sleep(2.5)  # two looks find the cgroup
        (runner.directory / "state" / "eat").touch()
        died = until(lambda: [e for e in runner.events() if e.get("event.action") == "worker-died"], within_s=20)
        assert "OOMKilled" == died[0]["worker.reason"]
        until(runner.statistics, lambda found: counter(found, "oom_kills") == 1)
        (runner.directory / "state" / "eat").unlink(missing_ok=True)
        until(runner.acknowledgement, lambda held: held.settled and held.active == 4)
        assert 400 << 20 == runner.statistics().gauges["memory_limit_bytes"]
