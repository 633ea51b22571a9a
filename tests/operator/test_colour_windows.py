"""The windows of a rollout's step by version, as the ledger gathers them from the runners' rings."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trafficsim_api.errors import Unavailable
from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import Layout
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.statistics import Answer, Window, sparse, zeros
from trafficsim_api.status import PlannedStep, RolloutPlan, RolloutStatus
from trafficsim_operator.ledger import Ledger
from trafficsim_operator.observed import ColourWindow, Runner, RunnerState
from trafficsim_operator.plan.colour_windows import ColourWindows, Grid, grid_of
from trafficsim_operator.plan.limits import sums

LAYOUT = Layout(actions=(("a", "user"), ("b", "user")))
WIDER = Layout(actions=(("b", "user"), ("a", "user"), ("c", "user")), metrics=(("sold", "counter", ""),))
GRID = Grid(from_ms=20_000, window_ms=5_000, most=20)
PLAN = RolloutPlan(
    steps=(PlannedStep(percent=100, dwell_ms=30_000),), max_dwell_ms=100_000, max_error_rate=500, max_p95_ms=5_000,
    min_success_rate=9_500, on_failure="rollback", comparison="absolute", auto_promote=True, scale_down_ms=60_000,
    abort_scale_down_ms=300_000, warm_up_ms=10_000, window_ms=5_000, min_samples=500, deadline_ms=300_000,
)  # fmt: skip
ANALYZING = RolloutStatus(phase=RolloutPhase.ANALYZING, attempt=1, plan=PLAN, windows_from_ms=20_000)


def a_second(
    start_ms: int, end_ms: int = 0, *, layout: Layout = LAYOUT, sequence: int = 0, done: int = 10, failed: int = 1,
    missed: int = 2, took_ms: int = 10,
) -> Window:  # fmt: skip
    """Build what a runner counted from *start_ms* for a second, in each action of *layout*."""
    vector = zeros(layout)
    for action in range(len(layout.actions)):
        for counter, count in (
            ("sent", done + 1), ("done", done), ("failed", failed), ("checks", done), ("checks_failed", missed),
        ):  # fmt: skip
            vector[layout.action(action, counter)] = count
        vector[layout.service(action) + 7] = done
        vector[layout.response(action) + bucket_of(took_ms * 1_000_000)] = done - failed
    if layout.metrics:
        vector[layout.metric(0)] = vector[layout.trend(0)] = 1_000
    indices, counts = sparse(vector)
    return Window(
        sequence=sequence or start_ms // 1000 + 1, start_ms=start_ms, end_ms=end_ms or start_ms + 1000,
        wall_ms=1_000_000 + start_ms, epoch=1, active=5, wanted=5, busiest_permille=100, pod_permille=100, warm=True,
        indices=indices, counts=np.asarray(counts),
    )  # fmt: skip


def seconds(first_s: int, last_s: int, **counts: Any) -> list[Window]:
    """Build the seconds first … last - 1, each beginning a little after the full one, as real ones do."""
    return [a_second(second * 1000 + 137, **counts) for second in range(first_s, last_s)]


def told(windows: ColourWindows, revision: str) -> dict[int, tuple[int, bool]]:
    """Return requests, and whether it is whole, of each window."""
    return {window.number: (window.requests, window.whole) for window in windows.told().get(revision, ())}


def test_the_time_of_workers_and_what_they_waited_is_added() -> None:
    """Over the seconds of a window and over runners, like everything else; what is not told counts nothing."""
    vector = zeros(LAYOUT)
    for counter, count in (("wall_ns", 900), ("waited_ns", 400), ("cfs_periods", 10), ("cfs_throttled", 3)):
        vector[LAYOUT.worker(counter)] = count
    indices, counts = sparse(vector)
    windows = ColourWindows()
    windows.begin(GRID)
    for runner in ("a", "b"):
        busy = [replace(window, indices=indices, counts=np.asarray(counts)) for window in seconds(20, 22)]
        windows.add(runner, "green", LAYOUT, [*busy, *seconds(22, 26)])
    (first, _) = windows.told()["green"]
    assert 2 * 5 * 5_000 == first.user_ms, "five users of each runner"
    assert (3_600, 1_600, 40, 12) == (first.time_ns, first.waited_ns, first.periods, first.throttled)


def test_two_runners_are_merged_into_windows_on_a_grid() -> None:
    """A second counts for the window that it begins in; what began before the first window never counts."""
    windows = ColourWindows()
    windows.begin(GRID)
    for runner in ("a", "b"):
        windows.add(runner, "green", LAYOUT, seconds(15, 32))
    windows.add("c", "blue", LAYOUT, seconds(15, 32))
    windows.judge({"a": "green", "b": "green", "c": "blue"})
    assert {0: (200, True), 1: (200, True), 2: (80, False)} == told(windows, "green")
    assert {0: (100, True), 1: (100, True), 2: (40, False)} == told(windows, "blue")
    (first, *_) = windows.told()["green"]
    assert (20, 40, 200) == (first.failed, first.checks_failed, first.checks)
    assert {bucket_of(10_000_000): 180} == dict(zip(first.buckets.tolist(), first.counts.tolist(), strict=True))


def test_actions_and_metrics_stand_where_each_runner_has_them() -> None:
    """Layouts differ between versions and runners; no metric of a scenario is taken for a response time."""
    windows = ColourWindows()
    windows.begin(GRID)
    windows.add("a", "green", LAYOUT, [a_second(20_000, took_ms=10)])
    windows.add("b", "green", WIDER, [a_second(20_000, layout=WIDER, took_ms=900)])
    (window,) = windows.told()["green"]
    assert (50, 5, 45) == (window.requests, window.failed, int(window.counts.sum()))
    assert 27 == int(sums([window]).histogram[bucket_of(900_000_000)])


def test_a_window_is_whole_when_every_runner_that_answers_has_told_of_its_end() -> None:
    """One that lags is waited for, one that is silent or gone is not; what was whole stays whole."""
    windows = ColourWindows()
    windows.begin(GRID)
    windows.add("fast", "green", LAYOUT, seconds(20, 27))
    windows.add("slow", "green", LAYOUT, seconds(20, 24))
    windows.judge({"fast": "green", "slow": "green"})
    assert {0: (180, False), 1: (40, False)} == told(windows, "green")
    windows.judge({"fast": "green", "unread": "green"})
    assert {0: (180, False), 1: (40, False)} == told(windows, "green")
    windows.judge({"fast": "green"})
    assert {0: (180, True), 1: (40, False)} == told(windows, "green")
    windows.add("slow", "green", LAYOUT, seconds(24, 27))
    windows.judge({"fast": "green", "slow": "green"})
    assert {0: (200, True), 1: (80, False)} == told(windows, "green"), "late, and counted all the same"
    windows.judge({})
    assert windows.told()["green"][0].whole


def test_a_window_of_which_little_was_seen_is_not_whole() -> None:
    """A runner that began in its last two seconds has not shown how it does; one that goes on has."""
    windows = ColourWindows()
    windows.begin(GRID)
    windows.add("late", "green", LAYOUT, seconds(23, 31))
    windows.judge({"late": "green"})
    assert {0: (40, False), 1: (100, True), 2: (20, False)} == told(windows, "green")


def test_a_folded_window_is_left_out() -> None:
    """Ten seconds that were folded into one lie across windows: nobody knows what of them belongs where."""
    windows = ColourWindows()
    windows.begin(GRID)
    windows.add("a", "green", LAYOUT, [a_second(20_000, 30_000), *seconds(30, 36)])
    windows.judge({"a": "green"})
    assert {2: (100, True), 3: (20, False)} == told(windows, "green")


def test_what_was_told_in_a_pause_never_counts() -> None:
    """The run's time stands in a pause while runners go on telling: when it is over, it goes back."""
    before, paused, after = seconds(20, 22), seconds(22, 60, done=99), seconds(22, 27)
    fresh = ColourWindows()
    fresh.begin(GRID)
    fresh.add("a", "green", LAYOUT, [*before, *paused, *after])
    fresh.judge({"a": "green"})
    assert {0: (100, True), 1: (40, False)} == told(fresh, "green")
    lived = ColourWindows()
    lived.begin(GRID)
    lived.add("a", "green", LAYOUT, [*before, *paused])
    lived.begin(None)
    lived.begin(replace(GRID, from_ms=22_000))
    lived.judge({"a": "green"})
    lived.add("a", "green", LAYOUT, after)
    lived.judge({"a": "green"})
    assert {0: (100, True)} == told(lived, "green")


