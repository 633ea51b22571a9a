"""The resync: every simulation is looked at again, evenly, and soon what the watch missed."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_operator.handlers import Key, Watched, is_waited_for
from trafficsim_operator.main import _brief, _look_at_all
from trafficsim_operator.observability import Metrics
from trafficsim_operator.settings import Settings

MANY = 1000
RESYNC_S = 60
ANSWER = {"id": "stop", "action": "stop", "result": "Done"}


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The same draws at each run."""
    monkeypatch.setattr("trafficsim_operator.main.random", random.Random(1))


def a_simulation(number):
    meta = {"namespace": "n", "name": f"s{number}", "uid": f"u{number}", "generation": 1, "managedFields": [{}]}
    meta["annotations"] = {COMMAND_ANNOTATION: "stop", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    status = {"phase": "Suspended", "observedGeneration": 1, "lastCommand": ANSWER, "users": {"active": 0}}
    return {"metadata": meta, "spec": {"users": 1}, "status": status}


def a_new_one(number):
    return a_simulation(number) | {"status": {}}


def looked_at(watched, listed):
    """Return after how many seconds each of *listed* is looked at, and for how long it gives way then."""
    asked = {}
    queue = SimpleNamespace(add_after=lambda key, *when: asked.__setitem__(key, when))
    found = {Key("n", item["metadata"]["name"]): item for item in listed}
    watched.compare(found, 0.0)
    settings = Settings.from_env({"TRAFFICSIM_RESYNC": str(RESYNC_S)})
    _look_at_all(SimpleNamespace(watched=watched, settings=settings, queue=queue), found)
    return asked


def seen(numbers):
    """Return a watch that has shown the simulations *numbers*."""
    watched = Watched()
    for number in numbers:
        watched.changed(Key("n", f"s{number}"), a_simulation(number))
    return watched


@pytest.mark.parametrize(
    "watched", [pytest.param(seen(range(MANY)), id="known"), pytest.param(Watched(), id="when an operator starts")]
)
def test_looks_are_spread_over_the_whole_interval(watched):
    """Each of a thousand, before the next list, never more than a twentieth of them in a second; and each gives way."""
    looks = looked_at(watched, map(a_simulation, range(MANY)))
    assert MANY == len(looks)
    assert max(after_s for after_s, _ in looks.values()) < 0.9 * RESYNC_S
    # 18.5 a second are expected.
    assert max(Counter(int(after_s) for after_s, _ in looks.values()).values()) <= MANY // 20
    assert {RESYNC_S / 2} == {patience_s for _, patience_s in looks.values()}


def test_what_the_watch_missed_is_looked_at_soon():
    """One made, one gone: within five seconds, and without giving way."""
    looks = looked_at(seen(range(1, MANY + 1)), [a_new_one(0), *map(a_simulation, range(1, MANY))])
    assert MANY + 1 == len(looks)
    for name in ("s0", f"s{MANY}"):
        after_s, patience_s = looks[Key("n", name)]
        assert (True, 0) == (after_s < 5, patience_s)


def test_of_a_simulation_only_what_a_resync_goes_by_is_kept():
    """What the watch is compared by, whether somebody waits, and the whole status only where it is news."""
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
    assert {"phase", "observedGeneration", "lastCommand"} == known["status"].keys()
    assert is_waited_for(a_simulation(7)) is is_waited_for(known) is False
    metrics.listed({key: known})
    assert b'trafficsim_simulations{phase="Suspended"} 1.0' in metrics.text()
