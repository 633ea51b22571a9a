"""What a Prometheus server reads of a runner."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import Layout
from trafficsim_api.statistics import zeros
from trafficsim_runner.metrics import families, pool_families

LAYOUT = Layout(actions=(("login", "auth"), ("GET /users", "user"), ("list", "user")))


def samples(vector):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families(LAYOUT, vector)
        for sample in family.samples
    }


def a_vector(**counts):
    vector = zeros(LAYOUT)
    for name, count in counts.items():
        action, _, counter = name[1:].partition("_")
        vector[LAYOUT.action(int(action), counter)] = count
    return vector


def test_actions_by_name_and_success():
    """Failed is no success; what finished is one of the two."""
    found = samples(a_vector(a0_done=10, a0_failed=3))
    assert 7 == found["user_actions_total", ("action_type", "login"), ("success", "true")]
    assert 3 == found["user_actions_total", ("action_type", "login"), ("success", "false")]


def test_requests_by_group_and_status_class():
    """Actions of one group are added."""
    found = samples(a_vector(a1_class_2xx=4, a2_class_2xx=5, a2_class_5xx=1))
    assert 9 == found["http_requests_total", ("endpoint", "user"), ("status", "2xx")]
    assert 1 == found["http_requests_total", ("endpoint", "user"), ("status", "5xx")]
    assert 0 == found["http_requests_total", ("endpoint", "auth"), ("status", "2xx")]


def test_durations_are_folded_into_few_buckets():
    """Cumulative counts, the sum in seconds."""
    vector = a_vector(a1_service_ns=3_204_000_000)
    for duration in (4_000_000, 200_000_000, 3_000_000_000):
        vector[LAYOUT.service(1) + bucket_of(duration)] += 1
    found = samples(vector)
    at = [("http_request_duration_seconds_bucket", ("endpoint", "user"), ("le", le)) for le in ("0.005", "0.25", "2.5")]
    assert [1, 2, 2] == [found[key] for key in at]
    assert 3 == found["http_request_duration_seconds_count", ("endpoint", "user")]
    assert 3.204 == found["http_request_duration_seconds_sum", ("endpoint", "user")]


def test_errors_drops_and_lag():
    """By kind, by reason, and as quantiles."""
    vector = a_vector(a0_error_network_refused=2, a2_error_network_refused=1)
    vector[LAYOUT.worker("drop_no_slot")] = 6
    vector[LAYOUT.lag() + bucket_of(1_000_000)] = 100
    found = samples(vector)
    assert 3 == found["simulator_errors_total", ("kind", "network_refused")]
    assert 6 == found["simulator_drops_total", ("reason", "no_slot")]
    assert 0.001 <= found["simulator_lag_seconds", ("quantile", "0.99")] <= 0.00101


def test_the_text_is_what_prometheus_parses():
    """Names with quotes and line ends stay one label."""
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import Collector, CollectorRegistry

    layout = Layout(actions=(('a "b"\nc', "user"),))

    class Some(Collector):
        def collect(self):
            return families(layout, np.ones(layout.size, dtype="<u8"))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Some())
    parsed = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    assert 'a "b"\nc' == parsed["user_actions"].samples[0].labels["action_type"]


def test_pools_by_group():
    """Size, use, waiters and waits of each group; nothing at all when connections are not pooled."""
    figures = {"size": 5, "used": 3, "waiting": 2, "max": 8, "most": 6, "waits": 4, "wait_us": 2_500_000,
               "longest_us": 900_000, "dropped": 1}  # fmt: skip
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in pool_families({"auth": figures})
        for sample in family.samples
    }
    assert [5, 3, 8, 2] == [
        found[f"simulator_pool_{name}", "auth"]
        for name in ("connections", "connections_used", "connections_max", "waiting")
    ]
    assert 4 == found["simulator_pool_wait_seconds_count", "auth"]
    assert 2.5 == found["simulator_pool_wait_seconds_sum", "auth"]
    assert 1 == found["simulator_pool_drops_total", "auth"]
    assert [] == list(pool_families({}))


def test_what_scenarios_declare_is_told():
    """Counters as they are, trends as count, sum and quantiles; times in seconds. Without scenarios: nothing."""
    metrics = (("exported", "counter", ""), ("rows", "trend", ""), ("took", "trend", "ns"))
    layout = Layout(actions=LAYOUT.actions, metrics=metrics)
    vector = zeros(layout)
    vector[layout.metric(0)] = 7
    for number, value in ((1, 20), (2, 2_000_000)):
        vector[layout.metric(number)] = 3
        vector[layout.metric(number, "sum")] = 3 * value
        vector[layout.trend(number) + bucket_of(value)] = 3
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(layout, vector)
        for sample in family.samples
        if sample.name.startswith("simulator_scenario_") and sample.labels
    }
    assert 7 == found["simulator_scenario_count_total", "exported", ""]
    assert (3, 60, 20) == (
        found["simulator_scenario_value_count", "rows", ""], found["simulator_scenario_value_sum", "rows", ""],
        found["simulator_scenario_value_quantile", "rows", "", "0.95"],
    )  # fmt: skip
    assert pytest.approx(0.006) == found["simulator_scenario_value_sum", "took", "seconds"]
    assert 0.002 <= found["simulator_scenario_value_quantile", "took", "seconds", "0.5"] <= 0.00202
    assert not [f.name for f in families(LAYOUT, zeros(LAYOUT)) if f.name.startswith("simulator_scenario_v")]
