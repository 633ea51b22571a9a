"""What wakes a simulation, and when a watch counts as dead."""

import json

import kopf
import pytest

from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_operator.handlers import Key, Watched, is_waited_for, register

KEY = Key("shop", "web")


def a_body(uid="u1", generation=1, command=None, deleted=None, **status):
    meta = {"namespace": "shop", "name": "web", "uid": uid, "generation": generation, "resourceVersion": "7"}
    if command:
        meta["annotations"] = {COMMAND_ANNOTATION: json.dumps({"id": command, "action": "stop"})}
    if deleted:
        meta["deletionTimestamp"] = deleted
    return {"metadata": meta, "status": status}


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        pytest.param(a_body(phase="Running"), False, id="own status write"),
        pytest.param(a_body(generation=2), True, id="edited"),
        pytest.param(a_body(command="c1"), True, id="a command: annotations don't change the generation"),
        pytest.param(a_body(deleted="2026-01-01T00:00:00Z"), True, id="being deleted"),
        pytest.param(a_body(uid="u2"), True, id="made anew under the old name"),
    ],
)
def test_what_asks_for_a_look(body, asks):
    """First sight does, and every change of generation, deletion or command."""
    watched = Watched()
    assert watched.changed(KEY, a_body())
    assert asks is watched.changed(KEY, body)


def test_a_quiet_watch_is_not_dead():
    watched = Watched()
    watched.changed(KEY, a_body())
    for now in (0.0, 60.0, 600.0):
        watched.compare({KEY: a_body()}, now)
    assert 0 == watched.behind_s(600)


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param({KEY: a_body(generation=2)}, id="an edit"),
        pytest.param({}, id="a deletion"),
        pytest.param({KEY: a_body(), Key("shop", "new"): a_body()}, id="a new one"),
    ],
)
def test_a_watch_that_misses_something_is_behind(listed):
    """The API server has what the watch has not delivered: counted from when that was first seen."""
    watched = Watched()
    watched.changed(KEY, a_body())
    watched.compare(listed, 100.0)
    watched.compare(listed, 160.0)
    assert 65 == watched.behind_s(165.0)


def test_a_late_event_makes_good():
    watched = Watched()
    watched.changed(KEY, a_body())
    watched.compare({KEY: a_body(generation=2)}, 100.0)
    watched.changed(KEY, a_body(generation=2))
    assert 0 == watched.behind_s(165.0)


def test_a_deletion_in_a_gap_is_known_after_three_lists():
    """No watch delivers it: after a gap kopf tells of what is there. Until then it may be the watch that is ahead."""
    watched = Watched()
    watched.changed(KEY, a_body())
    behind = []
    for now in (100.0, 160.0, 220.0):
        watched.compare({}, now)
        behind.append(watched.behind_s(now))
    assert [0, 60, 0] == behind
    assert watched.changed(KEY, a_body(uid="u2"))


def test_absence_is_counted_in_a_row():
    """A simulation that is made anew under its name, or was only ahead of the list, begins from nought."""
    watched = Watched()
    watched.changed(KEY, a_body())
    for listed in ({}, {}, {KEY: a_body()}, {}, {}):
        watched.compare(listed, 100.0)
    assert {KEY} == watched.seen.keys()


AT_REST = {"phase": "Suspended", "observedGeneration": 1, "runners": {"wanted": 2, "ready": 0}}
ANSWERED = {"lastCommand": {"id": "c1", "action": "stop", "result": "Done"}}


@pytest.mark.parametrize(
    ("body", "is_waited"),
    [
        pytest.param(a_body(**AT_REST), False, id="suspended"),
        pytest.param(a_body(**AT_REST | {"phase": "Completed"}), False, id="over"),
        pytest.param(a_body(**AT_REST | {"phase": "Failed"}), False, id="failed"),
        pytest.param(a_body(**AT_REST | {"phase": "Running"}), True, id="at work"),
        pytest.param(a_body(**AT_REST | {"phase": "Starting"}), True, id="about to be"),
        pytest.param(a_body(), True, id="new"),
        pytest.param(a_body(generation=2, **AT_REST), True, id="edited"),
        pytest.param(a_body(deleted="2026-01-01T00:00:00Z", **AT_REST), True, id="being deleted"),
        pytest.param(a_body(**AT_REST | {"runners": {"wanted": 0, "ready": 2}}), True, id="runners are to go"),
        pytest.param(a_body(run={"setup": {"state": "Running"}}, **AT_REST), True, id="at setup"),
        pytest.param(a_body(run={"setup": {"state": "Done"}}, **AT_REST), False, id="setup is done"),
        pytest.param(a_body(command="c1", **AT_REST), True, id="a command"),
        pytest.param(a_body(command="c1", **AT_REST, **ANSWERED), False, id="a command that is answered"),
        pytest.param(a_body(command="c2", **AT_REST, **ANSWERED), True, id="the next command"),
    ],
)
def test_whom_somebody_waits_for(body, is_waited):
    """For all but those at rest that answer all that was asked; what they are to have some day is not waited for."""
    assert is_waited is is_waited_for(body)
    watched = Watched()
    watched.changed(KEY, body)
    assert ({KEY} if is_waited else set()) == watched.waited
    watched.gone(KEY)
    assert set() == watched.waited


