"""What came of a run: for people at the terminal, and as one JSON document."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from trafficsim_api.phases import Verdict
from trafficsim_api.status import Run
from trafficsim_api.units import format_duration, milliseconds
from trafficsim_operator.cli.data import used_data, used_lines
from trafficsim_operator.cli.figures import clock, count, counted, duration_ns, percent
from trafficsim_operator.cli.once import done_lines
from trafficsim_operator.cli.rollout_view import rolled_out, rolled_out_lines
from trafficsim_operator.cli.scenarios import failure_lines, print_metrics
from trafficsim_operator.fleet.lookup import host_and_port
from trafficsim_operator.local import Outcome
from trafficsim_operator.plan.happenings import skew_of
from trafficsim_operator.plan.report import ActionRow, Report

__all__ = ["document_of", "print_summary"]

_STYLES: Final = {Verdict.PASSED: "bold green", Verdict.FAILED: "bold red", Verdict.INCONCLUSIVE: "bold yellow"}
_REFUSED: Final = "target.url: the policy does not allow"
_SHOWN: Final = 5  # of the runners that died
_SPARED: Final = ("p95 service", "per s", "max", "p50")  # columns a narrow terminal does without, in this order
_MARKS: Final = {"True": ("✓", "green"), "False": ("✗", "red"), "Unknown": ("?", "yellow")}


def document_of(outcome: Outcome) -> Mapping[str, Any]:
    """Return the outcome as the document that `--json` prints; latencies in ns."""
    report, status = outcome.report, outcome.frame.status
    return {
        "name": outcome.frame.name,
        "verdict": outcome.verdict.value if outcome.verdict else None,
        "reason": outcome.reason,
        "exit": outcome.exit,
        "requests": report.requests,
        "failed": report.failed,
        "judged": report.judged,
        "rules": [rule.model_dump(mode="json", by_alias=True) for rule in status.rules],
        "actions": [asdict(row) for row in report.actions],
        "errors": dict(report.errors),
        "drops": dict(report.drops),
        "classes": dict(report.classes),
        "counters": dict(report.counters),
        "pools": {group: dict(figures) for group, figures in report.pools.items()},
        "data": used_data(outcome.frame.spec, outcome.rows, report.counters.get("iterations", 0)),
        "metrics": [asdict(row) for row in report.metrics],
        "missing": list(report.missing),
        "losses": list(outcome.losses),
        "rollouts": rolled_out(outcome.rollouts),
        "runners": {"most": outcome.runners, "processes": status.sizing.processes},
        "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def print_summary(outcome: Outcome, console: Console) -> None:
    """Print the verdict, the rules, a row for each action, and whatever was lost, dropped or went wrong."""
    _verdict(outcome, console)
    if outcome.frame.status.rules and outcome.report.requests:
        _rules(outcome, console)
    if outcome.report.requests:
        _actions(outcome, console)
        print_metrics(outcome.report, _judged_seconds(outcome), console)
    _remarks(outcome, console)


def _verdict(outcome: Outcome, console: Console) -> None:
    word = outcome.verdict.value if outcome.verdict else "Not run"
    style = _STYLES[outcome.verdict] if outcome.verdict else "bold red"
    head, _, rest = outcome.reason.partition("\n")
    console.print()
    console.print(Text.assemble((word, style), "  ", (outcome.frame.name, "bold"), "  ", head), soft_wrap=True)
    if rest:
        console.print(Text(rest), soft_wrap=True)
    if outcome.verdict is None and _REFUSED in outcome.reason:
        host, port = host_and_port(outcome.frame.spec)
        console.print(Text(f"Or allow the target for this run alone: --allow-target {host}:{port}"), soft_wrap=True)


def _rules(outcome: Outcome, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "rule", "value", "n"):
        table.add_column(name, justify="right" if name in ("value", "n") else "left")
    for rule in outcome.frame.status.rules:
        mark, style = _MARKS[rule.holds]
        table.add_row(Text(mark, style), Text(rule.rule), Text(rule.value or "–", style), count(rule.samples))
    console.print()
    console.print(table)


def _actions(outcome: Outcome, console: Console) -> None:
    """Print a row for each action; a terminal too narrow for all columns goes without some, a name is folded last."""
    seconds = _judged_seconds(outcome)
    rows = [row for row in outcome.report.actions if row.requests]
    if not rows:
        return
    spared = set() if any(row.service_p95 != row.p95 for row in rows) else {"p95 service"}
    wide = console.options.update(max_width=10_000)
    table = _action_table(rows, seconds, spared)
    for name in _SPARED:
        if Measurement.get(console, wide, table).maximum <= console.width:
            break
        spared.add(name)
        table = _action_table(rows, seconds, spared)
    console.print()
    console.print(table)


def _action_table(rows: Collection[ActionRow], seconds: float, spared: Collection[str]) -> Table:
    cells: list[dict[str, str | Text]] = [
        {
            "action": Text(row.action), "n": count(row.requests), "per s": f"{row.requests / seconds:.1f}",
            "p50": duration_ns(row.p50), "p95": duration_ns(row.p95), "p99": duration_ns(row.p99),
            "p95 service": duration_ns(row.service_p95), "max": duration_ns(row.most),
            "errors": _errors(row), "checks": _checks(row),
        }
        for row in rows
    ]  # fmt: skip
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    names = [name for name in cells[0] if name not in spared]
    for name in names:
        is_first = name == "action"
        table.add_column(name, justify="left" if is_first else "right", no_wrap=not is_first, overflow="fold")
    for cell in cells:
        table.add_row(*(cell[name] for name in names))
    return table


def _arrivals(outcome: Outcome) -> str:
    """Say how many of the arrivals that were due came, "" in the closed model."""
    counters, run = outcome.report.counters, outcome.frame.status.run
    planned, started = counters.get("arrivals_planned", 0), counters.get("arrivals_started", 0)
    lost = run.arrivals_lost if run is not None else 0
    if not planned + lost:
        return ""
    share = percent(started / (planned + lost))
    text = f"{count(started)} of {count(planned + lost)} started ({share})"
    if twice := counters.get("arrivals_twice", 0):
        text += f"; {count(twice)} of them on two runners, the place's giver having heard late"
    return f"{text}; {count(lost)} came while no runner held their place (runner_lost)" if lost else text


def _errors(row: ActionRow) -> Text:
    return Text(percent(row.failed / row.requests), "red" if row.failed else "dim")


def _checks(row: ActionRow) -> Text:
    if not row.checks_failed:
        return Text("all" if row.checks else "–", "dim")
    return Text(f"{count(row.checks_failed)} of {count(row.checks)} missed", "red")


def _judged_seconds(outcome: Outcome) -> float:
    elapsed = outcome.frame.elapsed_ms or 0
    return max(1.0, (elapsed - milliseconds(outcome.frame.spec.warm_up)) / 1000)


def _remarks(outcome: Outcome, console: Console) -> None:
    """Print what else there is to know, a line each."""
    report, status = outcome.report, outcome.frame.status
    lines: list[tuple[str, str]] = [*done_lines(status.run), *failure_lines(report)]
    for number, text in enumerate(rolled_out_lines(outcome.rollouts)):
        lines.append(("" if number else "rollouts" if len(outcome.rollouts) > 1 else "rollout", text))
    if arrivals := _arrivals(outcome):
        lines.append(("arrivals", arrivals))
    iterations = report.counters.get("iterations", 0)
    used = used_lines(outcome.frame.spec, outcome.rows, iterations) if report.requests else ()
    for number, text in enumerate(used):
        lines.append(("" if number else "data", text))
    if report.errors:
        lines.append(("errors", _listed(report.errors)))
    if report.drops:
        lines.append(("not sent", _listed(report.drops)))
    for number, text in enumerate(_pools(report) if report.requests or report.drops else ()):
        lines.append(("" if number else "pools", text))
    if delayed := report.counters.get("starts_delayed", 0):
        lines.append(("delayed", f"{counted(delayed, 'start')} waited while a runner was above 80 % of its CPU"))
    lines += _run_lines(status.run)
    lines += [("missing", text) for text in report.missing]
    lines += [("died", text) for text in outcome.losses[:_SHOWN]]
    if len(outcome.losses) > _SHOWN:
        lines.append(("", f"and {len(outcome.losses) - _SHOWN} more"))
    lines += _restarts(report)
    if report.requests:
        lines.append(("run", _run(outcome)))
        if warm_up := outcome.frame.spec.warm_up:
            lines.append(
                ("warm-up", f"the first {format_duration(warm_up)} are in the totals, not in rules and actions")
            )
    if not lines:
        return
    console.print()
    width = max(len(name) for name, _ in lines) + 2
    for name, text in lines:
        console.print(Text.assemble((name.ljust(width), "dim"), text), soft_wrap=True)


def _run_lines(run: Run | None) -> list[tuple[str, str]]:
    """Say what was lost with runners, and how far apart they began."""
    lines = []
    if run is not None and run.lost_user_ms >= 50:
        share = f", {percent(run.lost_user_ms / run.planned_user_ms)} of those planned" if run.planned_user_ms else ""
        whose = f", with {counted(run.lost_runners, 'runner')}" if run.lost_runners else ""
        lines.append(("lost", f"{run.lost_user_ms / 1000:.1f} user-seconds{share}{whose}"))
    if run is not None and run.barrier is not None and run.barrier.runners:
        moved = "; the start was moved on once" if run.barrier.moved else ""
        lines.append(("start", skew_of(run.barrier) + moved))
    return lines


def _pools(report: Report) -> Iterator[str]:
    """Say of each pool how many connections it had and how long requests waited for one."""
    for group, figures in report.pools.items():
        text = f"{group}: at most {count(figures['most'])} of {count(figures['max'])} connections"
        if figures["waits"]:
            mean = duration_ns(figures["wait_us"] * 1000 // figures["waits"])
            longest = duration_ns(figures["longest_us"] * 1000)
            text += f"; {counted(figures['waits'], 'request')} waited {mean} on average, {longest} at most"
        if figures["dropped"]:
            text += f"; {count(figures['dropped'])} too long (pool_wait)"
        yield text


def _restarts(report: Report) -> list[tuple[str, str]]:
    restarts = report.counters.get("worker_restarts", 0)
    if not restarts:
        return []
    users, ooms = report.counters.get("worker_lost_users", 0), report.counters.get("oom_kills", 0)
    memory = f", {ooms} of them for want of memory" if ooms else ""
    return [("restarted", f"{count(restarts)} worker processes{memory}; {count(users)} users lost their request")]


def _listed(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return " · ".join(f"{name} {count(number)}" for name, number in ordered)


def _run(outcome: Outcome) -> str:
    frame, report = outcome.frame, outcome.report
    status = frame.status
    took = clock(max(0, frame.elapsed_ms or 0))
    parts = [
        f"{count(report.requests)} requests by {count(frame.spec.users)} users in {took}",
        f"{status.tier} ({status.strategy})",
        f"{counted(outcome.runners, 'runner')} of {counted(status.sizing.processes, 'process', 'processes')}",
    ]
    if not status.tier:  # the users were taken away: no tier and no processes are left to tell of
        parts[1:] = [counted(outcome.runners, "runner")]
    return " · ".join(parts)
