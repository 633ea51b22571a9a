"""Threshold rules: the grammar, and what their numbers mean."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.rules import parse_rule


@pytest.mark.parametrize(
    ("text", "metric", "limit", "action", "operator", "service", "over_s"),
    [
        pytest.param("p95 < 250ms", "p95", 250e6, None, "<", False, None, id="a percentile"),
        pytest.param("p95<250ms", "p95", 250e6, None, "<", False, None, id="without spaces"),
        pytest.param("p99(login) < 1.5s over 30s", "p99", 1.5e9, "login", "<", False, 30, id="an action and a window"),
        pytest.param("p99.9 <= 2s", "p99.9", 2e9, None, "<=", False, None, id="three nines"),
        pytest.param("p95.service < 1m", "p95", 60e9, None, "<", True, None, id="service time"),
        pytest.param("p99.9.service(x) < 1s", "p99.9", 1e9, "x", "<", True, None, id="all of it"),
        pytest.param("avg < 20ms", "avg", 20e6, None, "<", False, None, id="a mean"),
        pytest.param("error_rate < 1%", "error_rate", 0.01, None, "<", False, None, id="a share"),
        pytest.param("success >= 99.5%", "success", 0.995, None, ">=", False, None, id="a share from below"),
        pytest.param("check_failures < 0.5% over 1m", "check_failures", 0.005, None, "<", False, 60, id="checks"),
        pytest.param("rps > 120/s", "rps", 120, None, ">", False, None, id="a rate"),
        pytest.param("rps > 120", "rps", 120, None, ">", False, None, id="a rate without its unit"),
        pytest.param("requests >= 1000", "requests", 1000, None, ">=", False, None, id="a count"),
        pytest.param("count(exported) > 100", "count", 100, "exported", ">", False, None, id="a metric's count"),
        pytest.param("rate(exported) >= 5/s over 10s", "rate", 5, "exported", ">=", False, 10, id="a metric's rate"),
        pytest.param("rate(exported) >= 5", "rate", 5, "exported", ">=", False, None, id="a rate without a unit"),
        pytest.param("p95(rows) < 500", "p95", 500, "rows", "<", False, None, id="a trend that is no time"),
        pytest.param(
            "p95(GET /users/{{user.id}}) < 1s", "p95", 1e9, "GET /users/{{user.id}}", "<", False, None, id="a path"
        ),
    ],
)
def test_rules(text, metric, limit, action, operator, service, over_s):
    rule = parse_rule(text)
    assert (metric, pytest.approx(limit), action, operator, service) == (
        rule.metric, rule.limit, rule.action, rule.operator, rule.service,
    )  # fmt: skip
    assert (None if over_s is None else timedelta(seconds=over_s)) == rule.over


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a rule such as"),
        ("fast", "a rule such as"),
        ("p95 = 5ms", "a rule such as"),
        ("p95 < fast", "a rule such as"),
        ("p95() < 5ms", "a rule such as"),
        ("p95 < 5ms over", "a rule such as"),
        ("p42 < 5ms", "unknown metric p42"),
        ("p95 < 5", "its limit needs ms or s"),
        ("p95 < 5%", "its limit needs ms or s"),
        ("p95.service(x) < 5", "its limit needs ms or s"),
        ("count > 5", "count needs the name of a scenario's metric"),
        ("count(x) > 5ms", "ms does not fit count"),
        ("rate(x) > 5%", "% does not fit rate"),
        ("count.service(x) > 5", "no .service form"),
        ("error_rate < 5", "its limit needs a percentage"),
        ("success > 100.1%", "its limit needs a percentage"),
        ("rps > 5ms", "is a rate"),
        ("requests > 5/s", "is a count"),
        ("rps.service > 5", "no .service form"),
        ("p95 < 5ms over 10ms", "at least 1s"),
        ("p95 < 5ms over 10x", "a rule such as"),
        ("p95 < 5ms over m", "a duration such as"),
    ],
)
def test_what_is_no_rule(text, reason):
    """The reason says what is needed, in the user's words."""
    with pytest.raises(ValueError, match=reason):
        parse_rule(text)


@pytest.mark.parametrize(
    ("operator", "below", "at", "above"),
    [("<", True, False, False), ("<=", True, True, False), (">", False, False, True), (">=", False, True, True)],
)
def test_holds(operator, below, at, above):
    """A rule is kept or broken at its very limit as its operator says."""
    rule = parse_rule(f"requests {operator} 10")
    assert (below, at, above) == (rule.holds(9), rule.holds(10), rule.holds(11))


@pytest.mark.parametrize(
    ("text", "quantile"), [("p50 < 1s", 0.5), ("p99.9 < 1s", 0.999), ("avg < 1s", None), ("rps > 1", None)]
)
def test_quantile(text, quantile):
    assert quantile == parse_rule(text).quantile


@given(
    text=st.text(max_size=60)
    | st.from_regex(
        r"[a-z0-9_.]{1,8}(\(.{0,9}\))? ?[<>=]{1,2} ?[0-9.]{1,9}(ms|s|%)?( over [0-9a-z]{1,5})?", fullmatch=True
    )
)
def test_any_text_is_a_rule_or_a_value_error(text):
    try:
        rule = parse_rule(text)
    except ValueError:
        return
    assert rule == parse_rule(rule.text)
