"""What each runner carries, and how long runners take to start."""

from __future__ import annotations

import numpy as np
import pytest

from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import Layout
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.statistics import Window
from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan.loads import Figures, Loads
from trafficsim_operator.plan.starts import Starts

LAYOUT = Layout(actions=(("look", "/"),))
NOW = 1_700_000_000_000


def a_window(
    second: int,
    *,
    users: int = 100,
    pod: int = 700,
    core: int = 140,
    waited: int = 0,
    waited_percent: int = 0,
    throttled: int = 0,
    lag_ns: int = 0,
) -> Window:
    """Build second number *second* of a runner with *users* at work; ten periods of its quota."""
    counts = {LAYOUT.worker("active_user_ms"): users * 1000, LAYOUT.worker("cfs_periods"): 10}
    counts |= {LAYOUT.worker("cfs_throttled"): throttled} if throttled else {}
    counts |= {LAYOUT.lag() + bucket_of(lag_ns): 50} if lag_ns else {}
    indices = sorted(counts)
    return Window(
        sequence=second + 1, start_ms=second * 1000, end_ms=second * 1000 + 1000, wall_ms=NOW + second * 1000, epoch=1,
        active=users, wanted=users, busiest_permille=core + waited, core_permille=core, pod_permille=pod, warm=True,
        waited_percent=waited_percent,
        indices=np.array(indices, dtype=np.uint32),
        counts=np.array([counts[index] for index in indices], dtype=np.uint64),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "utilisation", "strained"),
    [
        pytest.param({}, 700, False, id="of the pod's quota"),
        pytest.param({"pod": 300, "core": 950}, 950, False, id="of one core, the busiest worker"),
        pytest.param({"lag_ns": 60_000_000}, 700, True, id="too late with what it does"),
        pytest.param({"lag_ns": 40_000_000}, 700, False, id="a little late"),
        pytest.param({"throttled": 1, "core": 1100}, 1100, True, id="one period of ten throttled"),
        pytest.param({"waited": 760}, 700, False, id="waiting is no use while there is time left"),
        pytest.param({"waited": 761}, 700, True, id="never pauses, and waits for the most of it"),
        pytest.param({"core": 801, "waited": 100}, 801, False, id="never pauses, and hardly waits"),
        pytest.param({"pod": 300, "core": 400, "waited": 600}, 400, True, id="waits for more than it runs"),
        pytest.param({"core": 880, "waited": 70, "waited_percent": 35}, 880, True, id="another waits and runs less"),
        pytest.param({"core": 880, "waited": 70, "waited_percent": 9}, 880, False, id="another hardly waits"),
        pytest.param({"core": 0, "waited": 950, "waited_percent": 95}, 700, True, id="waits all the time"),
        pytest.param({"core": 0, "waited": 950}, 950, False, id="too old to tell running from waiting"),
    ],
)
def test_utilisation(window: dict[str, int], utilisation: int, strained: bool) -> None:
    """The most of both CPU shares; strained when late, throttled or kept waiting without a pause, whatever it uses."""
    loads = Loads()
    for second in range(3):
        loads.add("r", LAYOUT, a_window(second, **window), NOW)
    crowded = strained and "waited" in window
    found = Figures(users=100.0, utilisation=utilisation, strained=strained, crowded=crowded, covered_ms=3000)
    assert found == loads.of("r", NOW)


def test_only_the_newest_fifteen_seconds_count() -> None:
    """15 of 20 seconds, weighted by their length; nothing that was read longer ago."""
    loads = Loads()
    for second in range(20):
        loads.add("r", LAYOUT, a_window(second, users=second, pod=second * 10, core=0), NOW)
    found = Figures(users=12.0, utilisation=120, strained=False, crowded=False, covered_ms=15_000)
    assert found == loads.of("r", NOW + 15_000)
    assert loads.of("r", NOW + 15_001) is None
    assert loads.of("other", NOW) is None
    loads.forget("r")
    assert loads.of("r", NOW) is None


