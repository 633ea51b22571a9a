"""The ledger: the total is whole, and the windows add up to it."""

from __future__ import annotations

import pytest

from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Answer, action_counter
from trafficsim_runner.health.probe import Reading
from trafficsim_runner.state import State
from trafficsim_runner.stats.ledger import Ledger, Look, Seen
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.stats.slab_reader import Slab

LAYOUT = Layout(actions=(("a", "user"), ("b", "bulk")))
SECOND = 1_000_000_000


class Worker:
    """A worker's slab with both its sides."""

    def __init__(self, path, layout=LAYOUT):
        self.writer = SlabWriter(path, layout, started_ns=0)
        self.reader = Slab.open(path)

    def did(self, done, action=0, **counters):
        self.writer.live[self.writer.layout.action(action, "done")] += done
        for name, amount in counters.items():
            self.writer.live[self.writer.layout.worker(name)] += amount

    def seen(self, at_s, active=3, late=False):
        self.writer.snapshot(mono_ns=at_s * SECOND, wall_ms=0, active=active, wanted=4, epoch=1)
        return Seen(slab=self.reader, snapshot=self.reader.snapshot(), warmup=self.reader.warmup(), late=late)


def a_reading(**changes):
    fields = {"span_ns": SECOND, "cpu_ns": 500_000_000, "cores": 2000, "periods": 10, "throttled": 1, "oom_kills": 0,
              "memory": 1, "memory_limit": 2}  # fmt: skip
    return Reading(**fields | changes)


def at(second, warm_up_ms=0):
    return Look(origin_ns=0, now_ns=second * SECOND, mono_ns=second * SECOND, wall_ms=second * 1000, epoch=1,
                warm_up_ms=warm_up_ms)  # fmt: skip


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "state")


def a_ledger(state, boot="b" * 32, run=1, **options):
    return Ledger(state, runner="r", boot=boot, run=run, workers=2, **options)


def a_worker(state, number=0, layout=LAYOUT):
    return Worker(state.slab("b" * 32, number), layout)


def done(ledger, action=0, which="vector"):
    return action_counter(ledger.total.layout, getattr(ledger.total, which), action, "done")


def in_windows(windows, index):
    return sum(int(window.counts[window.indices == index].sum()) for window in windows)


