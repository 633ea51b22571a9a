"""
Saturation: was the generator itself the bottleneck. Judged in disjoint 10 s windows after the warm-up, per runner.

| figure | bad above |
|---|---|
| lag p99 (a user was due → its request was sent) | 50 ms |
| CPU: pod ÷ quota, or the busiest worker: (CPU + ready and waiting for a CPU) ÷ time | 90 % |
| throttled periods of the CPU quota | 5 % |
| memory of the runner ÷ its limit | 90 % |
| generator drops ÷ (sent + dropped), with requests that found no port or descriptor | 0.1 % |
| open model: arrivals that were due and not started | 1 % |

A window is bad when any runner's is, and says everything that was. Two bad windows and more than 5 % of all are
saturation. Of three findings one is enough, since what they cost is in no number: a window whose arrivals were not
started (the slowest ones would have been among them), a process that was killed for want of memory, and a start that a
busy runner delayed or dropped (the target had less to do than was asked for).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from trafficsim_api.histogram import BUCKETS
from trafficsim_api.layout import ACTION_INDEX, FIRST_ACTION, STRIDE, Drop, Error, Layout
from trafficsim_api.statistics import Vector, Window, quantiles

__all__ = ["CPU_PERMILLE", "LAG_NS", "THROTTLED", "WAITED", "WINDOW_MS", "Health", "saturated", "window_of"]

WINDOW_MS: Final = 10_000
LAG_NS: Final = 50_000_000
CPU_PERMILLE: Final = 900
_MEMORY_PERMILLE: Final = 900
THROTTLED: Final = 0.05
WAITED: Final = 0.1
_DROPS: Final = 0.001
_STARTED: Final = 0.99
# A request that the generator could not even connect was not the target's failure: it counts as dropped.
_GENERATOR_ERRORS: Final = {Error.NO_PORT: "no local port was free", Error.NO_FD: "no descriptor was free"}
_GENERATOR_DROPS: Final = {
    Drop.NO_SLOT: "no slot was free",
    Drop.GENERATOR_SATURATED: "the generator was saturated",
    Drop.POOL_WAIT: "no pooled connection was free",
}
# A window counts when nearly all of its seconds were seen: one second of slack for snapshots off the grid.
_WHOLE_MS: Final = WINDOW_MS - 1_500


def window_of(start_ms: int, warm_up_ms: int) -> int:
    """Return the number of the 10 s window that an instant after the warm-up lies in."""
    return (start_ms - warm_up_ms) // WINDOW_MS


def _summed(window: Window, layout: Layout, counter: str) -> int:
    """Return an action counter summed over the actions of a sparse window."""
    inside = (window.indices >= FIRST_ACTION) & (window.indices < layout.first_metric)
    inside &= (window.indices - FIRST_ACTION) % STRIDE == ACTION_INDEX[counter]
    return int(window.counts[inside].sum())


@dataclass(slots=True, kw_only=True)
class Health:
    """One runner's figures over one window, gathered from its one-second windows."""

    runner: str
    covered_ms: int = 0
    busiest: int = 0
    pod: int = 0
    waited_ns: int = 0
    periods: int = 0
    throttled: int = 0
    memory: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Starts that were dropped, by why."""
    pool_waits: int = 0
    sent: int = 0
    planned: int = 0
    started: int = 0
    lag: Vector = field(default_factory=lambda: np.zeros(BUCKETS, dtype="<u8"))

    def add(self, window: Window, layout: Layout) -> None:
        """Add a one-second (or folded) window."""
        length = window.end_ms - window.start_ms
        self.covered_ms += length
        self.busiest += window.busiest_permille * length
        self.pod += window.pod_permille * length
        indices, counts = window.indices, window.counts
        first, last = layout.lag(), layout.lag() + BUCKETS
        inside = (indices >= first) & (indices < last)
        np.add.at(self.lag, indices[inside] - first, counts[inside])
        known = dict(zip(indices[indices < first].tolist(), counts[indices < first].tolist(), strict=True))
        self.periods += known.get(layout.worker("cfs_periods"), 0)
        self.throttled += known.get(layout.worker("cfs_throttled"), 0)
        self.waited_ns += known.get(layout.worker("waited_ns"), 0)
        self.memory += known.get(layout.worker("memory_permille_ms"), 0)
        self.pool_waits += known.get(layout.worker("pool_waits"), 0)
        self.sent += _summed(window, layout, "sent")
        self.planned += known.get(layout.worker("arrivals_planned"), 0)
        self.started += known.get(layout.worker("arrivals_started"), 0)
        for reason, why in _GENERATOR_DROPS.items():
            self.dropped[why] = self.dropped.get(why, 0) + known.get(layout.worker(f"drop_{reason}"), 0)
        for kind, why in _GENERATOR_ERRORS.items():
            self.dropped[why] = self.dropped.get(why, 0) + _summed(window, layout, f"error_{kind}")

    @property
    def whole(self) -> bool:
        """Say whether enough of the window was seen to judge it."""
        return self.covered_ms >= _WHOLE_MS

    @property
    def is_decisive(self) -> bool:
        """Say whether the window is bad enough by itself: arrivals were due in it and not started."""
        return self.started < _STARTED * self.planned

    def finding(self) -> str:
        """Return what is bad about the window, "" when nothing is."""
        found = [*self._used_up(), *self._not_done()]
        return f"{self.runner}: {'; '.join(found)}" if found else ""

    def _used_up(self) -> Iterator[str]:
        """Yield what there was too little of, and what shows it."""
        for name, value, most in (
            ("the busiest worker", self.busiest, CPU_PERMILLE),
            ("CPU", self.pod, CPU_PERMILLE),
            ("memory", self.memory, _MEMORY_PERMILLE),
        ):
            if value > most * self.covered_ms:
                yield f"{name} at {value / self.covered_ms / 10:.0f} % ({most // 10} %)"
        # Subtle: CPU that neighbours took is no fault of the settings, so the finding says which of the two it is.
        if self.busiest > CPU_PERMILLE * self.covered_ms and self.waited_ns > WAITED * self.covered_ms * 1_000_000:
            yield f"workers waited {self.waited_ns / 1e9:.1f} s for a CPU that others had"
        if self.periods and self.throttled > THROTTLED * self.periods:
            yield f"throttled in {100 * self.throttled / self.periods:.0f} % of periods (5 %)"
        lag = quantiles(self.lag, (0.99,))[0]
        if lag is not None and lag > LAG_NS:
            waits = f", {self.pool_waits} requests waited for pooled connections" if self.pool_waits else ""
            yield f"lag p99 {lag / 1e6:.0f} ms (50 ms){waits}"

    def _not_done(self) -> Iterator[str]:
        """Yield what was due and not done."""
        if self.is_decisive:
            yield f"{self.started} of {self.planned} arrivals started (99 %)"
        dropped = sum(self.dropped.values())
        if dropped > _DROPS * (self.sent + dropped):
            most = max(self.dropped, key=self.dropped.__getitem__)
            yield f"{dropped} starts dropped of {self.sent + dropped} (0.1 %), most of them because {most}"


def saturated(
    findings: Mapping[int, str], *, decisive: Collection[int] = (), kills: int = 0, held_back: int = 0
) -> str | None:
    """
    Return the sentence that says saturation, None without it; *findings* of whole windows, "" is good.

    *decisive* are the windows of which one is enough, *kills* the processes killed for want of memory, *held_back* the
    starts that a busy runner delayed or dropped.
    """
    if kills:
        what = "1 process was" if kills == 1 else f"{kills} processes were"
        return f"{what} killed for want of memory (runner.resources.limits.memory)"
    what = "1 start was" if held_back == 1 else f"{held_back} starts were"
    delayed = f"{what} delayed or dropped by runners above 80 % of their CPU (generator_saturated)" if held_back else ""
    bad = [(number, text) for number, text in sorted(findings.items()) if text]
    if not decisive and (len(bad) < 2 or len(bad) * 20 <= len(findings)):
        return delayed or None
    number, text = next((entry for entry in reversed(bad) if entry[0] in decisive), bad[-1])
    at = number * WINDOW_MS // 1000
    found = f"{len(bad)} of {len(findings)} windows were bad, the last at {at} s after the warm-up: {text}"
    return f"{found}; {delayed}" if delayed else found
