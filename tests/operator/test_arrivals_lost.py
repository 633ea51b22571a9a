"""Arrivals that nobody was there for, told when the run has ended."""

from dataclasses import replace
from typing import Any

import pytest

from trafficsim_operator.decide import decide
from trafficsim_operator.reconcile import observe, read
from trafficsim_operator.testing.fakes import FakeWorld

DOCUMENT: dict[str, Any] = {
    "apiVersion": "trafficsim.io/v1alpha1",
    "kind": "TrafficSimulation",
    "metadata": {"name": "shop", "namespace": "n"},
    "spec": {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 10,
        "duration": "12s",
        "arrivals": {"rate": "10/s"},
        "profile": [{"hold": {"for": "1s"}}],
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
    },
}


@pytest.mark.parametrize(("came", "twice", "lost"), [(119, 0, 0), (114, 0, 5), (119, 3, 3), (124, 5, 0), (130, 5, 0)])
async def test_what_two_runners_began_stands_for_no_other(came: int, twice: int, lost: int) -> None:
    """119 were due before the end; an arrival that was begun twice is one that came."""
    world = FakeWorld()
    world.record.put(DOCUMENT)
    for _ in range(60):
        status = await world.look("n", "shop")
        if status.phase == "Draining":
            break
        world.waits = min(world.waits or 500, 500)
    assert status.run is not None
    assert 119 == status.run.arrivals_planned
    document = await world.record.read("n", "shop")
    assert document is not None
    desired = read(document)
    observed = await observe(desired, document, world.world)
    evidence = replace(observed.evidence, arrivals_planned=came, arrivals_twice=twice)
    ended = decide(desired, replace(observed, evidence=evidence), world.now_ms + 60_000).status
    assert ended.run is not None
    assert ("Completed", lost) == (ended.phase, ended.run.arrivals_lost)
