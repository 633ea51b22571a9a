"""The histogram: fixed buckets with a stated error, merged by addition."""

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.histogram import BUCKETS, LIMIT_NS, bucket_of, lower_edge, upper_edge
from trafficsim_api.statistics import quantiles

QS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
durations = st.integers(0, LIMIT_NS) | st.integers(0, 2000) | st.integers(10**5, 10**9)


def counts_of(values):
    counts = np.zeros(BUCKETS, dtype="<u8")
    for value in values:
        counts[bucket_of(value)] += 1
    return counts


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [
        (-5, 0),
        (0, 0),
        (255, 255),
        (256, 256),
        (257, 256),
        (512, 384),
        (1_000_000, 1780),
        (LIMIT_NS, 4095),
        (10**15, 4095),
    ],
)
def test_bucket_by_example(ns, bucket):
    assert bucket == bucket_of(ns)


@given(ns=durations)
def test_a_value_lies_in_its_bucket(ns):
    assert lower_edge(bucket_of(ns)) <= ns <= upper_edge(bucket_of(ns))


def test_buckets_are_seamless_and_narrow():
    """Each bucket begins where the last one ends, and is at most 1/128 of its lower edge wide."""
    for bucket in range(BUCKETS):
        low, high = lower_edge(bucket), upper_edge(bucket)
        assert (bucket, bucket) == (bucket_of(low), bucket_of(high))
        assert bucket + 1 == BUCKETS or lower_edge(bucket + 1) == high + 1
        assert (high - low) * 128 <= low
    assert upper_edge(BUCKETS - 1) == LIMIT_NS


@given(values=st.lists(durations, min_size=1, max_size=300))
def test_quantiles_never_flatter(values):
    """true <= given <= true · (1 + 1/128), for the rank-th smallest value."""
    ordered = sorted(values)
    for q, given_ns in zip(QS, quantiles(counts_of(values), QS), strict=True):
        true = ordered[max(1, int(np.ceil(q * len(values) - 1e-9))) - 1]
        assert true <= given_ns <= true + true / 128


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(200, 3000))
def test_against_hdrhistogram(seed, n):
    """Log-normal latencies: the same quantiles as HdrHistogram with three digits, within both error bounds."""
    values = np.random.default_rng(seed).lognormal(16, 1.0, n).astype(np.int64) + 1  # about 9 ms
    oracle = HdrHistogram(1, LIMIT_NS, 3)
    for value in values:
        oracle.record_value(int(value))
    for q, ours in zip(QS[1:-1], quantiles(counts_of(values.tolist()), QS[1:-1]), strict=True):
        theirs = oracle.get_value_at_percentile(q * 100)
        rank_slack = sorted(values)[min(n - 1, int(np.ceil(q * n)))]  # ranks may differ by one at a tie of q·n
        assert theirs * (1 - 1 / 512) <= ours <= max(theirs, rank_slack) * (1 + 1 / 128 + 1 / 512)


@given(parts=st.lists(st.lists(durations, max_size=60), min_size=1, max_size=5))
def test_merging_is_addition(parts):
    """The sum of the parts' histograms is the histogram of all values."""
    assert (sum(counts_of(part) for part in parts) == counts_of([v for part in parts for v in part])).all()


@pytest.mark.parametrize(
    ("n", "q", "rank"), [(100, 0.99, 99), (100, 0.95, 95), (1000, 0.999, 999), (3, 0.5, 2), (1, 0.0, 1)]
)
def test_ranks(n, q, rank):
    """rank(q) = max(1, ceil(q · n)): 0.99 of 100 is rank 99, whatever the floats say."""
    assert [rank - 1] == quantiles(counts_of(range(n)), [q]) or n > 256


def test_an_empty_histogram_has_no_quantiles():
    assert [None, None] == quantiles(counts_of([]), [0.5, 0.99])
