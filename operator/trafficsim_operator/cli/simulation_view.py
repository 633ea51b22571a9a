"""A simulation in a cluster as people read it: a row of a table, one line, a panel that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trafficsim_operator.cli.once import said
from trafficsim_operator.cli.rollout_view import WINDOWS, Rolled, rollout_cells, rollout_line, rollout_of, rollout_panel
from trafficsim_operator.cli.scaling_view import scaling_lines

__all__ = ["line", "panel", "table"]

Object = Mapping[str, Any]

_COLOURS: Final = {
    "Running": "green", "Completed": "green", "Failed": "red", "Suspended": "yellow",
    "Passed": "green", "Inconclusive": "yellow",
}  # fmt: skip
_WIDE: Final = ("STEP", "WEIGHT", "STABLE", "CANDIDATE")
_LINES: Final = 18  # of everything else, when a rollout is on
_MARKS: Final = {"True": ("✓", "green"), "False": ("✗", "red")}


def table(found: Sequence[Object], *, namespaces: bool = False) -> Table:
    """Return the simulations as kubectl's columns have them; a rollout's come when there is one."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("NAME", "PHASE", "USERS", "RPS", "P95", "ERR%", "TIER", "RUNNERS", "VERSION", "VERDICT", "AGE")
    rollouts = [rollout_of(item.get("status") or {}) for item in found]
    wide = any(rolled is not None and rolled.is_on for rolled in rollouts)
    for column in (*(("NAMESPACE",) if namespaces else ()), *columns, *(_WIDE if wide else ())):
        rows.add_column(column, justify="right" if column in ("USERS", "RPS", "P95", "ERR%", "RUNNERS") else "left")
    for item, rolled in zip(found, rollouts, strict=True):
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
            *(rollout_cells(rolled) if wide else ()),
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
    rolled = rollout_of(status)
    if rolled is not None and rolled.is_on:
        parts.append(rollout_line(rolled))
    if status.get("verdict"):
        parts.append(f"{status['verdict']}: {status.get('verdictReason', '')}")
    elif message := _message(status, rolled):
        parts.append(message)
    return "  ".join(parts)


def panel(item: Object, height: int = 60) -> RenderableType:
    """Return the simulation as a few lines that are renewed in place, on *height* lines."""
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
        *(("scaling", text) for text in scaling_lines(status)),
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
    rolled = rollout_of(status)
    told = [*said(status), *(accounts.get("missing") or ()), verdict or _message(status, rolled)]
    windows = min(WINDOWS, height - _LINES - len(status.get("rules") or ()))
    rollout = [Padding(rollout_panel(rolled, windows), (int(rolled.is_on), 0))] if rolled is not None else []
    return Group(head, grid, *rollout, *(Text(text) for text in told if text))


def _message(status: Object, rolled: Rolled | None) -> str:
    """Return what the phase waits for, unless the rollout says that itself."""
    message = str(status.get("message") or "")
    return "" if rolled is not None and rolled.rollout.message and rolled.rollout.message in message else message


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
