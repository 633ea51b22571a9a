"""
Random histories of rollouts: whatever happens in whatever phase, the invariants of histories/checks.py hold, and once
the world is quiet the rollout is over, or paused for a reason it tells.
"""

import pytest

from trafficsim_api.rollout import Rollout, RolloutPhase
from trafficsim_api.status import RolloutStatus
from trafficsim_api.units import format_instant
from trafficsim_operator.plan.rolling import Colour, Seen
from trafficsim_operator.plan.rollout import advance
from trafficsim_operator.plan.steps import pin
from trafficsim_operator.testing.histories.driver import many, report, shortfalls, some


def test_histories() -> None:
    """Five hundred histories break nothing, and come to nearly everything."""
    visits, broken = some(0, 500)
    assert [] == broken
    assert visits.verdicts["promoted"] >= 50
    assert visits.verdicts["rolled back"] >= 50
    assert visits.looks >= 500 * 60


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(343, id="a place went to a runner that was suspended still"),
        pytest.param(381, id="a silent version was let go before blue's users were on"),
        pytest.param(662, id="users on their way out were taken for gone"),
        pytest.param(1344, id="a version not heard yet was taken away"),
        pytest.param(3531, id="the first users came while an attempt for nobody was prepared"),
        pytest.param(5592, id="the abort at the look that ended a suspension was lost"),
        pytest.param(11585, id="two of blue's had the same places when it was called back"),
        pytest.param(9758, id="the abort at the look that ended a suspension was lost once more"),
    ],
)
def test_histories_that_broke_once(seed: int) -> None:
    """Seeds of histories in which something was broken once."""
    _, broken = some(seed, 1)
    assert [] == broken


def test_an_abort_is_done_at_the_look_that_ends_a_suspension() -> None:
    """The step is shifted to again, and the command of that look is not forgotten over it."""
    plan = pin(Rollout(), 10, None)
    at = format_instant(1_000)
    rollout = RolloutStatus(
        phase=RolloutPhase.ANALYZING, attempt=1, plan=plan, since=at, step_started_at=at, suspended_at=at, settled=2
    )
    colours = {"blue": Colour(held=9, runners=1, ready=1), "green": Colour(held=1, runners=1, ready=1)}
    seen = Seen(
        now_ms=9_000, run_ms=8_000, total=10, on=True, stable="a", candidate="b", wanted="b", command="abort", **colours
    )
    assert RolloutPhase.ABORTING is advance(rollout, seen).phase


@pytest.mark.slow
@pytest.mark.component
@pytest.mark.timeout(600)
def test_two_thousand_histories_come_to_everything() -> None:
    """
    They break nothing, and come to every fault in every phase and every transition.

    `make histories` holds ten thousand others to twice as many of each: of few histories, counts are more of chance.
    """
    visits, broken = many(10_000, 2_000, processes=2)
    print("\n".join(report(visits)))
    assert [] == broken
    assert [] == shortfalls(visits, 1_000)
