"""The chart on a real node with the real images: installed, tested, upgraded and removed by Helm, and a run there."""

import pytest

from e2e.story_stand import OPERATORS, Place, a_namespace, a_release, a_shop, a_simulation, eventually, verdict
from trafficsim_operator.testing.node import Cluster

pytestmark = [pytest.mark.node, pytest.mark.timeout(600, func_only=True)]

USERS = 5


def test_helm_installs_tests_upgrades_and_removes_it(imaged: Cluster) -> None:
    """
    `helm test` passes under the restricted standard, and a run does, through an upgrade by which another replica gets
    the Lease: all users stay at work, on the runners as they were. The kind stays when the release goes.
    """
    with a_namespace(imaged) as namespace:
        with a_release(imaged, namespace, {}) as release:
            assert "Phase:          Succeeded" in release.helm("test", "trafficsim", "--timeout", "2m")
            simulation = a_simulation(
                a_shop(release), users=USERS, duration="2m", thresholds=[{"rule": "error_rate < 1%"}]
            )
            simulation.apply()
            simulation.phase("Running", 120)
            simulation.all_at_work(USERS, 60)
            leader, boots = release.leader(), simulation.boots()
            release.upgrade({"logs": {"level": "debug"}})
            eventually(release.leader, lambda name: name not in ("", leader), 60, "another leads")
            assert USERS == simulation.at_work()
            assert boots == simulation.boots()
            finished = simulation.phase("Completed", 180)
            assert "Passed" == verdict(finished)[0], verdict(finished)
            release.kubectl("delete", "tsim", simulation.name)
            eventually(simulation.left, lambda left: not left, 60, "nothing of it is left")
        place = Place(node=imaged, namespace=namespace)
        eventually(lambda: place.listed("pods", OPERATORS), lambda found: not found, 60, "no operator is left")
        assert "trafficsimulations" in imaged.kubectl("get", "crd", "trafficsimulations.trafficsim.io", "-o", "name")
