"""
Windows of a run, gathered from all runners.

They tell what the last ten seconds were like, whether the generator was healthy, and how rules with `over` fared.
Sparse one-second differences go in; nothing dense is made but where it is judged.

A window counts for health and rules when it lies after the warm-up and users were wanted or active in it: a suspended
run, whose clock stands, adds neither good nor bad windows. A span is judged when every runner that answers has reported
beyond its end and one runner saw nearly all of it; what comes later for a judged span is counted as late.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from trafficsim_api.layout import Layout
from trafficsim_api.rules import MIN_SAMPLES, Rule
from trafficsim_api.statistics import Vector, Window, zeros
from trafficsim_api.units import milliseconds
from trafficsim_operator.plan import numbers, saturation

__all__ = ["Windows"]

RECENT_MS: Final = 10_000
# One second of slack for snapshots that do not lie on the grid, and a half for a late one.
SLACK_MS: Final = 1_500
_COUNTED: Final = ("rps", "requests", "count", "rate")


@dataclass(slots=True, kw_only=True)
class _Span:
    layout: Layout
    vector: Vector
    covered_ms: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Windows:
    """The windows of one run's runners; *warm_up_ms* and *rules* as the accepted document has them."""

    warm_up_ms: int = 0
    rules: tuple[Rule, ...] = ()
    findings: dict[int, str] = field(default_factory=dict)
    """Ten-second window → what was bad about it ("" is good)."""
    decisive: set[int] = field(default_factory=set)
    """The windows of which one is enough."""
    breaches: dict[str, int] = field(default_factory=dict)
    """Rule → how many of its spans broke it."""
    seen: int = 0
    unseen: int = 0
    late: int = 0
    newest_ms: int = 0
    """The end of the newest window that counts, ms from the origin."""
    _recent: dict[str, list[tuple[Layout, Window]]] = field(default_factory=dict)
    _health: dict[tuple[int, str], saturation.Health] = field(default_factory=dict)
    _spans: dict[tuple[str, int], _Span] = field(default_factory=dict)
    _judged: dict[str, int] = field(default_factory=dict)
    _reached: dict[str, int] = field(default_factory=dict)

    def add(self, runner: str, layout: Layout, window: Window) -> None:
        """Take one window of *runner*."""
        self.seen += 1
        # By the run's time, since somebody may set a wall clock; it goes back by a pause when that is over.
        recent = [] if window.end_ms < self._reached.get(runner, 0) else self._recent.get(runner, [])
        first_ms = window.end_ms - RECENT_MS
        self._recent[runner] = [*(entry for entry in recent if entry[1].end_ms > first_ms), (layout, window)]
        self._reached[runner] = window.end_ms
        if not window.warm or not (window.wanted or window.active):
            return
        self.newest_ms = max(self.newest_ms, window.end_ms)
        number = saturation.window_of(window.start_ms, self.warm_up_ms)
        self._health.setdefault((number, runner), saturation.Health(runner=runner)).add(window, layout)
        for rule in self.rules:
            if rule.over is not None:
                self._add_to_span(rule, milliseconds(rule.over), runner, layout, window)

    def _add_to_span(self, rule: Rule, length_ms: int, runner: str, layout: Layout, window: Window) -> None:
        number = (window.start_ms - self.warm_up_ms) // length_ms
        if number <= self._judged.get(rule.text, -1):
            self.late += 1
            return
        span = self._spans.get((rule.text, number))
        if span is None:
            span = self._spans[rule.text, number] = _Span(layout=layout, vector=zeros(layout))
        both = numbers.joined(span.layout, layout)
        if both != span.layout:
            span.vector, span.layout = numbers.aligned(span.vector, span.layout, both), both
        np.add.at(span.vector, numbers.remapped(window.indices, layout, both), window.counts)
        span.covered_ms[runner] = span.covered_ms.get(runner, 0) + window.end_ms - window.start_ms

    def forget(self, runner: str) -> None:
        """Wait for *runner* no longer: it is gone."""
        self._reached.pop(runner, None)
        self._recent.pop(runner, None)

    def judge(self, answering: Iterable[str]) -> None:
        """Judge what can grow no more, given the names of the runners that answer now."""
        names = set(answering)
        self._recent = {name: recent for name, recent in self._recent.items() if name in names}
        until = min((self._reached[name] for name in names if name in self._reached), default=0) - self.warm_up_ms
        for key in [key for key in self._health if (key[0] + 1) * saturation.WINDOW_MS <= until]:
            health = self._health.pop(key)
            if health.whole:
                self.findings[key[0]] = self.findings.get(key[0]) or health.finding()
                if health.is_decisive:
                    self.decisive.add(key[0])
        for rule in self.rules:
            length_ms = milliseconds(rule.over) if rule.over is not None else 0
            for span in sorted(s for s in self._spans if s[0] == rule.text and (s[1] + 1) * length_ms <= until):
                self._judged[rule.text] = span[1]
                if _is_broken(rule, self._spans.pop(span), length_ms):
                    self.breaches[rule.text] = self.breaches.get(rule.text, 0) + 1

    def recent(self, to: Layout) -> tuple[Vector, float]:
        """Return what the last ten seconds counted, in the order of *to*, and how many seconds they were."""
        vector = zeros(to)
        for layout, window in (entry for recent in self._recent.values() for entry in recent):
            np.add.at(vector, numbers.remapped(window.indices, layout, to), window.counts)
        spans = [recent[-1][1].end_ms - recent[0][1].end_ms for recent in self._recent.values()]
        return vector, max(spans, default=0) / 1000 + 1.0


def _is_broken(rule: Rule, span: _Span, length_ms: int) -> bool:
    if max(span.covered_ms.values()) < length_ms - min(SLACK_MS, length_ms // 2):
        return False
    if rule.metric not in _COUNTED and numbers.samples_of(rule, span.layout, span.vector) < MIN_SAMPLES:
        return False
    value = numbers.value_of(rule, span.layout, span.vector, seconds=length_ms / 1000)
    return value is not None and not rule.holds(value)
