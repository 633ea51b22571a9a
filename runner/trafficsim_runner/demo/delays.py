"""How long the shop takes: a log-normal delay per endpoint, drawn from one seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_Z95: Final = 1.6448536269514722  # the 95th percentile of the standard normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A log-normal delay given by its median and 95th percentile, in seconds, cut to [*floor_s*, *ceiling_s*]."""

    median_s: float
    p95_s: float
    floor_s: float = 0.0
    ceiling_s: float = 5.0

    @property
    def mu(self) -> float:
        """Return the mean of the delay's logarithm: ln(median)."""
        return math.log(self.median_s)

    @property
    def sigma(self) -> float:
        """Return the deviation of the delay's logarithm: ln(p95 / median) / 1.645."""
        return math.log(self.p95_s / self.median_s) / _Z95


DELAYS: Final[Mapping[tuple[str, str], Delay]] = {
    ("POST", "/auth/login"): Delay(median_s=0.012, p95_s=0.035),
    ("GET", "/users"): Delay(median_s=0.008, p95_s=0.025),
    ("GET", "/users/{id}"): Delay(median_s=0.004, p95_s=0.015),
    ("PUT", "/users/{id}"): Delay(median_s=0.006, p95_s=0.020),
    ("POST", "/users/bulk"): Delay(median_s=0.030, p95_s=0.090),
    ("GET", "/reports/{name}"): Delay(median_s=0.065, p95_s=0.110, floor_s=0.040, ceiling_s=0.120),
    ("POST", "/orders"): Delay(median_s=0.010, p95_s=0.030),
    ("DELETE", "/orders/{id}"): Delay(median_s=0.005, p95_s=0.015),
}


class Delays:
    """
    Draw delays; endpoints without an entry answer at once.

    The same seed and the same order of requests give the same delays.
    """

    __slots__ = ("_parameters", "_random")

    def __init__(self, seed: int, delays: Mapping[tuple[str, str], Delay] = DELAYS) -> None:
        self._random = random.Random(seed)
        self._parameters = {key: (d.mu, d.sigma, d.floor_s, d.ceiling_s) for key, d in delays.items()}

    def draw(self, method: str, endpoint: str) -> float:
        """Return the next delay of an endpoint, in seconds."""
        parameters = self._parameters.get((method, endpoint))
        if parameters is None:
            return 0.0
        mu, sigma, floor, ceiling = parameters
        return min(ceiling, max(floor, self._random.lognormvariate(mu, sigma)))
