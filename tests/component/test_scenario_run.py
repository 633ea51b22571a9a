"""Whole local runs of users in Python: the command line as a process, real runners."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from targets.scripted import Route, Scripted

pytestmark = [pytest.mark.component, pytest.mark.timeout(90)]

MODULE = """
from trafficsim_runner.scenario import Counter, Scenario, Trend

class Exporter(Scenario):
    actions = {"export": "bulk"}
    exported = Counter()
    rows = Trend()
    took = Trend(unit="ms")

    async def run(self) -> None:
        answer = await self.get("/export", action="export")
        self.rows.record(len(answer.json()))
        self.took.record(3)
        self.exported.add(2)
        await self.think(0.02)
"""


@pytest.fixture
def target():
    with Scripted([Route(path="/healthz"), Route(path="/export", body="[1, 2, 3]")]) as site:
        yield site


def run(tmp_path, target, *, rules, scenario="shop.flows:Exporter", module=MODULE, **spec):
    """Run a file with its scenario beside it, from another directory; return exit code, JSON and stderr."""
    package = tmp_path / "files" / "shop"
    package.mkdir(parents=True)
    (package / "flows.py").write_text(module)
    file = tmp_path / "files" / "simulation.yaml"
    document = {
        "apiVersion": "trafficsim.io/v1alpha1", "kind": "TrafficSimulation", "metadata": {"name": "exporters"},
        "spec": {
            "target": {"url": target.url, "healthPath": "/healthz"}, "users": 6, "duration": "5s", "warmUp": "1s",
            "profile": [{"ramp": {"to": "100%", "over": "100ms"}}],
            "archetypes": [{"name": "exporter", "scenario": scenario}],
            "thresholds": [{"rule": rule} for rule in rules], **spec,
        },
    }  # fmt: skip
    file.write_text(yaml.safe_dump(document))
    command = [Path(sys.executable).with_name("trafficsim"), "run", file, "--json", "--history", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=80, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_rules_are_judged_on_what_a_scenario_counts(tmp_path, target):
    """Actions and metrics stand in rules, report and status; their numbers are the target's."""
    rules = ["count(exported) > 100", "rate(exported) > 10/s", "p95(rows) <= 3", "p95(took) < 4ms", "p95(export) < 2s"]
    code, found, said = run(tmp_path, target, rules=rules)
    assert (0, "Passed") == (code, found["verdict"]), found.get("reason", said)
    metrics = {row["name"]: row for row in found["metrics"]}
    judged = found["judged"]
    assert {"exported", "rows", "took"} == set(metrics)
    assert abs(2 * judged - metrics["exported"]["count"]) <= 2 * 6 * 2
    assert (3, 3, 3) == (metrics["rows"]["p50"], metrics["rows"]["p99"], metrics["rows"]["most"])
    assert 3_000_000 <= metrics["took"]["p95"] <= 3_024_000
    assert target.log.count(path="/export") == found["requests"]
    shown = {row["name"]: row.get("p95", "") for row in found["status"]["accounts"]["metrics"]}
    assert {"exported": "", "rows": "3", "took": "3.01ms"} == shown


def test_what_a_scenario_raises_is_counted(tmp_path, target):
    """It costs its iteration; the run goes on and is judged."""
    raising = MODULE.replace("await self.think(0.02)", "await self.think(0.02)\n        raise KeyError('lost')")
    code, found, _ = run(tmp_path, target, rules=["count(exported) > 10"], module=raising)
    assert (0, "Passed") == (code, found["verdict"]), found["reason"]
    assert found["counters"]["scenario_failures"] >= found["counters"]["iterations"] - 12
    assert 0 == found["failed"]


def test_a_rule_that_names_nothing_is_told(tmp_path, target):
    """The verdict says which name is declared nowhere."""
    code, found, _ = run(tmp_path, target, rules=["count(exprted) > 1"], duration="3s")
    assert (2, "count(exprted) > 1: no metric exprted is declared") == (code, found["reason"])


def test_a_module_that_is_missing_ends_the_run_at_once(tmp_path, target):
    """The field is named; nobody waits for what will not come."""
    code, found, said = run(tmp_path, target, rules=[], scenario="shop.flow:Exporter")
    assert 3 == code
    reason = "archetypes[0].scenario: no module named shop.flow in the runner's image"
    assert reason in (found.get("reason") or said)
