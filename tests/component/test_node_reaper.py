"""What ends a node behind a killed session: real processes, and a node of which there is only the directory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from levels import unavailable
from trafficsim_operator.testing import Unavailable
from trafficsim_operator.testing.node import Cluster, Place, daemons, groups

# A session that has come as far as a node's directory; it says so, and that it is watched.
SESSION = """
import os, signal, sys
from pathlib import Path
from trafficsim_operator.testing.node import Cluster, Place, daemons
cluster = Cluster(Place(name=sys.argv[1], parent=Path(sys.argv[2])))
owner = daemons.identity(os.getpid())
cluster._watch(owner)
cluster.place.directory.mkdir()
if sys.argv[3] == "said":
    cluster.place.owner.write_text(owner)
print(cluster._reaper.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def place(tmp_path):
    """Where no node is."""
    found = Place(name=f"reaped-{os.getpid()}", parent=tmp_path)
    try:
        groups.directories(found)
    except Unavailable as error:
        unavailable("node", error)
    return found


def gone(claim, within=30.0):
    """Wait until *claim* is false."""
    deadline = time.monotonic() + within
    while claim():
        assert time.monotonic() < deadline, f"still there after {within} s"
        time.sleep(0.02)


@pytest.mark.parametrize("owner", ["said", "not said yet"])
def test_a_killed_sessions_node_is_ended(place, owner):
    """Also one of which nothing says yet whose it is; then the reaper goes, and leaves no log."""
    command = [sys.executable, "-c", SESSION, place.name, str(place.parent), owner]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:
        reaper = int(session.stdout.readline())
        assert place.directory.is_dir() and place.reaper_log.exists()
        session.kill()
    gone(place.directory.exists)
    gone(lambda: daemons.started(reaper) != "-")
    assert [place.lock] == list(place.parent.iterdir())


def test_a_node_that_somebody_else_has_started_meanwhile_stays(place):
    """The session is gone, and so is its node; another's, or one that stays, is not the reaper's."""
    for owner in (daemons.identity(os.getpid()), "-"):
        place.directory.mkdir(exist_ok=True)
        place.owner.write_text(owner)
        Cluster(place).reap("1 1")
        assert place.directory.is_dir()


def a_node_of_this_session(place, monkeypatch):
    """Return a node that is up for whoever asks, of which there is only what says whose it is."""
    place.directory.mkdir()
    place.owner.write_text(daemons.identity(os.getpid()))
    monkeypatch.setattr(Cluster, "is_up", lambda _: True)
    return Cluster(place)


def test_a_node_that_somebody_else_uses_ends_with_its_session(place, monkeypatch):
    """Another test run takes it as it is, and it stays the first one's."""
    session = a_node_of_this_session(place, monkeypatch)
    assert not Cluster(place).start(bound=True)
    session.leave()
    assert not place.directory.exists()


def test_a_node_that_is_started_by_hand_meanwhile_stays(place, monkeypatch):
    """The session that has started it does not end it, nor does its reaper; `stop` does."""
    session = a_node_of_this_session(place, monkeypatch)
    session._watch(daemons.identity(os.getpid()))
    assert not Cluster(place).start()
    session.leave()
    Cluster(place).reap(daemons.identity(os.getpid()))
    assert "-" == place.owner.read_text()
    assert not place.reaper_log.exists()
    Cluster(place).stop()
    assert not place.directory.exists()


def test_a_session_that_ends_its_node_is_watched_no_longer(place):
    """Its reaper is gone when `stop` returns."""
    cluster = Cluster(place)
    cluster._watch(daemons.identity(os.getpid()))
    reaper = cluster._reaper.pid
    assert "-" != daemons.started(reaper)
    cluster.stop()
    assert "-" == daemons.started(reaper)
    assert [place.lock] == list(place.parent.iterdir())


def test_the_reaper_is_in_a_session_of_its_own(place):
    """And deaf to what a terminal sends to all of one: it does not end with the tests."""
    cluster = Cluster(place)
    deaf = sum(1 << number - 1 for number in (signal.SIGHUP, signal.SIGINT))
    cluster._watch(daemons.identity(os.getpid()))
    reaper = cluster._reaper.pid
    session = os.getsid(reaper)
    status = Path(f"/proc/{reaper}/status").read_text()
    [ignored] = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    cluster.stop()
    assert reaper == session
    assert int(ignored, 16) & deaf == deaf


def test_a_reaper_that_cannot_watch_is_a_reason(place, monkeypatch):
    """No node is started that nobody would end."""
    broken = (sys.executable, "-c", "raise SystemExit('no module')")
    monkeypatch.setattr("trafficsim_operator.testing.node.cluster._REAPER", broken)
    with pytest.raises(Unavailable, match="nobody would end the node behind a killed session: no module"):
        Cluster(place)._watch(daemons.identity(os.getpid()))