class Queue:
    def __init__(self):
        self.added, self.later = [], []

    def add(self, key):
        self.added.append(key)

    def add_after(self, key, seconds):
        self.later.append((key, seconds))


def handler(registry, name):
    return next(h.fn for h in registry._watching.get_all_handlers() if h.fn.__name__ == name)


async def test_the_handlers_only_put_keys_into_the_queue():
    registry, queue, watched = kopf.OperatorRegistry(), Queue(), Watched()
    register(registry, queue, watched)
    on_simulation, on_child = handler(registry, "on_simulation"), handler(registry, "on_child")
    await on_simulation(type=None, namespace="shop", name="web", body=a_body())
    await on_simulation(type="MODIFIED", namespace="shop", name="web", body=a_body(phase="Running"))
    await on_simulation(type="DELETED", namespace="shop", name="web", body=a_body())
    assert [KEY, KEY] == queue.added
    assert {} == watched.seen
    await on_child(type=None, namespace="shop", uid="p", labels={"trafficsim.io/simulation": "web"})
    assert [(KEY, 0.1)] == queue.later


async def test_the_first_sight_of_one_at_rest_wakes_nobody():
    """A thousand of them, when an operator starts; an edit does."""
    registry, queue, watched = kopf.OperatorRegistry(), Queue(), Watched()
    register(registry, queue, watched)
    on_simulation = handler(registry, "on_simulation")
    await on_simulation(type=None, namespace="shop", name="web", body=a_body(**AT_REST))
    assert ([], {KEY}) == (queue.added, watched.seen.keys())
    await on_simulation(type="MODIFIED", namespace="shop", name="web", body=a_body(generation=2, **AT_REST))
    assert [KEY] == queue.added


async def test_a_standby_gathers_no_keys():
    """It knows what there is, without what was deleted; looks are another's until its turn comes."""
    registry, queue, watched, works = kopf.OperatorRegistry(), Queue(), Watched(), [False]
    register(registry, queue, watched, lambda: works[0])
    on_simulation = handler(registry, "on_simulation")
    for name in ("web", "old"):
        await on_simulation(type=None, namespace="shop", name=name, body=a_body())
    await on_simulation(type="DELETED", namespace="shop", name="old", body=a_body())
    await on_simulation(type="MODIFIED", namespace="shop", name="web", body=a_body(**AT_REST))
    assert ([], [], set()) == (queue.added, queue.later, watched.waited)
    assert set() == watched.awaited()
    works[0] = True
    await on_simulation(type="MODIFIED", namespace="shop", name="web", body=a_body(generation=2))
    assert [KEY] == queue.added


async def test_a_standby_remembers_whose_runners_are_to_go():
    """Told of before or after their simulation, and whatever is written of it, until they or it are gone."""
    registry, queue, watched = kopf.OperatorRegistry(), Queue(), Watched()
    register(registry, queue, watched, lambda: False)
    on_simulation, on_child = handler(registry, "on_simulation"), handler(registry, "on_child")

    async def child(uid, type=None, name="web"):
        await on_child(type=type, namespace="shop", uid=uid, labels={"trafficsim.io/simulation": name})

    await child("first")
    for type, generation in ((None, 1), ("MODIFIED", 2)):
        await child("second", "ADDED")
        body = a_body(**AT_REST | {"observedGeneration": generation}, generation=generation)
        await on_simulation(type=type, namespace="shop", name="web", body=body)
        assert (set(), {KEY}) == (watched.waited, watched.awaited())
    await child("first", "DELETED")
    assert {KEY} == watched.awaited()
    await child("second", "DELETED")
    assert set() == watched.awaited()
    await child("third")
    await on_simulation(type="DELETED", namespace="shop", name="web", body=body)
    assert set() == watched.awaited()
    assert ([], []) == (queue.added, queue.later)


async def test_children_of_nobody_are_forgotten():
    """What goes after its simulation did is told of when that is forgotten already."""
    watched, listed = Watched(), Key("shop", "listed")
    for key in (KEY, listed):
        watched.child(key, "p", is_there=True)
    watched.compare({listed: a_body()}, 100.0)
    assert {listed} == watched.awaited()


def test_only_events_are_watched():
    """No handler of a kind that writes annotations or finalizers is registered."""
    registry = kopf.OperatorRegistry()
    register(registry, Queue(), Watched())
    assert not list(registry._changing.get_all_handlers())
    assert not list(registry._spawning.get_all_handlers())
    assert not list(registry._indexing.get_all_handlers())
