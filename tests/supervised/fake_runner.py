"""The real supervisor over workers without an engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from trafficsim_runner import crew
from trafficsim_runner.logs import set_up
from trafficsim_runner.service import serve
from trafficsim_runner.settings import Settings

WORKER = Path(__file__).with_name("fake_worker.py")


def command(fd: int, index: int, slab: Path) -> list[str]:
    return [sys.executable, str(WORKER), "--fd", str(fd), "--index", str(index), "--slab", str(slab)]


if __name__ == "__main__":
    set_up({})
    crew.SILENCE_NS = int(os.environ.get("FAKE_SILENCE_S", 30)) * crew.SECOND_NS
    sys.exit(asyncio.run(serve(Settings.from_env(os.environ), (signal.SIGTERM, signal.SIGINT), command)))