def test_how_far_a_runner_got_in_a_pause_is_nothing_after_it() -> None:
    """Two runners that are read one by one after a pause: the second is waited for."""
    windows = ColourWindows()
    windows.begin(GRID)
    for runner in ("a", "b"):
        windows.add(runner, "green", LAYOUT, seconds(20, 60))
    windows.begin(replace(GRID, from_ms=22_000))
    windows.add("a", "green", LAYOUT, seconds(22, 28))
    windows.judge({"a": "green", "b": "green"})
    assert {0: (100, False), 1: (20, False)} == told(windows, "green")
    windows.add("b", "green", LAYOUT, seconds(22, 28))
    windows.judge({"a": "green", "b": "green"})
    assert {0: (200, True), 1: (40, False)} == told(windows, "green")


def test_another_grid_voids_what_was_gathered() -> None:
    """A new step, or a transfer in between: only what begins after its warm-up counts."""
    windows = ColourWindows()
    windows.begin(GRID)
    windows.add("a", "green", LAYOUT, seconds(20, 30))
    windows.begin(GRID)
    assert 2 == len(told(windows, "green"))
    windows.begin(replace(GRID, from_ms=29_000))
    assert {} == told(windows, "green")
    windows.add("a", "green", LAYOUT, seconds(30, 31))
    assert {0: (20, False)} == told(windows, "green")
    windows.begin(None)
    windows.add("a", "green", LAYOUT, seconds(31, 32))
    assert {} == windows.told()


