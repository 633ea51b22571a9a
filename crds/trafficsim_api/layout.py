"""
Where each counter of a load stands: the layout of the statistics vectors (statistics.py says what is done with them).

A worker owns one vector of unsigned 64-bit counters, laid out by the actions of the load:

    [ WORKER_COUNTERS ][ lag histogram ][ action 0: ACTION_COUNTERS, service and response histograms ][ action 1 ] …
    [ metric 0: METRIC_COUNTERS, histogram ][ metric 1 ] …

Metrics are those that scenarios declare. They stand behind the actions, so one more action moves them (alignment.py).
Imports nothing but the standard library: the workers' hot path uses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2s
from typing import Final

from trafficsim_api.histogram import BUCKETS

__all__ = [
    "ACTION_COUNTERS",
    "DROP_REASONS",
    "ERROR_KINDS",
    "EXTREMES",
    "FORMAT",
    "MAX_ACTIONS",
    "MAX_METRICS",
    "METRIC_COUNTERS",
    "WORKER_COUNTERS",
    "Drop",
    "Error",
    "Layout",
    "Metric",
    "MetricKind",
    "grown",
]

FORMAT: Final = 1
MAX_ACTIONS: Final = 256
MAX_METRICS: Final = 64


class Error(StrEnum):
    """Why a request failed; the prefix says whose fault: generator, network or target."""

    NO_PORT = "generator_no_port"
    NO_FD = "generator_no_fd"
    FORBIDDEN = "generator_forbidden"
    CUT = "generator_cut"
    DNS = "network_dns"
    REFUSED = "network_refused"
    UNREACHABLE = "network_unreachable"
    RESET = "network_reset"
    TLS = "network_tls"
    CONNECT_TIMEOUT = "network_connect_timeout"
    TLS_TIMEOUT = "network_tls_timeout"
    REQUEST_TIMEOUT = "network_request_timeout"
    STATUS = "target_status_5xx"
    PROTOCOL = "target_protocol"
    CLOSED = "target_closed_early"
    INTERNAL = "generator_internal"


class Drop(StrEnum):
    """Why work that was due was not sent; each one is counted."""

    NO_SLOT = "no_slot"
    POOL_WAIT = "pool_wait"
    BREAKER_OPEN = "breaker_open"
    DEGRADED = "degraded"
    BUDGET = "budget"
    RUNNER_LOST = "runner_lost"
    GENERATOR_SATURATED = "generator_saturated"
    TEMPLATE = "template"
    INTERNAL = "internal"
    LEFT = "left"
    """Its user left, or its scenario broke it off, before a connection was there."""


ERROR_KINDS: Final = tuple(Error)
DROP_REASONS: Final = tuple(Drop)

# Subtle: order is the wire format. Append only, and raise FORMAT when a meaning changes.
WORKER_COUNTERS: Final = (
    "active_user_ms",  # integral of active users, user-milliseconds
    "wanted_user_ms",  # integral of the users the held places and the profile ask for
    "cpu_ns",  # user + system time of the worker
    "wall_ns",  # monotonic time the worker was up
    "iterations",  # flows begun
    "iterations_done",  # flows finished
    "places_gained",
    "places_lost",
    "cut",  # users that left at the deadline in mid-action
    "connects",  # connections opened
    "closes",  # connections closed, by either side
    "unsolicited",  # bytes that answered no request: connection closed
    "gc_ns",  # time in garbage collection
    "gc_runs",
    "head_records",  # memoised response heads made
    "worker_restarts",  # supervisor: workers started again after they died
    "worker_lost_users",  # supervisor: users active in a worker when it died
    "oom_kills",  # supervisor: from the cgroup's counter
    "pod_cpu_ns",  # supervisor: CPU of the whole runner (cgroup, else its processes)
    "pod_wall_ns",  # supervisor: monotonic time
    "cfs_periods",  # supervisor: from the cgroup
    "cfs_throttled",
    "windows_folded",  # supervisor: one-second windows folded into ten-second ones
    *(f"drop_{reason}" for reason in DROP_REASONS if reason is not Drop.LEFT),
    "arrivals_planned",  # open model: iterations that were due
    "arrivals_started",  # of them, those a user was free for and whose first request was begun
    "memory_permille_ms",  # supervisor: integral of the runner's memory ÷ its limit, permille-milliseconds
    "waited_ns",  # time the worker was ready to run and waited for a CPU
    "arrivals_twice",  # open model: begun by two runners, the giver of their place having been told late
    "pool_waits",  # requests that waited for a pooled connection, those dropped for it included
    "pool_wait_ns",  # how long in all
    "scenario_failures",  # starts, iterations and stops that an exception of the scenario's own ended
    "starts_delayed",  # flows that had to wait before they began, load being above 80 % of the quota
    "drop_left",
)
ACTION_COUNTERS: Final = (
    "sent",                 # requests whose first byte was handed to the kernel
    "done",                 # finished requests: n
    "failed",               # transport error, time-out or 5xx
    "class_1xx", "class_2xx", "class_3xx", "class_4xx", "class_5xx",
    "checks",
    "checks_failed",
    "bytes_in",
    "bytes_out",
    "service_ns",           # sum of service times of answered requests
    "response_ns",          # sum of response times
    *(f"error_{kind}" for kind in ERROR_KINDS),
)  # fmt: skip
METRIC_COUNTERS: Final = (
    "count",  # a counter's value; how often a trend was recorded
    "sum",  # of a trend's values
)
EXTREMES: Final = ("service_min_ns", "service_max_ns", "response_min_ns", "response_max_ns")

WORKER_INDEX: Final = {name: index for index, name in enumerate(WORKER_COUNTERS)}
ACTION_INDEX: Final = {name: index for index, name in enumerate(ACTION_COUNTERS)}
LAG: Final = len(WORKER_COUNTERS)
FIRST_ACTION: Final = LAG + BUCKETS
SERVICE: Final = len(ACTION_COUNTERS)
RESPONSE: Final = SERVICE + BUCKETS
STRIDE: Final = RESPONSE + BUCKETS
METRIC_STRIDE: Final = len(METRIC_COUNTERS) + BUCKETS


class MetricKind(StrEnum):
    """What a scenario's metric is."""

    COUNTER = "counter"
    TREND = "trend"


