"""The analysis of a rollout's step: the verdict table with its numbers, and what never changes a verdict."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.histogram import bucket_of
from trafficsim_api.names import Reason
from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.status import ColourFigures, PlannedStep, RolloutPlan, RolloutStatus
from trafficsim_api.units import format_instant
from trafficsim_operator.observed import ColourWindow
from trafficsim_operator.plan.analysis import LATE_MS, Analysis, Outcome, Users, analyse
from trafficsim_operator.plan.limits import Share, shares, sums
from trafficsim_operator.plan.wilson import lower_bound

FROM_MS, WINDOW_MS, NOW_MS = 100_000, 5_000, 1_700_000_000_000
PLAN = RolloutPlan(
    steps=(PlannedStep(percent=10, dwell_ms=30_000), PlannedStep(percent=100, dwell_ms=30_000)),
    max_dwell_ms=600_000, max_error_rate=500, max_p95_ms=5_000, min_success_rate=9_500, on_failure="rollback",
    comparison="absolute", auto_promote=True, scale_down_ms=60_000, abort_scale_down_ms=300_000, warm_up_ms=10_000,
    window_ms=WINDOW_MS, min_samples=500, deadline_ms=300_000,
)  # fmt: skip
RELATIVE = PLAN.model_copy(update={"comparison": "relative"})


def a_window(
    number: int, n: int = 200, *, failed: int = 0, missed: int = 0, slow: int = 0, in_flight: int = 0, user_ms: int = -1
) -> ColourWindow:
    """
    Build a whole window of *n* requests: *failed* and *missed* (checks) of them, *slow* answered after 6 s.

    *user_ms* below zero: its version's users are active all along.
    """
    answered = n - failed
    times = {bucket_of(10_000_000): answered - slow, bucket_of(6_000_000_000): slow}
    return ColourWindow(
        number=number,
        requests=n,
        failed=failed,
        checks=n,
        checks_failed=missed,
        in_flight=in_flight,
        user_ms=user_ms,
        seen_ms=WINDOW_MS,
        whole=True,
        buckets=np.array(list(times), dtype=np.uint16),
        counts=np.array(list(times.values()), dtype=np.uint64),
    )


def windows(*each: dict[str, int] | int | None) -> tuple[ColourWindow, ...]:
    """Build windows 0, 1, …: by their numbers, by n alone, or untold (None)."""
    return tuple(
        a_window(number, **(what if isinstance(what, dict) else {"n": what}))
        for number, what in enumerate(each)
        if what is not None
    )


def analysed(
    green: tuple[ColourWindow, ...],
    blue: tuple[ColourWindow, ...] = windows(200, 200, 200, 200),
    *,
    plan: RolloutPlan = PLAN,
    elapsed_s: float = 30,
    run_ms: int | None = None,
    users: tuple[int, int] = (10, 90),
    rate: float = 4.0,
    due: int | None = None,
    **facts: Any,
) -> Analysis:
    """Analyse a step at the time at which the newest window of either version is due."""
    newest = max((window.number for window in (*green, *blue)), default=3)
    green, blue = (
        tuple(window if window.user_ms >= 0 else replace(window, user_ms=count * plan.window_ms) for window in told)
        for told, count in zip((green, blue), users, strict=True)
    )
    record = {key: facts.pop(key) for key in ("no_numbers_since", "step") if key in facts}
    found = analyse(
        RolloutStatus(
            phase=RolloutPhase.ANALYZING, attempt=1, plan=plan, windows_from_ms=FROM_MS,
            step_started_at=format_instant(NOW_MS - int(elapsed_s * 1000)), **record,
        ),
        green=green,
        blue=blue,
        users=Users(blue=users[1], requests_per_user_s=rate, due=users[0] if due is None else due),
        now_ms=NOW_MS,
        run_ms=FROM_MS + (newest + 1) * WINDOW_MS + LATE_MS if run_ms is None else run_ms,
        **facts,
    )  # fmt: skip
    assert found is not None
    return found


GOOD = windows(200, 200, 200, 200)
BAD = windows(*({"failed": 20, "n": 200} for _ in range(4)))
HUNG = windows(*({"n": 0, "in_flight": 3} for _ in range(4)))


@pytest.mark.parametrize(
    ("green", "blue", "plan", "outcome", "why"),
    [
        pytest.param(GOOD, GOOD, PLAN, "pass", None, id="within limits"),
        pytest.param(GOOD, BAD, PLAN, "pass", None, id="within limits, whatever the old one does"),
        pytest.param(BAD, GOOD, PLAN, "fail", Reason.ANALYSIS_FAILED, id="breach, the old one within limits"),
        pytest.param(BAD, GOOD, RELATIVE, "fail", Reason.ANALYSIS_FAILED, id="breach, relative, the old one within"),
        pytest.param(BAD, BAD, PLAN, "fail", Reason.ANALYSIS_FAILED, id="both breach: the contract is absolute"),
        pytest.param(BAD, BAD, RELATIVE, "hold", None, id="both breach, relative: hold"),
        pytest.param(BAD, (), RELATIVE, "hold", None, id="breach, relative, and nothing to compare with: hold"),
        pytest.param(windows(200, 0), windows(9, 9), PLAN, "hold", None, id="one window without requests"),
        pytest.param(windows(200, 0, 0, 0), GOOD, PLAN, "fail", Reason.CANDIDATE_SILENT, id="three without requests"),
        pytest.param(windows(200), GOOD, PLAN, "fail", Reason.CANDIDATE_SILENT, id="three that nobody told of"),
        pytest.param(windows(200, 0, None, 0), GOOD, PLAN, "fail", Reason.CANDIDATE_SILENT, id="silent either way"),
        pytest.param(windows(200, 0, 0, 50), GOOD, PLAN, "hold", None, id="not in a row: too few samples"),
        pytest.param(HUNG, HUNG, PLAN, "hold", None, id="the target hangs under both"),
        pytest.param((), (), PLAN, "hold", None, id="no numbers of either"),
        pytest.param(windows(60, 60, 60, 60), GOOD, PLAN, "hold", None, id="too few samples"),
        pytest.param(windows(400, 400), GOOD[:2], PLAN, "hold", None, id="enough samples, too few windows"),
    ],
)  # fmt: skip
def test_the_table(green, blue, plan, outcome, why) -> None:
    """What green and blue show in the same windows, when the dwell is over."""
    found = analysed(green, blue, plan=plan)
    assert (outcome, why, None) == (found.outcome, found.reason, found.pause), found.message


@pytest.mark.parametrize(
    ("worse", "text"),
    [
        ({"failed": 11}, "error_rate 5.5% (blue 0.0%), n=800"),
        ({"slow": 11}, "p95 6.01s (blue 10ms), n=800"),
        ({"missed": 11}, "success 94.5% (blue 100.0%), n=800"),
    ],
    ids=["error rate above 5%", "p95 above 5s", "success below 95%"],
)
def test_each_threshold_triggers_by_itself(worse, text) -> None:
    """error_rate > 5 %, p95 > 5 s and success < 95 % each roll back; at the limit itself nothing is broken."""
    found = analysed(windows(*({"n": 200} | worse for _ in range(4))))
    assert (Outcome.FAIL, text) == (found.outcome, found.message)
    at_limit = dict.fromkeys(worse, 10)
    assert Outcome.PASS is analysed(windows(*({"n": 200} | at_limit for _ in range(4)))).outcome


def test_at_a_limit_of_latency_the_percentile_and_the_share_agree() -> None:
    """p95 is past 5 s exactly when more than 5 % of the answers took longer."""
    for slow in range(8, 13):
        of = sums([a_window(0, 200, slow=slow)])
        (p95,) = (share for share in shares(PLAN, of) if share.name == "p95")
        assert (slow > 10) is p95.is_over
        assert ("6.01s" if slow > 10 else "10ms") == of.p95


@pytest.mark.parametrize(
    ("green", "elapsed_s", "outcome", "text"),
    [
        pytest.param(windows({"n": 50, "failed": 6}), 16, "fail", "error_rate 12.0%", id="6 of 50: 5.6 % at least"),
        pytest.param(windows({"n": 50, "failed": 5}), 16, "hold", "n=50 of 500", id="5 of 50 may be 4.3 %"),
        pytest.param(windows({"n": 49, "failed": 40}), 16, "hold", "n=49 of 500", id="49 are too few"),
        pytest.param(
            windows({"n": 200, "failed": 11}, {"n": 200, "failed": 11}), 21, "fail", "n=400", id="two merged windows"
        ),
        pytest.param(
            windows({"n": 200, "failed": 11}, {"n": 200, "missed": 11}), 21, "hold", "n=400", id="of the same limit"
        ),
        pytest.param(
            windows(*({"n": 100, "failed": f} for f in (5, 6, 5, 6))), 29, "fail", "n=400", id="each merged from two"
        ),
        pytest.param(
            windows({"n": 200, "failed": 15}, 200, {"n": 200, "failed": 15}), 26, "hold", "n=600", id="not in a row"
        ),
        pytest.param(
            windows({"n": 200, "failed": 15}, {"n": 200, "failed": 9}, {"n": 200, "failed": 8}), 30, "fail",
            "error_rate 5.3% (blue 0.0%), n=600", id="pooled when the dwell is over",
        ),
        pytest.param(
            windows({"n": 200, "failed": 15}, {"n": 200, "failed": 9}, {"n": 200, "failed": 8}), 29, "hold",
            "n=600", id="pooled, but not before",
        ),
        pytest.param(
            windows(*[800] * 20, {"n": 200, "failed": 52}), 140, "fail", "error_rate 26.0%", id="all at once, late"
        ),
        pytest.param(windows(*[800] * 20, {"n": 200, "failed": 49}), 140, "pass", "n=16200", id="not that hard"),
    ],
)  # fmt: skip
def test_when_it_fails_early(green, elapsed_s, outcome, text) -> None:
    """The Wilson bound from n = 50, two merged windows in a row, more than 25 % at once, the pooled step at its end."""
    found = analysed(green, tuple(a_window(w.number) for w in green), elapsed_s=elapsed_s)
    assert outcome == found.outcome, found.message
    assert text in found.message


def test_a_step_that_cannot_be_decided_is_paused() -> None:
    """Held up to maxDwell, then paused; a hanging target and missing numbers after 180 s."""
    few = windows(60, 60, 60, 60)
    assert (Outcome.HOLD, None) == (analysed(few, elapsed_s=599).outcome, analysed(few, elapsed_s=599).pause)
    found = analysed(few, elapsed_s=600)
    assert (Outcome.PAUSE, PauseReason.INCONCLUSIVE) == (found.outcome, found.pause)
    assert "n=240 of 500, 4 windows of 3" == found.message
    both: dict[str, Any] = {"plan": RELATIVE, "elapsed_s": 210}
    found = analysed(BAD, BAD, **both)
    assert (Outcome.PAUSE, PauseReason.TARGET_DEGRADED) == (found.outcome, found.pause)
    assert Outcome.HOLD is analysed(BAD, BAD, **(both | {"elapsed_s": 209})).outcome


def test_a_target_that_recovers_lets_the_step_pass() -> None:
    """Relative: two bad windows of both versions are no charge against the step once it is good as a whole."""
    spell = windows({"n": 200, "failed": 12}, {"n": 200, "failed": 12}, 200, 200)
    held = analysed(spell[:2], spell[:2], plan=RELATIVE, elapsed_s=20)
    assert (Outcome.HOLD, True) == (held.outcome, held.message.startswith("it is not the new version's fault alone"))
    assert Outcome.PASS is analysed(spell, spell, plan=RELATIVE).outcome
    assert Outcome.FAIL is analysed(spell, GOOD, plan=RELATIVE).outcome


def test_no_numbers_of_either_hold_the_step_for_three_minutes() -> None:
    """No step, no abort; the time is on record, so a restart does not begin it anew."""
    first = analysed((), ())
    assert (Outcome.HOLD, NOW_MS) == (first.outcome, first.no_numbers_since_ms)
    assert 0 == first.errors
    for ago_ms, outcome, pause in (
        (179_999, Outcome.HOLD, None),
        (180_000, Outcome.PAUSE, PauseReason.METRICS_UNAVAILABLE),
    ):
        found = analysed((), (), no_numbers_since=format_instant(NOW_MS - ago_ms))
        assert (outcome, pause, NOW_MS - ago_ms) == (found.outcome, found.pause, found.no_numbers_since_ms)
    assert analysed(GOOD, no_numbers_since=format_instant(NOW_MS - 60_000)).no_numbers_since_ms is None


def test_a_target_that_hangs_for_three_minutes_pauses() -> None:
    """36 windows of 5 s in which neither version finished a request, though some are under way."""
    for count, outcome, pause in ((35, Outcome.HOLD, None), (36, Outcome.PAUSE, PauseReason.TARGET_DEGRADED)):
        hung = windows(*({"n": 0, "in_flight": 3} for _ in range(count)))
        found = analysed(hung, hung, elapsed_s=10 + 5 * count)
        assert (outcome, pause) == (found.outcome, found.pause)
        assert "6 are under way" in found.message


def test_a_plan_of_few_samples_fails_by_few() -> None:
    """minSamples 100: 9 of 150 are pooled past the limit, which is no certainty yet, when the dwell is over."""
    few = PLAN.model_copy(update={"min_samples": 100})
    green = windows({"n": 50, "failed": 3}, {"n": 50, "failed": 3}, {"n": 50, "failed": 3})
    assert Outcome.FAIL is analysed(green, GOOD[:3], plan=few).outcome
    found = analysed(green, GOOD[:3], plan=few, elapsed_s=29)
    chance = "past a limit, which may be chance: error_rate 6.0% (blue 0.0%), n=150"
    assert (Outcome.HOLD, f"n=150 of 100, 3 windows of 3; {chance}") == (found.outcome, found.message)
    assert Outcome.HOLD is analysed(green, GOOD[:3]).outcome, "with minSamples 500 it goes on"


def test_limits_that_allow_everything_still_want_an_answer() -> None:
    """Where every request may fail, one that is answered is needed all the same."""
    lax = PLAN.model_copy(update={"max_error_rate": 10_000, "min_success_rate": 0})
    failing = windows(*({"n": 200, "failed": 200, "missed": 200} for _ in range(4)))
    assert Outcome.HOLD is analysed(failing, plan=lax).outcome
    assert Outcome.PASS is analysed((*failing[:3], a_window(3, 200, failed=199)), plan=lax).outcome


def test_a_miss_may_come_a_window_after_its_check() -> None:
    """The head of an answer counts the check, its body the miss: never more misses than checks."""
    found = sums([replace(a_window(0, 60), checks=55, checks_failed=60)])
    assert ("0.0%", 55) == (found.success, found.checks_failed)
    assert "success 0.0%" in analysed((replace(a_window(0, 60), checks=55, checks_failed=60),), GOOD[:1]).message


def test_slow_users_are_not_silent() -> None:
    """One user who makes a request every 10 s: nothing in 15 s means nothing, nothing in 100 s does."""
    for count, outcome in ((3, Outcome.HOLD), (19, Outcome.HOLD), (20, Outcome.FAIL)):
        found = analysed(windows(*[0] * count), windows(*[5] * count), users=(1, 9), rate=0.1)
        assert (outcome, count) == (found.outcome, found.errors)
    assert Outcome.HOLD is analysed((), users=(0, 90)).outcome, "the profile lets nobody be active at green now"
    idle = windows(0, 0, 0, 0)
    found = analysed(idle, idle, users=(1, 1), rate=0.01)
    assert (Outcome.HOLD, "n=0 of 500, 0 windows of 3") == (found.outcome, found.message), "nor does the target hang"


@pytest.mark.parametrize(
    ("green", "quiet_ms", "fails"),
    [
        pytest.param(None, 31_500, 10, id="nothing told: ten seconds, whatever a request may take"),
        pytest.param(0, 10_000, 10, id="nothing finished, quick requests: ten seconds as well"),
        pytest.param(0, 31_500, 32, id="nothing finished where a request may take 31 s and a pause half a second"),
    ],
)
def test_short_windows_do_not_make_a_short_silence(green, quiet_ms, fails) -> None:
    """With windows of a second three of them are no silence yet: users who are well may be quiet for longer."""
    plan = PLAN.model_copy(update={"window_ms": 1_000})

    def after(count: int, elapsed_s: float) -> Analysis:
        run_ms = FROM_MS + count * 1_000 + LATE_MS
        return analysed(
            windows(*[green] * count), windows(*[110] * count), plan=plan, users=(3, 9), elapsed_s=elapsed_s,
            run_ms=run_ms, quiet_ms=quiet_ms,
        )  # fmt: skip

    for count, outcome in ((3, Outcome.HOLD), (fails - 1, Outcome.HOLD), (fails, Outcome.FAIL)):
        found = after(count, 60)
        assert (outcome, count) == (found.outcome, found.errors)
    assert Reason.CANDIDATE_SILENT is after(4, 600).reason, "longer than maxDwell nobody can wait"


STARVED: dict[str, int] = {"time_ns": 5_000_000_000, "waited_ns": 3_000_000_000}
WAITED = "no verdict, its workers waited 60 % of the time for a CPU that others had: "


def starved(*each: dict[str, int] | int | None) -> tuple[ColourWindow, ...]:
    """Build windows in which the workers waited for a CPU most of the time."""
    return tuple(replace(window, **STARVED) for window in windows(*each))


@pytest.mark.parametrize(
    ("green", "said"),
    [
        pytest.param(starved(200, 0, 0, 0), "10 users finished no request for 15s (blue n=600)", id="silence"),
        pytest.param(
            starved(*({"n": 200, "slow": 20} for _ in range(4))), "p95 6.01s (blue 10ms), n=800", id="response times"
        ),
    ],
)
def test_a_starved_generator_is_no_verdict(green: tuple[ColourWindow, ...], said: str) -> None:
    """Held, and undecided when the step was held as long as it may be: it is not known how the version does."""
    found = analysed(green)
    assert (Outcome.HOLD, WAITED + said) == (found.outcome, found.message)
    over = analysed(green, elapsed_s=600)
    assert (Outcome.PAUSE, PauseReason.INCONCLUSIVE, WAITED + said) == (over.outcome, over.pause, over.message)
    assert Outcome.FAIL is analysed(tuple(replace(window, waited_ns=0) for window in green)).outcome


def test_what_starvation_cannot_be_the_cause_of_fails_a_version() -> None:
    """Errors are the target's answers; and within its limits a version passes though its workers waited."""
    both = starved(*({"n": 200, "failed": 20, "slow": 20} for _ in range(4)))
    found = analysed(both)
    assert (Outcome.FAIL, "error_rate 10.0% (blue 0.0%), n=800") == (found.outcome, found.message)
    assert Outcome.PASS is analysed(starved(200, 200, 200, 200)).outcome


