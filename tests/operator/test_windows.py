"""Windows of several runners: health, spans of rules with `over`, recent figures."""

from dataclasses import replace

import numpy as np
import pytest

from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import Layout
from trafficsim_api.rules import parse_rule
from trafficsim_api.statistics import Window, sparse, total, zeros
from trafficsim_operator.plan.windows import Windows

LAYOUT = Layout(actions=(("a", "user"),))
WIDER = Layout(actions=(("b", "user"), ("a", "user")))


def a_window(
    second: int,
    *,
    layout: Layout = LAYOUT,
    action: str = "a",
    done: int = 200,
    took_ms: int = 10,
    wanted: int = 5,
    busiest: int = 500,
    warm: bool = True,
    arrivals: tuple[int, int] = (0, 0),
) -> Window:
    """Build the one-second window that begins *second* s after the origin."""
    vector = zeros(layout)
    vector[layout.worker("arrivals_planned")], vector[layout.worker("arrivals_started")] = arrivals
    number = [name for name, _ in layout.actions].index(action) if layout.actions else 0
    if layout.actions:
        vector[layout.action(number, "done")] = vector[layout.action(number, "sent")] = done
        vector[layout.response(number) + bucket_of(took_ms * 1_000_000)] = done
    indices, counts = sparse(vector)
    return Window(
        sequence=second + 1,
        start_ms=second * 1000,
        end_ms=second * 1000 + 1000,
        wall_ms=1_000_000 + second * 1000,
        epoch=1,
        active=wanted,
        wanted=wanted,
        busiest_permille=busiest,
        pod_permille=500,
        warm=warm,
        indices=indices,
        counts=np.asarray(counts),
    )


def watching(*rules: str) -> Windows:
    """Build windows with a warm-up of 10 s and *rules*."""
    return Windows(warm_up_ms=10_000, rules=tuple(parse_rule(rule) for rule in rules))


def test_health_goes_on_after_a_loss() -> None:
    """A runner that is gone is waited for no longer: the others' windows are judged on."""
    windows = watching("p95 < 5ms over 10s")
    for second in range(10, 71):
        windows.add("stays", LAYOUT, a_window(second, busiest=1000))
        if second < 20:
            windows.add("goes", LAYOUT, a_window(second))
        if second == 25:
            windows.forget("goes")
        windows.judge(["stays"] if second >= 20 else ["stays", "goes"])
    assert 6 == len(windows.findings)
    assert all("busiest worker" in finding for finding in windows.findings.values())
    assert {"p95 < 5ms over 10s": 6} == windows.breaches


def test_windows_of_which_one_is_enough_are_kept() -> None:
    """Arrivals that one of two runners did not start."""
    windows = watching()
    for second in range(10, 31):
        windows.add("good", LAYOUT, a_window(second))
        windows.add("late", LAYOUT, a_window(second, arrivals=(10, 5) if 20 <= second < 30 else (10, 10)))
    windows.judge(["good", "late"])
    assert {1} == windows.decisive
    assert ["", "late: 50 of 100 arrivals started (99 %)"] == [windows.findings[number] for number in (0, 1)]


def test_a_late_runner_does_not_break_a_rate() -> None:
    """A span waits for every runner that answers; what comes for a judged span is counted as late, not judged alone."""
    windows = watching("rps > 300 over 10s")
    for second in range(10, 22):
        windows.add("fast", LAYOUT, a_window(second))
    windows.add("slow", LAYOUT, a_window(10))
    windows.judge(["fast", "slow"])
    assert {} == windows.breaches
    for second in range(11, 22):
        windows.add("slow", LAYOUT, a_window(second))
    windows.judge(["fast", "slow"])
    assert {} == windows.breaches, "400 a second, merged"
    windows.add("slow", LAYOUT, a_window(12))
    windows.judge(["fast", "slow"])
    assert {} == windows.breaches
    assert 1 == windows.late


