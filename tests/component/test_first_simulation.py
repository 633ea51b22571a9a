"""The page on the first simulation, from top to bottom: its commands, as they stand there, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from component.local_command import is_alive
from pages.commands import ROOT, Reader, command
from pages.told import ON_THIS_MACHINE
from trafficsim_operator.testing.ports import free_ports
from trafficsim_operator.testing.processes import bound_to_us

pytestmark = [pytest.mark.component, pytest.mark.slow, pytest.mark.timeout(240)]

PAGE = "first-simulation.md"
PORT = "127.0.0.1:8080"
# Verdict and exit code; a busy machine has a run that says nothing, but none that fails its rules.
ENDS = (("Passed", 0), ("Inconclusive", 2))


@pytest.fixture
def address() -> str:
    """Where the shop is here: its port on the page may be somebody's on this machine."""
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def reader(tmp_path: Path, address: str) -> Reader:
    """Somebody in a checkout, with the file of the page."""
    [shown] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / PAGE).read_text(), re.DOTALL)
    assert PORT in shown
    (tmp_path / "first.yaml").write_text(shown.replace(PORT, address))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    path = f"{Path(sys.prefix) / 'bin'}:{os.defpath}"
    return Reader(directory=tmp_path, environ={"PATH": path, "HOME": str(tmp_path), "COLUMNS": "160"})


@pytest.fixture
def shop(reader: Reader, address: str) -> Iterator[int]:
    """The shop, started by the page's first command."""
    text = command(PAGE, ON_THIS_MACHINE[PAGE][0])
    assert PORT in text
    shell = bound_to_us(["bash", "-c", f"exec {text.replace(PORT, address)}"])
    process = subprocess.Popen(shell, cwd=reader.directory, env=dict(reader.environ), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert address in process.stdout.readline().decode()
    yield process.pid
    process.terminate()
    process.wait(timeout=10)
    process.stdout.close()


def test_the_first_simulation(reader: Reader, shop: int) -> None:
    """It is sound, its size is explained, and it ends with a verdict whose exit code is printed."""
    validate, plan, run = (command(PAGE, start) for start in ON_THIS_MACHINE[PAGE][1:])
    assert "first.yaml" in reader.types(validate)
    assert "1 runner" in reader.types(plan)
    verdict, *told, code = reader.types(run, within_s=200).split()
    assert (verdict, int(code)) in ENDS, told
    assert is_alive(shop)
