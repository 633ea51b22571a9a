"""Time in the run queue: read from the kernel, and counted as use of a worker that shares its core."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trafficsim_runner.health.waiting import SCHEDSTAT, Waiting, waited_ns

BUSY = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
MEASURED = """
import os, time
from trafficsim_runner.health.waiting import Waiting
waiting, cpu, wall = Waiting(), time.process_time_ns(), time.monotonic_ns()
while time.monotonic_ns() - wall < 1_000_000_000: pass
wall = time.monotonic_ns() - wall
print((time.process_time_ns() - cpu) * 1000 // wall, waiting.since_last_ns() * 1000 // wall)
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b"18352 61091 7\n", 61_091, id="cpu, waiting, turns"),
        pytest.param(b"", 0, id="nothing"),
        pytest.param(b"0 x 1", 0, id="no number"),
        pytest.param(b"1 2", 0, id="another format"),
    ],
)
def test_a_line(line, expected):
    """The second of three numbers; anything else tells nothing."""
    assert expected == waited_ns(line)


def test_differences(tmp_path):
    """Each reading is what came since the last one; a kernel without the figure says 0."""
    file = tmp_path / "schedstat"
    file.write_bytes(b"1 100 1\n")
    waiting = Waiting(file)
    file.write_bytes(b"1 350 1\n")
    assert (250, 0) == (waiting.since_last_ns(), waiting.since_last_ns())
    waiting.close()
    assert 0 == Waiting(tmp_path / "absent").since_last_ns()


@pytest.mark.skipif(not SCHEDSTAT.exists(), reason="this kernel keeps no schedstat")
def test_a_busy_neighbour_on_the_same_core():
    """
    Processes bound to one core that never pause: none has 90 % of it, and CPU and waiting together are all of it.
    """
    core = min(os.sched_getaffinity(0))

    def bound():
        os.sched_setaffinity(0, {core})

    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY], preexec_fn=bound) for _ in range(2)]
    try:
        found = subprocess.run(
            [sys.executable, "-c", MEASURED], preexec_fn=bound, capture_output=True, check=True, timeout=60
        )
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    cpu, waited = map(int, found.stdout.split())
    assert cpu < 900
    assert 950 <= cpu + waited <= 1050
