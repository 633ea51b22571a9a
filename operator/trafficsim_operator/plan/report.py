"""The report of a run: the merged numbers by action, by error and by reason of dropped work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trafficsim_api.connections import added_pools
from trafficsim_api.layout import DROP_REASONS, ERROR_KINDS, WORKER_COUNTERS, Layout
from trafficsim_api.statistics import Vector, action_counter, histogram, quantiles, total
from trafficsim_operator.plan.measured import MetricRow, measured

__all__ = ["ActionRow", "Report", "report"]

_CLASSES = ("class_1xx", "class_2xx", "class_3xx", "class_4xx", "class_5xx")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRow:
    """
    One action's numbers after the warm-up; times in ns, None without an answered request.

    Times are as rules are judged by, *least* and *most* as their min and max: the upper edge of a bucket.
    """

    action: str
    group: str
    requests: int
    failed: int
    checks: int
    checks_failed: int
    bytes_in: int
    p50: int | None
    p95: int | None
    p99: int | None
    service_p95: int | None
    least: int | None
    most: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    A run in numbers: *requests* to *dropped* cover the whole run, *judged* and the rows what came after the warm-up.

    *counters* are the worker and supervisor counters of the whole run, by name.
    """

    requests: int
    failed: int
    sent: int
    checks: int
    checks_failed: int
    judged: int
    classes: Mapping[str, int]
    errors: Mapping[str, int]
    drops: Mapping[str, int]
    counters: Mapping[str, int]
    actions: tuple[ActionRow, ...]
    missing: tuple[str, ...]
    metrics: tuple[MetricRow, ...] = ()
    """What scenarios counted and measured after the warm-up."""
    pools: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Where connections are pooled, the POOL_FIGURES of each group over all runners."""


def report(
    layout: Layout, whole: Vector, warm: Vector, missing: Sequence[str],
    pools: Iterable[Mapping[str, Mapping[str, int]]] = (),
) -> Report:  # fmt: skip
    """
    Return the report of merged *whole* numbers, of which *warm* came before the warm-up's end.

    *pools* are each runner's connection pools.
    """
    judged = whole - warm
    return Report(
        requests=total(layout, whole, "done"),
        failed=total(layout, whole, "failed"),
        sent=total(layout, whole, "sent"),
        checks=total(layout, whole, "checks"),
        checks_failed=total(layout, whole, "checks_failed"),
        judged=total(layout, judged, "done"),
        classes={name.removeprefix("class_"): total(layout, whole, name) for name in _CLASSES},
        errors={kind: count for kind in ERROR_KINDS if (count := total(layout, whole, f"error_{kind}"))},
        drops={reason: count for reason in DROP_REASONS if (count := int(whole[layout.worker(f"drop_{reason}")]))},
        counters={name: int(whole[layout.worker(name)]) for name in WORKER_COUNTERS if not name.startswith("drop_")},
        actions=tuple(_row(layout, judged, number) for number in range(len(layout.actions))),
        missing=tuple(missing),
        metrics=measured(layout, judged),
        pools=added_pools(pools),
    )


def _row(layout: Layout, judged: Vector, number: int) -> ActionRow:
    name, group = layout.actions[number]
    # Not the exact extremes of an account: those are of the whole run, warm-up included.
    responses = histogram(layout, judged, "response", number)
    least, p50, p95, p99, most = quantiles(responses, (0, 0.5, 0.95, 0.99, 1))
    return ActionRow(
        action=name,
        group=group,
        p50=p50,
        p95=p95,
        p99=p99,
        requests=action_counter(layout, judged, number, "done"),
        failed=action_counter(layout, judged, number, "failed"),
        checks=action_counter(layout, judged, number, "checks"),
        checks_failed=action_counter(layout, judged, number, "checks_failed"),
        bytes_in=action_counter(layout, judged, number, "bytes_in"),
        service_p95=quantiles(histogram(layout, judged, "service", number), (0.95,))[0],
        least=least,
        most=most,
    )
