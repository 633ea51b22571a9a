"""
Clean up after a process that ended, however it ended.

Run as a file with `python -I -S guard.py [--cgroup DIR ...] [--directory DIR ...]`. It waits until its standard input
closes, which the kernel does for a killed parent too; then it kills every process in the cgroups, removes them and
removes the directories. Death signals reach only children; worker processes of a pod are grandchildren.
"""

import os
import shutil
import signal
import sys
import time

_PATIENCE = 10.0  # seconds for killed processes to leave their cgroup


def members(cgroup: str) -> list[int]:
    """Return the ids of all processes in *cgroup* and below it."""
    found: list[int] = []
    for directory, _, _ in os.walk(cgroup):
        try:
            with open(os.path.join(directory, "cgroup.procs")) as procs:
                found.extend(int(line) for line in procs)
        except OSError:  # removed meanwhile, or a version 2 group that may not be read
            continue
    return found


def kill_all(cgroup: str) -> None:
    """Kill every process in *cgroup* once; a caller repeats until `members` is empty."""
    for pid in members(cgroup):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def remove(cgroup: str) -> None:
    """Remove *cgroup* and the groups below it, deepest first; a busy one stays."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            pass


def clean(cgroups: list[str], directories: list[str]) -> None:
    """Kill, then remove: a process that still runs could write into a directory again."""
    deadline = time.monotonic() + _PATIENCE
    while any(os.path.isdir(group) for group in cgroups) and time.monotonic() < deadline:
        for group in cgroups:
            kill_all(group)
            remove(group)
        time.sleep(0.02)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Wait for the end of standard input, then clean."""
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    clean([v for k, v in pairs if k == "--cgroup"], [v for k, v in pairs if k == "--directory"])


if __name__ == "__main__":
    main(sys.argv[1:])