Metric = tuple[str, str, str]
"""Name, kind, unit. Values of a trend whose unit is a time are ns, others whole numbers of the unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """
    Where each counter of a load stands in the vector; two vectors may be added only when their layout *id* is equal.

    *actions* are (name, group) pairs in the order of their first appearance over all archetypes, at most 256;
    *metrics* are those that scenarios declare, at most 64.
    """

    actions: tuple[tuple[str, str], ...]
    metrics: tuple[Metric, ...] = ()

    @property
    def id(self) -> str:
        """Return 16 hex digits over format, counters, actions and metrics: equal ids, equal meaning of every index."""
        parts = [FORMAT, BUCKETS, WORKER_COUNTERS, ACTION_COUNTERS, self.actions]
        if self.metrics:
            parts += [METRIC_COUNTERS, self.metrics]
        return blake2s(json.dumps(parts, separators=(",", ":")).encode(), digest_size=8).hexdigest()

    @property
    def size(self) -> int:
        """Return the number of 64-bit counters."""
        return self.first_metric + len(self.metrics) * METRIC_STRIDE

    @property
    def first_metric(self) -> int:
        """Return the index of the first metric's first counter: the actions end here."""
        return FIRST_ACTION + len(self.actions) * STRIDE

    def metric(self, metric: int, counter: str = "count") -> int:
        """Return the index of a counter of metric number *metric*."""
        return self.first_metric + metric * METRIC_STRIDE + METRIC_COUNTERS.index(counter)

    def trend(self, metric: int) -> int:
        """Return the index of the first bucket of the histogram of metric number *metric*."""
        return self.first_metric + metric * METRIC_STRIDE + len(METRIC_COUNTERS)

    @property
    def extremes(self) -> int:
        """Return the number of extremes, EXTREMES for each action."""
        return len(self.actions) * len(EXTREMES)

    def worker(self, counter: str) -> int:
        """Return the index of a worker counter."""
        return WORKER_INDEX[counter]

    def lag(self) -> int:
        """Return the index of the first bucket of the lag histogram (intended → sent, ns)."""
        return LAG

    def action(self, action: int, counter: str) -> int:
        """Return the index of a counter of action number *action*."""
        return FIRST_ACTION + action * STRIDE + ACTION_INDEX[counter]

    def service(self, action: int) -> int:
        """Return the index of the first bucket of the service time histogram of action number *action*."""
        return FIRST_ACTION + action * STRIDE + SERVICE

    def response(self, action: int) -> int:
        """Return the index of the first bucket of the response time histogram of action number *action*."""
        return FIRST_ACTION + action * STRIDE + RESPONSE


def grown(layout: Layout, others: Iterable[Layout]) -> Layout:
    """Return *layout* with the actions and metrics of *others* that it lacks, in order of appearance, at their end."""
    actions, metrics = dict.fromkeys(layout.actions), dict.fromkeys(layout.metrics)
    for other in others:
        if other != layout:
            actions.update(dict.fromkeys(other.actions))
            metrics.update(dict.fromkeys(other.metrics))
    if (len(actions), len(metrics)) == (len(layout.actions), len(layout.metrics)):
        return layout
    return Layout(actions=tuple(actions), metrics=tuple(metrics))
