"""
The directory of one local run: the runners' state, logs and keys, gone with the run.

It is held by a file lock. What a killed run left behind has no holder any more, and the next run removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["workspace"]

_PREFIX: Final = "trafficsim-run-"
_MEMORY: Final = Path("/dev/shm")  # the workers' counters are files that are written all the time
_ROOM: Final = 512 * 2**20


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Make a private directory, in memory where there is room, and remove it at the end."""
    parent = _parent()
    _sweep(parent)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _parent() -> Path:
    try:
        facts = os.statvfs(_MEMORY)
    except OSError:
        return Path(tempfile.gettempdir())
    fits = facts.f_bavail * facts.f_frsize >= _ROOM and os.access(_MEMORY, os.W_OK | os.X_OK)
    return _MEMORY if fits else Path(tempfile.gettempdir())


def _sweep(parent: Path) -> None:
    """Remove the directories of our user whose run is over."""
    for directory in parent.glob(f"{_PREFIX}*"):
        try:
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            with (directory / "lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except OSError:  # held by a run that goes on, or gone meanwhile
            continue
