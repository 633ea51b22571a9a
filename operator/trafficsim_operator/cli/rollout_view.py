"""A rollout as people read it: both versions live, the step, the weight, and what it waits for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import ColourFigures, ColourStatus, Revision, RolloutStatus, RolloutWindow, Status
from trafficsim_operator.cli.figures import count

if TYPE_CHECKING:  # a command to a cluster need not load a local run
    from trafficsim_operator.local import RolledOut

__all__ = [
    "WINDOWS",
    "Rolled",
    "rolled_out",
    "rolled_out_lines",
    "rollout_cells",
    "rollout_line",
    "rollout_of",
    "rollout_panel",
]

_BAR: Final = 40
WINDOWS: Final = 5
"""How many windows are shown at most."""
_BLUE: Final = "blue"
_GREEN: Final = "green"
_STYLES: Final = {
    RolloutPhase.ABORTING: "red", RolloutPhase.REJECTED: "red", RolloutPhase.SUPERSEDING: "yellow",
    RolloutPhase.PROMOTING: "green", RolloutPhase.RETIRING: "green", RolloutPhase.STABLE: "green",
}  # fmt: skip
_SPLIT: Final = (RolloutPhase.SHIFTING, RolloutPhase.ANALYZING)
_ON: Final = (RolloutPhase.PREPARING, *_SPLIT, RolloutPhase.ABORTING, RolloutPhase.SUPERSEDING)
# How the message goes on while the runners of a version without users are kept.
_KEEPING: Final = {RolloutPhase.RETIRING: "", RolloutPhase.REJECTED: "; its runners are kept"}
_PROMOTED: Final = (RolloutPhase.PROMOTING, RolloutPhase.RETIRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """A rollout that is on or has just been: its status and what both versions are called."""

    rollout: RolloutStatus
    blue: str
    green: str

    @property
    def is_on(self) -> bool:
        """Say whether there is more to see than one version at work."""
        return self.rollout.phase is not RolloutPhase.STABLE

    @property
    def step(self) -> str:
        """Return which step it is at: `2 of 5`; "" outside of steps."""
        plan = self.rollout.plan
        return f"{self.rollout.step + 1} of {len(plan.steps)}" if plan and self.rollout.phase in _SPLIT else ""

    @property
    def weight(self) -> str:
        """Return the share of users that green is to have: `10%`, or `10% (11% in whole users)`."""
        asked, whole = self.rollout.percent, self.rollout.effective_percent
        return f"{asked}%" if asked == whole else f"{asked}% ({whole}% in whole users)"

    @property
    def why(self) -> str:
        """Return what it waits for or came to, with the pause that holds it."""
        rollout = self.rollout
        is_told = rollout.message.startswith("paused")
        paused = f"paused ({rollout.pause})" if rollout.pause and not is_told else ""
        suspended = "suspended" if rollout.suspended_at and not paused else ""
        message = rollout.message if self.is_on else _came_to(rollout)
        text = ": ".join(part for part in (paused or suspended, message) if part)
        kept = rollout.blue if rollout.phase is RolloutPhase.RETIRING else rollout.green
        if rollout.scale_down_at and rollout.phase in _KEEPING and kept.runners:
            text += f"{_KEEPING[rollout.phase]} until {rollout.scale_down_at[11:19]} UTC"
        return text


def rollout_of(status: Status | Mapping[str, Any]) -> Rolled | None:
    """Return the rollout in *status*, the model or as it stands in an object; None before the first one."""
    if not isinstance(status, Status):
        parts = {key: status[key] for key in ("rollout", "stable", "candidate", "previous") if status.get(key)}
        status = Status.model_validate_json(json.dumps(parts))
    rollout = status.rollout
    if rollout is None or not rollout.attempt:
        return None
    blue, green = status.stable, status.candidate
    if rollout.phase in _PROMOTED:
        blue, green = status.previous, status.stable
    names = _labels(blue, green)
    return Rolled(rollout=rollout, blue=names[0], green=names[1])


def _labels(*revisions: Revision | None) -> list[str]:
    """Return what versions are called; by their hashes, too, when only another part of their templates is new."""
    labels = [revision.label if revision is not None else "–" for revision in revisions]
    if len(set(labels)) == len(labels):
        return labels
    return [
        f"{revision.label} ({revision.revision})" if revision and revision.label != revision.revision else label
        for revision, label in zip(revisions, labels, strict=True)
    ]


def rollout_cells(rolled: Rolled | None) -> tuple[str, str, str, str]:
    """Return step, weight, stable and candidate as kubectl's columns have them; empty while nothing is rolled out."""
    if rolled is None or not rolled.is_on:
        return "", "", "", ""
    return rolled.step.replace(" of ", "/") or rolled.rollout.phase, rolled.weight, rolled.blue, rolled.green


