"""What is done about a Deployment that somebody changed."""

from dataclasses import replace

import pytest

from trafficsim_operator.actions import EnsureRevision, Retire
from trafficsim_operator.decide import decide
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.reconcile import observe, read
from trafficsim_operator.testing.fakes import FakeWorld

DOCUMENT = {
    "apiVersion": "trafficsim.io/v1alpha1",
    "kind": "TrafficSimulation",
    "metadata": {"name": "shop", "namespace": "n"},
    "spec": {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 100,
        "duration": "10m",
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
    },
}


async def actions(*, replicas: int, more: int) -> list[EnsureRevision | Retire]:
    """Return what is done when the changed Deployment wants *replicas* and has *more* pods that don't start."""
    world = FakeWorld()
    world.record.put(DOCUMENT)
    for _ in range(12):
        status = await world.look("n", "shop")
    assert "Running" == status.phase
    document = await world.record.read("n", "shop")
    desired = read(document)
    seen = await observe(desired, document, world.world)
    [(name, revision)] = seen.revisions.items()
    added = tuple(
        Runner(name=f"new-{number}", uid=f"new-{number}", revision=name, state=RunnerState.STARTING)
        for number in range(more)
    )
    changed = replace(revision, replicas=replicas, runners=revision.runners + added, drifted=True)
    found = decide(desired, replace(seen, revisions={name: changed}), world.now_ms).actions
    return [action for action in found if isinstance(action, EnsureRevision | Retire)]


@pytest.mark.parametrize("more", [0, 1], ids=["before its pods come", "while a pod of the changed template starts"])
async def test_a_changed_template_is_repaired(more):
    """The surplus pod is the rollout's own: taking it away would bring the next, and the repair never."""
    [action] = await actions(replicas=1, more=more)
    assert isinstance(action, EnsureRevision)
    assert 1 == action.replicas


async def test_pods_that_somebody_asked_for_go():
    """Of replicas that were raised by hand the surplus is taken away, one way or the other."""
    [action] = await actions(replicas=3, more=2)
    assert 1 == action.replicas
