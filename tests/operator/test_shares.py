"""Each runner's share of the numbers: whose may be missing, and that nothing that was counted goes unsaid."""

from __future__ import annotations

import numpy as np
import pytest

from trafficsim_api.layout import Layout
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.statistics import Answer, zeros
from trafficsim_api.status import Accounts, UnkeptShare
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan.numbers import rounded
from trafficsim_operator.plan.shares import Shares, may_count

NOW = 1_700_000_000_000
LAYOUT = Layout(actions=(("list", ""),))


def a_runner(
    *, run: int | None = 1, epoch: int = 7, state: RunnerState = RunnerState.READY, answered: bool = True,
    started_ms: int = NOW - 60_000, restarts: int = 0, **said: object,
) -> Runner:  # fmt: skip
    """Build a runner; *run* None: it was never heard."""
    ack = None if run is None else Acknowledgement(boot="one", run=run, epoch=epoch, **said)
    return Runner(
        name="web-1", uid="u", revision="r", state=state, answered=answered, acknowledgement=ack,
        started_ms=started_ms, restarts=restarts,
    )  # fmt: skip


def an_answer(*buckets: int, boot: str = "one") -> Answer:
    """Build an account with a finished request in each of *buckets*."""
    total = zeros(LAYOUT)
    total[LAYOUT.action(0, "done")] = len(buckets)
    np.add.at(total, [LAYOUT.service(0) + bucket for bucket in buckets], 1)
    return Answer(
        runner="u", boot=boot, run=1, layout=LAYOUT, sequence=0, first=1, total=total, warmup=zeros(LAYOUT),
        extremes=(0,) * LAYOUT.extremes, windows=(),
    )  # fmt: skip


def some(*, told: int = 0) -> Shares:
    shares = Shares()
    shares.begin(1, Accounts(requests=told))
    return shares


def done(shares: Shares) -> int:
    layout, whole, *_ = shares.merged()
    return int(whole[layout.action(0, "done")])


@pytest.mark.parametrize(
    ("runner", "attending_ms", "may"),
    [
        pytest.param(a_runner(), 0, True, id="it was told something in the run"),
        pytest.param(a_runner(epoch=0), 0, False, id="it was told nothing"),
        pytest.param(a_runner(run=2), 0, False, id="another run is its"),
        pytest.param(a_runner(run=None), 0, True, id="never heard, and up"),
        pytest.param(a_runner(run=None), NOW - 120_000, False, id="never heard, and made under our eyes"),
        pytest.param(a_runner(run=None), NOW - 65_000, True, id="or a little before, as clocks differ"),
        pytest.param(a_runner(run=None, state=RunnerState.STARTING), 0, False, id="it starts for the first time"),
        pytest.param(a_runner(run=None, state=RunnerState.STARTING, restarts=1), 0, True, id="it starts again"),
    ],
)
def test_who_may_have_counted(runner, attending_ms, may):
    """Whom another operator may have told of users, and nobody else."""
    assert may is may_count(runner, 1, attending_ms)


@pytest.mark.parametrize(
    ("runner", "is_whole"),
    [
        pytest.param(a_runner(drained=True, retire=True), True, id="retired and drained"),
        pytest.param(a_runner(drained=True, suspended=True), True, id="suspended, nobody left"),
        pytest.param(a_runner(drained=True, state=RunnerState.LEAVING), True, id="being deleted, and drained"),
        pytest.param(a_runner(drained=False, retire=True), False, id="retired, somebody is at work"),
        pytest.param(a_runner(drained=True), False, id="nobody by the profile just now"),
    ],
)
def test_when_an_account_is_whole(runner, is_whole):
    """When it is read while nobody is at work, nor would be without another assignment."""
    shares = some()
    shares.take(runner, an_answer(1), NOW)
    assert is_whole is (() == tuple(shares.open([runner])))
    last, is_missing = shares.let_go([runner], is_over=False)
    assert ["u"] == list(last)
    assert is_missing is not is_whole
    assert is_missing is bool(shares.missing)


def test_before_a_run_has_begun_nothing_is_missing():
    """Runners are told their places beforehand; whoever goes then has counted nothing."""
    shares = some()
    shares.begun = False
    shares.take(a_runner(), an_answer(), NOW)
    assert () == tuple(shares.open([a_runner(), a_runner(run=None)]))
    assert not shares.let_go([a_runner(answered=False)], is_over=False)[1]
    assert {} == shares.missing


def test_another_assignment_takes_the_wholeness_away():
    """Whoever goes on after a pause counts again, read or not."""
    shares = some()
    shares.take(a_runner(drained=True, suspended=True), an_answer(1), NOW)
    assert () == tuple(shares.open([a_runner(drained=True, suspended=True, answered=False)]))
    [text] = shares.open([a_runner(epoch=8, answered=False)])
    assert text.endswith("it did not answer when the run ended")


def test_whoever_was_never_read_and_is_let_go_is_missed():
    """Once, and only while the run goes on."""
    silent = a_runner(run=None, answered=False)
    shares = some()
    assert ({}, True) == shares.let_go([silent], is_over=False)
    assert ({}, False) == shares.let_go([silent], is_over=False)
    assert ["web-1 from its start on: it did not answer any more and was let go"] == list(shares.missing.values())
    shares = some()
    assert ({}, False) == shares.let_go([silent], is_over=True)
    assert {} == shares.missing


