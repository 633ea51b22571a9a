"""Starvation: whether neighbours had the CPU that the workers of a version were ready for."""

import pytest

from trafficsim_operator.observed import ColourWindow
from trafficsim_operator.plan.starved import starvation

SECOND_NS = 1_000_000_000


def a_window(waited_ms: int, *, workers: int = 1, periods: int = 0, throttled: int = 0) -> ColourWindow:
    """Build a second of some workers, of which each waited so long."""
    return ColourWindow(
        number=0, time_ns=workers * SECOND_NS, waited_ns=workers * waited_ms * 1_000_000, periods=periods,
        throttled=throttled,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("windows", "waited"),
    [
        pytest.param([], "", id="nothing was told"),
        pytest.param([ColourWindow(number=0)], "", id="no worker told"),
        pytest.param([a_window(499)], "", id="it had the CPU for the most part"),
        pytest.param([a_window(600)], "60 %", id="it waited for the most part"),
        pytest.param([a_window(0), a_window(900), a_window(900)], "60 %", id="windows together"),
        pytest.param([a_window(800, workers=4), a_window(0, workers=2)], "53 %", id="by the time of all workers"),
        pytest.param([a_window(800, periods=10, throttled=1)], "", id="its own quota"),
        pytest.param([a_window(800, periods=20, throttled=1)], "80 %", id="hardly its own quota"),
    ],
)
def test_starvation(windows: list[ColourWindow], waited: str) -> None:
    """Waited ÷ time ≥ 50 %, throttled ÷ periods ≤ 5 %."""
    expected = f"its workers waited {waited} of the time for a CPU that others had" if waited else ""
    assert expected == starvation(windows)
