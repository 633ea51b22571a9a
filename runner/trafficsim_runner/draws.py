"""
Draws from counters instead of generators: the n-th draw of a user is a function of (seed, user, n) and nothing else.

    key  = mix(mix(seed + γ) + user·γ)          γ = 0x9E3779B97F4A7C15, mix = the finaliser of splitmix64
    draw = mix(key + (n + 1)·γ)                 64 bits

So a user draws the same on any runner and in any order, and costs 8 bytes instead of a generator's 2.9 KB.
The generator is Vigna's splitmix64 (https://prng.di.unimi.it/splitmix64.c).
"""

from __future__ import annotations

from math import exp, log
from statistics import NormalDist
from typing import Final

__all__ = ["draw", "key_of", "log_normal", "number_of", "sigma_of", "unit", "whole"]

_MASK: Final = (1 << 64) - 1
_GAMMA: Final = 0x9E3779B97F4A7C15
_SIZE: Final = 1 << 64
_BACK: Final = tuple(pow(factor, -1, _SIZE) for factor in (0x94D049BB133111EB, 0xBF58476D1CE4E5B9, _GAMMA))
_P95: Final = 1.6448536269514722  # the 95th percentile of the standard normal distribution
_inverse_normal = NormalDist().inv_cdf


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def key_of(seed: int, user: int) -> int:
    """Return the key all draws of *user* come from."""
    return _mix((_mix((seed + _GAMMA) & _MASK) + user * _GAMMA) & _MASK)


def number_of(seed: int, key: int) -> int:
    """
    Return the user, or arrival, that *key* was made of: the inverse of `key_of`.

    So a record needs no room for the number of its arrival.
    """
    x = key ^ (key >> 31) ^ (key >> 62)
    x = (x * _BACK[0]) & _MASK
    x = x ^ (x >> 27) ^ (x >> 54)
    x = (x * _BACK[1]) & _MASK
    x = x ^ (x >> 30) ^ (x >> 60)
    return ((x - _mix((seed + _GAMMA) & _MASK)) * _BACK[2]) & _MASK


def draw(key: int, n: int) -> int:
    """Return draw number *n* as a whole number in [0, 2^64)."""
    return _mix((key + (n + 1) * _GAMMA) & _MASK)


def unit(key: int, n: int) -> float:
    """Return draw number *n* as a number in (0, 1), both ends excluded."""
    return ((draw(key, n) >> 11) + 0.5) * 2.0**-53


def whole(key: int, n: int, low: int, high: int) -> int:
    """Return draw number *n* as a whole number in [*low*, *high*], both included."""
    return low + ((draw(key, n) * (high - low + 1)) >> 64)


def sigma_of(median: float, p95: float) -> float:
    """Return the σ of the log-normal distribution with this median and 95th percentile: ln(p95 ÷ median) ÷ 1.6449."""
    return log(p95 / median) / _P95


def log_normal(key: int, n: int, median: float, sigma: float) -> float:
    """Return draw number *n* from the log-normal distribution: median · exp(σ·z), z standard normal."""
    return median * exp(sigma * _inverse_normal(unit(key, n)))
