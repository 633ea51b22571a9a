"""The raw log reads back what was written; the timer fires at its instant."""

from __future__ import annotations

import select
import time

from trafficsim_runner.stats.raw import RawLog, RawRecord, read_raw
from trafficsim_runner.timer import Timer


def test_raw_records_read_back(tmp_path):
    """Each record as written; one that was cut short at a crash is left out."""
    path = tmp_path / "x.raw"
    log = RawLog(path)
    records = [RawRecord(1, 2, 3, 4, 200), RawRecord(255, 10**6, 2**60, 2**60 + 1, 0)]
    for record in records:
        log.add(*record)
    log.close()
    path.write_bytes(path.read_bytes() + b"cut")
    assert records == list(read_raw(path))


def test_the_timer_fires_when_armed_and_not_before():
    """An absolute instant, to the millisecond; a past one fires at once; taken, it is quiet."""
    timer = Timer()
    poller = select.poll()
    poller.register(timer.fd, select.POLLIN)
    try:
        assert not poller.poll(0)
        due = time.monotonic_ns() + 20_000_000
        timer.arm(due)
        assert poller.poll(2000)
        assert time.monotonic_ns() >= due
        timer.take()
        assert not poller.poll(0)
        timer.arm(1)
        assert poller.poll(2000)
        timer.take()
        timer.take()
    finally:
        timer.close()