def test_memory_is_bounded() -> None:
    """Windows are kept for as long as a step may take, however long it is paused, and each is sparse."""
    assert Grid(from_ms=20_000, window_ms=5_000, most=21) == grid_of(ANALYZING)
    assert grid_of(None) is grid_of(ANALYZING.model_copy(update={"windows_from_ms": None})) is None
    windows = ColourWindows()
    windows.begin(GRID)
    for second in range(20, 700, 5):
        windows.add("a", "green", LAYOUT, seconds(second, second + 5))
    found = windows.told()["green"]
    assert (20, 135) == (len(found), found[-1].number)
    assert 1 == len(found[-1].buckets)
    assert 20 == len(windows._seen_ms)
    windows.add("late", "green", LAYOUT, seconds(20, 25))
    assert found == windows.told()["green"], "too old to be of interest"


def test_what_is_under_way_stands_in_the_newest_window() -> None:
    """Of all runners of a version, as they were read last."""
    windows = ColourWindows()
    windows.begin(GRID)
    windows.add("a", "green", LAYOUT, seconds(20, 26), in_flight=3)
    windows.add("b", "green", LAYOUT, seconds(20, 26), in_flight=4)
    assert [0, 7] == [window.in_flight for window in windows.told()["green"]]
    windows.forget("b")
    assert ["a"] == [*windows._reached]
    assert [0, 3] == [window.in_flight for window in windows.told()["green"]]


@dataclass
class Ring:
    """A runner as the ledger reads it: its windows so far, *silent* when it cannot be read."""

    uid: str
    revision: str
    windows: list[Window] = field(default_factory=list)
    boot: str = "b1"
    silent: bool = False
    asked: list[int] = field(default_factory=list)

    def tick(self, until_s: int, **counts: Any) -> None:
        """Count until *until_s*."""
        first = self.windows[-1].sequence if self.windows else 0
        for second in range(first, until_s):
            self.windows.append(replace(a_second(second * 1000 + 137, **counts), sequence=second + 1))

    def answer(self, since: int) -> Answer:
        """Return what `/v1/statistics` answers."""
        self.asked.append(since)
        if self.silent:
            raise Unavailable("no answer")
        account = zeros(LAYOUT)
        for window in self.windows:
            window.add_to(account)
        return Answer(
            runner=self.uid, boot=self.boot, run=1, layout=LAYOUT, sequence=len(self.windows), first=1, total=account,
            warmup=zeros(LAYOUT), extremes=(0,) * LAYOUT.extremes, gauges={"in_flight": 2},
            windows=tuple(window for window in self.windows if window.sequence > since),
        )  # fmt: skip

    def seen(self) -> Runner:
        """Return what the fleet and the acknowledgement say."""
        ack = Acknowledgement(runner=self.uid, boot=self.boot, run=1, epoch=1)
        return Runner(
            name=self.uid, uid=self.uid, revision=self.revision, state=RunnerState.READY, address=self.uid,
            acknowledgement=ack, answered=not self.silent,
        )  # fmt: skip


@dataclass
class Rings:
    """The runners of a run, in the place of their clients."""

    rings: dict[str, Ring]

    async def statistics(self, address: str, boot: str, since: int) -> Answer:
        """Return one runner's answer."""
        return self.rings[address].answer(since)


ORIGIN_MS = 1_000_000


def a_ledger(rollout: RolloutStatus | None = ANALYZING) -> Ledger:
    """Return the ledger of an operator that just came to know of run 1."""
    return Ledger(run=1, origin_ms=ORIGIN_MS, rollout=rollout)


async def read(ledger: Ledger, rings: Iterable[Ring], at_s: float) -> dict[str, dict[int, tuple[int, bool]]]:
    """Look *at_s* s after the origin; return what each version told."""
    known = {ring.uid: ring for ring in rings}
    seen = [ring.seen() for ring in known.values()]
    ledger.remembered.update({runner.uid: runner for runner in seen})
    await ledger.read(seen, Rings(known), ORIGIN_MS + int(at_s * 1000), None)  # type: ignore[arg-type]
    return {
        revision: {window.number: (window.requests, window.whole) for window in windows}
        for revision, windows in ledger.evidence(None).colours.items()
    }