def test_users_who_were_not_there_yet_are_not_silent() -> None:
    """A ramp lets green's first user begin in the newest window: what was before says nothing of it."""
    nobody = {"n": 0, "user_ms": 0}
    found = analysed(windows(*[nobody] * 4))
    assert (Outcome.HOLD, 0) == (found.outcome, found.errors)
    assert "no user of the new version was active for 20s" == found.message
    begun = windows(nobody, nobody, nobody, {"n": 0, "user_ms": 5_000})
    found = analysed(begun, rate=28.0)
    assert (Outcome.HOLD, 1) == (found.outcome, found.errors)
    assert "1 user finished no request for 5s (blue n=200)" == found.message
    assert Outcome.PAUSE is analysed(windows(*[nobody] * 4), elapsed_s=600).outcome


def test_who_is_to_be_on_counts_in_a_silence_not_who_was_said_to_be() -> None:
    """A runner that fell silent while a worker of it began anew had said that nobody was active; and the other way."""
    found = analysed((), users=(0, 9), due=3)
    assert (Reason.CANDIDATE_SILENT, "3 users told nothing for 20s (blue n=800)") == (found.reason, found.message)
    assert Outcome.HOLD is analysed((), users=(3, 9), due=0).outcome


def test_without_a_control() -> None:
    """At 100 % the old version has no users: the absolute rules alone, and what is under way tells a hanging target."""
    nobody = windows(0, 0, 0, 0)
    alone: dict[str, Any] = {"users": (100, 0), "blue": nobody, "step": 1}
    assert Outcome.PASS is analysed(GOOD, **alone).outcome
    found = analysed(BAD, plan=RELATIVE, **alone)
    assert (Outcome.FAIL, "error_rate 10.0%, n=800") == (found.outcome, found.message)
    assert Reason.CANDIDATE_SILENT is analysed(windows(200), **alone).reason, "its runners tell, green's do not"
    assert Reason.CANDIDATE_SILENT is analysed(nobody, **alone).reason
    assert "the target hangs" in analysed(HUNG, **alone).message


