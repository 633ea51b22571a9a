"""The status stays small: what says least is shortened first."""

from __future__ import annotations

import pytest

from trafficsim_api.rollout import Rollout
from trafficsim_api.status import (
    Accounts,
    ConditionStatus,
    DemandMeans,
    DemandStatus,
    LostRunner,
    RolloutStatus,
    RolloutWindow,
    Run,
    ScalingStatus,
    Status,
    TaskStatus,
    VersionScaling,
)
from trafficsim_operator.plan.bounds import LIMIT, fitted, named, size_of
from trafficsim_operator.plan.steps import pin


def a_task(message: str) -> TaskStatus:
    """Build a task that failed."""
    return TaskStatus(state="Failed", runner="r", uid="u", digest="d", since="", deadline="", message=message)


def a_condition(message: str) -> ConditionStatus:
    """Build a condition with a long *message*."""
    return ConditionStatus(
        type="Accepted", status="True", reason="r", message=message, last_transition_time="", observed_generation=1
    )


def test_messages_of_setup_and_teardown_are_shortened_with_the_others() -> None:
    """To 128 characters, and only where the status would be too large; a run without them stays one."""
    run = Run(id=1, phase_since="", setup=a_task("s" * 300), teardown=a_task("t" * 300))
    assert run == fitted(Status(run=run)).run
    condition = a_condition("m" * LIMIT)
    cut = fitted(Status(run=run, conditions=(condition,)))
    assert cut.run is not None
    assert ("s" * 128, "t" * 128) == (
        cut.run.setup and cut.run.setup.message,
        cut.run.teardown and cut.run.teardown.message,
    )
    assert size_of(cut) < LIMIT
    plain = Run(id=1, phase_since="")
    assert plain == fitted(Status(run=plain, conditions=(condition,))).run
    assert fitted(Status(conditions=(condition,))).run is None


def test_a_rollout_keeps_its_newest_windows_and_the_beginning_of_its_words() -> None:
    """Three windows, and 128 characters of message and note; nothing of what the machine goes by is touched."""
    plan = pin(Rollout(), 10, None).model_copy(update={"note": "n" * 200})
    windows = tuple(RolloutWindow(number=number) for number in range(10))
    rollout = RolloutStatus(attempt=1, plan=plan, message="m" * 200, windows=windows)
    assert rollout == fitted(Status(rollout=rollout)).rollout
    condition = a_condition("m" * LIMIT)
    cut = fitted(Status(rollout=rollout, conditions=(condition,)))
    assert cut.rollout is not None
    assert cut.rollout.plan is not None
    assert [7, 8, 9] == [window.number for window in cut.rollout.windows]
    assert ("m" * 128, "n" * 128) == (cut.rollout.message, cut.rollout.plan.note)
    same = cut.rollout.model_copy(update={"message": rollout.message, "plan": plan, "windows": windows})
    assert rollout == same
    assert size_of(cut) < LIMIT


def test_of_lost_runners_the_newest_two_stay_and_those_the_verdict_asks_for() -> None:
    """Whose end nobody saw makes the run Inconclusive."""
    lost = tuple(LostRunner(name=f"r-{number}", since="", at="", end_unseen=number == 1) for number in range(6))
    run = Run(id=1, phase_since="", lost=lost)
    assert run == fitted(Status(run=run)).run
    condition = a_condition("m" * LIMIT)
    cut = fitted(Status(run=run, conditions=(condition,))).run
    assert cut is not None
    assert ["r-1", "r-4", "r-5"] == [runner.name for runner in cut.lost]


def test_scaling_keeps_what_the_next_decision_builds_on() -> None:
    """The demand by hours goes first, which forecasts learn anew; then words beyond 128 characters, nothing else."""
    version = VersionScaling(revision="r", wanted=3, recommended=(3,) * 20, message="v" * 200)
    demand = DemandStatus(users=(5,) * 24, hours=DemandMeans(users=(100_000,) * 337))
    scaling = ScalingStatus(versions=(version,), demand=demand, message="m" * 200)
    assert scaling == fitted(Status(scaling=scaling)).scaling
    plain = scaling.model_copy(update={"demand": DemandStatus(users=(5,) * 24)})
    assert plain == fitted(Status(scaling=scaling, conditions=(a_condition("m" * (LIMIT - 2_500)),))).scaling
    cut = fitted(Status(scaling=scaling, conditions=(a_condition("m" * LIMIT),))).scaling
    assert cut is not None
    assert ("m" * 128, "v" * 128) == (cut.message, cut.versions[0].message)
    assert plain == cut.model_copy(update={"message": scaling.message, "versions": (version,)})


@pytest.mark.parametrize(
    ("texts", "room", "told"),
    [
        pytest.param("abc", 3, [*"abc"], id="as many as there is room for"),
        pytest.param("abcd", 3, [*"ab", "and 2 more"], id="one too many"),
        pytest.param([*"ab", "and 2 more"], 3, [*"ab", "and 2 more"], id="shortened before"),
        pytest.param([*"ab", "and 2 more", "c"], 3, [*"ab", "and 3 more"], id="shortened before, and one more since"),
        pytest.param([*"abcdef", "and 2 more"], 3, [*"ab", "and 6 more"], id="shortened before, to a larger room"),
        pytest.param("", 3, [], id="nothing"),
    ],
)
def test_what_there_is_no_room_for_is_counted(texts, room, told):
    assert told == list(named(texts, room))


def test_of_missing_shares_two_are_named_and_the_others_counted():
    accounts = Accounts(missing=tuple("abcd"))
    condition = a_condition("m" * LIMIT)
    assert ("a", "b", "and 2 more") == fitted(Status(accounts=accounts, conditions=(condition,))).accounts.missing
    assert accounts == fitted(Status(accounts=accounts)).accounts
