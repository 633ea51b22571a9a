"""The account: what is counted beside the slab arrives in it, exactly once."""

from __future__ import annotations

import pytest
from hdrh.histogram import HdrHistogram

from trafficsim_api.histogram import LIMIT_NS
from trafficsim_api.layout import ACTION_COUNTERS, Error, Layout
from trafficsim_api.statistics import action_counter, histogram, quantiles
from trafficsim_runner.draws import key_of, log_normal
from trafficsim_runner.stats.account import Account, HeadRecord
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.stats.slab_reader import Slab

LAYOUT = Layout(actions=(("a", "user"), ("b", "user")))


@pytest.fixture
def account(tmp_path):
    return Account(SlabWriter(tmp_path / "slab", LAYOUT, started_ns=0))


def counters(account, action):
    final = Slab.open(account.slab.path).final()
    found = {name: action_counter(LAYOUT, final.vector, action, name) for name in ACTION_COUNTERS}
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize(("status", "extra"), [(200, {}), (404, {"checks_failed": 3}), (503, {"checks_failed": 3})])
def test_a_memoised_head_and_the_slow_way_count_the_same(account, status, extra):
    """Three answers by a head's record and three one by one leave the same figures."""
    record = HeadRecord(head=b"h", total=50, status=status, headers=())
    record.tally, record.checks, record.missed = account.tallies[0], 2, 1 if status >= 400 else 0
    record.count = 3
    account.heads.append(record)
    account.tallies[0].took_ns = 3000
    account.fold()
    account.fold()
    for _ in range(3):
        account.answered(
            account.tallies[1], status=status, took_ns=1000, size=50, checks=2, missed=record.missed, interim=0
        )
    expected = {
        "done": 3,
        f"class_{status // 100}xx": 3,
        "bytes_in": 150,
        "checks": 6,
        "service_ns": 3000,
        "response_ns": 3000,
    } | extra
    if status >= 500:
        expected |= {"failed": 3, "error_target_status_5xx": 3}
    assert expected == counters(account, 0) == counters(account, 1)


@pytest.mark.parametrize("kind", Error)
def test_a_failure_is_of_one_kind(account, kind):
    """It is done and failed; its checks are missed, unless the generator is at fault."""
    account.failed(account.tallies[0], kind, checks=2, size=7)
    checks = {} if kind.startswith("generator_") else {"checks": 2, "checks_failed": 2}
    assert {"done": 1, "failed": 1, f"error_{kind}": 1, "bytes_in": 7} | checks == counters(account, 0)


def test_quantiles_agree_with_the_oracle(account):
    """Against the raw values of one run and HdrHistogram: never below, at most 0.79 % above."""
    values = [int(log_normal(key_of(1, n), 0, 5e6, 1.2)) for n in range(5000)]
    oracle = HdrHistogram(1, LIMIT_NS, 3)
    for value in values:
        account.answered(account.tallies[0], status=200, took_ns=value, size=1, checks=0, missed=0, interim=0)
        oracle.record_value(value)
    final = Slab.open(account.slab.path).final()
    found = quantiles(histogram(LAYOUT, final.vector, "response", 0), [0.5, 0.9, 0.99, 1.0])
    ordered = sorted(values)
    for percent, got in zip([50, 90, 99, 100], found, strict=True):
        assert ordered[percent * 50 - 1] <= got <= ordered[percent * 50 - 1] * 1.0079
        assert oracle.get_value_at_percentile(percent) == pytest.approx(got, rel=0.01)
    assert (min(values), max(values)) == final.extremes[:2] == final.extremes[2:4]


def test_a_new_slab_takes_the_pending_counts_along(account, tmp_path):
    """A grown layout: nothing is lost between the old slab and the new one."""
    record = HeadRecord(head=b"h", total=50, status=200, headers=())
    record.tally, record.count = account.tallies[1], 4
    account.heads.append(record)
    account.fold()
    grown = Layout(actions=(*LAYOUT.actions, ("c", "user")))
    account.use(SlabWriter(tmp_path / "slab.1", grown, started_ns=0, before=account.slab))
    account.answered(account.tallies[2], status=200, took_ns=1, size=1, checks=1, missed=0, interim=0)
    final = Slab.open(account.slab.path).final()
    assert 4 == action_counter(grown, final.vector, 1, "done")
    assert 1 == action_counter(grown, final.vector, 2, "done")
