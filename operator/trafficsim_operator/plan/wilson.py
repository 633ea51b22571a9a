"""The Wilson bound: how large a share is at least, by what was seen of it."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["lower_bound"]

# Two-sided 95 %: the share is below the bound in one case of forty.
_Z: Final = 1.96


def lower_bound(bad: int, n: int) -> float:
    """
    Return the lower 95 % Wilson bound of a share of which *bad* of *n* were seen.

        (p + z²/2n - z · √(p(1-p)/n + z²/4n²)) ÷ (1 + z²/n),  p = bad ÷ n, z = 1.96

    6 of 50 are 5.6 % at least, 5 of 50 are 4.3 %, 20 of 100 are 13.3 %. Nothing seen says nothing: 0.
    """
    if n <= 0:
        return 0.0
    p, z2 = bad / n, _Z * _Z
    spread = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (p + z2 / (2 * n) - spread) / (1 + z2 / n))
