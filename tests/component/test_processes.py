"""A program that is run to its end: what is left of it, however that comes."""

import signal
import threading
import time

import pytest

from trafficsim_operator.testing.node import daemons
from trafficsim_operator.testing.processes import run


@pytest.fixture
def family(tmp_path):
    """A shell that waits for a child; the file has both ids once they are there."""
    file = tmp_path / "pids"
    script = f"sleep 600 & echo $$ $! >{file}.new; mv {file}.new {file}; wait"
    return file, ["sh", "-c", script]


def until(claim, within=30.0):
    deadline = time.monotonic() + within
    while not claim():
        assert time.monotonic() < deadline, f"not true within {within} s"
        time.sleep(0.02)


def are_gone(file):
    pids = [int(word) for word in file.read_text().split()]
    assert 2 == len(pids)
    until(lambda: all(daemons.started(pid) == "-" for pid in pids))


def test_the_exit_code_is_the_answer(tmp_path):
    """What it says is in the log."""
    with (tmp_path / "log").open("wb") as log:
        assert 3 == run(["sh", "-c", "echo words; exit 3"], log, 30)
    assert "words\n" == (tmp_path / "log").read_text()


def test_what_takes_too_long_has_no_exit_code(tmp_path):
    """It is ended, and not waited for."""
    with (tmp_path / "log").open("wb") as log:
        assert run(["sleep", "600"], log, 0.2) is None


def test_ctrl_c_ends_it_with_its_children(family, tmp_path):
    """They are in a session of their own, where the terminal's signal does not come."""
    file, command = family
    us = threading.get_ident()

    def interrupt():
        until(file.exists)
        signal.pthread_kill(us, signal.SIGINT)

    terminal = threading.Thread(target=interrupt)
    terminal.start()
    with (tmp_path / "log").open("wb") as log, pytest.raises(KeyboardInterrupt):
        run(command, log)
    terminal.join()
    are_gone(file)
