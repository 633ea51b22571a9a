"""The resync: every simulation is looked at again, evenly, and soon what the watch missed."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_operator.handlers import Key, Watched
from trafficsim_operator.main import _brief, _look_at_all
from trafficsim_operator.observability import Metrics
from trafficsim_operator.settings import Settings

MANY = 1000
RESYNC_S = 60


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The same draws at each run."""
    monkeypatch.setattr("trafficsim_operator.main.random", random.Random(1))


def a_simulation(number):
    meta = {"namespace": "n", "name": f"s{number}", "uid": f"u{number}", "generation": 1, "managedFields": [{}]}
    meta["annotations"] = {COMMAND_ANNOTATION: "stop", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    return {"metadata": meta, "spec": {"users": 1}, "status": {"phase": "Suspended"}}


def looked_at(watched, listed):
    """Return after how many seconds each simulation is looked at, when those numbered *listed* are there."""
    asked = {}
    queue = SimpleNamespace(add_after=asked.__setitem__)
    watched.compare({Key("n", f"s{number}"): a_simulation(number) for number in listed}, 0.0)
    settings = Settings.from_env({"TRAFFICSIM_RESYNC": str(RESYNC_S)})
    parts = SimpleNamespace(watched=watched, settings=settings, queue=queue)
    _look_at_all(parts, [Key("n", f"s{number}") for number in listed])
    return asked


def seen(numbers):
    """Return a watch that has shown the simulations *numbers*."""
    watched = Watched()
    for number in numbers:
        watched.changed(Key("n", f"s{number}"), a_simulation(number))
    return watched


def test_looks_are_spread_over_the_whole_interval():
    """Each of a thousand, before the next list, and never more than a twentieth of them in a second."""
    looks = looked_at(seen(range(MANY)), range(MANY))
    assert MANY == len(looks)
    assert max(looks.values()) < 0.9 * RESYNC_S
    # 18.5 a second are expected.
    assert max(Counter(map(int, looks.values())).values()) <= MANY // 20


def test_what_the_watch_missed_is_looked_at_soon():
    """One made, one gone: within five seconds."""
    looks = looked_at(seen(range(1, MANY + 1)), range(MANY))
    assert MANY + 1 == len(looks)
    assert max(looks[Key("n", "s0")], looks[Key("n", f"s{MANY}")]) < 5


def test_of_a_simulation_only_what_a_resync_goes_by_is_kept():
    """What the watch is compared by, and the status only where it is news."""
    metrics, key = Metrics(), Key("n", "s7")
    new = _brief(a_simulation(7), metrics)
    watched = Watched()
    watched.changed(key, a_simulation(7))
    watched.compare({key: new}, 0.0)
    assert {} == watched.behind_since
    assert {"metadata", "status"} == new.keys()
    assert {"namespace", "name", "uid", "generation", "annotations"} == new["metadata"].keys()
    assert {COMMAND_ANNOTATION: "stop"} == new["metadata"]["annotations"]
    metrics.listed({key: new})
    assert b'trafficsim_simulations{phase="Suspended"} 1.0' in metrics.text()
    known = _brief(a_simulation(7), metrics)
    assert {"metadata"} == known.keys()
    metrics.listed({key: known})
    assert b'trafficsim_simulations{phase="Suspended"} 1.0' in metrics.text()
