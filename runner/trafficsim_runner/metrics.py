"""
The runner's Prometheus metrics, folded from the account at each scrape.

Labels are the names and groups of actions in the resource (at most 256), status classes, error kinds and drop reasons:
never anything a target or a user's data can multiply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from trafficsim_api.connections import pools_told
from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import DROP_REASONS, ERROR_KINDS, Layout, MetricKind
from trafficsim_api.statistics import (
    Vector,
    action_counter,
    histogram,
    lag_histogram,
    metric_counter,
    quantiles,
    total,
    trend_histogram,
    zeros,
)

if TYPE_CHECKING:
    from trafficsim_runner.supervisor import Supervisor

__all__ = ["CONTENT_TYPE", "exposition", "families", "pool_families"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BOUNDS: Final = np.array([bucket_of(round(bound * 1e9)) for bound in BOUNDS_S])
# Counters of the whole runner: name of the metric, what it says, name in the layout, unit divisor.
PLAIN: Final = (
    ("simulator_iterations", "Flows begun.", "iterations", 1),
    ("simulator_iterations_done", "Flows finished.", "iterations_done", 1),
    ("simulator_users_cut", "Users that left at the deadline in mid-action.", "cut", 1),
    ("simulator_connections_opened", "Connections opened to the target.", "connects", 1),
    ("simulator_worker_restarts", "Workers started again after they died.", "worker_restarts", 1),
    ("simulator_worker_lost_users", "Users active in a worker when it died.", "worker_lost_users", 1),
    ("simulator_oom_kills", "Processes killed by the kernel for want of memory.", "oom_kills", 1),
    ("simulator_windows_folded", "One-second windows folded for want of room.", "windows_folded", 1),
    ("simulator_cpu_seconds", "CPU of the runner.", "pod_cpu_ns", 1e9),
    ("simulator_cpu_waiting_seconds", "Time workers were ready to run and waited for a CPU.", "waited_ns", 1e9),
    ("simulator_starts_delayed", "Flows that had to wait to begin, load being high.", "starts_delayed", 1),
    ("simulator_arrivals_planned", "Open model: arrivals that were due.", "arrivals_planned", 1),
    ("simulator_arrivals_started", "Of these, those begun.", "arrivals_started", 1),
    ("simulator_arrivals_twice", "Of these, those begun by two runners.", "arrivals_twice", 1),
    ("simulator_gc_seconds", "Time in garbage collection.", "gc_ns", 1e9),
    ("simulator_active_user_seconds", "Integral of the active users.", "active_user_ms", 1e3),
    ("simulator_wanted_user_seconds", "Integral of the users wanted.", "wanted_user_ms", 1e3),
    ("simulator_cfs_periods", "Scheduler periods of the runner's cgroup.", "cfs_periods", 1),
    ("simulator_cfs_throttled_periods", "Of these, the throttled ones.", "cfs_throttled", 1),
    ("simulator_scenario_failures", "Exceptions that scenarios raised.", "scenario_failures", 1),
)

POOLS: Final = (
    ("simulator_pool_connections", "Open connections of the pool.", "size"),
    ("simulator_pool_connections_used", "Connections of the pool that a request is on.", "used"),
    ("simulator_pool_connections_max", "The most connections the pool may have.", "max"),
    ("simulator_pool_waiting", "Requests that wait for a connection of the pool.", "waiting"),
)


def exposition(supervisor: Supervisor) -> bytes:
    """Return the metrics of *supervisor* as Prometheus text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(supervisor))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        ledger = self._supervisor.ledger
        layout = ledger.total.layout if ledger else Layout(actions=())
        vector = ledger.total.vector if ledger else zeros(layout)
        yield from families(layout, vector)
        yield from _gauges(self._supervisor)


def families(layout: Layout, vector: Vector) -> Iterator[Metric]:
    """Yield the metrics that *vector* tells."""
    actions = CounterMetricFamily("user_actions", "Finished actions.", labels=("action_type", "success"))
    for number, (name, _) in enumerate(layout.actions):
        done = action_counter(layout, vector, number, "done")
        failed = action_counter(layout, vector, number, "failed")
        actions.add_metric((name, "true"), done - failed)
        actions.add_metric((name, "false"), failed)
    yield actions
    yield from _by_group(layout, vector)
    yield CounterMetricFamily("simulator_requests", "Finished requests.", value=total(layout, vector, "done"))
    yield CounterMetricFamily("simulator_requests_sent", "Requests sent.", value=total(layout, vector, "sent"))
    yield CounterMetricFamily("simulator_checks", "Checks made.", value=total(layout, vector, "checks"))
    yield CounterMetricFamily("simulator_checks_failed", "Checks missed.", value=total(layout, vector, "checks_failed"))
    errors = CounterMetricFamily("simulator_errors", "Failed requests.", labels=("kind",))
    for kind in ERROR_KINDS:
        errors.add_metric((kind,), total(layout, vector, f"error_{kind}"))
    yield errors
    drops = CounterMetricFamily("simulator_drops", "Work that was due and not sent.", labels=("reason",))
    for reason in DROP_REASONS:
        drops.add_metric((reason,), int(vector[layout.worker(f"drop_{reason}")]))
    yield drops
    for name, text, counter, divisor in PLAIN:
        yield CounterMetricFamily(name, text, value=int(vector[layout.worker(counter)]) / divisor)
    yield from _of_scenarios(layout, vector)
    lag = GaugeMetricFamily("simulator_lag_seconds", "Lag of sending behind the schedule.", labels=("quantile",))
    for q, value in zip(("0.5", "0.99"), quantiles(lag_histogram(layout, vector), (0.5, 0.99)), strict=True):
        lag.add_metric((q,), (value or 0) / 1e9)
    yield lag