async def follow(ledger: Ledger, rings: list[Ring], first_s: int, last_s: int) -> dict[str, dict[int, Any]]:
    """Let every runner count, and look every second."""
    found: dict[str, dict[int, Any]] = {}
    for second in range(first_s, last_s + 1):
        for ring in rings:
            ring.tick(second)
        found = await read(ledger, rings, second + 0.5)
    return found


async def test_a_restarted_operator_gathers_the_same_windows() -> None:
    """It asks for the whole ring, and comes to the same numbers; nothing is counted twice."""
    rings = [Ring("g1", "green"), Ring("g2", "green"), Ring("b1", "blue")]
    lived = a_ledger()
    await follow(lived, rings, 1, 41)
    anew = a_ledger()
    await read(anew, rings, 41.6)
    assert [0, 0, 0] == [ring.asked[-1] for ring in rings]
    was, now = lived.evidence(None).colours, anew.evidence(None).colours
    assert dict(was) == dict(now)
    for revision in ("green", "blue"):
        for mine, theirs in zip(was[revision], now[revision], strict=True):
            assert mine.buckets.tolist() == theirs.buckets.tolist()
            assert mine.counts.tolist() == theirs.counts.tolist()
    assert {0: (200, True), 1: (200, True), 2: (200, True), 3: (200, True), 4: (40, False)} == {
        window.number: (window.requests, window.whole) for window in now["green"]
    }
    assert await follow(lived, rings, 42, 50) == await follow(anew, rings, 50, 50)


async def test_during_a_rollout_runners_are_read_every_second() -> None:
    """At rest every five; the windows of a step would come in threes otherwise."""
    for rollout, reads in (
        (ANALYZING, 10),
        (ANALYZING.model_copy(update={"phase": RolloutPhase.STABLE}), 2),
        (None, 2),
    ):
        ring = Ring("g", "green")
        await follow(a_ledger(rollout), [ring], 1, 10)
        assert reads == len(ring.asked)


async def test_a_runner_that_is_lost_leaves_what_it_told() -> None:
    """Its seconds stay in their windows, and nobody waits for it."""
    rings = [Ring("g1", "green"), Ring("g2", "green")]
    ledger = a_ledger()
    await follow(ledger, rings, 1, 23)
    found = await follow(ledger, rings[:1], 24, 26)
    assert {"green": {0: (160, True), 1: (20, False)}} == found
    assert [2] == [window.in_flight for window in ledger.evidence(None).colours["green"][1:]]


async def test_a_runner_that_was_silent_is_counted_when_it_answers_again() -> None:
    """Windows become whole without it, and grow when it tells; one whose numbers alone fail is waited for."""
    rings = [Ring("g1", "green"), Ring("g2", "green")]
    ledger = a_ledger()
    await follow(ledger, rings, 1, 22)
    rings[1].silent = True
    assert {"green": {0: (140, True), 1: (20, False)}} == await follow(ledger, rings, 23, 26)
    rings[1].silent = False
    assert {"green": {0: (200, True), 1: (40, False)}} == await follow(ledger, rings, 26, 26)


async def test_a_break_in_listening_is_told() -> None:
    """An operator that was away, or stood still, has listened since it looked again; time that goes back counts."""
    ring = Ring("g", "green")
    ledger = a_ledger()
    assert (await follow(ledger, [ring], 1, 30)) and 1_500 == ledger.evidence(None).listening_ms
    await read(ledger, [ring], 42)
    assert 1_500 == ledger.evidence(None).listening_ms
    await read(ledger, [ring], 54.5)
    assert 54_500 == ledger.evidence(None).listening_ms
    ledger.origin_ms = ORIGIN_MS + 30_000
    await read(ledger, [ring], 55)
    assert 25_000 == ledger.evidence(None).listening_ms


async def test_a_runner_that_came_back_is_not_counted_twice() -> None:
    """A new boot begins its ring anew: what the old one told stays, once."""
    ring = Ring("g", "green")
    ledger = a_ledger()
    await follow(ledger, [ring], 1, 23)
    assert {"green": {0: (60, False)}} == await read(ledger, [ring], 24.5)
    ring.boot, ring.windows = "b2", [replace(window, sequence=n) for n, window in enumerate(seconds(23, 27), start=1)]
    assert {"green": {0: (100, True), 1: (40, False)}} == await read(ledger, [ring], 27.5)


def test_windows_of_equal_numbers_are_equal() -> None:
    """They are plain values but for the histogram, which is compared by nobody."""
    assert ColourWindow(number=1, requests=2) == ColourWindow(number=1, requests=2)
