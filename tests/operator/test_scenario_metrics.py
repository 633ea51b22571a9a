"""What scenarios count: rules about it, what is missing, and how it is shown."""

from __future__ import annotations

import pytest

from trafficsim_api.errors import SpecError
from trafficsim_api.histogram import bucket_of, upper_edge
from trafficsim_api.layout import Layout
from trafficsim_api.phases import Verdict
from trafficsim_api.rules import parse_rule
from trafficsim_api.statistics import zeros
from trafficsim_operator.observed import Evidence, MetricRow, RuleEvidence
from trafficsim_operator.plan import verdict
from trafficsim_operator.plan.measured import measured, problem_of
from trafficsim_operator.plan.numbers import samples_of, value_of

LAYOUT = Layout(
    actions=(("export", "bulk"), ("rows", "user")),
    metrics=(
        ("exported", "counter", ""),
        ("rows", "trend", ""),
        ("latency", "trend", "ns"),
        ("size", "trend", "bytes"),
    ),
)


def a_vector():
    vector = zeros(LAYOUT)
    vector[LAYOUT.action(0, "done")] = 300
    vector[LAYOUT.action(1, "done")] = 100
    vector[LAYOUT.service(1) + bucket_of(1_000_000)] = vector[LAYOUT.response(1) + bucket_of(1_000_000)] = 100
    vector[LAYOUT.metric(0)] = 50
    for number, values in ((1, [10] * 95 + [200] * 5), (2, [2_000_000] * 120), (3, [70_000])):
        vector[LAYOUT.metric(number)] = len(values)
        vector[LAYOUT.metric(number, "sum")] = sum(values)
        for value in values:
            vector[LAYOUT.trend(number) + bucket_of(value)] += 1
    return vector


@pytest.mark.parametrize(
    ("text", "value", "samples"),
    [
        pytest.param("count(exported) > 1", 50, 400, id="a counter is judged on all requests"),
        pytest.param("rate(exported) > 1/s", 5, 400, id="per second"),
        pytest.param("count(rows) > 1", 100, 400, id="how often a trend was recorded"),
        pytest.param("p95(rows) < 500", 10, 100, id="exact where values are small"),
        pytest.param("p99(rows) < 500", 200, 100, id="a trend is judged on its values"),
        pytest.param("avg(rows) < 500", 19.5, 100, id="the mean is exact"),
        pytest.param("min(rows) < 500", 10, 100, id="the least"),
        pytest.param("max(rows) < 500", 200, 100, id="the most"),
        pytest.param("p95(rows) < 500ms", upper_edge(bucket_of(1_000_000)), 100, id="with a unit it is the action"),
        pytest.param("p50(latency) < 5ms", upper_edge(bucket_of(2_000_000)), 120, id="a time"),
        pytest.param("p50(size) < 5", upper_edge(bucket_of(70_000)), 1, id="any other unit is a number"),
        pytest.param("count(nothing) > 1", None, 0, id="what nobody declares"),
        pytest.param("count(export) > 1", None, 0, id="an action is no metric"),
    ],
)
def test_rules_about_metrics(text, value, samples):
    """Value and n of a rule; an action goes before a metric of its name unless the rule can only mean the metric."""
    rule = parse_rule(text)
    assert (value, samples) == (value_of(rule, LAYOUT, a_vector(), seconds=10), samples_of(rule, LAYOUT, a_vector()))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("p95 < 5ms", ""),
        ("p95(export) < 5ms", ""),
        ("error_rate(export) < 1%", ""),
        ("count(exported) > 1", ""),
        ("p95(rows) < 5", ""),
        ("p95(latency) < 5ms", ""),
        ("count(exprted) > 1", "no metric exprted is declared"),
        ("count(export) > 1", "no metric export is declared"),
        ("p95(rowz) < 5", "no metric rowz is declared"),
        ("p95(rowz) < 5ms", "no action or metric rowz is declared"),
        ("error_rate(rowz) < 5%", "no action rowz is declared"),
        ("p95(exported) < 5", "exported is a counter: only count and rate are of it"),
        ("p95(latency) < 5", "latency is a time: its limit needs ms or s"),
        ("p95(size) < 5ms", "size is no time: its limit has no unit"),
    ],
)
def test_what_a_rule_names_must_be_declared(text, problem):
    """Only runners know; before they said anything, nothing is missing."""
    assert problem == problem_of(parse_rule(text), LAYOUT)
    assert "" == problem_of(parse_rule(text), Layout(actions=()))


