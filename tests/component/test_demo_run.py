"""The first thing anybody tries: `trafficsim demo`, from nothing to Passed in about a minute."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.component, pytest.mark.slow, pytest.mark.timeout(150)]


async def test_the_demo_passes(tmp_path: Path) -> None:
    """Also where nobody looks on: no terminal, no writable home, nothing on standard input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trafficsim_operator.cli.main", "demo", "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": "/proc/none"}, cwd=tmp_path,
    )  # fmt: skip
    try:
        async with asyncio.timeout(120):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    print(out.decode(), err.decode())  # seen when the test fails
    found = json.loads(out)
    assert (0, "Passed", 0, b"") == (process.returncode, found["verdict"], found["failed"], err)
    assert 8 == len([row for row in found["actions"] if row["requests"]])
    assert [] == list(tmp_path.iterdir())
