"""A simulation in a cluster as people read it: a row of a table, one line, a panel that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trafficsim_operator.cli.once import said

__all__ = ["line", "panel", "table"]

Object = Mapping[str, Any]

_COLOURS: Final = {
    "Running": "green", "Completed": "green", "Failed": "red", "Suspended": "yellow",
    "Passed": "green", "Inconclusive": "yellow",
}  # fmt: skip
_MARKS: Final = {"True": ("✓", "green"), "False": ("✗", "red")}


def table(found: Sequence[Object], *, namespaces: bool = False) -> Table:
    """Return the simulations as kubectl's columns have them."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("NAME", "PHASE", "USERS", "RPS", "P95", "ERR%", "TIER", "RUNNERS", "VERSION", "VERDICT", "AGE")
    for column in (*(("NAMESPACE",) if namespaces else ()), *columns):
        rows.add_column(column, justify="right" if column in ("USERS", "RPS", "P95", "ERR%", "RUNNERS") else "left")
    for item in found:
        meta, status = item["metadata"], item.get("status") or {}
        figures, runners = status.get("figures") or {}, status.get("runners") or {}
        cells = (
            meta["name"],
            _coloured(status.get("phase") or "Unseen"),
            str((status.get("users") or {}).get("active", 0)),
            *(figures.get(name) or "" for name in ("rps", "p95", "errorRate")),
            status.get("tier") or "",
            f"{runners.get('ready', 0)}/{runners.get('wanted', 0)}",
            status.get("version") or "",
            _coloured(status.get("verdict") or ""),
            _age(meta.get("creationTimestamp")),
        )
        rows.add_row(*((meta["namespace"],) if namespaces else ()), *cells)
    return rows


def line(item: Object) -> str:
    """Return the simulation as it stands in one line."""
    status = item.get("status") or {}
    users, figures, runners = (status.get(key) or {} for key in ("users", "figures", "runners"))
    parts = [
        status.get("phase") or "not seen by an operator yet",
        f"users {users.get('active', 0)}/{users.get('wanted', 0)}",
        f"runners {runners.get('ready', 0)}/{runners.get('wanted', 0)}",
    ]
    if figures.get("p95"):
        parts += [f"{figures.get('rps')} requests/s", f"p95 {figures['p95']}", f"errors {figures.get('errorRate')}%"]
    if status.get("verdict"):
        parts.append(f"{status['verdict']}: {status.get('verdictReason', '')}")
    elif status.get("message"):
        parts.append(status["message"])
    return "  ".join(parts)


def panel(item: Object) -> RenderableType:
    """Return the simulation as a few lines that are renewed in place."""
    meta, status = item["metadata"], item.get("status") or {}
    users, figures, runners, accounts = (status.get(key) or {} for key in ("users", "figures", "runners", "accounts"))
    head = Text.assemble(
        (f"{meta['namespace']}/{meta['name']}", "bold"), "  ", _coloured(status.get("phase") or "Unseen")
    )
    grid = Table.grid(padding=(0, 2))
    requests = (
        f"{accounts.get('requests', 0):,} in all, {accounts.get('failed', 0):,} failed, {figures.get('rps') or 0}/s"
    )
    arrivals = f"{accounts.get('arrivalsStarted', 0):,} of {accounts.get('arrivalsPlanned', 0):,} started"
    latency = "  ".join(f"{name} {figures.get(name) or '–'}" for name in ("p50", "p95", "p99"))
    rows = (
        ("users", f"{users.get('active', 0)} active, {users.get('wanted', 0)} wanted of {users.get('target', 0)}"),
        ("runners", f"{runners.get('ready', 0)} ready of {runners.get('wanted', 0)}  {status.get('tier', '')}"),
        *((("arrivals", arrivals),) if accounts.get("arrivalsPlanned") else ()),
        ("requests", requests),
        ("latency", latency),
    )  # fmt: skip
    for label, text in rows:
        grid.add_row(Text(label, style="dim"), text)
    for rule in status.get("rules") or ():
        mark, colour = _MARKS.get(rule.get("holds", ""), ("·", "dim"))
        grid.add_row(Text(mark, style=colour), Text(f"{rule['rule']}  {rule.get('value') or ''}"))
    verdict = f"{status['verdict']}: {status.get('verdictReason', '')}" if status.get("verdict") else ""
    told = [*said(status), *(accounts.get("missing") or ()), verdict or status.get("message") or ""]
    return Group(head, grid, *(Text(text) for text in told if text))


def _coloured(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))


def _age(created: str | None) -> str:
    """Return how long ago *created* was, in its largest unit, like kubectl."""
    if not created:
        return ""
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds())  # noqa: TID251 - for display
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
