"""What the terminal says of users in Python."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from trafficsim_operator.cli.main import main
from trafficsim_operator.cli.scenarios import failure_lines, metric_value, print_metrics
from trafficsim_operator.observed import MetricRow
from trafficsim_operator.plan.report import Report

DOCUMENT = """
apiVersion: trafficsim.io/v1alpha1
kind: TrafficSimulation
metadata: {name: exporters}
spec:
  target: {url: "http://127.0.0.1:9"}
  archetypes:
    - {name: a, scenario: "shop.flows:Exporter"}
    - {name: b, scenario: "shop.flows:Other"}
"""


def a_report(**fields):
    fixed = dict.fromkeys(("requests", "failed", "sent", "checks", "checks_failed", "judged"), 0)
    fixed |= {name: {} for name in ("classes", "errors", "drops", "counters")}
    return Report(**{**fixed, "actions": (), "missing": (), **fields})


def a_trend(name, unit, **values):
    return MetricRow(name=name, kind="trend", unit=unit, count=10, **values)


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_what_cannot_be_checked_is_said(tmp_path, capfd, command):
    """Nobody but a runner has the class: the command says so, and names it."""
    file = tmp_path / "simulation.yaml"
    file.write_text(DOCUMENT)
    assert 0 == main([command, str(file)])
    said = capfd.readouterr().out
    assert "not checked" in said
    assert "shop.flows:Exporter, shop.flows:Other: whether the runner's image has them" in said
    assert 0 == main([command, str(file), "--json"])
    assert "shop.flows:Exporter, shop.flows:Other" in json.dumps(json.loads(capfd.readouterr().out))


def test_metrics_are_a_table_of_their_own():
    """A counter has no distribution; times are times, other units stand beside the name."""
    rows = (
        MetricRow(name="exported", kind="counter", unit="", count=30),
        a_trend("size", "bytes", total=25_000, p50=2000, p95=3000, p99=3000, most=3000),
        a_trend("took", "ns", total=10**7, p50=10**6, p95=10**6, p99=10**6, most=10**6),
    )
    out = io.StringIO()
    print_metrics(a_report(metrics=rows), 10.0, Console(file=out, width=120))
    lines = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert ["exported", "30", "3.0"] == lines[1]
    assert ["size", "(bytes)", "10", "1.0", "2", "500", "2", "000", "3", "000", "3", "000", "3", "000"] == [
        part for word in lines[2] for part in word.split("\xa0")
    ]
    assert ["took", "10", "1.0", *("1", "ms") * 5] == [part for word in lines[3] for part in word.split("\xa0")]
    nothing = io.StringIO()
    print_metrics(a_report(), 10.0, Console(file=nothing))
    assert "" == nothing.getvalue()


def test_exceptions_are_counted_in_words():
    """Nothing is said when there were none."""
    assert [] == failure_lines(a_report())
    ((_, text),) = failure_lines(a_report(counters={"scenario_failures": 12}))
    assert text.startswith("12 times a scenario raised an exception")
    assert "–" == metric_value(None, MetricRow(name="x", kind="trend", unit="", count=0))