def test_a_clock_that_goes_back_begins_anew() -> None:
    """What a runner told before somebody set its clock is not averaged with what it tells now."""
    loads = Loads()
    loads.add("r", LAYOUT, a_window(60, users=500), NOW)
    loads.add("r", LAYOUT, a_window(0, users=10), NOW)
    found = loads.of("r", NOW)
    assert found is not None
    assert (10.0, 1000) == (found.users, found.covered_ms)


def a_runner(state: RunnerState = RunnerState.READY, *, epoch: int = 1, settled: bool = True, **more: object) -> Runner:
    """Build a runner that was made at NOW."""
    ack = Acknowledgement(boot="b", runner="u", run=1 if epoch else 0, epoch=epoch, settled=settled, clock_ms=NOW)
    answered = state is RunnerState.READY
    values = {"acknowledgement": ack if answered else None, "answered": answered} | more
    return Runner(name="r", uid="u", revision="v", state=state, started_ms=NOW, **values)  # type: ignore[arg-type]


STARTING = a_runner(RunnerState.STARTING)
UNTOLD = a_runner(epoch=0)
UP = a_runner()


@pytest.mark.parametrize(
    ("looks", "measured"),
    [
        pytest.param((STARTING, UNTOLD, UP), (3000,), id="starting, ready, up"),
        pytest.param((UNTOLD, UP), (2000,), id="ready, up"),
        pytest.param((STARTING, a_runner(settled=False), UP), (3000,), id="its workers come last"),
        pytest.param((UP, UP), (), id="at work when first seen"),
        pytest.param((a_runner(settled=False), UP), (), id="at work and moving when first seen"),
        pytest.param((a_runner(answered=False, acknowledgement=None), UP), (), id="silent when first seen"),
        pytest.param((a_runner(RunnerState.STARTING, restarts=1), UP), (), id="came back"),
        pytest.param((STARTING, UP, UP), (), id="told once, at the look that saw it up"),
    ],
)
def test_a_start_is_measured_once(looks: tuple[Runner, ...], measured: tuple[int, ...]) -> None:
    """From when it was made until the first look at which its workers are up, if its start was seen."""
    starts = Starts()
    for number, runner in enumerate(looks, 1):
        starts.look([runner], 1, NOW + 1000 * number)
    assert measured == starts.measured_ms


def test_waiting_for_a_node_is_no_start() -> None:
    """Made ten minutes before it got a node, up 8 s after it did."""
    placed = {"placed_ms": NOW + 600_000}
    starts = Starts()
    starts.look([STARTING], 1, NOW + 1000)
    starts.look([a_runner(RunnerState.STARTING, **placed)], 1, NOW + 601_000)
    starts.look([a_runner(**placed)], 1, NOW + 608_000)
    assert (8_000,) == starts.measured_ms


def test_for_how_long_a_runner_is_ready() -> None:
    """Since it was seen up; since it was made where that was not seen; not at all before."""
    starts = Starts()
    starts.look([STARTING], 1, NOW + 1000)
    assert 0 == starts.ready_ms(STARTING, NOW + 1000)
    starts.look([UP], 1, NOW + 5000)
    assert 2000 == starts.ready_ms(UP, NOW + 7000)
    late = Starts()
    late.look([UP], 1, NOW + 60_000)
    assert 60_000 == late.ready_ms(UP, NOW + 60_000)
    starts.look([], 1, NOW + 8000)
    assert 0 == starts.ready_ms(UP, NOW + 9000)


def test_a_clock_that_is_behind_the_api_servers_measures_no_start_before_it_began() -> None:
    """0, which counts as not known; else users would be looked for in the past."""
    starts = Starts()
    starts.look([STARTING], 1, NOW - 9_000)
    starts.look([UP], 1, NOW - 5_000)
    assert (0,) == starts.measured_ms
