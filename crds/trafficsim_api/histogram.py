"""
Log-linear histogram arithmetic: fixed buckets, merged by addition.

    v < 256 ns:  bucket = v
    else:        e = bit_length(v) - 8;  bucket = 128·e + (v >> e)

7 sub-bits: every bucket is at most 1/128 of its lower edge wide (0.78 %). 4096 buckets reach 2^38 ns = 275 s; what is
larger lands in the last bucket. A quantile is given as the *upper edge* of the bucket that holds it, so it never
flatters: true <= given <= true · 1.0079.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BUCKETS", "LIMIT_NS", "bucket_of", "lower_edge", "upper_edge"]

BUCKETS: Final = 4096
LIMIT_NS: Final = (1 << 38) - 1


def bucket_of(ns: int) -> int:
    """
    Return the bucket of a duration of *ns* nanoseconds.

    255 → 255, 256 → 256, 257 → 256, 512 → 384, 1_000_000 (1 ms) → 1780; below 0 counts as 0.
    """
    if ns < 256:
        return ns if ns > 0 else 0
    if ns > LIMIT_NS:
        return BUCKETS - 1
    e = ns.bit_length() - 8
    return (e << 7) + (ns >> e)


def lower_edge(bucket: int) -> int:
    """Return the smallest duration (ns) that falls into *bucket*."""
    if bucket < 256:
        return bucket
    e = (bucket >> 7) - 1
    return (bucket - (e << 7)) << e


def upper_edge(bucket: int) -> int:
    """Return the largest duration (ns) that falls into *bucket*."""
    return lower_edge(bucket + 1) - 1