def _of_scenarios(layout: Layout, vector: Vector) -> Iterator[Metric]:
    """Yield the metrics that scenarios declare; times in seconds, nothing without scenarios."""
    if not layout.metrics:
        return
    counters = CounterMetricFamily("simulator_scenario_count", "Counters of scenarios.", labels=("metric", "unit"))
    trends = SummaryMetricFamily("simulator_scenario_value", "Trends of scenarios.", labels=("metric", "unit"))
    quantile = GaugeMetricFamily(
        "simulator_scenario_value_quantile", "Quantiles of trends.", labels=("metric", "unit", "quantile")
    )
    for number, (name, kind, unit) in enumerate(layout.metrics):
        count = metric_counter(layout, vector, number)
        if kind == MetricKind.COUNTER:
            counters.add_metric((name, unit), count)
            continue
        scale, unit = (1e9, "seconds") if unit == "ns" else (1.0, unit)
        trends.add_metric((name, unit), count, metric_counter(layout, vector, number, "sum") / scale)
        for q in (0.5, 0.95, 0.99):
            value = quantiles(trend_histogram(layout, vector, number), (q,))[0]
            quantile.add_metric((name, unit, str(q)), (value or 0) / scale)
    yield from (counters, trends, quantile)


def _by_group(layout: Layout, vector: Vector) -> Iterator[Metric]:
    """Yield requests by status class, and the histogram of service times, of each group of actions."""
    requests = CounterMetricFamily("http_requests", "Answered requests.", labels=("endpoint", "status"))
    durations = HistogramMetricFamily(
        "http_request_duration_seconds", "Service time of answered requests.", labels=("endpoint",)
    )
    groups: dict[str, list[int]] = {}
    for number, (_, group) in enumerate(layout.actions):
        groups.setdefault(group or "other", []).append(number)
    for group, numbers in groups.items():
        for status in CLASSES:
            count = sum(action_counter(layout, vector, number, f"class_{status}") for number in numbers)
            requests.add_metric((group, status), count)
        cumulated = np.cumsum(sum(histogram(layout, vector, "service", number) for number in numbers))
        buckets = [(str(bound), float(cumulated[at])) for bound, at in zip(BOUNDS_S, BOUNDS, strict=True)]
        sum_ns = sum(action_counter(layout, vector, number, "service_ns") for number in numbers)
        durations.add_metric((group,), [*buckets, ("+Inf", float(cumulated[-1]))], sum_ns / 1e9)
    yield requests
    yield durations


def _gauges(supervisor: Supervisor) -> Iterator[Metric]:
    figures = supervisor.gauges()
    ledger = supervisor.ledger
    epoch = supervisor.held.assignment.epoch if supervisor.held else 0
    for name, text, value in (
        ("active_user_sessions", "Users at work.", figures["active"]),
        ("simulator_users_active", "Users at work.", figures["active"]),
        ("simulator_users_wanted", "Users the places held and the profile ask for.", ledger.wanted if ledger else 0),
        ("memory_usage_bytes", "Memory of the runner.", figures["memory_bytes"]),
        ("simulator_memory_usage", "Memory of the runner in bytes.", figures["memory_bytes"]),
        ("simulator_memory_limit_bytes", "Memory limit of the runner.", figures["memory_limit_bytes"]),
        ("simulator_connections_open", "Open connections to the target.", figures["connections"]),
        ("simulator_requests_in_flight", "Requests in flight.", figures["in_flight"]),
        ("simulator_starts_active", "Requests in flight, which the limit of starts is for.", figures["in_flight"]),
        ("simulator_starts_pending", "Flows that wait to begin, load being high.", figures["starts_waiting"]),
        ("simulator_starts_limit", "Requests in flight from which on flows wait to begin.", figures["starts_limit"]),
        ("simulator_descriptors_open", "Most descriptors open in one process.", figures["fds"]),
        ("simulator_workers", "Worker processes alive.", figures["workers"]),
        ("simulator_workers_wanted", "Worker processes wanted.", figures["workers_wanted"]),
        ("simulator_epoch", "Epoch of the assignment held.", epoch),
    ):  # fmt: skip
        yield GaugeMetricFamily(name, text, value=value)
    yield from pool_families(pools_told(figures))


def pool_families(pools: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    """Yield the metrics of the connection pools, by endpoint group; nothing when connections are not pooled."""
    if not pools:
        return
    for name, text, figure in POOLS:
        gauge = GaugeMetricFamily(name, text, labels=("group",))
        for group, figures in pools.items():
            gauge.add_metric((group,), figures[figure])
        yield gauge
    waits = SummaryMetricFamily(
        "simulator_pool_wait_seconds", "How long requests waited for a pooled connection.", labels=("group",)
    )
    drops = CounterMetricFamily("simulator_pool_drops", "Requests that waited too long.", labels=("group",))
    for group, figures in pools.items():
        waits.add_metric((group,), figures["waits"], figures["wait_us"] / 1e6)
        drops.add_metric((group,), figures["dropped"])
    yield waits
    yield drops
