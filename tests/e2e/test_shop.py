"""
The whole story of a shop under load, as its owner sees it: refused, allowed, run, judged, scaled, edited, deleted.

Beside all of it the file that was applied is compared with the cluster by `kubectl diff`: the operator writes no spec.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.rollout_stand import condition
from e2e.story_stand import Place, Shop, Simulation, Stand, a_shop, a_simulation, eventually, repeated, verdict
from trafficsim_operator.testing.node import CommandFailed

pytestmark = [pytest.mark.node, pytest.mark.stories, pytest.mark.timeout(600, func_only=True)]

USERS = 600
DIFF_EVERY_S = 1.0
ALLOWED = "A policy with this would allow it:\n"
# A kubelet looks at mounted ConfigMaps once a minute or somewhat later.
POLICY_S = 150
# What `kubectl diff` hands its program: two directories with a file for each object.
DIFF = """\
import pathlib, sys
import yaml

def leaves(value, path=""):
    if isinstance(value, dict) and value:
        return {leaf: v for key, inner in value.items() for leaf, v in leaves(inner, f"{path}.{key}").items()}
    if isinstance(value, list) and value:
        return leaves(dict(enumerate(value)), path)
    return {path: value}

def told(directory):
    [file] = pathlib.Path(directory).iterdir()
    found = yaml.safe_load(file.read_text())
    found.pop("status", None)
    found["metadata"].pop("resourceVersion", None)
    return leaves(found)

live, merged = map(told, sys.argv[-2:])
names = sorted(name for name in live.keys() | merged.keys() if live.get(name) != merged.get(name))
if names:
    sys.exit("\\n".join(["these differ:", *(f"{name[1:]}: {live.get(name)} -> {merged.get(name)}" for name in names)]))
"""


@pytest.fixture
def differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program by which kubectl compares objects: all of them but status and resourceVersion."""
    program = tmp_path / "differs"
    program.write_text(f"#!{sys.executable}\n{DIFF}")
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL_EXTERNAL_DIFF", str(program))
    return program


def difference(simulation: Simulation) -> list[str]:
    """Return what `kubectl diff` says of the file that was applied last, a line for each value that differs."""
    with simulation.changing:
        try:
            simulation.place.kubectl("diff", "-f", "-", stdin=simulation.file)
        except CommandFailed as error:
            return [line for line in str(error).splitlines() if " -> " in line] or [str(error)]
    return []


@contextmanager
def no_difference(simulation: Simulation) -> Iterator[None]:
    """See to it that the applied file and the cluster say the same at every moment inside."""
    seen: list[list[str]] = []
    with repeated(lambda: seen.append(difference(simulation)), DIFF_EVERY_S):
        yield
    assert len(seen) >= 3
    assert [] == [lines for lines in seen if lines]


def columns(simulation: Simulation) -> dict[str, str]:
    """Return what `kubectl get` shows, by the head of the column."""
    text = simulation.place.kubectl("get", "tsim", simulation.name)
    head, row = (line.split() for line in text.strip().splitlines())
    return dict(zip(head, row, strict=False))


@pytest.mark.usefixtures("differs", "hopeless")
def test_a_shop_under_load(stand: Stand) -> None:
    """Each chapter takes up where the one before left off."""
    place = stand.place()
    shop = a_shop(place)
    simulation = a_simulation(
        place, users=USERS, duration="30s", thresholds=[{"rule": "error_rate < 1%"}, {"rule": "rps > 100"}]
    )
    simulation.apply()
    with no_difference(simulation):
        snippet = it_is_refused_with_what_would_allow_it(simulation)
        stand.release.upgrade({"policy": {"default": snippet}})
        others = another_ends_failed(place)  # while the kubelet brings the policy to the operators
        simulation.until(lambda s: condition(s, "Accepted")["status"] == "True", POLICY_S, "it is accepted")
        it_runs_with_its_columns_live(simulation)
        finished = simulation.phase("Completed", 120)
    assert "Passed" == verdict(finished)[0], verdict(finished)
    assert "True" == condition(finished, "Passed")["status"]
    assert others + finished["accounts"]["requests"] == shop.received(), "the shop's own account"

    simulation.apply(duration="30m", runRequest="again")
    simulation.phase("Running", 120)
    with no_difference(simulation):
        simulation.all_at_work(USERS, 90)
        its_flow_is_edited(simulation, shop)
        it_is_suspended_and_resumed(simulation, shop)
    it_is_scaled(simulation)
    it_is_deleted(simulation, shop)


