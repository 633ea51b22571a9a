"""What kstatus, and Flux by the page's health checks, say of a simulation at every station."""

import re
from pathlib import Path

import pytest
import yaml

from gitops import verdicts
from trafficsim_api.names import KIND
from trafficsim_api.phases import Phase, standard_conditions
from trafficsim_api.rollout import RolloutPhase

PAGE = Path(__file__).parents[2] / "docs" / "gitops.md"
KUSTOMIZATIONS = {
    found["metadata"]["name"]: found
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for found in yaml.safe_load_all(block)
    if found.get("kind") == "Kustomization"
}
# Station → kstatus · Flux by the load environment's expressions · Flux by those of a gate.
SAID = {
    "applied": ("Current", "Unknown", "Unknown"),
    "pending": ("InProgress", "InProgress", "InProgress"),
    "preflight": ("InProgress", "InProgress", "InProgress"),
    "starting": ("InProgress", "InProgress", "InProgress"),
    "running": ("Current", "Current", "InProgress"),
    "silent": ("Current", "Current", "InProgress"),
    "edited": ("InProgress", "InProgress", "InProgress"),
    "edit-refused": ("Current", "Failed", "Failed"),
    "suspended": ("Current", "Current", "InProgress"),
    "draining": ("InProgress", "InProgress", "InProgress"),
    "passed": ("Current", "Current", "Current"),
    "completed": ("Current", "Current", "Failed"),
    "inconclusive": ("Current", "Current", "Failed"),
    "refused": ("Failed", "Failed", "Failed"),
    "gave-up": ("Failed", "Failed", "Failed"),
    "rollout-preparing": ("InProgress", "InProgress", "InProgress"),
    "rollout-analyzing": ("InProgress", "InProgress", "InProgress"),
    "rollout-paused": ("InProgress", "InProgress", "InProgress"),
    "rollout-retiring": ("Current", "Current", "InProgress"),
    "rollout-rejected": ("Failed", "Failed", "Failed"),
    "deleted": ("Terminating", "Current", "InProgress"),  # an expression decides alone; a tool waits for what goes
}


def expressions(name):
    """Return the expressions for simulations of the Kustomization *name*."""
    [found] = [entry for entry in KUSTOMIZATIONS[name]["spec"]["healthCheckExprs"] if entry["kind"] == KIND]
    return {key: text for key, text in found.items() if key not in ("apiVersion", "kind")}


def test_every_phase_has_a_station(stations):
    """None is left without an expectation, and a rollout is there on its way, paused, promoted and rejected."""
    assert SAID.keys() == stations.keys()
    statuses = [found.get("status", {}) for found in stations.values()]
    assert set(Phase) == {status["phase"] for status in statuses if status}
    rollouts = {status["rollout"]["phase"] for status in statuses if "rollout" in status}
    assert {RolloutPhase.PREPARING, RolloutPhase.ANALYZING, RolloutPhase.RETIRING, RolloutPhase.REJECTED} == rollouts


def test_the_standard_conditions_are_those_of_the_phase(stations):
    """But for a rollout that is on or was rejected, and only of the generation that was looked at."""
    for name, found in stations.items():
        if (status := found.get("status")) is None or name.startswith("rollout-"):
            continue
        told = {condition["type"]: condition["status"] for condition in status["conditions"]}
        standing = [str(truth) for truth in standard_conditions(Phase(status["phase"]))]
        assert standing == [told[kind] for kind in ("Ready", "Reconciling", "Stalled")], name
        assert {status["observedGeneration"]} == {c["observedGeneration"] for c in status["conditions"]}, name


def test_kstatus(stations, program):
    """The library itself; before the first look it has nothing to go by, and says Current."""
    said = dict(zip(stations, verdicts.kstatus(program, stations.values()), strict=True))
    assert {name: row[0] for name, row in SAID.items()} == said


@pytest.mark.parametrize(("name", "column"), [("load", 1), ("load-test", 2)], ids=["load environment", "gate"])
def test_the_health_checks_of_the_page(stations, program, name, column):
    """What a Kustomization that is copied from the page makes of them."""
    said = dict(zip(stations, verdicts.flux(program, expressions(name), stations.values()), strict=True))
    assert {station: row[column] for station, row in SAID.items()} == said


def test_a_wrong_expression_is_no_answer(stations, program):
    """Flux waits where a field is missing; what is no CEL at all is said."""
    assert ["Unknown"] == verdicts.flux(program, {"current": "status.nothing == 1"}, [stations["running"]])
    with pytest.raises(AssertionError, match="Syntax error"):
        verdicts.flux(program, {"current": "status =="}, [stations["running"]])
