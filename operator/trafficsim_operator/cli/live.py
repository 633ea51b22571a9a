"""What a run looks like while it goes on: a live view at a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trafficsim_api.phases import Phase
from trafficsim_api.profile import Shape, shape
from trafficsim_api.status import RuleStatus, Status
from trafficsim_api.units import format_rate, milliseconds
from trafficsim_operator.cli.figures import clock, count, counted, duration_ns, percent, spark
from trafficsim_operator.cli.rollout_view import WINDOWS, rollout_line, rollout_of, rollout_panel
from trafficsim_operator.cli.scaling_view import scaling_lines
from trafficsim_operator.local import Frame

__all__ = ["LineView", "LiveView", "Quiet"]

_WIDTH: Final = 40
_EVERY_MS: Final = 5000
_LINES: Final = 18  # of everything else, when a rollout is on
_LOST_MS: Final = 50  # less lost user time shows as nothing
_SAMPLE_MS: Final = 900  # about one sample of the rate for each second
_COLOURS: Final = {
    Phase.RUNNING: "green", Phase.COMPLETED: "green", Phase.FAILED: "red", Phase.SUSPENDED: "yellow",
}  # fmt: skip
_MARKS: Final = {"True": ("✓", "green"), "False": ("✗", "red"), "Unknown": ("·", "dim")}


class Quiet:
    """Show nothing: the one document at the end is all that was asked for."""

    def show(self, frame: Frame) -> None:
        """Show nothing."""

    def note(self, text: str, *, warning: bool = False) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Leave nothing behind."""