def test_what_nobody_listened_to_is_no_finding() -> None:
    """An operator that was away finds no silence in the time before; three windows of its own are needed."""
    end_ms = FROM_MS + 20 * WINDOW_MS
    run_ms = end_ms + LATE_MS
    blue = windows(*[200] * 20)
    assert Outcome.HOLD is analysed((), blue, run_ms=run_ms, listening_ms=end_ms).outcome
    assert (Outcome.HOLD, 2) == (
        (found := analysed((), blue, run_ms=run_ms, listening_ms=end_ms - 2 * WINDOW_MS)).outcome,
        found.errors,
    )
    assert Reason.CANDIDATE_SILENT is analysed((), blue, run_ms=run_ms, listening_ms=end_ms - 3 * WINDOW_MS).reason
    assert Outcome.HOLD is analysed((), (), run_ms=run_ms, listening_ms=end_ms, elapsed_s=900).outcome


def test_only_windows_that_can_grow_no_more_are_judged() -> None:
    """What one version has not told yet is waited for until it is due, and what is not whole is not looked at."""
    part = replace(a_window(3, 200, failed=200), whole=False)
    run_ms = FROM_MS + 4 * WINDOW_MS
    assert Outcome.PASS is analysed((*GOOD[:3], part), GOOD, run_ms=run_ms).outcome
    assert Outcome.FAIL is analysed((*GOOD[:3], replace(part, whole=True)), GOOD, run_ms=run_ms).outcome
    early = replace(part, whole=True)
    assert Outcome.PASS is analysed((*GOOD[:3], early), GOOD[:3], run_ms=run_ms).outcome, "blue has not told it"
    late = analysed((*GOOD[:3], part), GOOD, run_ms=run_ms + LATE_MS)
    assert (Outcome.HOLD, 1) == (late.outcome, late.errors)