def test_a_rule_that_names_nothing_is_inconclusive_and_says_so_at_once():
    """It stands in the status while the run goes on; a rule that is broken fails the run all the same."""
    unknown = RuleEvidence(rule="count(exprted) > 1", value=None, samples=0, problem="no metric exprted is declared")
    broken = RuleEvidence(rule="p95(rows) < 5", value=10.0, samples=100)
    kept = RuleEvidence(rule="count(exported) > 1", value=50.0, samples=400)
    judged = Evidence(rules=(unknown, kept), judged_requests=400)
    found = verdict.judge(judged, planned_user_ms=1000, lost_user_ms=0)
    assert (Verdict.INCONCLUSIVE, "NumbersMissing") == (found.verdict, found.reason)
    assert "count(exprted) > 1: no metric exprted is declared" == found.message
    assert ["Unknown", "True"] == [rule.holds for rule in verdict.standing(judged)]
    assert ["no metric exprted is declared", "50"] == [rule.value for rule in verdict.standing(judged)]
    found = verdict.judge(Evidence(rules=(unknown, broken), judged_requests=400), planned_user_ms=1000, lost_user_ms=0)
    assert (Verdict.FAILED, "p95(rows) < 5: 10 on 100 values") == (found.verdict, found.message)


def test_metrics_as_they_are_shown():
    """A counter has its count, a trend the edges of its buckets."""
    exported, rows, latency, size = measured(LAYOUT, a_vector())
    assert MetricRow(name="exported", kind="counter", unit="", count=50) == exported
    assert (100, 1950, 10, 10, 200, 10, 200) == (
        rows.count, rows.total, rows.p50, rows.p95, rows.p99, rows.least, rows.most
    )  # fmt: skip
    assert ("ns", upper_edge(bucket_of(2_000_000))) == (latency.unit, latency.p95)
    assert ("bytes", 1) == (size.unit, size.count)


@pytest.mark.parametrize(
    ("rule", "field", "reason"),
    [
        ("count(exported) > 1", None, None),
        ("p95(rows) < 5", None, None),
        ("p95(anything) < 5ms", None, None),
        ("p95(home) < 5", "thresholds[0].rule", "p95 is a time: its limit needs ms or s"),
        ("rate(home) < 5", "thresholds[0].rule", "home is an action: rate is of a scenario's metric"),
    ],
)
def test_names_of_rules_beside_a_scenario(rule, field, reason):
    """With a scenario a name that no flow has may be its own; what is a flow's is checked as ever."""
    from trafficsim_api.document import load_spec

    document = {
        "apiVersion": "trafficsim.io/v1alpha1", "kind": "TrafficSimulation", "metadata": {"name": "x"},
        "spec": {
            "target": {"url": "http://127.0.0.1:1"},
            "archetypes": [
                {"name": "a", "flow": [{"action": "home", "request": {"get": "/"}}]},
                {"name": "b", "scenario": "shop.flows:Exporter"},
            ],
            "thresholds": [{"rule": rule}],
        },
    }  # fmt: skip
    if field is None:
        assert load_spec(document).spec.has_scenario
        return
    with pytest.raises(SpecError) as error:
        load_spec(document)
    assert [(field, reason)] == [(problem.field, problem.reason) for problem in error.value.problems]