def test_a_span_of_few_samples_or_little_of_it_is_not_judged() -> None:
    """n < 100 breaks no latency rule; half a span breaks no rate."""
    windows = watching("p95 < 5ms over 10s", "rps > 100 over 10s")
    for second in range(10, 22):
        windows.add("r", LAYOUT, a_window(second, done=9))
    windows.judge(["r"])
    assert {"rps > 100 over 10s": 1} == windows.breaches
    windows = watching("rps > 100 over 10s")
    for second in (*range(10, 14), 20, 21):
        windows.add("r", LAYOUT, a_window(second))
    windows.judge(["r"])
    assert {} == windows.breaches


@pytest.mark.parametrize(
    ("rule", "breached"), [("max < 9ms over 5s", 1), ("max < 12ms over 5s", 0), ("min > 9ms over 5s", 0)]
)
def test_extremes_within_a_span(rule: str, breached: int) -> None:
    """Min and max of a span come from its histogram."""
    windows = watching(rule)
    for second in range(10, 16):
        windows.add("r", LAYOUT, a_window(second))
    windows.judge(["r"])
    assert breached == windows.breaches.get(rule, 0)


def test_a_suspended_run_adds_no_windows() -> None:
    """Where nobody was wanted there is nothing to judge, and the seconds don't count."""
    windows = watching()
    for second in range(10, 60):
        windows.add("r", LAYOUT, a_window(second, wanted=0 if second >= 30 else 5))
    windows.judge(["r"])
    assert [0, 1] == sorted(windows.findings)
    assert 30_000 == windows.newest_ms


def test_what_was_recent_before_a_pause_is_not_recent_after_it() -> None:
    """The run's time stands still in a pause, so it goes back at its end: two runners that tell of it one by one."""
    windows = watching()
    for runner in ("a", "b"):
        for second in range(40, 120):
            is_on = second < 60
            windows.add(runner, LAYOUT, a_window(second, wanted=5 if is_on else 0, done=200 if is_on else 0))
    windows.judge(["a", "b"])
    assert [0, 10.0] == [total(LAYOUT, windows.recent(LAYOUT)[0], "done"), windows.recent(LAYOUT)[1]]
    for second in range(60, 64):
        windows.add("a", LAYOUT, a_window(second))
    windows.judge(["a", "b"])
    assert 800 == total(LAYOUT, windows.recent(LAYOUT)[0], "done")
    for second in range(60, 75):
        windows.add("b", LAYOUT, a_window(second))
    windows.judge(["a", "b"])
    assert 800 + 2000 == total(LAYOUT, windows.recent(LAYOUT)[0], "done")
    windows.judge(["a"])
    assert 800 == total(LAYOUT, windows.recent(LAYOUT)[0], "done"), "who does not answer has no share"


def test_a_metric_that_one_runner_declares_later_is_added_to_its_span() -> None:
    """A layout that grows in mid-span moves no counter."""
    windows = watching("count(sold) > 30 over 10s")
    grown = Layout(actions=LAYOUT.actions, metrics=(("sold", "counter", ""),))
    for second in range(10, 22):
        windows.add("old", LAYOUT, a_window(second))
        window = a_window(second, layout=grown)
        indices = np.append(window.indices, np.uint32(grown.metric(0)))
        windows.add("new", grown, replace(window, indices=indices, counts=np.append(window.counts, np.uint64(4))))
    windows.judge(["old", "new"])
    assert {} == windows.breaches, "40 in all"


def test_layouts_are_merged_by_name() -> None:
    """Runners that met the actions in another order are added all the same; an empty layout harms nobody."""
    windows = watching("p95(a) < 5ms over 10s", "p95 < 1s over 10s")
    for second in range(10, 22):
        windows.add("one", LAYOUT, a_window(second, took_ms=1))
        windows.add("two", WIDER, a_window(second, layout=WIDER, action="b", took_ms=900))
        windows.add("new", Layout(actions=()), a_window(second, layout=Layout(actions=())))
    windows.judge(["one", "two", "new"])
    assert {} == windows.breaches
    vector, seconds = windows.recent(WIDER)
    assert 10.0 == seconds
    assert 2 * 10 * 200 == total(WIDER, vector, "done")