def test_the_status_gets_the_newest_ten_windows() -> None:
    """Both versions side by side, numbered from 1, rounded."""
    found = analysed(windows(*[200] * 11, {"n": 200, "failed": 2, "missed": 3}), windows(*[800] * 12))
    assert list(range(3, 13)) == [window.number for window in found.windows]
    newest = found.windows[-1]
    assert ColourFigures(requests=200, error_rate="1.0%", success="98.5%", p95="10ms") == newest.green
    assert ColourFigures(requests=800, error_rate="0.0%", success="100.0%", p95="10ms") == newest.blue


def test_nothing_is_judged_before_there_are_windows() -> None:
    """While users move, or before the warm-up is planned, there is no analysis."""
    users = Users(blue=9, requests_per_user_s=1.0, due=1)
    shifting = RolloutStatus(phase=RolloutPhase.SHIFTING, attempt=1, plan=PLAN)
    assert analyse(shifting, green=GOOD, blue=GOOD, users=users, now_ms=NOW_MS, run_ms=0) is None


@pytest.mark.parametrize(
    ("n", "at_least"), [((6, 50), 0.056), ((5, 50), 0.043), ((20, 100), 0.133), ((0, 50), 0.0), ((0, 0), 0.0)]
)
def test_the_wilson_bound(n, at_least) -> None:
    """What a share is at least, in 39 of 40 cases."""
    assert at_least == pytest.approx(lower_bound(*n), abs=0.0005)


