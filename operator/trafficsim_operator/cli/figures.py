"""Figures as people read them at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["bytes_of", "clock", "count", "counted", "duration_ns", "percent", "spark"]

_BARS: Final = "▁▂▃▄▅▆▇█"


def clock(ms: int) -> str:
    """Return a span as on a clock: 65 000 ms → `01:05`; `1:00:05` from an hour on."""
    hours, rest = divmod(ms // 1000, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"


def count(number: int) -> str:
    """Return a whole number in groups of three: 1234567 → `1 234 567`."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, one: str, many: str = "") -> str:
    """Return how many of what: `1 process`, `1 234 users`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def duration_ns(ns: int | None) -> str:
    """Return a latency in three digits with its unit; `–` for none."""
    if ns is None:
        return "–"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size * 0.9995:
            value = ns / size
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.3g} {unit}"
    return f"{ns} ns"


def percent(share: float | None) -> str:
    """Return a share in percent; `–` for none, `< 0.01 %` for what rounding would hide."""
    if share is None:
        return "–"
    return "< 0.01 %" if 0 < share < 0.0001 else f"{100 * share:.2f} %"


def bytes_of(size: int) -> str:
    """Return a size in the largest binary unit that keeps it above 1."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def spark(values: Sequence[float]) -> str:
    """Return *values* as bars from nothing to their largest."""
    most = max(values, default=0)
    if most <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * (len(_BARS) - 0.01)))] for value in values)
