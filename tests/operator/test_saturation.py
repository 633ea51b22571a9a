"""Saturation: each figure's limit, and how many bad windows make one."""

import numpy as np
import pytest

from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Window, sparse, zeros
from trafficsim_operator.plan.saturation import Health, saturated, window_of

LAYOUT = Layout(actions=(("a", "user"), ("b", "user")))


def a_window(*, busiest: int = 500, pod: int = 500, lag_ms: int = 1, **counters: int) -> Window:
    """Build a ten-second window with 1000 wake-ups that lagged *lag_ms*; 5000 sent on each action."""
    vector = zeros(LAYOUT)
    vector[LAYOUT.lag() + bucket_of(lag_ms * 1_000_000)] = 1000
    for action in (0, 1):
        vector[LAYOUT.action(action, "sent")] = 5000
    for name, count in counters.items():
        vector[LAYOUT.action(1, name) if name.startswith("error_") else LAYOUT.worker(name)] = count
    indices, counts = sparse(vector)
    return Window(
        sequence=1, start_ms=10_000, end_ms=20_000, wall_ms=0, epoch=1, active=1, wanted=1, busiest_permille=busiest,
        pod_permille=pod, warm=True, indices=indices, counts=np.asarray(counts),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "says"),
    [
        pytest.param(a_window(), "", id="good"),
        pytest.param(a_window(lag_ms=49), "", id="lag within"),
        pytest.param(a_window(lag_ms=52), "lag p99", id="lag"),
        pytest.param(a_window(lag_ms=52, pool_waits=7), "(50 ms), 7 requests waited for pooled", id="pools too small"),
        pytest.param(a_window(busiest=900), "", id="worker within"),
        pytest.param(a_window(busiest=901), "busiest worker", id="worker"),
        pytest.param(a_window(pod=950), "CPU at 95 %", id="pod"),
        pytest.param(a_window(cfs_periods=100, cfs_throttled=5), "", id="throttled within"),
        pytest.param(a_window(cfs_periods=100, cfs_throttled=6), "throttled in 6 %", id="throttled"),
        pytest.param(a_window(arrivals_planned=1000, arrivals_started=990), "", id="arrivals within"),
        pytest.param(a_window(arrivals_planned=1000, arrivals_started=989), "989 of 1000 arrivals", id="arrivals"),
        pytest.param(a_window(drop_no_slot=10), "", id="drops within"),
        pytest.param(
            a_window(drop_no_slot=11), "11 starts dropped of 10011 (0.1 %), most of them because no slot", id="drops"
        ),
        pytest.param(a_window(memory_permille_ms=9_000_000), "", id="memory within"),
        pytest.param(a_window(memory_permille_ms=9_010_000), "memory at 90 % (90 %)", id="memory"),
        pytest.param(a_window(error_generator_no_fd=11), "because no descriptor was free", id="descriptors"),
        pytest.param(a_window(error_generator_no_port=11, drop_no_slot=2), "13 starts dropped", id="ports and slots"),
        pytest.param(a_window(error_generator_no_port=11), "because no local port was free", id="ports"),
        pytest.param(a_window(lag_ms=52, busiest=990), "worker at 99 % (90 %); lag p99", id="everything is said"),
        pytest.param(a_window(busiest=950, waited_ns=4_200_000_000), "(90 %); workers waited 4.2 s", id="neighbours"),
        pytest.param(a_window(busiest=800, waited_ns=4_200_000_000), "", id="neighbours that leave enough"),
    ],
)
def test_limits(window: Window, says: str) -> None:
    """A window is bad just above each limit."""
    health = Health(runner="r")
    health.add(window, LAYOUT)
    assert health.whole
    found = health.finding()
    assert says in found
    assert bool(says) == bool(found)


@pytest.mark.parametrize(
    ("bad", "windows", "expected"),
    [(1, 1, False), (1, 10, False), (2, 10, True), (2, 39, True), (2, 40, False), (3, 59, True)],
)
def test_two_bad_and_more_than_a_twentieth(bad: int, windows: int, expected: bool) -> None:
    """Two bad windows and more than 5 % of all."""
    assert expected == (saturated({n: "r: lag" if n < bad else "" for n in range(windows)}) is not None)


@pytest.mark.parametrize(
    ("counters", "decisive"),
    [
        ({"arrivals_planned": 1000, "arrivals_started": 989}, True),
        ({"arrivals_planned": 1000, "arrivals_started": 990}, False),
        ({"drop_no_slot": 500}, False),
    ],
    ids=["arrivals not started", "one in a hundred", "users that came again"],
)
def test_one_window_of_arrivals_not_started_is_enough(counters: dict[str, int], decisive: bool) -> None:
    """Over any 10 s: what was not sent would have been the slowest."""
    health = Health(runner="r")
    health.add(a_window(**counters), LAYOUT)
    assert decisive == health.is_decisive
    findings = {n: health.finding() if n == 3 else "" for n in range(100)}
    sentence = saturated(findings, decisive={3} if decisive else ())
    assert decisive == (sentence is not None and "the last at 30 s" in sentence and "989 of 1000" in sentence)


def test_a_process_killed_for_want_of_memory_is_enough() -> None:
    """Once, with every window good."""
    assert "1 process was killed for want of memory (runner.resources.limits.memory)" == saturated({0: ""}, kills=1)
    assert "2 processes were" in (saturated({}, kills=2) or "")


def test_windows_are_disjoint_after_the_warm_up() -> None:
    """The first window begins at the warm-up's end."""
    assert [0, 0, 1] == [window_of(at, 10_000) for at in (10_000, 19_999, 20_000)]


@pytest.mark.parametrize(
    ("findings", "held_back", "says"),
    [
        pytest.param({0: "", 1: ""}, 0, None, id="none"),
        pytest.param({0: "", 1: ""}, 1, "1 start was delayed or dropped by runners above 80 %", id="one is enough"),
        pytest.param({}, 7, "7 starts were delayed", id="before the first whole window"),
        pytest.param({0: "r: lag", 1: "r: lag"}, 7, "r: lag; 7 starts were delayed", id="with bad windows"),
    ],
)
def test_one_start_held_back_is_enough(findings: dict[int, str], held_back: int, says: str | None) -> None:
    """What was asked for was not sent when it was due, whatever the windows look like."""
    found = saturated(findings, held_back=held_back)
    assert (says is None) == (found is None)
    assert (says or "") in (found or "")
