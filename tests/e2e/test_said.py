"""Commands of the pages that need a node, as they stand there but for the namespace: what a release and pods say."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from e2e.story_stand import OPERATORS, Simulation, Stand, a_shop, a_simulation
from pages.commands import command

pytestmark = [pytest.mark.node, pytest.mark.stories, pytest.mark.timeout(600, func_only=True)]

PAGE = "troubleshooting.md"


def words(page: str, start: str) -> list[str]:
    """Return the arguments of a command of *page*, without the namespace, which is another here."""
    text = command(page, start).replace(" --namespace trafficsim", "").replace(" -n trafficsim", "")
    return shlex.split(text)[1:]


@pytest.fixture
def running(stand: Stand) -> Iterator[Simulation]:
    """Twenty users at work; its name is that of the pages."""
    simulation = a_simulation(a_shop(stand.place()))
    simulation.apply()
    simulation.phase("Running", 120)
    yield simulation
    simulation.place.kubectl("delete", "tsim", simulation.name, "--ignore-not-found")


@pytest.mark.parametrize("page", ["install.md", PAGE])
def test_helm_tests_its_release(stand: Stand, page: str) -> None:
    """From inside the cluster an operator is found at work."""
    assert "Phase:          Succeeded" in stand.release.helm(*words(page, "helm test"))


def test_the_operator_says_what_it_does(stand: Stand) -> None:
    """By the Deployment, whichever pod answers."""
    assert stand.release.pods(OPERATORS)
    said = stand.release.kubectl(*words(PAGE, "kubectl -n trafficsim logs"))
    assert [entry["message"] for line in said.splitlines() if line.startswith("{") for entry in [json.loads(line)]]


def test_runners_say_what_they_do(running: Simulation) -> None:
    """By the label of the simulation."""
    assert '"event.action": "assigned"' in running.place.kubectl(*words(PAGE, "kubectl logs -l"))
