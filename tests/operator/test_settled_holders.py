"""Who is waited for before places move: everybody who may have a user, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan.assignments import holders


def a_runner(state: RunnerState = RunnerState.READY, *, held: int = 0, heard: bool = True, **ack: Any) -> Runner:
    said = Acknowledgement(boot="b", run=1, epoch=3, places=Places.first(held).ranges, **ack) if heard else None
    return Runner(
        name="a", uid="a", revision="r", state=state, address="127.0.0.1:1", acknowledgement=said, answered=heard
    )


def settled(runner: Runner, *, may_take: bool) -> bool:
    (found,) = holders((runner,), 1, frozenset(), may_take=lambda _: may_take)
    return found.settled


@pytest.mark.parametrize(
    ("runner", "may_take", "is_settled"),
    [
        pytest.param(a_runner(settled=True, held=2), True, True, id="it has done what it was told"),
        pytest.param(a_runner(settled=False, held=2), True, False, id="it is taking places"),
        pytest.param(a_runner(settled=False), True, False, id="its workers are starting"),
        pytest.param(a_runner(settled=False), False, True, id="a rejected version's workers refuse for ever"),
        pytest.param(a_runner(settled=False, active=1), False, False, id="a user of a rejected version is leaving"),
        pytest.param(a_runner(settled=False, held=1), False, False, id="it gives up a place yet"),
        pytest.param(a_runner(settled=True, suspended=True, held=1), True, False, id="it has not heard we go on"),
        pytest.param(a_runner(RunnerState.STARTING, heard=False), True, False, id="it starts"),
    ],
)
def test_who_is_settled(runner: Runner, may_take: bool, is_settled: bool) -> None:
    assert is_settled == settled(runner, may_take=may_take)
