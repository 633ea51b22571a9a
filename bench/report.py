"""The results: one JSON document, and the same as a page for people."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from bars import Outcome, bars_of, is_profiled
from cases import Case
from measure import Round

_COLUMNS: Final = (
    ("cpu_us_per_request", "µs a request", "{:.2f}"),
    ("others_us", "of it outside the busiest process", "{:.2f}"),
    ("cli_us_per_request", "command line, not counted", "{:.2f}"),
    ("requests_per_second", "requests/s", "{:.0f}"),
    ("core_share", "busiest process, share of a core", "{:.1%}"),
    ("waited_share", "it waited for its core", "{:.1%}"),
    ("bytes_per_user", "bytes a user", "{:.0f}"),
    ("parked_bytes", "bytes of a parked record", "{:.0f}"),
    ("pss_mib", "PSS, MiB", "{:.1f}"),
    ("lag_p99_ms", "lag p99, ms", "{:.2f}"),
    ("service_p50_ms", "service time p50, ms", "{:.3f}"),
    ("think_ms", "mean think time, ms", "{:.0f}"),
)


@dataclass(slots=True, kw_only=True)
class Results:
    """What was measured so far: rounds by case and entry, failures by the same, and why clients are absent."""

    rounds: dict[str, dict[str, list[Round]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    kept: Mapping[str, Any] | None = None
    """An earlier document: its cases that are not measured anew are taken over, with the time they were measured at."""


def document_of(results: Results, *, rounds: int, window_s: float) -> dict[str, Any]:
    """Return the results as one JSON document."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kept = results.kept or {"at": at, "cases": {}}
    cases = {**kept["cases"], **{case: _case(entries) for case, entries in results.rounds.items()}}
    measured_at = {
        case: at if case in results.rounds else kept.get("measured_at", {}).get(case, kept["at"]) for case in cases
    }
    cores = os.cpu_count() or 1
    return {
        "at": at,
        "measured_at": measured_at,
        "machine": {
            "processor": _processor(), "cores": cores, "kernel": platform.release(),
            "python": platform.python_version(), "python_pgo": is_profiled(),
        },
        "rounds": rounds,
        "window_s": window_s,
        "cases": cases,
        "bars": [asdict(bar) for bar in bars_of(cases, results.absent, cores=cores)],
        "failures": {case: dict(failed) for case, failed in results.failures.items() if failed},
        "absent": dict(results.absent),
    }  # fmt: skip


def _case(entries: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, rounds in entries.items():
        if rounds:
            figures = {
                figure: [r.figures[figure] for r in rounds if figure in r.figures] for figure in rounds[0].figures
            }
            found[name] = {figure: _spread(values) for figure, values in figures.items()}
            found[name]["rounds"] = [asdict(r) for r in rounds]
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def markdown_of(document: Mapping[str, Any], cases: Sequence[Case]) -> str:
    """Return the results as a page: a table for each case, the accounts, and every bar with its outcome."""
    machine = document["machine"]
    build = "with" if machine["python_pgo"] else "without"
    lines = [
        "# Benchmark",
        "",
        f"{document['rounds']} interleaved rounds with windows of {document['window_s']:g} s; median (least – most).",
        "CPU is user + system time of all of a client's processes; of ours the runner's, supervisor included.",
        f"Python {machine['python']} ({build} PGO), Linux {machine['kernel']}, {machine['cores']} cores of "
        f"{machine['processor']}; {document['at']}.",
    ]
    for case in cases:
        if found := document["cases"].get(case.name):
            at = document["measured_at"][case.name]
            text = f"{case.text[0].upper()}{case.text[1:]}." + (f" Measured at {at}." if at != document["at"] else "")
            lines += ["", f"## {case.name}", "", text, "", *_table(found, case)]
    lines += ["", "## Said and counted", "", *_accounts(document)]
    lines += ["", "## Bars", "", *_bars(document["bars"])]
    for case_name, failed in document["failures"].items():
        lines += [f"- {case_name}: {name} failed: {reason.splitlines()[0]}" for name, reason in failed.items()]
    lines += [f"- {name} is absent: {reason}" for name, reason in document["absent"].items()]
    return "\n".join(lines) + "\n"


def _table(found: Mapping[str, Any], case: Case) -> list[str]:
    columns = [column for column in _COLUMNS if any(column[0] in client for client in found.values())]
    if case.load.shape != "thinking":
        # Without a pause nobody was due before the answer came, and service time is the queue the clients make.
        columns = [column for column in columns if column[0] not in ("lag_p99_ms", "service_p50_ms")]
    wrk = found.get("wrk", {}).get("cpu_us_per_request", {}).get("median")
    heads = ["client", *(head for _, head, _ in columns), *(["× wrk"] if wrk else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, client in found.items():
        cells = [name, *(_cell(client.get(figure), form) for figure, _, form in columns)]
        if wrk:
            cells.append(f"{client['cpu_us_per_request']['median'] / wrk:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(spread: Mapping[str, float] | None, form: str) -> str:
    if spread is None:
        return ""
    middle, least, most = (form.format(spread[name]) for name in ("median", "min", "max"))
    return middle if least == most else f"{middle} ({least} – {most})"


def _accounts(document: Mapping[str, Any]) -> list[str]:
    lines = ["| case | client | said | counted by nginx | difference |", "|---|---|---|---|---|"]
    for case, clients in document["cases"].items():
        for name, client in clients.items():
            rounds = client["rounds"]
            counted = sum(r["server_requests"] for r in rounds)
            said = [r["client_requests"] for r in rounds]
            told = "–" if None in said else str(sum(said))
            difference = "" if None in said else str(counted - sum(said))
            lines.append(f"| {case} | {name} | {told} | {counted} | {difference} |")
    return lines


def _bars(bars: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| case | client | bar | limit | measured | outcome |", "|---|---|---|---|---|---|"]
    for bar in bars:
        outcome = f"**{bar['outcome']}**" if bar["outcome"] == Outcome.MISSED else bar["outcome"]
        outcome += f": {bar['why']}" if bar["why"] else ""
        lines.append(
            f"| {bar['case']} | {bar['client']} | {bar['text']} | {bar['limit']} | {bar['measured']} | {outcome} |"
        )
    missed = sum(bar["outcome"] == Outcome.MISSED for bar in bars)
    passed = sum(bar["outcome"] == Outcome.PASS for bar in bars)
    return [*lines, "", f"{passed} passed, {missed} missed, {len(bars) - passed - missed} not measured.", ""]
