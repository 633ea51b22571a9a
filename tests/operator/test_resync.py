"""The resync: every simulation is looked at again, evenly, and soon what the watch missed."""

import asyncio
from collections import Counter

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_operator.fleet.runners import Signer
from trafficsim_operator.handlers import Key, Watched
from trafficsim_operator.main import _brief, _Parts, _resync
from trafficsim_operator.observability import Metrics, ObservedRunners
from trafficsim_operator.queue import KeyedQueue
from trafficsim_operator.settings import Settings

MANY = 1000
RESYNC_S = 60


def a_simulation(number):
    meta = {"namespace": "n", "name": f"s{number}", "uid": f"u{number}", "generation": 1, "managedFields": [{}]}
    meta["annotations"] = {COMMAND_ANNOTATION: "stop", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    return {"metadata": meta, "spec": {"users": 1}, "status": {"phase": "Suspended"}}


class Api:
    """Lists a thousand simulations, and counts how often."""

    lists = 0

    async def list(self, _, namespace, labels, keep):
        self.lists += 1
        return tuple(keep(a_simulation(number)) for number in range(MANY))


async def looked_at(seconds, watched):
    """Run the resync for *seconds*; return when each look was, by name, and how often the API server was asked."""
    looks, api, loop = [], Api(), asyncio.get_running_loop()
    began = loop.time()

    async def look(key):
        looks.append((loop.time() - began, key))

    parts = _Parts(
        settings=Settings.from_env({"TRAFFICSIM_RESYNC": str(RESYNC_S)}),
        api=api,
        world=None,
        runners=ObservedRunners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate())),
        queue=KeyedQueue(work=look, draw=lambda: 0.0),
        watched=watched,
        metrics=Metrics(),
    )
    tasks = [asyncio.create_task(parts.queue.serve(8)), asyncio.create_task(_resync(parts))]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return looks, api.lists


@pytest.mark.looptime
async def test_looks_are_spread_over_the_whole_interval():
    """Each of a thousand once, by one list, and never more than a twentieth of them in a second."""
    watched = Watched()
    for number in range(MANY):
        watched.changed(Key("n", f"s{number}"), a_simulation(number))
    looks, lists = await looked_at(0.9 * RESYNC_S, watched)
    assert 1 == lists
    assert MANY == len({key for _, key in looks}) == len(looks)
    busiest = max(Counter(int(at) for at, _ in looks).values())
    # 18.5 a second are expected; 50 are 7 standard deviations away.
    assert busiest <= MANY // 20


@pytest.mark.looptime
async def test_what_the_watch_missed_is_looked_at_soon():
    """One made, one gone: within five seconds."""
    watched = Watched()
    for number in range(1, MANY):
        watched.changed(Key("n", f"s{number}"), a_simulation(number))
    watched.changed(Key("n", "gone"), a_simulation(MANY))
    looks, _ = await looked_at(5.1, watched)
    assert {Key("n", "s0"), Key("n", "gone")} <= {key for _, key in looks}


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
