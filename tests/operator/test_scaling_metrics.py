"""What the operator's /metrics say of scaling."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, generate_latest

from trafficsim_api.phases import Phase
from trafficsim_api.scaling import ScalingReason
from trafficsim_api.status import ForecastStatus, ScalingStatus, Status, VersionScaling
from trafficsim_operator.handlers import Key
from trafficsim_operator.observability import Metrics
from trafficsim_operator.scaling_metrics import ScalingMetrics
from trafficsim_operator.store import Document

SCALING = ScalingStatus(
    versions=(
        VersionScaling(
            revision="r1", wanted=3, needed=4, utilisation=68, users_per_runner=98, reason=ScalingReason.LOAD
        ),
    ),
    forecast=ForecastStatus(at="2026-01-01T00:00:00.000Z", users=420, error=31, off=True),
)


def with_wanted(count: int, reason: ScalingReason) -> ScalingStatus:
    versions = tuple(v.model_copy(update={"wanted": count, "reason": reason}) for v in SCALING.versions)
    return SCALING.model_copy(update={"versions": versions})


def test_how_it_stands_is_told_by_version() -> None:
    """Runners, how busy they are, what one carries, and forecasts in ratios; what is not known is absent."""
    registry = CollectorRegistry()
    metrics = ScalingMetrics(registry)
    metrics.tell([(Key("shop", "web"), SCALING), (Key("shop", "api"), ScalingStatus())])
    text = generate_latest(registry).decode()
    for line in (
        'trafficsim_scaling_wanted_runners{name="web",namespace="shop",version="r1"} 3.0',
        'trafficsim_scaling_needed_runners{name="web",namespace="shop",version="r1"} 4.0',
        'trafficsim_scaling_utilisation_ratio{name="web",namespace="shop",version="r1"} 0.68',
        'trafficsim_scaling_users_per_runner{name="web",namespace="shop",version="r1"} 98.0',
        'trafficsim_scaling_forecast_users{name="web",namespace="shop"} 420.0',
        'trafficsim_scaling_forecast_error_ratio{name="web",namespace="shop"} 0.31',
        'trafficsim_scaling_forecast_off{name="web",namespace="shop"} 1.0',
    ):
        assert line in text
    assert 'name="api"' not in text
    metrics.tell([])
    assert 'name="web"' not in generate_latest(registry).decode()


def test_a_decision_is_counted_with_the_write_that_makes_it() -> None:
    """By direction and reason, against what was on record: another operator's decisions are not counted again."""
    metrics = Metrics()
    before: ScalingStatus | None = None
    for after in (
        with_wanted(1, ScalingReason.STATIC), with_wanted(3, ScalingReason.LOAD), with_wanted(3, ScalingReason.LOAD),
        with_wanted(2, ScalingReason.STABILIZING), None,
    ):  # fmt: skip
        status = {} if before is None else {"scaling": json.loads(before.model_dump_json(by_alias=True))}
        document = Document(
            namespace="shop", name="web", uid="u", generation=1, version="1", body={"status": status}
        )  # fmt: skip
        metrics.wrote(document, Status(phase=Phase.RUNNING, scaling=after))
        before = after
    text = metrics.text().decode()
    for line in (
        'trafficsim_scaling_decisions_total{direction="up",reason="MeasuredLoad"} 1.0',
        'trafficsim_scaling_decisions_total{direction="down",reason="Stabilizing"} 1.0',
        'trafficsim_scaling_decisions_total{direction="up",reason="StaticSize"} 0.0',
    ):
        assert line in text
    assert "trafficsim_scaling_wanted_runners{" not in text


def test_a_record_that_cannot_be_read_counts_nothing() -> None:
    """A newer operator's, or anybody's: no exception, and no decision that nobody made."""
    registry = CollectorRegistry()
    metrics = ScalingMetrics(registry)
    metrics.wrote({"versions": "many"}, SCALING)
    assert (
        'trafficsim_scaling_decisions_total{direction="up",reason="MeasuredLoad"} 0.0'
        in generate_latest(registry).decode()
    )
