"""The runner's command."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from supervised.running import HOST
from trafficsim_runner.main import main

NEEDED = {"TRAFFICSIM_SIMULATION_UID": "s", "TRAFFICSIM_RUNNER_UID": "r"}


def run(*arguments, **environ):
    command = [sys.executable, "-m", "trafficsim_runner", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)


def test_help_shows_the_environment_and_examples(capsys):
    """Everything a runner needs to know is in its help."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"], {})
    assert 0 == ended.value.code
    written = capsys.readouterr().out
    assert all(word in written for word in ("TRAFFICSIM_KEYS", "TRAFFICSIM_LISTEN", "examples:", "/readyz"))


def test_what_is_missing_is_named():
    """Exit code 2 and the variable, no traceback."""
    ended = run(**NEEDED)
    assert (2, "trafficsim-runner: TRAFFICSIM_KEYS is needed\n") == (ended.returncode, ended.stderr)


def test_an_address_in_use_is_named(tmp_path):
    """Exit code 2, one event, no traceback."""
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
        ended = run(**NEEDED, TRAFFICSIM_KEYS=str(tmp_path), TRAFFICSIM_STATE=str(tmp_path), TRAFFICSIM_LISTEN=address)
    assert 2 == ended.returncode
    assert '"event.action": "not-listening"' in ended.stdout
    assert address in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
