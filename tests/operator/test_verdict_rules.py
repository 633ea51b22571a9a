"""The verdict table, top to bottom."""

import pytest

from trafficsim_api.rules import parse_rule
from trafficsim_operator.observed import Evidence, RuleEvidence
from trafficsim_operator.plan.verdict import breached_abort, format_value, judge

GOOD = RuleEvidence(rule="p95 < 250ms", value=120e6, samples=5000)
BAD = RuleEvidence(rule="error_rate < 1%", value=0.031, samples=5000, abort=True)
FEW = RuleEvidence(rule="p99(login) < 1s", value=2e9, samples=99)


@pytest.mark.parametrize(
    ("evidence", "lost", "verdict", "reason", "says"),
    [
        pytest.param(
            Evidence(rules=(GOOD,), judged_requests=5000), 0, "Passed", "Passed", "1 of 1 rules hold", id="passed"
        ),
        pytest.param(
            Evidence(rules=(GOOD, BAD), judged_requests=5000),
            0,
            "Failed",
            "Failed",
            "error_rate < 1%: 3.1%",
            id="failed names the rule",
        ),
        pytest.param(
            Evidence(rules=(BAD,), judged_requests=5000, saturated="2 of 9 windows"),
            0,
            "Inconclusive",
            "GeneratorSaturated",
            "2 of 9 windows",
            id="saturation comes before a broken rule",
        ),
        pytest.param(
            Evidence(rules=(GOOD,), judged_requests=5000),
            1001,
            "Inconclusive",
            "UserTimeLost",
            "1.0 % of those planned; 1 % are tolerated; no runner was lost",
            id="more than 1 % lost",
        ),
        pytest.param(
            Evidence(rules=(GOOD,), judged_requests=5000), 1000, "Passed", "Passed", "", id="1 % lost is tolerated"
        ),
        pytest.param(
            Evidence(rules=(GOOD, FEW), judged_requests=5000),
            0,
            "Inconclusive",
            "TooFewSamples",
            "99 requests",
            id="few samples",
        ),
        pytest.param(
            Evidence(judged_requests=99), 0, "Inconclusive", "TooFewSamples", "99", id="no rule and few samples"
        ),
        pytest.param(Evidence(judged_requests=100), 0, "Passed", "Passed", "no rule", id="no rule"),
        pytest.param(
            Evidence(judged_requests=100, unseen_windows=2, seen_windows=98),
            0,
            "Inconclusive",
            "NumbersMissing",
            "never seen",
            id="gaps in the windows",
        ),
        pytest.param(
            Evidence(
                rules=(RuleEvidence(rule="p95 < 1s over 10s", value=1e6, samples=500, breached_windows=1),),
                judged_requests=500,
            ),
            0,
            "Failed",
            "Failed",
            "in 1 windows",
            id="a window breached",
        ),
    ],
)
def test_judge(evidence: Evidence, lost: int, verdict: str, reason: str, says: str) -> None:
    """The first finding that applies decides."""
    found = judge(evidence, planned_user_ms=100_000, lost_user_ms=lost)
    assert (verdict, reason) == (found.verdict, found.reason)
    assert says in found.message


@pytest.mark.parametrize(("since", "aborts"), [(9_999, False), (10_000, True)])
def test_abort_waits_ten_seconds(since: int, aborts: bool) -> None:
    """An abort rule is judged from 10 s past the warm-up on."""
    assert aborts == (breached_abort(Evidence(rules=(BAD,)), since_warm_up_ms=since) is not None)


def test_abort_needs_samples() -> None:
    """No abort on fewer than 100 requests."""
    few = RuleEvidence(rule=BAD.rule, value=1.0, samples=99, abort=True)
    assert breached_abort(Evidence(rules=(few,)), since_warm_up_ms=60_000) is None


@pytest.mark.parametrize(
    ("rule", "value", "text"),
    [
        ("p95 < 1s", 123.4e6, "123ms"),
        ("p95 < 1s", 2.5e9, "2.5s"),
        ("error_rate < 1%", 0.0042, "0.42%"),
        ("success > 99%", 0.9999, "99.99%"),
        ("rps > 10", 1234.5, "1234/s"),
        ("p95 < 1s", None, ""),
    ],
)
def test_values_are_written_as_in_rules(rule: str, value: float | None, text: str) -> None:
    """Three digits and the unit."""
    assert text == format_value(parse_rule(rule), value)