def rollout_line(rolled: Rolled) -> str:
    """Return the rollout as it stands in one line."""
    rollout = rolled.rollout
    parts = [f"rollout {rollout.attempt} {rollout.phase}"]
    if rollout.phase in _SPLIT:
        parts.append(f"step {rolled.step}, {rolled.weight}")
    if rolled.is_on:
        for colour, name, share in _colours(rolled):
            parts.append(f"{colour} {name} {share.active}/{share.users} on {share.ready}/{share.runners}")
    if rolled.why:
        parts.append(rolled.why)
    return "  ".join(parts)


def rollout_panel(rolled: Rolled, windows: int = WINDOWS) -> RenderableType:
    """Return the rollout as a few lines, one when it is over; among them its last *windows*."""
    rollout = rolled.rollout
    head = Text.assemble(
        (f"rollout {rollout.attempt}", "bold"), "  ", (rollout.phase.value, _STYLES.get(rollout.phase, "cyan"))
    )
    if rollout.phase in _SPLIT:
        head.append(f"  step {rolled.step}, {rolled.weight}")
    if not rolled.is_on:
        return Text.assemble(head, "  ", (rolled.why, "dim"))
    parts: list[RenderableType] = [head]
    if rolled.why:
        parts.append(Text(rolled.why, "yellow" if rollout.pause else ""))
    parts += [_bar(rolled), _shares(rolled)]
    if rollout.windows and windows > 0 and rollout.phase in (*_SPLIT, RolloutPhase.ABORTING, RolloutPhase.REJECTED):
        parts.append(_windows(rollout.windows[-windows:]))
    if rollout.plan is not None and rollout.plan.note and rollout.phase in (RolloutPhase.PREPARING, *_SPLIT):
        parts.append(Text(rollout.plan.note, "dim"))
    return Group(*parts)


def rolled_out_lines(rollouts: Sequence[RolledOut]) -> Sequence[str]:
    """Return what each rollout of a run came to, in a line: `1.0 → 1.1: rejected at 10%: error_rate 9.1%`."""
    found = []
    for number, it in enumerate(rollouts, 1):
        blue, green = _labels(it.blue, it.green)
        rollout = it.rollout
        is_on = rollout.phase in _ON and number == len(rollouts)  # another began: it is over, whatever was seen last
        unfinished = f"{rollout.phase} when the run ended: " if is_on else ""
        came_to = rollout.message if is_on else _came_to(rollout)
        found.append(f"{blue} → {green}: {unfinished}{came_to or rollout.reason}")
    return found


def rolled_out(rollouts: Sequence[RolledOut]) -> list[dict[str, Any]]:
    """Return the same as plain values."""
    found = []
    for number, it in enumerate(rollouts, 1):
        blue, green = _labels(it.blue, it.green)
        values = it.rollout.model_dump(mode="json", include={"attempt", "phase", "reason", "message"})
        if number < len(rollouts):
            values["message"] = _came_to(it.rollout)
        found.append({"from": blue, "to": green, **values})
    return found


def _came_to(rollout: RolloutStatus) -> str:
    """Return the outcome of a rollout that is over: no version is kept then, and no user is on the way back."""
    return re.sub(r"; \S+ is kept for the way back$|: all users go back to \S+ first( · .*)?$", "", rollout.message)


def _colours(rolled: Rolled) -> Iterator[tuple[str, str, ColourStatus]]:
    yield _BLUE, rolled.blue, rolled.rollout.blue
    yield _GREEN, rolled.green, rolled.rollout.green


def _bar(rolled: Rolled) -> Text:
    """Return the users of both versions as one bar; nobody's part of it stays empty."""
    blue, green = rolled.rollout.blue.active, rolled.rollout.green.active
    total = max(1, blue + green, rolled.rollout.blue.users + rolled.rollout.green.users)
    cells = (2 * _BAR * green + total) // (2 * total)
    if green:  # one user of many is to be seen, and so is the last one of blue
        cells = min(max(cells, 1), _BAR - bool(blue))
    others = min(max((2 * _BAR * blue + total) // (2 * total), bool(blue)), _BAR - cells)
    return Text.assemble(("█" * others, _BLUE), ("█" * cells, _GREEN), ("░" * (_BAR - others - cells), "dim"))


def _shares(rolled: Rolled) -> Table:
    grid = _grid("", "version", "users", "active", "ready", left=("", "version"))
    for colour, name, share in _colours(rolled):
        ready = f"{share.ready} of {share.runners}"
        grid.add_row(Text(f"■ {colour}", colour), Text(name), count(share.users), count(share.active), ready)
    return grid


def _windows(windows: Sequence[RolloutWindow]) -> Table:
    """Return the newest windows of the step, both versions side by side."""
    names = ("requests", "errors", "success", "p95")
    grid = _grid("window", *(f"{_BLUE} {names[0]}", *names[1:]), *(f"{_GREEN} {names[0]}", *names[1:]))
    for window in windows:
        grid.add_row(str(window.number), *_cells(window.blue), *_cells(window.green))
    return grid


def _cells(figures: ColourFigures) -> tuple[str, str, str, str]:
    return count(figures.requests), figures.error_rate or "–", figures.success or "–", figures.p95 or "–"


def _grid(*columns: str, left: Sequence[str] = ()) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        grid.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return grid
