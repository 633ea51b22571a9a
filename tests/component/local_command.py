"""Whole local runs for tests: the command line as a process, its runners, and the demo shop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Run",
    "a_short_simulation",
    "a_shop",
    "children_of",
    "command_of",
    "counted_by",
    "is_alive",
    "line_of",
    "log_of",
    "trafficsim",
    "until_requests",
]


@contextlib.asynccontextmanager
async def a_shop() -> AsyncIterator[str]:
    """Start the demo shop and give its URL."""
    command = [sys.executable, "-m", "trafficsim_runner.demo", "--listen", "127.0.0.1:0", "--until-stdin-closes"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    line = await process.stdout.readline()
    yield line.decode().split()[-1]
    process.stdin.close()
    await process.wait()


def a_short_simulation(url: str, flow: Sequence[Mapping[str, Any]] = (), **spec: Any) -> dict[str, Any]:
    """Build the document of a simulation `short` at *url*: visitors who do *flow*, on small runners; *spec* wins."""
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "short"},
        "spec": {
            "target": {"url": url, "healthPath": "/healthz"},
            "duration": "10m",
            "warmUp": "1s",
            "archetypes": [{"name": "visitor", "flow": [*flow]}],
            "runner": {"resources": {"limits": {"cpu": "1", "memory": "512Mi"}}},
            **spec,
        },
    }


async def log_of(shop: str) -> dict[str, Any]:
    def fetch() -> dict[str, Any]:
        with urllib.request.urlopen(f"{shop}/__log", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    return await asyncio.to_thread(fetch)


async def counted_by(shop: str) -> int:
    """Return how many requests of users the shop has received."""
    counts = (await log_of(shop))["counts"]
    return sum(number for request, number in counts.items() if "healthz" not in request)


def children_of(parent: int) -> list[int]:
    """Return the ids of the processes that *parent* started and that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, of, *_ = stat.read_text().rpartition(")")[2].split()
            if int(of) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return sorted(found)


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@dataclass(slots=True, kw_only=True)
class Run:
    """A `trafficsim run` as a process."""

    process: asyncio.subprocess.Process
    out: str = ""
    err: str = ""

    async def ends(self, within_s: float = 45) -> int:
        """Wait for the end and return the exit code."""
        async with asyncio.timeout(within_s):
            out, err = await self.process.communicate()
        self.out, self.err = out.decode(), err.decode()
        assert "Traceback" not in self.err
        assert self.process.returncode is not None
        print(self.out, self.err)  # seen when the test fails
        return self.process.returncode

    @property
    def document(self) -> dict[str, Any]:
        """Return what was printed with --json."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def runners(self) -> list[int]:
        """Return the ids of the runners' supervisors."""
        return [pid for pid in children_of(self.process.pid) if "trafficsim_runner" in command_of(pid)]

    async def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command, not to its runners: as a terminal does it."""
        self.process.send_signal(number)


@contextlib.asynccontextmanager
async def trafficsim(*arguments: str, home: Path) -> AsyncIterator[Run]:
    environ = {**os.environ, "XDG_STATE_HOME": str(home), "COLUMNS": "160"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trafficsim_operator.cli.main", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environ,
    )  # fmt: skip
    try:
        yield Run(process=process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_requests(shop: str, least: int = 20) -> None:
    """Wait until the shop has answered *least* requests that are not its health."""
    async with asyncio.timeout(30):
        while (await log_of(shop))["finished"] < least:
            await asyncio.sleep(0.1)


async def line_of(run: Run, text: str, within_s: float = 20) -> str:
    """Return the next line of progress that has *text* in it."""
    assert run.process.stderr is not None
    async with asyncio.timeout(within_s):
        while text not in (line := (await run.process.stderr.readline()).decode()):
            assert line, f"the run ended before it said {text!r}"
    return line