@pytest.mark.parametrize(
    ("runner", "is_missed"),
    [
        pytest.param(a_runner(retire=True), True, id="retired, its last numbers not read"),
        pytest.param(a_runner(run=0, epoch=0), True, id="it had come back without its counts"),
        pytest.param(a_runner(), False, id="at work: that is a loss, told elsewhere"),
    ],
)
def test_what_goes_by_itself_is_missed(runner, is_missed):
    """And its last account is to be kept, whole or not."""
    shares = some()
    shares.take(a_runner(), an_answer(1, 2), NOW)
    last = shares.gone(runner, NOW + 1_000)
    assert last is not None
    assert 2 == done(shares)
    assert is_missed is bool(shares.missing)
    assert shares.gone(runner, NOW + 2_000) is None, "it is kept once"


@pytest.mark.parametrize(
    ("after", "total", "is_anew"),
    [
        pytest.param(an_answer(1, 1, 2, boot="two"), 3, False, id="it goes on with what it had"),
        pytest.param(an_answer(1, boot="two"), 3, True, id="it begins anew"),
        pytest.param(an_answer(2, 3, 4, 5, boot="two"), 6, True, id="it begins anew, and has done more since"),
    ],
)
def test_a_runner_that_comes_back_without_its_counts(after, total, is_anew):
    """What it had counted stays, also for the operator that comes next; what lies in between is missed."""
    shares = some()
    shares.take(a_runner(), an_answer(1, 1), NOW)
    shares.take(a_runner(), after, NOW + 1_000)
    owed = shares.take_owed()
    assert total == done(shares)
    assert is_anew is bool(owed) is bool(shares.missing)
    assert {} == shares.take_owed()
    later = some()
    for key, answer in {**owed, "u": after}.items():
        later.restore(key, answer, NOW)
    assert total == done(later)


@pytest.mark.parametrize(
    ("count", "told", "is_missed"),
    [(3, 3, False), (3, 4, True), (4, 3, False)],
    ids=["as told", "fewer", "more since"],
)
def test_what_was_told_is_held_to(count, told, is_missed):
    """The accounts that are found add up to what the status tells of, or it is said; that is asked once."""
    shares = some(told=told)
    shares.restore("u", an_answer(*[1] * count), NOW)
    shares.hold_to_told()
    assert is_missed is bool(shares.missing)
    shares.missing.clear()
    shares.hold_to_told()
    assert {} == shares.missing


def an_unkept(requests: int) -> UnkeptShare:
    return UnkeptShare(runner="web-2", uid="v", requests=requests, since="", reason="forbidden")


def test_what_was_told_in_three_digits_is_not_held_to_the_fourth():
    """4 068 were told as 4 070; of those 68 are gone by name, and of the 4 000 others nothing is missing."""
    shares = Shares()
    shares.begin(1, Accounts(requests=4_070, unkept=(an_unkept(68),)))
    shares.restore("u", an_answer(*[1] * 4_000), NOW)
    shares.hold_to_told()
    [text] = shares.missing.values()
    assert text.startswith("web-2, 68 requests: ")


@pytest.mark.parametrize(
    ("after", "is_lost"),
    [
        pytest.param(a_runner(epoch=8), True, id="it got users again"),
        pytest.param(a_runner(epoch=8, retire=True), False, id="it was told to go once more"),
        pytest.param(a_runner(epoch=8, suspended=True), False, id="a pause"),
        pytest.param(a_runner(epoch=8, state=RunnerState.LEAVING), False, id="its pod is being deleted"),
        pytest.param(a_runner(), False, id="told nothing since: its pod is yet to hear that it goes"),
    ],
)
def test_who_was_let_go_and_stays_is_one_as_any(after, is_lost):
    """Its fleet did not take it away, and users rose again: when it dies then, it is lost."""
    shares = some()
    shares.take(a_runner(drained=True, retire=True), an_answer(1), NOW)
    shares.let_go([a_runner(drained=True, retire=True)], is_over=False)
    for now_ms in (NOW + 5_000, NOW + 10_000):
        shares.take(after, an_answer(1, 2), now_ms)
    assert is_lost is not shares.by_uid["u"].let_go


@pytest.mark.parametrize(("count", "told"), [(0, 0), (999, 999), (1_004, 1_000), (4_068, 4_070), (12_345, 12_300)])
def test_numbers_are_told_to_three_digits(count, told):
    """And never fall for a larger count, so that fewer than told are fewer than counted."""
    assert told == rounded(count)
    assert rounded(count) <= rounded(count + 1)


def test_what_is_read_of_a_runner_on_its_way_out_is_missing_no_more():
    """It was let go before it had drained, which is said; it drains by itself, and tells the rest."""
    shares = some()
    shares.take(a_runner(), an_answer(1), NOW)
    assert shares.let_go([a_runner()], is_over=False)[1]
    leaving = a_runner(state=RunnerState.LEAVING, drained=True)
    shares.take(leaving, an_answer(1, 2), NOW + 1_000)
    assert {} == shares.missing
    assert shares.gone(leaving, NOW + 2_000) is not None
    assert {} == shares.missing
    assert 2 == done(shares)
