"""What numbers mean: each metric of a rule from counted requests."""

import pytest

from trafficsim_api.histogram import bucket_of, upper_edge
from trafficsim_api.layout import Layout
from trafficsim_api.rules import parse_rule
from trafficsim_api.statistics import zeros
from trafficsim_operator.plan.numbers import aligned, joined, remapped, samples_of, value_of

LAYOUT = Layout(actions=(("login", "auth"), ("list", "user")))
MS = 1_000_000


def counted() -> object:
    """200 logins of 10 ms, of which 4 failed and 6 missed a check; 800 lists of 100 ms, all well; service 60 ms."""
    vector = zeros(LAYOUT)
    for action, done, failed, missed, took in ((0, 200, 4, 6, 10 * MS), (1, 800, 0, 0, 100 * MS)):
        vector[LAYOUT.action(action, "done")] = done
        vector[LAYOUT.action(action, "failed")] = failed
        vector[LAYOUT.action(action, "checks")] = done
        vector[LAYOUT.action(action, "checks_failed")] = missed
        vector[LAYOUT.response(action) + bucket_of(took)] = done - failed
        vector[LAYOUT.service(action) + bucket_of(60 * MS)] = done - failed
        vector[LAYOUT.action(action, "response_ns")] = took * (done - failed)
        vector[LAYOUT.action(action, "service_ns")] = 60 * MS * (done - failed)
    return vector


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("requests > 1", 1000),
        ("requests(login) > 1", 200),
        ("rps > 1", 100),
        ("rps(list) > 1/s", 80),
        ("error_rate < 1%", 0.004),
        ("error_rate(login) < 1%", 0.02),
        ("success > 99%", 0.994),
        ("check_failures < 1%", 0.006),
        ("p50 < 1s", upper_edge(bucket_of(100 * MS))),
        ("p90(login) < 1s", upper_edge(bucket_of(10 * MS))),
        ("p99.service < 1s", upper_edge(bucket_of(60 * MS))),
        ("min < 1s", upper_edge(bucket_of(10 * MS))),
        ("max < 1s", upper_edge(bucket_of(100 * MS))),
        ("avg(list) < 1s", 100 * MS),
        ("avg.service < 1s", 60 * MS),
    ],
)
def test_metrics(rule: str, value: float) -> None:
    """Ten seconds of two actions, by the table of rules.py."""
    assert value == pytest.approx(value_of(parse_rule(rule), LAYOUT, counted(), seconds=10), rel=1e-12)


@pytest.mark.parametrize(
    "rule", ["p95 < 1s", "avg < 1s", "min < 1s", "error_rate < 1%", "success > 99%", "p95(gone) < 1s"]
)
def test_nothing_counted_is_no_value(rule: str) -> None:
    """Without samples, or without the action, there is no value: never 0, never a pass."""
    assert value_of(parse_rule(rule), LAYOUT, zeros(LAYOUT), seconds=10) is None
    assert 0 == samples_of(parse_rule(rule), LAYOUT, zeros(LAYOUT))


def test_layouts_meet_by_name() -> None:
    """Another order of actions is the same account."""
    other = Layout(actions=(("list", "user"), ("logout", "auth"), ("login", "auth")))
    both = joined(LAYOUT, other)
    assert (("login", "auth"), ("list", "user"), ("logout", "auth")) == both.actions
    vector = zeros(other)
    vector[other.action(2, "done")] = 7
    assert 7 == aligned(vector, other, both)[both.action(0, "done")]
    indices = vector.nonzero()[0].astype("<u4")
    assert [both.action(0, "done")] == remapped(indices, other, both).tolist()
