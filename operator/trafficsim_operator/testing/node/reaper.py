"""
End a node behind a process that ended without doing so: killed, even in the midst of the start.

Run as `python -m trafficsim_operator.testing.node.reaper NAME PARENT PID START`; it says that it watches by a line on
standard output, and does nothing until process PID, which began at START, is gone. It is in no group of the node's.
"""

import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from trafficsim_operator.testing.node import daemons
from trafficsim_operator.testing.node.cluster import Cluster
from trafficsim_operator.testing.node.place import Place


def main(arguments: Sequence[str]) -> None:
    """Wait, then end the node if it is that process's."""
    name, parent, pid, start = arguments
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _wait(int(pid), start)
    place = Place(name=name, parent=Path(parent))
    Cluster(place).reap(f"{pid} {start}")
    place.reaper_log.unlink(missing_ok=True)


def _wait(pid: int, start: str) -> None:
    """Return once the process has ended: its number may have gone to another before we looked."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        print("watching", flush=True)
        if daemons.started(pid) == start:
            select.select([descriptor], [], [])


if __name__ == "__main__":
    main(sys.argv[1:])