@dataclass(slots=True)
class LineView:
    """A line when the phase or the rollout's changes and every five seconds; for logs and pipes."""

    console: Console
    _last_ms: int = 0
    _stand: tuple[object, ...] = ()

    def show(self, frame: Frame) -> None:
        """Print a line when one is due."""
        if frame.status.phase in (Phase.COMPLETED, Phase.FAILED):
            return  # what there is to say then is the summary's
        stand = _stand(frame.status)
        if stand == self._stand and frame.now_ms - self._last_ms < _EVERY_MS:
            return
        self._last_ms, self._stand = frame.now_ms, stand
        self.console.print(line(frame), highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print what happened."""
        self.console.print(f"{'! ' if warning else '- '}{text}", highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave what was printed."""


def _stand(status: Status) -> tuple[object, ...]:
    """Return what is worth a line as soon as it changes."""
    rollout = status.rollout
    return (status.phase, *((rollout.phase, rollout.step, rollout.pause) if rollout is not None else ()))


def line(frame: Frame) -> str:
    """Return the run as it stands in one line."""
    status, evidence = frame.status, frame.evidence
    parts = [clock(max(0, frame.elapsed_ms or 0)), f"{status.phase.value:<9}"]
    if status.phase in (Phase.RUNNING, Phase.DRAINING):
        parts += [
            f"users {status.users.active}/{status.users.wanted}",
            f"{evidence.rps:.1f} requests/s",
            f"p50 {duration_ns(evidence.p50)}  p95 {duration_ns(evidence.p95)}  p99 {duration_ns(evidence.p99)}",
            f"errors {percent(evidence.error_rate)}",
            f"{count(evidence.requests)} requests",
        ]
        if evidence.arrivals_planned:
            parts.append(f"{count(evidence.arrivals_started)} of {count(evidence.arrivals_planned)} arrivals started")
        if status.run is not None and status.run.lost_user_ms >= _LOST_MS:
            parts.append(f"{status.run.lost_user_ms / 1000:.1f} user-seconds lost")
        broken = [rule.rule for rule in status.rules if rule.holds == "False"]
        parts += [f"broken now: {', '.join(broken)}"] if broken else []
        rolled = rollout_of(status)
        parts += [rollout_line(rolled)] if rolled is not None and rolled.is_on else []
    elif status.message:
        parts.append(status.message.partition("\n")[0])
    return "  ".join(parts)


@dataclass(slots=True)
class LiveView:
    """The live view; it is gone when the run is over, and what was noted stays above it."""

    console: Console
    _rates: deque[float] = field(default_factory=lambda: deque(maxlen=_WIDTH))
    _last_ms: int = 0
    _live: Live | None = None

    def show(self, frame: Frame) -> None:
        """Bring the view up to date."""
        if frame.status.phase is Phase.RUNNING and frame.now_ms - self._last_ms >= _SAMPLE_MS:
            self._last_ms = frame.now_ms
            self._rates.append(frame.evidence.rps)
        if self._live is None:
            self._live = Live(console=self.console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(picture(frame, list(self._rates), self.console.height), refresh=True)

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print what happened above the view."""
        self.console.print(Text(f"{'!' if warning else '·'} {text}", style="yellow" if warning else "dim"))

    def close(self) -> None:
        """Take the view away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def picture(frame: Frame, rates: Sequence[float], height: int) -> RenderableType:
    """Return what there is to see of *frame* on *height* lines; *rates* are the last requests per second."""
    parts: list[RenderableType] = [_headline(frame), _progress(frame), _figures(frame, rates)]
    rolled = rollout_of(frame.status)
    if rolled is not None and rolled.is_on:
        windows = min(WINDOWS, height - _LINES - len(frame.status.rules))
        parts.append(Padding(rollout_panel(rolled, windows), (1, 0)))
    if frame.status.rules:
        parts.append(_rules(frame.status.rules))
    if frame.evidence.saturated:
        parts.append(Text(f"The generator is saturated: {frame.evidence.saturated}", style="yellow"))
    return Padding(Group(*parts), (1, 0, 0, 0))


def _headline(frame: Frame) -> RenderableType:
    status = frame.status
    text = Text.assemble((frame.name, "bold"), "  ", (status.phase.value, _COLOURS.get(status.phase, "cyan")))
    if status.runners.wanted:
        runners = f"{status.runners.ready} of {status.runners.wanted} runners ready"
        each = counted(status.sizing.processes, "process", "processes")
        # With no users there is no tier, while the runners of a version may still stand.
        text.append(
            f"  {status.tier} ({status.strategy}), {runners}, {each} each" if status.tier else f"  {runners}", "dim"
        )
    for scaled in scaling_lines(status):
        text.append(f"\nrunners: {scaled}", "dim")
    if status.message and status.phase is not Phase.RUNNING:
        text.append(f"\n{status.message.partition(chr(10))[0]}", "dim")
    return text


def _progress(frame: Frame) -> RenderableType:
    elapsed = max(0, frame.elapsed_ms or 0)
    total = milliseconds(frame.spec.duration) if frame.spec.duration else None
    grid = Table.grid(padding=(0, 2))
    if total is None:
        return Text(f"{clock(elapsed)}  until stopped (Ctrl-C)", style="dim")
    bar = ProgressBar(total=total, completed=min(elapsed, total), width=_WIDTH)
    grid.add_row(
        bar, f"{clock(elapsed)} of {clock(total)}", Text(_curve(shape(frame.spec.profile), total), style="dim")
    )
    return grid


def _curve(profile: Shape, total_ms: int) -> str:
    """Return the profile over the run's duration as a small picture."""
    return spark([profile.users_at(1000, total_ms * step // 23) for step in range(24)])


def _figures(frame: Frame, rates: Sequence[float]) -> RenderableType:
    status, seen = frame.status, frame.evidence
    grid = Table.grid(padding=(0, 3))
    wanted = f"{status.users.wanted} wanted" if frame.spec.arrivals is None else f"at most {status.users.dealt}"
    grid.add_row(Text("users", "dim"), f"{status.users.active} active of {wanted}")
    if frame.spec.arrivals is not None:
        rate = format_rate(frame.spec.arrivals.rate)
        due = f"{count(seen.arrivals_started)} of {count(seen.arrivals_planned)} started   {rate} at 100%"
        grid.add_row(Text("arrivals", "dim"), due)
    grid.add_row(Text("requests", "dim"), f"{count(seen.requests)}   {seen.rps:.1f}/s   [cyan]{spark(rates)}[/cyan]")
    latency = "   ".join(
        f"{name} {duration_ns(value)}" for name, value in (("p50", seen.p50), ("p95", seen.p95), ("p99", seen.p99))
    )
    grid.add_row(Text("response time", "dim"), latency)
    style = "red" if (seen.error_rate or 0) >= 0.01 else ""
    grid.add_row(Text("errors", "dim"), Text(f"{percent(seen.error_rate)}   {count(seen.failed)} in all", style))
    if seen.dropped:
        grid.add_row(Text("not sent", "dim"), Text(count(seen.dropped), "yellow"))
    if status.run is not None and status.run.lost_user_ms >= _LOST_MS:
        whose = f" with {counted(status.run.lost_runners, 'runner')}" if status.run.lost_runners else ""
        text = f"{status.run.lost_user_ms / 1000:.1f} user-seconds{whose}"
        grid.add_row(Text("lost so far", "dim"), Text(text, "yellow"))
    return grid


def _rules(rules: Sequence[RuleStatus]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for rule in rules:
        mark, style = _MARKS[rule.holds]
        grid.add_row(
            Text(mark, style), Text(rule.rule), Text(rule.value or "–", style), Text(f"n = {rule.samples}", "dim")
        )
    return grid