@pytest.mark.parametrize(
    ("rate", "n", "wrong", "most"),
    [
        pytest.param(0.03, 50, 0.189, 0.01, id="one window of 50 false-alarms in 18.9 %"),
        pytest.param(0.03, 200, 0.040, 0.005, id="one of 200 in 4.0 %"),
        pytest.param(0.03, 800, 0.001, 0.0008, id="four of 200 pooled in 0.1 %"),
    ],
)
def test_why_windows_are_pooled(rate, n, wrong, most) -> None:
    """How often a version with 3 % errors is past a limit of 5 % by chance."""
    failed = np.random.default_rng(6).binomial(n, rate, size=40_000)
    past = sum(Share(name="error_rate", bad=int(bad), n=n, limit=500).is_over for bad in failed)
    assert wrong == pytest.approx(past / len(failed), abs=most)


def _course(rate: float, rng: np.random.Generator) -> str:
    """Return what becomes of a step with *rate* of errors that is looked at after each of its four windows."""
    counts = rng.binomial(200, rate, size=4)
    for at in range(1, 5):
        green = windows(*({"n": 200, "failed": int(failed)} for failed in counts[:at]))
        found = analysed(green, GOOD[:at], elapsed_s=10 + 5 * at)
        if found.outcome is not Outcome.HOLD:
            return found.outcome.value
    return "hold"


