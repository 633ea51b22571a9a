"""One runner as a process of this machine: started with its environment, watched, ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from trafficsim_operator.fleet.environments import Environment

__all__ = ["RunnerProcess", "free_ports", "start"]

# Below Linux's ephemeral range: the load's own outgoing connections cannot take a port between our look and the start.
_FIRST_PORT: Final = 20_000
_LAST_PORT: Final = 32_000
_PROBE: Final = aiohttp.ClientTimeout(total=2.0)
_LAUNCH: Final = str(Path(__file__).parent / "launch.py")
_TAIL: Final = 4096


@dataclass(slots=True, kw_only=True)
class RunnerProcess:
    """
    A runner's supervisor process. *grace_s* is how long a drain may take once it was asked to end.

    *kill_at* is the loop time at which patience ends; None: it was not asked to end.
    """

    name: str
    uid: str
    address: str
    directory: Path
    process: subprocess.Popen[bytes]
    started_ms: int
    grace_s: float
    was_ready: bool = False
    is_ready: bool = False
    kill_at: float | None = None
    cause: str = ""
    """Why the runner before this one ended, told until this one is ready."""
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    @property
    def has_ended(self) -> bool:
        """Say whether the process is over (and reaped)."""
        return self.process.poll() is not None

    async def probe(self) -> None:
        """Ask the runner whether it is ready."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_PROBE)
        try:
            async with self._session.get(f"http://{self.address}/readyz") as answer:
                self.is_ready = answer.status == 200
        except (aiohttp.ClientError, OSError):
            self.is_ready = False
        self.was_ready = self.was_ready or self.is_ready

    def end(self, now: float) -> None:
        """Ask the process to drain and end; a repeat changes nothing."""
        if self.kill_at is None:
            self.kill_at = now + self.grace_s
            self._signal(signal.SIGTERM)

    def end_at_once(self) -> None:
        """Kill the process; its workers die with it."""
        self._signal(signal.SIGKILL)

    def exit_cause(self) -> str:
        """Return how the process ended, with the last line it wrote when it gave up by itself."""
        code = self.process.returncode
        if code is None:
            return "still running"
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            return f"killed by {name}"
        last = self._last_line()
        return f"exited with {code}" + (f": {last}" if last else "")

    async def forget(self) -> None:
        """Close the connection and remove the directory of an ended runner."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if not self.has_ended:
            self.process.send_signal(number)

    def _last_line(self) -> str:
        try:
            with (self.directory / "log").open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _TAIL))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((_message(line.strip())[:300] for line in reversed(lines) if line.strip()), "")


def _message(line: str) -> str:
    """Return the message of a line of JSON log, any other line as it is."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def start(
    *,
    name: str,
    uid: str,
    port: int,
    directory: Path,
    environment: Environment,
    variables: Mapping[str, str],
    started_ms: int,
    grace_s: float,
) -> RunnerProcess:
    """Start a runner that listens on loopback *port*, keeps its things in *directory* and dies with this process."""
    state = directory / "state"
    state.mkdir(parents=True)
    address = f"127.0.0.1:{port}"
    ours = {"TRAFFICSIM_LISTEN": address, "TRAFFICSIM_STATE": str(state), "TRAFFICSIM_RUNNER_UID": uid}
    command = [environment.python, "-m", "trafficsim_runner"]
    with (directory / "log").open("wb") as log:
        # Subtle: a session of its own, else Ctrl-C at the terminal would reach the runners as well as us.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), *command],
            env={**variables, **ours},
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return RunnerProcess(
        name=name,
        uid=uid,
        address=address,
        directory=directory,
        process=process,
        started_ms=started_ms,
        grace_s=grace_s,
    )


def free_ports(seed: int) -> Iterator[int]:
    """Yield loopback ports that nobody listens on, each once, beginning somewhere that depends on *seed*."""
    span = _LAST_PORT - _FIRST_PORT
    for step in range(span):
        port = _FIRST_PORT + (seed * 61 + step) % span
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
