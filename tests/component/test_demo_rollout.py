"""Both ends of a rollout on one machine: `trafficsim demo-rollout`, from nothing to the picture."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = [pytest.mark.component, pytest.mark.slow, pytest.mark.timeout(240)]

SVG = "{http://www.w3.org/2000/svg}"


async def test_a_good_version_is_promoted_and_a_bad_one_rolled_back(tmp_path: Path) -> None:
    """Within three minutes; also where nobody looks on: no terminal, no writable home."""
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trafficsim_operator.cli.main", "demo-rollout", "--json", "--picture", "seen.svg",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": "/proc/none"}, cwd=tmp_path,
    )  # fmt: skip
    try:
        async with asyncio.timeout(220):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    took = time.monotonic() - begun
    print(took, out.decode(), err.decode())  # seen when the test fails
    found = json.loads(out)
    assert (0, b"") == (process.returncode, err)
    assert took < 180

    good, bad = found["good"], found["bad"]
    assert (True, False, [10, 25, 50, 75, 100]) == (good["promoted"], good["rejected"], good["steps"])
    assert (False, True, [10]) == (bad["promoted"], bad["rejected"], bad["steps"])
    assert 100 == good["mostUsers"]
    assert 10 == bad["mostUsers"]
    # One request of five: around 80 %, of a hundred requests or more.
    success = re.match(r"rejected at 10%: success (\d+\.\d)% \(blue 100\.0%\), n=\d+", bad["message"])
    assert success is not None, bad["message"]
    assert 65 < float(success[1]) < 95
    assert ["1", "2", "3"] == found["versions"]
    assert ("demo/shop:2", "Rejected") == (found["status"]["stable"]["image"], found["status"]["rollout"]["phase"])

    # Delivered users as acknowledged: never fewer than asked for, never more than moves may have on twice.
    full = next(one["atMs"] for one in found["users"] if sum(one["active"].values()) == 100)
    looks = [one for one in found["users"] if full <= one["atMs"] <= bad["endedMs"]]
    totals = [sum(one["active"].values()) for one in looks]
    assert (100, True) == (min(totals), max(totals) <= 125), totals

    tree = ElementTree.parse(tmp_path / "seen.svg").getroot()
    assert 3 == len(tree.findall(f"{SVG}path"))
    texts = {element.text for element in tree.iter(f"{SVG}text")}
    assert {"10 %", "25 %", "50 %", "75 %", "100 %", "promoted", "rolled back", *found["words"]} <= texts
    assert ["seen.svg"] == [path.name for path in tmp_path.iterdir()]
