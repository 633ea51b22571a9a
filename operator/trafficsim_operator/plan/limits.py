"""
A version's numbers over some windows, and which limits of the rollout they break.

Each limit is one on a share, so that one bound serves all:

| limit | share | breaks when above |
|---|---|---|
| error_rate | failed ÷ finished requests | maxErrorRate |
| success | checks failed ÷ checks | 100 % - minSuccessRate |
| p95 | answers slower than maxP95 ÷ answers | 5 % (then, and only then, p95 > maxP95) |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from trafficsim_api.histogram import BUCKETS, bucket_of
from trafficsim_api.statistics import Vector, quantiles
from trafficsim_api.status import ColourFigures, RolloutPlan
from trafficsim_operator.observed import ColourWindow
from trafficsim_operator.plan.wilson import lower_bound

__all__ = ["Share", "Sums", "shares", "sums"]

# Shares are compared in hundredths of a percent, with integers.
_WHOLE: Final = 10_000
_SLOW: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What one version counted in some windows together."""

    requests: int = 0
    failed: int = 0
    checks: int = 0
    checks_failed: int = 0
    histogram: Vector = field(compare=False, repr=False)

    @property
    def answered(self) -> int:
        """Return how many requests were answered: those that have a response time."""
        return int(self.histogram.sum())

    def figures(self) -> ColourFigures:
        """Return the numbers as people read them; empty where there was nothing to count."""
        return ColourFigures(requests=self.requests, error_rate=self.error_rate, success=self.success, p95=self.p95)

    @property
    def error_rate(self) -> str:
        """Return the share of requests that failed."""
        return _percent(self.failed, self.requests)

    @property
    def success(self) -> str:
        """Return the share of checks that passed."""
        return _percent(self.checks - self.checks_failed, self.checks)

    @property
    def p95(self) -> str:
        """Return the 95th percentile of the response time."""
        found = quantiles(self.histogram, (0.95,))[0]
        return "" if found is None else f"{found / 1e6:.3g}ms" if found < 1e9 else f"{found / 1e9:.3g}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a limit is on: *bad* of *n*, at most *limit* hundredths of a percent; *name* is that of a `Sums`' value."""

    name: str
    bad: int
    n: int
    limit: int

    @property
    def is_over(self) -> bool:
        """Say whether the limit is broken."""
        return self.bad * _WHOLE > self.limit * self.n

    @property
    def is_surely_over(self) -> bool:
        """Say whether it is broken whatever chance may have done (95 %)."""
        return lower_bound(self.bad, self.n) * _WHOLE > self.limit


def sums(windows: Iterable[ColourWindow]) -> Sums:
    """Return *windows* added up: histograms are merged, percentiles are never averaged."""
    gathered = tuple(windows)
    histogram = np.zeros(BUCKETS, dtype=np.uint64)
    for window in gathered:
        histogram[window.buckets] += window.counts  # each bucket stands in a window once
    checks = sum(window.checks for window in gathered)
    return Sums(
        requests=sum(window.requests for window in gathered),
        failed=sum(window.failed for window in gathered),
        checks=checks,
        # A check is counted with the answer's head, and missed with its body, which may come in the next window.
        checks_failed=min(checks, sum(window.checks_failed for window in gathered)),
        histogram=histogram,
    )


def shares(plan: RolloutPlan, of: Sums) -> Iterator[Share]:
    """Yield what each of the rollout's limits is on."""
    yield Share(name="error_rate", bad=of.failed, n=of.requests, limit=plan.max_error_rate)
    yield Share(name="success", bad=of.checks_failed, n=of.checks, limit=_WHOLE - plan.min_success_rate)
    # A quantile is told as the upper edge of its bucket: those whose upper edge lies above the limit are too slow.
    slow = int(of.histogram[bucket_of(plan.max_p95_ms * 1_000_000 + 1) :].sum())
    yield Share(name="p95", bad=slow, n=of.answered, limit=_SLOW)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else ""
