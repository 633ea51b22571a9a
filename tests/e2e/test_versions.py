"""
Users move to another image of the runner and back, with the target's own log beside the account.

The images are real ones: the runner's with a layer of scenarios, as docs/images.md tells to make them.
"""

from __future__ import annotations

from typing import Final

import pytest

from cluster.rollout_stand import ROLLOUT, condition, never_too_many, nobody_was_lost, revision_in
from e2e.story_stand import BAD, BETTER, GOOD, RUNNER, Simulation, Stand, Status, a_shop, a_simulation, eventually

pytestmark = [pytest.mark.node, pytest.mark.stories, pytest.mark.timeout(600, func_only=True)]

USERS: Final = 20
# Start-up of pods included; the rollout's own times are those of the stories without a node.
PATIENCE_S: Final = 180


def asked_for(simulation: Simulation, image: str) -> None:
    simulation.apply(runner=RUNNER | {"image": image})


def ended(simulation: Simulation, attempt: int, phase: str) -> Status:
    """Await the end of a rollout; return the status."""
    return simulation.until(
        lambda s: ((s.get("rollout") or {}).get("attempt"), (s.get("rollout") or {}).get("phase")) == (attempt, phase),
        PATIENCE_S,
        f"attempt {attempt} is {phase}",
    )


def images_at_work(simulation: Simulation) -> set[str]:
    """Return the images of the runners that have users."""
    busy = {answer.runner for answer in simulation.answers() if answer is not None and answer.active}
    return {pod["spec"]["containers"][0]["image"] for pod in simulation.pods() if pod["metadata"]["uid"] in busy}


def test_a_good_image_is_promoted_and_a_bad_one_rolled_back(stand: Stand) -> None:
    """At no look are fewer users at work than asked for; the shop has counted every request that the account has."""
    shop = a_shop(stand.place())
    simulation = a_simulation(
        shop,
        users=USERS,
        duration="1h",
        warmUp="1s",
        archetypes=[{"name": "visitor", "scenario": "versions:Visitor"}],
        runner=RUNNER | {"image": GOOD},
        rollout=ROLLOUT,
    )
    simulation.apply()
    simulation.phase("Running", 120)
    simulation.all_at_work(USERS, 60)
    first = revision_in(simulation.status(), "stable")

    with simulation.watched() as there:
        asked_for(simulation, BETTER)
        ended(simulation, 1, "Stable")
        second = revision_in(simulation.status(), "stable")
        assert second not in ("", first)
        assert {BETTER} == images_at_work(simulation)
    assert [10, 25, 50, 75, 100] == sorted({look.percent for look in there if look.phase == "Analyzing"})

    with simulation.watched() as back:
        asked_for(simulation, BAD)
        rejected = ended(simulation, 2, "Rejected")
        simulation.all_at_work(USERS, 60)
        assert second == revision_in(rejected, "stable")
        assert {BETTER} == images_at_work(simulation)
    assert {10} == {look.percent for look in back if look.phase == "Analyzing"}
    for seen in (there, back):
        nobody_was_lost(seen, USERS)
        never_too_many(seen, USERS)
    ready = condition(rejected, "Ready")
    assert ("False", "RevisionRejected") == (ready["status"], ready["reason"])
    assert "success" in ready["message"]
    assert {"RolloutStarted", "Promoted", "RevisionRejected"} <= simulation.events()

    finished = simulation.stop()
    assert 0 == finished["run"].get("lostUserMs", 0)
    counted = finished["accounts"]["requests"]
    assert counted == eventually(shop.received, lambda count: count >= counted, 10, "the shop has told of all")
    assert not finished["accounts"].get("missing")
