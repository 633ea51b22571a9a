"""
Threshold rules: the grammar, and what their numbers mean.

    rule    = metric [ "(" name ")" ] operator value [ "over" duration ]
    metric  = p50 | p75 | p90 | p95 | p99 | p99.9 | min | avg | max, each also as p95.service …
            | error_rate | check_failures | success | rps | requests
            | count | rate
    value   = 250ms, 1.5s | 1%, 0.5% | 120/s, 120 | a number
    name    = that of an action, or of a metric that a scenario declares

| number | meaning |
|---|---|
| n, requests | finished requests |
| failed | transport error, time-out or 5xx |
| error_rate, ERR% | failed ÷ n |
| check failure | an `expect` missed (default: status < 400), or nothing there to `save` |
| success | checks passed ÷ checks |
| check_failures | 1 - success |
| p95 | response time (should have been sent → done) at the 95th percentile, from merged histograms |
| p95.service | service time (sent → done); equal to p95 in the closed model |
| rps | finished requests per second |

| count(exported) | what a scenario's counter counted; how often its trend was recorded |
| rate(exported) | the same, per second |
| p95(rows) | of a scenario's trend, in its unit: a time, or a number without unit |

A rule needs n ≥ 100; an abort rule also 10 s past the warm-up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from trafficsim_api.units import parse_duration

__all__ = ["MIN_SAMPLES", "Rule", "parse_rule"]

MIN_SAMPLES: Final = 100

LATENCIES: Final = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_TIMES: Final = (*LATENCIES, "min", "avg", "max")
_SHARES: Final = ("error_rate", "check_failures", "success")
_COUNTS: Final = ("rps", "requests")
_METRICS: Final = ("count", "rate")
RULE: Final = (
    r"^\s*(?P<metric>[a-z][a-z0-9_]*(?:\.9)?)(?P<service>\.service)?\s*(?:\(\s*(?P<action>[^()]{1,128}?)\s*\))?"
    r"\s*(?P<operator><=|>=|<|>)\s*(?P<value>[0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(?P<unit>ms|s|m|%|/s)?"
    r"(?:\s+over\s+(?P<over>[0-9hms]+))?\s*$"
)
_RULE: Final = re.compile(RULE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One parsed rule; *limit* is in ns for times, a ratio in [0, 1] for shares, per second for rates, else a number.

    *action* is what is named, an action or a scenario's metric; None means all actions. *over* None means the whole run
    after the warm-up, else any window of that length. *plain*: the limit of a percentile, mean or extreme has no unit,
    as only a scenario's trend can have it.
    """

    text: str
    metric: str
    service: bool
    action: str | None
    operator: str
    limit: float
    over: timedelta | None
    plain: bool = False

    @property
    def needs_metric(self) -> bool:
        """Say whether what is named can only be a scenario's metric."""
        return self.plain or self.metric in _METRICS

    @property
    def may_name_metric(self) -> bool:
        """Say whether what is named can be a scenario's metric."""
        return self.action is not None and not self.service and self.metric in (*_TIMES, *_METRICS)

    @property
    def quantile(self) -> float | None:
        """Return the quantile of a percentile metric, None for any other."""
        return LATENCIES.get(self.metric)

    def holds(self, value: float) -> bool:
        """Say whether *value* (in the limit's unit) keeps the rule."""
        match self.operator:
            case "<":
                return value < self.limit
            case "<=":
                return value <= self.limit
            case ">":
                return value > self.limit
            case _:
                return value >= self.limit


def parse_rule(text: str) -> Rule:
    """Return the rule written as *text*; raise ValueError that says what is wrong in the user's words."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError("a rule such as 'p95 < 250ms', 'error_rate < 1%' or 'p99(login) < 1s over 30s' is needed")
    metric, unit, number = match["metric"], match["unit"], float(match["value"])
    if metric in _TIMES:
        scale = {"ms": 1e6, "s": 1e9, "m": 60e9}.get(unit or "")
        if unit is None and match["action"] and not match["service"]:
            scale = 1.0
        if scale is None:
            raise ValueError(f"{metric} is a time: its limit needs ms or s")
        limit = number * scale
    elif metric in _SHARES:
        if unit != "%" or number > 100:
            raise ValueError(f"{metric} is a share: its limit needs a percentage up to 100%")
        limit = number / 100
    elif metric in _COUNTS:
        if unit not in (("/s", None) if metric == "rps" else (None,)):
            raise ValueError(f"{metric} is a {'rate' if metric == 'rps' else 'count'}: {unit} does not fit it")
        limit = number
    elif metric in _METRICS:
        if not match["action"]:
            raise ValueError(f"{metric} needs the name of a scenario's metric: {metric}(exported)")
        if unit not in (("/s", None) if metric == "rate" else (None,)):
            raise ValueError(f"{unit} does not fit {metric}: it is a number{' per second' if metric == 'rate' else ''}")
        limit = number
    else:
        known = (*_TIMES, *_SHARES, *_COUNTS, *_METRICS)
        raise ValueError(f"unknown metric {metric}: one of {', '.join(known)} is needed")
    if match["service"] and metric not in _TIMES:
        raise ValueError(f"{metric} has no .service form")
    over = parse_duration(match["over"]) if match["over"] else None
    if over is not None and over < timedelta(seconds=1):
        raise ValueError("a window ('over') of at least 1s is needed")
    return Rule(
        text=" ".join(text.split()), metric=metric, service=bool(match["service"]), action=match["action"],
        operator=match["operator"], limit=limit, over=over, plain=metric in _TIMES and unit is None,
    )  # fmt: skip
