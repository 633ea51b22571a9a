"""How long this process was ready to run and waited for a CPU: what its own CPU time does not tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["Waiting", "waited_ns"]

SCHEDSTAT: Final = Path("/proc/self/schedstat")


def waited_ns(text: bytes) -> int:
    """
    Return the second number of a schedstat line: CPU time, time in the run queue (both ns), turns on a CPU.

    0 when *text* is no such line: a kernel without these figures shows nothing rather than something wrong.
    """
    words = text.split()
    return int(words[1]) if len(words) == 3 and words[1].isdigit() else 0


class Waiting:
    """Reads the main thread's time in the run queue, as the difference to the last reading."""

    def __init__(self, path: Path = SCHEDSTAT) -> None:
        try:
            self._file: int | None = os.open(path, os.O_RDONLY)
        except OSError:
            self._file = None
        self._last = self._read()

    def since_last_ns(self) -> int:
        """Return how long the process waited since the last call (the first: since this was made)."""
        now, before = self._read(), self._last
        self._last = now
        return max(0, now - before)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read(self) -> int:
        if self._file is None:
            return 0
        try:
            return waited_ns(os.pread(self._file, 128, 0))
        except OSError:
            return 0
