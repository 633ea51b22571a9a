"""
Tiers: from a number of users to a strategy.

| tier | users | strategy | least runners | start barrier |
|---|---|---|---|---|
| micro | 1–50 | single_process | 1 | no |
| small | 51–500 | process_pool | 1 | no |
| medium | 501–2000 | worker_distribution | 2 | no |
| large | 2001–5000 | cluster_coordination | 3 | yes |
| xlarge | 5001 and more | distributed_mesh | 4 | yes |

0 users: no tier, no runner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TIERS", "Tier", "tier_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """
    One tier: the most users it takes (None: any number), its strategy and its least number of runners.

    *barrier*: all its runners begin at one instant that they are told beforehand (see barrier.py).
    """

    name: str
    most: int | None
    strategy: str
    least_runners: int
    barrier: bool = False


TIERS: Final = (
    Tier(name="micro", most=50, strategy="single_process", least_runners=1),
    Tier(name="small", most=500, strategy="process_pool", least_runners=1),
    Tier(name="medium", most=2000, strategy="worker_distribution", least_runners=2),
    Tier(name="large", most=5000, strategy="cluster_coordination", least_runners=3, barrier=True),
    Tier(name="xlarge", most=None, strategy="distributed_mesh", least_runners=4, barrier=True),
)


def tier_of(users: int) -> Tier | None:
    """Return the tier of *users*; None for 0 users."""
    if users <= 0:
        return None
    return next(tier for tier in TIERS if tier.most is None or users <= tier.most)
