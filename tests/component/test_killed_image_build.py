"""A build of images that is killed, with a program in the engine's place: it ends too, and the next one cleans up."""

import os
import subprocess
import sys
import time

import pytest

from trafficsim_operator.testing.images import building
from trafficsim_operator.testing.images.engine import Kind
from trafficsim_operator.testing.node import daemons

# A podman that has every base, and builds until somebody ends it: its id and what it has in work tell that it does.
ENGINE = """#!/bin/sh
case "$1" in
    build) [ -e {short} ] && exit; touch "$TMPDIR/layer"; echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 600 ;;
    save) echo archive >"$5" ;;
esac
"""
BUILD = """
import sys
from trafficsim_operator.testing.images import building
from trafficsim_operator.testing.images.engine import Kind
building.build(("demo",), kind=Kind.PODMAN, base="here:1", environ={"XDG_CACHE_HOME": sys.argv[1]})
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The engine on PATH; a file that makes its builds short, and one with the id of one that is not."""
    program, short, pid = tmp_path / "bin" / "podman", tmp_path / "short", tmp_path / "pid"
    program.parent.mkdir()
    program.write_text(ENGINE.format(short=short, pid=pid))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return short, pid


def until(claim, within=60.0):
    deadline = time.monotonic() + within
    while not claim():
        assert time.monotonic() < deadline, f"not true within {within} s"
        time.sleep(0.02)


def test_a_killed_build_ends_and_is_cleaned_up_by_the_next(engine, tmp_path):
    """The engine ends with who has started it; what it had in work is in one place, which the next build clears."""
    short, file = engine
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    work = building.cache(environ) / "work"
    with subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path)]) as build:
        until(file.exists)
        pid = int(file.read_text())
        assert daemons.started(pid) != "-"
        build.kill()
    until(lambda: daemons.started(pid) == "-")
    assert ["layer"] == [path.name for path in work.iterdir()]
    short.touch()
    (image,) = building.build(("demo",), kind=Kind.PODMAN, base="here:1", environ=environ).values()
    assert image.archive.exists() and not work.exists()
