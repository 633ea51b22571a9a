"""The node's programs as processes: started so that they outlive us, told apart by id and start, and ended by id."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.node import groups, namespace
from trafficsim_operator.testing.node.place import Place
from trafficsim_operator.testing.unavailable import Unavailable

_DETACHED: Final = (sys.executable, "-I", "-S", str(Path(__file__).with_name("detached.py")))
_PATIENCE: Final = 20.0  # seconds for killed processes to be gone


def start(place: Place, name: str, argv: Sequence[str | Path]) -> int:
    """Start a program of the node, note its identity and return its id; *argv* executes it, with nothing in between."""
    place.logs.mkdir(parents=True, exist_ok=True)
    place.ids.mkdir(parents=True, exist_ok=True)
    log, memberships = place.logs / f"{name}.log", groups.procs(place)
    program = namespace.inside(place, [str(word) for word in argv])
    command = [*_DETACHED, str(log), *map(str, memberships), "--", *program]
    environ = namespace.environment()  # kube-proxy calls nft, containerd runc
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{name} could not be started: {done.stderr.strip()}")
    pid = int(done.stdout)
    (place.ids / name).write_text(f"{identity(pid)}\n")
    return pid


def alive(place: Place) -> dict[str, bool]:
    """Return of each program that was started whether it still runs."""
    return {file.name: noted(file) is not None for file in _notes(place)}


def last_words(place: Place, name: str) -> str:
    """Return the last line of a program's log."""
    log = place.logs / f"{name}.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "no log")


def pids(place: Place) -> set[int]:
    """Return the ids of all processes of the node: who is in its cgroup, and who was noted and is still the same."""
    return groups.members(place) | {pid for file in _notes(place) if (pid := noted(file)) is not None}


def end(place: Place) -> None:
    """Kill every process of the node, by id; nothing in them is worth saving."""
    deadline = time.monotonic() + _PATIENCE
    while left := pids(place):
        if time.monotonic() > deadline:
            raise Unavailable(f"processes {sorted(left)} do not go away")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def identity(pid: int) -> str:
    """Return what tells a process from every other, before and after: its number and when it started."""
    return f"{pid} {started(pid)}"


def noted(file: Path) -> int | None:
    """Return the id in *file* if the process with that identity is alive; a number alone is used again."""
    try:
        words = file.read_text().split()
    except FileNotFoundError:  # somebody ends the node meanwhile
        return None
    if len(words) != 2:  # whoever wrote it was killed
        return None
    pid, then = int(words[0]), words[1]
    return pid if then != "-" and then == started(pid) else None


def _notes(place: Place) -> list[Path]:
    try:
        return sorted(place.ids.iterdir())
    except FileNotFoundError:  # no node, or somebody ends it meanwhile
        return []


def started(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; "-" if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "-"
    state, ticks = fields[0], fields[19]
    return "-" if state == "Z" else ticks
