"""A target in a process of its own: started, known by its port, and gone with the test that started it."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

START_WITHIN_S = 20.0
STOP_WITHIN_S = 5.0


class Spawned:
    """
    Run a Python file that prints its port as its first line, and its account (a JSON document) as its last.

    The child's standard input is a pipe: it stops when the pipe closes, so also when the parent dies.
    """

    def __init__(self, file: Path, *arguments: str) -> None:
        self._command = [sys.executable, str(file), *arguments]
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Return the port the child listens on."""
        assert self._port, "not started"
        return self._port

    @property
    def pid(self) -> int:
        """Return the child's process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> Self:
        """Start the child and wait for its port."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:  # select() knows no descriptor above 1023
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(START_WITHIN_S) else ""
        if not line.strip().isdecimal():
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"{self._command} did not say its port but {line!r}")
        self._port = int(line)
        return self

    def stop(self) -> dict[str, Any]:
        """Stop the child and return its account; a second call returns an empty one."""
        process, self._process = self._process, None
        if process is None:
            return {}
        try:
            rest, _ = process.communicate(timeout=STOP_WITHIN_S)  # closes standard input, which ends the child
        except subprocess.TimeoutExpired:
            process.kill()
            rest, _ = process.communicate()
        lines = [line for line in (rest or "").splitlines() if line.startswith("{")]
        account: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return account

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def stop_at_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set *stop* when standard input closes, which it does at the latest when the parent dies."""

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), read)