def test_how_often_the_whole_rule_errs() -> None:
    """3 % of errors under a limit of 5 % fail in less than 1.5 % of steps, 8 % pass in less than 1 %."""
    rng = np.random.default_rng(6)
    good = [_course(0.03, rng) for _ in range(800)]
    bad = [_course(0.08, rng) for _ in range(800)]
    assert good.count("fail") / 800 < 0.015
    assert bad.count("pass") / 800 < 0.01
    assert 800 == good.count("pass") + good.count("fail") == bad.count("pass") + bad.count("fail")


COUNTS = st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))


def _window(number: int, counts: tuple[int, int, int, int]) -> ColourWindow:
    n, failed, missed, slow = counts
    return a_window(number, n, failed=min(failed, n), missed=min(missed, n), slow=min(slow, n - min(failed, n)))


@st.composite
def steps(draw: Any) -> tuple[tuple[ColourWindow, ...], tuple[ColourWindow, ...], dict[str, Any]]:
    """Draw what two versions told in up to eight windows, and when it is looked at."""
    green, blue = (
        tuple(_window(number, counts) for number, counts in enumerate(draw(st.lists(COUNTS, max_size=8))))
        for _ in range(2)
    )
    return green, blue, {"elapsed_s": draw(st.sampled_from([12, 30, 60, 700])), "run_ms": FROM_MS + 8 * WINDOW_MS}


