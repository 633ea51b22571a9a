"""What the terminal says of scenarios: what cannot be known before a run, and what they counted in it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.cli.figures import count, duration_ns
from trafficsim_operator.observed import MetricRow
from trafficsim_operator.plan.measured import NS
from trafficsim_operator.plan.report import Report

__all__ = ["failure_lines", "metric_value", "print_metrics", "unknown_of"]


def unknown_of(spec: TrafficSimulationSpec) -> str:
    """Say what of *spec* only a runner can check, "" when there is nothing."""
    names = list(dict.fromkeys(archetype.scenario for archetype in spec.archetypes if archetype.scenario))
    if not names:
        return ""
    return (
        f"{', '.join(names)}: whether the runner's image has {'it' if len(names) == 1 else 'them'}, the requests,"
        " actions and metrics are known only when a runner starts"
    )


def print_metrics(report: Report, seconds: float, console: Console) -> None:
    """Print a row for each metric that scenarios declare."""
    if not report.metrics:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("metric", "n", "per s", "avg", "p50", "p95", "p99", "max"):
        is_first = name == "metric"
        table.add_column(name, justify="left" if is_first else "right", no_wrap=not is_first, overflow="fold")
    for row in report.metrics:
        average = row.total // row.count if row.count else None
        values: tuple[str, ...] = ("",) * 5
        if row.kind == "trend":
            values = tuple(metric_value(value, row) for value in (average, row.p50, row.p95, row.p99, row.most))
        name = row.name if row.unit in ("", NS) else f"{row.name} ({row.unit})"
        table.add_row(Text(name), count(row.count), f"{row.count / seconds:.1f}", *values)
    console.print()
    console.print(table)


def metric_value(value: int | None, row: MetricRow) -> str:
    """Return a value of a trend as people read it, its unit left out unless it is a time."""
    return duration_ns(value) if value is None or row.unit == NS else count(value)


def failure_lines(report: Report) -> list[tuple[str, str]]:
    """Return what scenarios raised."""
    failures = report.counters.get("scenario_failures", 0)
    if not failures:
        return []
    times = "once" if failures == 1 else f"{count(failures)} times"
    return [("scenario", f"{times} a scenario raised an exception; the runner's log has each kind once")]