def test_a_window_is_the_difference_of_two_looks(state):
    """Two workers together, from one instant to the next."""
    ledger, one, two = a_ledger(state), a_worker(state), a_worker(state, 1)
    one.did(5)
    ledger.look([one.seen(10), two.seen(10)], at(10), a_reading())
    one.did(2, cpu_ns=SECOND // 4, wall_ns=SECOND)
    two.did(3, cpu_ns=SECOND // 2, wall_ns=SECOND)
    window = ledger.look([one.seen(11), two.seen(11)], at(11), a_reading())
    assert (10_000, 11_000, 2, 6, 8, 500, 250) == (
        window.start_ms, window.end_ms, window.sequence, window.active, window.wanted, window.busiest_permille,
        window.pod_permille,
    )  # fmt: skip
    assert 5 == in_windows([window], LAYOUT.action(0, "done"))
    assert 10 == done(ledger)


def test_waiting_for_a_cpu_is_busy_and_no_use(state):
    """Half a second of CPU and four tenths of waiting for it: busy for 900 permille of a second, at work for 500."""
    ledger, one = a_ledger(state), a_worker(state)
    ledger.look([one.seen(10)], at(10), a_reading())
    one.did(2, cpu_ns=SECOND // 2, waited_ns=SECOND * 2 // 5, wall_ns=SECOND)
    window = ledger.look([one.seen(11)], at(11), a_reading())
    assert (900, 500, 40) == (window.busiest_permille, window.core_permille, window.waited_percent)


def test_who_runs_most_need_not_be_who_is_busiest(state):
    """One runs for 600 permille and does not wait, the other for 200 and waits for 700: its wait is the one told."""
    ledger, one, two = a_ledger(state), a_worker(state), a_worker(state, 1)
    ledger.look([one.seen(10), two.seen(10)], at(10), a_reading())
    one.did(1, cpu_ns=SECOND * 6 // 10, wall_ns=SECOND)
    two.did(1, cpu_ns=SECOND // 5, waited_ns=SECOND * 7 // 10, wall_ns=SECOND)
    window = ledger.look([one.seen(11), two.seen(11)], at(11), a_reading())
    assert (900, 600, 70) == (window.busiest_permille, window.core_permille, window.waited_percent)


def test_memory_is_counted_over_time(state):
    """Half of its limit for a second is 500 permille over 1000 ms; a limit that is not known counts nothing."""
    ledger = a_ledger(state)
    for second, limit in ((10, 2), (11, 2), (12, 0)):
        ledger.look([], at(second), a_reading(memory=1, memory_limit=limit))
    assert 500_000 == ledger.total.vector[LAYOUT.worker("memory_permille_ms")]


def test_a_dead_worker_stays_in_the_total(state):
    """Its final counts, also those after its last snapshot; its file goes."""
    ledger, one, two = a_ledger(state), a_worker(state), a_worker(state, 1)
    ledger.look([one.seen(1), two.seen(1)], at(1), a_reading())
    one.did(4)
    one.writer.now(active=3, wanted=3, epoch=1)
    assert 3 == ledger.swallow(one.reader, late=False)
    assert not one.writer.path.exists()
    ledger.look([two.seen(2)], at(2), a_reading())
    assert 4 == done(ledger)
    assert 4 == in_windows(ledger.ring.since(0)[1], LAYOUT.action(0, "done"))


@pytest.mark.parametrize("is_swallowed", [True, False], ids=["ended before", "alive at the end"])
def test_another_boot_goes_on_with_every_count_once(state, is_swallowed):
    """Workers, ended or not, and the supervisor's own counters; and once more."""
    ledger, one = a_ledger(state), a_worker(state)
    one.did(4)
    one.writer.now(active=2, wanted=3, epoch=1)
    ledger.look([one.seen(1, active=2)], at(1), a_reading())
    if is_swallowed:
        ledger.swallow(one.reader, late=False)
    for boot in ("c" * 32, "d" * 32):
        again = a_ledger(state, boot)
        assert 4 == done(again)
        again.look([], at(3), a_reading(cpu_ns=0))
        assert 500_000_000 == again.total.vector[LAYOUT.worker("pod_cpu_ns")]
        assert (0 if is_swallowed else 2) == again.total.vector[LAYOUT.worker("worker_lost_users")]
        assert 0 == in_windows(again.ring.since(0)[1], LAYOUT.action(0, "done"))


def test_on_a_full_disk_a_dead_worker_counts_once(state, no_room):
    """Its file stays, since the account on disk does not have its counts; another boot finds each of them once."""
    ledger, one, two = a_ledger(state), a_worker(state), a_worker(state, 1)
    one.did(4)
    two.did(5)
    with no_room():
        ledger.swallow(one.reader, late=False)
    assert one.writer.path.exists()
    ledger.look([], at(1), a_reading())
    assert 4 == done(ledger)
    assert 9 == done(a_ledger(state, "c" * 32))
    # There is room again: what was left over goes with the next one.
    state.forget_run()
    ledger, one, two = a_ledger(state), a_worker(state), a_worker(state, 1)
    one.did(4)
    two.did(5)
    with no_room():
        ledger.swallow(one.reader, late=False)
    ledger.swallow(two.reader, late=False)
    assert [] == state.slabs()
    assert 9 == done(a_ledger(state, "d" * 32))


def test_another_run_begins_with_nothing(state):
    """What an earlier run left is not counted, and goes."""
    a_ledger(state)
    one = a_worker(state)
    one.did(4)
    assert () == a_ledger(state, run=2).total.layout.actions
    assert not one.writer.path.exists()


def test_what_came_before_the_warm_ups_end(state):
    """Still going on: all of it; over: what stood then; begun after it: nothing."""
    ledger, one, late = a_ledger(state), a_worker(state), a_worker(state, 1)
    one.did(4)
    ledger.look([one.seen(1)], at(1, warm_up_ms=1500), a_reading())
    assert (4, 4) == (done(ledger), done(ledger, which="warmup"))
    one.writer.mark_warm()
    one.did(1)
    late.did(8)
    window = ledger.look([one.seen(2), late.seen(2, late=True)], at(2, warm_up_ms=1500), a_reading())
    assert (13, 4) == (done(ledger), done(ledger, which="warmup"))
    assert not window.warm
    assert ledger.look([one.seen(3)], at(3, warm_up_ms=1500), a_reading()).warm
    pod = LAYOUT.worker("pod_cpu_ns")
    assert 1_500_000_000 == ledger.total.vector[pod]
    assert 1_000_000_000 == ledger.total.warmup[pod]


def test_a_wider_layout_keeps_every_index(state):
    """A load edit in one worker before the other."""
    ledger, one = a_ledger(state), a_worker(state)
    one.did(2, action=1)
    ledger.look([one.seen(1)], at(1), a_reading())
    two = a_worker(state, 1, Layout(actions=(("c", "user"), ("b", "bulk"))))
    two.did(5, action=1)
    two.did(7, action=0)
    ledger.look([one.seen(2), two.seen(2)], at(2), a_reading())
    assert ("a", "b", "c") == tuple(name for name, _ in ledger.total.layout.actions)
    assert [0, 7, 7] == [done(ledger, action) for action in range(3)]
    windows = ledger.ring.since(0)[1]
    assert 7 == in_windows(windows, ledger.total.layout.action(1, "done"))


def test_what_was_told_is_never_taken_back(state):
    """A look that saw a worker's live counts, then one that sees an older snapshot of it."""
    ledger, one = a_ledger(state), a_worker(state)
    old = one.seen(1)
    one.did(3)
    fresh = Seen(slab=one.reader, snapshot=one.reader.final(), warmup=None)
    ledger.look([fresh], at(1), a_reading())
    ledger.look([old], at(2), a_reading())
    assert 3 == done(ledger)
    one.did(1)
    ledger.look([one.seen(3)], at(3), a_reading())
    assert 4 == done(ledger) == in_windows(ledger.ring.since(0)[1], LAYOUT.action(0, "done"))


def test_two_looks_at_one_instant(state):
    """Time never stands still in the windows."""
    ledger, one = a_ledger(state), a_worker(state)
    for _ in range(3):
        ledger.look([one.seen(1)], at(1), a_reading())
    windows = ledger.ring.since(0)[1]
    assert [1, 2, 3] == [window.sequence for window in windows]
    assert all(window.start_ms <= window.end_ms for window in windows)


def test_an_answer_can_be_read(state):
    """What is encoded is what the operator decodes."""
    ledger, one = a_ledger(state), a_worker(state)
    one.did(3)
    one.writer.extremes[0], one.writer.extremes[1] = 5, 9
    ledger.look([one.seen(1)], at(1), a_reading())
    found = Answer.decode(ledger.answer(0, {"workers": 1}))
    assert ("r", "b" * 32, 1, 1, 1, {"workers": 1}) == (
        found.runner, found.boot, found.run, found.sequence, found.first, found.gauges
    )  # fmt: skip
    assert 3 == action_counter(found.layout, found.total, 0, "done")
    assert (5, 9, 5, 9, 0, 0, 0, 0) == found.extremes
