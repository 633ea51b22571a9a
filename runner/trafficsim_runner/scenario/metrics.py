"""
What a scenario counts and measures of its own, declared as attributes of its class.

Both are kept per worker in its slab, behind the actions, and merged by addition over all workers and runners. One that
is bound to no slab (in a test of the scenario) counts all the same; `value` tells.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING, Final

from trafficsim_api.histogram import BUCKETS, LIMIT_NS, bucket_of
from trafficsim_api.layout import METRIC_COUNTERS, Metric, MetricKind

if TYPE_CHECKING:
    from trafficsim_runner.stats.account import Account

__all__ = ["Counter", "Trend"]

_UNIT: Final = re.compile(r"[A-Za-z%/]{0,16}")
_TIMES: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_MOST: Final = 1 << 53


class _Declared:
    """One metric: *name* is the attribute's, *kind* and *unit* tell it apart from others of the name."""

    kind: MetricKind

    def __init__(self, unit: str) -> None:
        if not _UNIT.fullmatch(unit):
            raise ValueError(f"unit {unit!r}: at most 16 letters are possible")
        self.unit = unit
        self.name = ""
        self._account: Account | None = None
        self._at = 0
        self._own = array("Q", bytes(8 * (len(METRIC_COUNTERS) + BUCKETS)))

    def __set_name__(self, owner: type, name: str) -> None:
        if not self.name:
            self.name = name

    @property
    def key(self) -> Metric:
        """Return name, kind and unit, as they stand in the layout."""
        return self.name, self.kind, self.unit

    def bind(self, account: Account, at: int) -> None:
        """Count in the slab of *account* from now on, from index *at*."""
        self._account, self._at = account, at

    @property
    def value(self) -> int:
        """Return the count so far of this worker."""
        return int(self._own[0] if self._account is None else self._account.live[self._at])


class Counter(_Declared):
    """A number that only grows. Rules: `count(exported) > 100`, `rate(exported) > 5/s`."""

    kind = MetricKind.COUNTER

    def __init__(self, *, unit: str = "") -> None:
        super().__init__(unit)

    def add(self, by: int = 1) -> None:
        """Add a whole number from 0 on."""
        if not 0 <= by <= _MOST:
            raise ValueError(f"{self.name}: a counter grows by whole numbers, not by {by}")
        try:
            if self._account is None:
                self._own[0] += by
            else:
                self._account.live[self._at] += by
        except TypeError:
            raise ValueError(f"{self.name}: a counter grows by whole numbers, not by {by}") from None


class Trend(_Declared):
    """
    Values with their distribution. Rules: `p95(rows) < 500`, also p50 … p99.9, min, avg, max, count and rate.

    With the *unit* ns, us, ms or s the values are times, given in that unit, and rules say ms or s. Else they are whole
    numbers (others are rounded), exact to 255 and from there on at most 0.79 % too large, to 275·10⁹.
    """

    kind = MetricKind.TREND

    def __init__(self, *, unit: str = "") -> None:
        super().__init__(unit)
        self._scale = _TIMES.get(unit, 1)

    @property
    def key(self) -> Metric:
        """Return name, kind and unit, as they stand in the layout: all times are one unit there."""
        return self.name, self.kind, "ns" if self.unit in _TIMES else self.unit

    def record(self, value: float) -> None:
        """Take one value from 0 on."""
        if not value >= 0:
            raise ValueError(f"{self.name}: a value from 0 on is needed, not {value}")
        whole = round(min(value * self._scale, LIMIT_NS))
        if self._account is None:
            cells, at = memoryview(self._own), 0
        else:
            cells, at = self._account.live, self._at
        cells[at] += 1
        cells[at + 1] += whole
        cells[at + len(METRIC_COUNTERS) + bucket_of(whole)] += 1
