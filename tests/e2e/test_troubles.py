"""
What goes wrong in a cluster, and what its owner is told: all of it is named in the status, and nothing is left running.

What can't start is given up after five minutes: it was begun with the first story that is told of this operator.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from cluster.rollout_stand import condition, nobody_was_lost
from e2e.hopeless import CAUSES, Hopeless
from e2e.story_stand import GOOD, RUNNER, Simulation, Stand, a_shop, a_simulation, eventually, verdict
from trafficsim_operator.plan.lifecycle import DEADLINE_MS, Phase

pytestmark = [pytest.mark.node, pytest.mark.stories, pytest.mark.timeout(900, func_only=True)]

USERS: Final = 20
GIVEN_UP_S: Final = DEADLINE_MS[Phase.STARTING] / 1000
TAKEOVER_S: Final = 30


@pytest.fixture
def running(stand: Stand) -> Iterator[Simulation]:
    """Twenty users at work on two runners."""
    simulation = a_simulation(
        a_shop(stand.place()), users=USERS, duration="1h", scaling={"minRunners": 2, "maxRunners": 2}
    )
    simulation.apply()
    simulation.phase("Running", 120)
    simulation.all_at_work(USERS, 60)
    yield simulation
    simulation.place.kubectl("delete", "tsim", simulation.name, "--ignore-not-found")


@pytest.mark.parametrize("cause", CAUSES)
def test_why_nothing_starts_is_named(hopeless: Mapping[str, Hopeless], cause: str) -> None:
    """Within a minute, in the words of the cluster, while it is waited for."""
    one = hopeless[cause]
    assert one.words in one.told


def test_a_runner_that_is_killed_is_replaced(running: Simulation) -> None:
    """Its users go to the other one; status and events tell of it, and both are two again."""
    before = running.pods()
    lost = before[0]["metadata"]
    running.place.kubectl("delete", "pod", lost["name"], "--grace-period=0", "--force")

    def two_others() -> bool:
        uids = {pod["metadata"]["uid"] for pod in running.pods()}
        return len(uids) == len(before) and lost["uid"] not in uids

    eventually(two_others, bool, 60, "there is another runner")
    running.all_at_work(USERS, 60)
    status = running.until(lambda s: s["run"].get("lostRunners"), 30, "the loss is told")
    assert [lost["name"]] == [entry["name"] for entry in status["run"]["lost"]]
    assert "RunnerLost" in running.events()
    running.until(lambda s: s["runners"]["ready"] == len(before), 60, "both are ready")


def test_a_runner_beyond_its_memory_is_named(stand: Stand) -> None:
    """Users that eat all of it: the status says that it was killed for want of memory, and the run can't pass."""
    simulation = a_simulation(
        a_shop(stand.place()),
        users=4,
        duration="1h",
        archetypes=[{"name": "eater", "scenario": "hungry:Eater"}],
        runner=RUNNER | {"image": GOOD},
    )
    simulation.apply()
    simulation.phase("Running", 120)
    told = simulation.until(lambda s: "memory" in everything_said(s), 120, "its memory is named")
    assert "killed" in everything_said(told), told
    finished = simulation.stop()
    assert "Inconclusive" == verdict(finished)[0], verdict(finished)


def everything_said(status: Mapping[str, Any]) -> str:
    return "\n".join([status.get("message", ""), *(c.get("message", "") for c in status.get("conditions", ()))])


def test_the_leader_is_deleted_and_nobody_notices(stand: Stand, running: Simulation) -> None:
    """Another operator takes over, and obeys; every user was at work at every look, on the runners as they were."""
    leader, boots, epoch = stand.release.leader(), running.boots(), running.status()["epoch"]
    with running.watched() as seen:
        stand.release.kubectl("delete", "pod", leader, "--wait=false")
        eventually(stand.release.leader, lambda name: name not in ("", leader), TAKEOVER_S, "another leads")
        running.until(lambda s: s["epoch"] > epoch, 30, "it has told the runners that it is the one")
        eventually(lambda: len([look for look in seen if look.whole]), lambda looks: looks >= 10, 60, "ten looks")
    nobody_was_lost(seen, USERS)
    assert boots == running.boots()
    running.apply(users=USERS // 2)
    running.all_at_work(USERS // 2, 30)


@pytest.mark.parametrize("cause", CAUSES)
def test_what_cannot_start_is_given_up(hopeless: Mapping[str, Hopeless], cause: str) -> None:
    """When its deadline is over it has failed, with the cause, and nothing of it runs or waits to."""
    one = hopeless[cause]
    left_s = one.began + GIVEN_UP_S - time.monotonic()
    failed = one.simulation.until(lambda s: s.get("phase") == "Failed", max(0.0, left_s) + 30, "it is given up")
    assert one.words in failed["message"], failed["message"]
    assert "True" == condition(failed, "Stalled")["status"]
    eventually(one.simulation.pods, lambda pods: not pods, 60, "nothing is left running")