ORDER = [Outcome.PASS, Outcome.HOLD, Outcome.PAUSE, Outcome.FAIL]


@settings(max_examples=150, deadline=None)
@given(step=steps(), extra=st.integers(1, 50), what=st.sampled_from(["failed", "checks_failed"]))
def test_more_failures_never_make_a_better_verdict(step, extra, what) -> None:
    """With more failures in the newest window of a version the verdict is the same or worse."""
    green, blue, options = step
    if not green:
        return
    newest = green[-1]
    more = replace(newest, **{what: min(newest.requests, getattr(newest, what) + extra)})
    before, after = analysed(green, blue, **options), analysed((*green[:-1], more), blue, **options)
    assert ORDER.index(before.outcome) <= ORDER.index(after.outcome)


@settings(max_examples=150, deadline=None)
@given(step=steps(), other=st.lists(COUNTS, min_size=8, max_size=8))
def test_the_old_versions_numbers_decide_nothing(step, other) -> None:
    """Under `comparison: absolute` only that it tells its numbers, and finishes requests at all, matters."""
    green, blue, options = step
    others = tuple(
        _window(window.number, (max(1, counts[0]) if window.requests else 0, *counts[1:]))
        for window, counts in zip(blue, other, strict=False)
    )
    before, after = analysed(green, blue, **options), analysed(green, others, **options)
    assert (before.outcome, before.reason, before.pause) == (after.outcome, after.reason, after.pause)


@settings(max_examples=150, deadline=None)
@given(step=steps(), plan=st.sampled_from([PLAN, RELATIVE]), kept=st.integers(0, 2))
def test_no_data_is_never_success(step, plan, kept) -> None:
    """Fewer than three windows with requests, or fewer requests than minSamples, never pass."""
    green, blue, options = step
    with_some = [window for window in green if window.requests][:kept]
    silent = tuple(window if window in with_some else a_window(window.number, 0) for window in green)
    assert Outcome.PASS is not analysed(silent, blue, plan=plan, **options).outcome
    few = tuple(replace(w, requests=min(w.requests, 62), failed=min(w.failed, 62)) for w in green)
    assert Outcome.PASS is not analysed(few, blue, plan=plan, **options).outcome
