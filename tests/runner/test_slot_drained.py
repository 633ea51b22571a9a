"""A worker's slot: whether anybody can be at work in it."""

from __future__ import annotations

import pytest

from trafficsim_runner.slot import Ack, Slot


@pytest.mark.parametrize(
    ("ack", "refusal", "drained"),
    [
        pytest.param(Ack(epoch=3, drained=True), "", True, id="everybody has left"),
        pytest.param(Ack(epoch=3, active=1), "", False, id="somebody is at work"),
        pytest.param(Ack(epoch=2, drained=True), "", False, id="it has not heard of this epoch"),
        pytest.param(None, "", False, id="it has said nothing yet"),
        pytest.param(None, "no such scenario", True, id="it never took an assignment"),
        pytest.param(Ack(epoch=2, active=4), "no such scenario", False, id="it goes on by the last one it took"),
    ],
)
def test_drained(ack: Ack | None, refusal: str, drained: bool) -> None:
    assert drained == Slot(index=0, ack=ack, refusal=refusal).drained(3)