def it_is_refused_with_what_would_allow_it(simulation: Simulation) -> dict[str, Any]:
    """500 users are what the chart allows; return the lines of the refusal that allow 600, as they are."""
    refused = simulation.phase("Failed", 30)
    said = condition(refused, "Accepted")
    assert ("False", "Refused") == (said["status"], said["reason"])
    assert f"users: {USERS} are more than the policy's 500" in said["message"]
    assert not simulation.pods(), "nothing was started"
    snippet: dict[str, Any] = yaml.safe_load(said["message"].partition(ALLOWED)[2])
    assert {"maxUsers": USERS} == snippet
    return snippet


def it_runs_with_its_columns_live(simulation: Simulation) -> None:
    """PHASE USERS RPS P95 ERR% TIER RUNNERS VERSION, while all are at work."""
    simulation.phase("Running", 120)
    seen = eventually(
        lambda: columns(simulation),
        lambda c: c.get("USERS") == str(USERS) and float(c["RPS"]) > 200,
        30,
        "all is shown",
    )
    assert ("Running", "0.00", "medium", "2", "0.1.0") == tuple(
        seen[name] for name in ("PHASE", "ERR%", "TIER", "RUNNERS", "VERSION")
    )
    assert seen["P95"].endswith("s")


def another_ends_failed(place: Place) -> int:
    """Users who miss what they expect: the verdict names the rule and the figure; return how often they asked."""
    flow = [
        {"action": "list", "request": {"get": "/users"}, "expect": {"status": 404}},
        {"think": {"constant": "1s"}},
    ]
    simulation = a_simulation(
        place,
        "wrong",
        duration="15s",
        archetypes=[{"name": "visitor", "flow": flow}],
        thresholds=[{"rule": "success > 99%"}],
    )
    simulation.apply()
    finished = simulation.phase("Completed", 120)
    assert "Failed" == verdict(finished)[0], verdict(finished)
    failed = condition(finished, "Passed")
    assert ("False", True) == (failed["status"], "success > 99%" in failed["message"]), failed
    place.kubectl("delete", "tsim", "wrong", "--wait=false")
    return int(finished["accounts"]["requests"])


def its_flow_is_edited(simulation: Simulation, shop: Shop) -> None:
    """The runners go on as they are, and do what is written now."""
    assert 0 == shop.received("/reports/{name}")
    before = simulation.boots()
    flow = [{"action": "report", "request": {"get": "/reports/daily"}}, {"think": {"constant": "2s"}}]
    simulation.apply(archetypes=[{"name": "visitor", "flow": flow}])
    eventually(lambda: shop.received("/reports/{name}"), bool, 30, "the shop is asked for the report")
    assert before == simulation.boots()
    assert USERS == simulation.at_work()


def it_is_suspended_and_resumed(simulation: Simulation, shop: Shop) -> None:
    """Nobody is at work meanwhile, the runners stay, and everybody comes back."""
    before = simulation.boots()
    simulation.apply(suspend=True)
    simulation.phase("Suspended", 60)
    simulation.all_at_work(0, 30)
    assert shop.quiet_for(2)
    simulation.apply(suspend=None)
    simulation.phase("Running", 60)
    simulation.all_at_work(USERS, 60)
    assert before == simulation.boots()


def it_is_scaled(simulation: Simulation) -> None:
    """By the subresource; only now file and cluster differ, and in nothing else."""
    assert [] == difference(simulation)
    simulation.place.kubectl("scale", f"tsim/{simulation.name}", "--replicas=300")
    simulation.all_at_work(300, 60)
    assert 300 == simulation.found()["spec"]["users"]
    told = difference(simulation)
    assert ["metadata.generation", "spec.users"] == [line.partition(":")[0] for line in told]
    assert "spec.users: 300 -> 600" == told[1]


def it_is_deleted(simulation: Simulation, shop: Shop) -> None:
    """Drained to zero: no request is broken off, and nothing is left."""
    simulation.place.kubectl("delete", "tsim", simulation.name)
    eventually(simulation.left, lambda left: not left, 90, "nothing is left")
    eventually(shop.connected, lambda found: not found, 30, "nobody is connected")
    assert shop.quiet_for(2)
    assert 0 == shop.account()["abandoned"], "no request was broken off"
