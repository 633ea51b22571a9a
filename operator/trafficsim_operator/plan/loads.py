"""
What each runner carries, and what that takes of it: its newest fifteen seconds, from its one-second windows.

    users       = ∫ active users dt ÷ covered
    utilisation = max(pod CPU ÷ quota, the most CPU of one worker ÷ one core), in permille
    crowded     : the busiest worker ran or waited for a CPU for more than 90 % of the time, waited for more than 10 %
    strained    : crowded, lag p99 above 50 ms, or more than 5 % of the quota's periods throttled

100 users at 140 of 200 millicores and a busiest worker at 140 permille of a core: 700. With a lag of 60 ms at p99 it
can't carry what it carries, whatever CPU that takes.

Waiting is no use: what neighbours take makes no user dearer, and more runners beside them would only wait as well. A
worker that waits and still has nothing to do at times does all that is asked of it; only one without a pause, by the
limits of saturation, leaves something undone. Who waits need not be who uses the most: with one at 88 % CPU and another
at 60 % that waits for 35 %, the runner is used to 88 % and crowded. A runner built before it told the two apart counts
as used for as long as it was busy.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from trafficsim_api.histogram import BUCKETS
from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Window, quantiles
from trafficsim_operator.plan.saturation import CPU_PERMILLE, LAG_NS, THROTTLED, WAITED

__all__ = ["RECENT_MS", "Figures", "Loads"]

RECENT_MS: Final = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    One runner's load over *covered_ms*: *users* on the average, *utilisation* in permille, *strained* or not.

    *crowded*: others had the CPU that it was ready for all the time, so it would have used more.
    """

    users: float
    utilisation: int
    strained: bool
    crowded: bool
    covered_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Second:
    wall_ms: int
    length_ms: int
    pod: int
    busiest: int
    core: int
    waited: int
    active_user_ms: int
    periods: int
    throttled: int
    buckets: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint64]


@dataclass(slots=True, kw_only=True)
class Loads:
    """The newest seconds of every runner, by name."""

    _seconds: dict[str, deque[_Second]] = field(default_factory=dict)
    _read_ms: dict[str, int] = field(default_factory=dict)
    _known: dict[str, Figures] = field(default_factory=dict)

    def add(self, runner: str, layout: Layout, window: Window, read_ms: int) -> None:
        """Take one window of *runner*, read at *read_ms* (our clock)."""
        seconds = self._seconds.setdefault(runner, deque())
        if seconds and window.wall_ms < seconds[-1].wall_ms:
            seconds.clear()  # somebody set its clock
        seconds.append(_second(window, layout))
        while seconds[0].wall_ms <= window.wall_ms - RECENT_MS:
            seconds.popleft()
        self._read_ms[runner] = read_ms
        self._known.pop(runner, None)

    def forget(self, runner: str) -> None:
        """Drop what *runner* told: it is gone."""
        for known in (self._seconds, self._read_ms, self._known):
            known.pop(runner, None)

    def of(self, runner: str, now_ms: int) -> Figures | None:
        """Return the load of *runner*; None when it told nothing within the last fifteen seconds."""
        if now_ms - self._read_ms.get(runner, 0) > RECENT_MS:
            return None
        if runner not in self._known:
            self._known[runner] = _figures(self._seconds[runner])
        return self._known[runner]


def _second(window: Window, layout: Layout) -> _Second:
    indices, counts = window.indices, window.counts
    first = layout.lag()
    is_worker, is_lag = indices < first, (indices >= first) & (indices < first + BUCKETS)
    known = dict(zip(indices[is_worker].tolist(), counts[is_worker].tolist(), strict=True))
    is_told = window.core_permille or window.waited_percent
    core = window.core_permille if is_told else window.busiest_permille
    return _Second(
        wall_ms=window.wall_ms,
        length_ms=window.end_ms - window.start_ms,
        pod=window.pod_permille,
        busiest=window.busiest_permille,
        core=core,
        # A runner that tells no wait of the busiest told the most CPU of any: it waited at least for the rest.
        waited=max(10 * window.waited_percent, window.busiest_permille - core),
        active_user_ms=known.get(layout.worker("active_user_ms"), 0),
        periods=known.get(layout.worker("cfs_periods"), 0),
        throttled=known.get(layout.worker("cfs_throttled"), 0),
        buckets=indices[is_lag] - first,
        counts=counts[is_lag],
    )


def _figures(seconds: deque[_Second]) -> Figures:
    covered_ms = max(1, sum(second.length_ms for second in seconds))
    pod, busiest, core, waited = (
        sum(getattr(second, name) * second.length_ms for second in seconds) // covered_ms
        for name in ("pod", "busiest", "core", "waited")
    )
    lag = np.zeros(BUCKETS, dtype="<u8")
    for second in seconds:
        np.add.at(lag, second.buckets, second.counts)
    late = quantiles(lag, (0.99,))[0]
    periods, throttled = (sum(getattr(second, name) for second in seconds) for name in ("periods", "throttled"))
    crowded = busiest > CPU_PERMILLE and waited > 1000 * WAITED
    return Figures(
        users=sum(second.active_user_ms for second in seconds) / covered_ms,
        utilisation=max(pod, core),
        strained=crowded or (late is not None and late > LAG_NS) or throttled > THROTTLED * periods,
        crowded=crowded,
        covered_ms=covered_ms,
    )
