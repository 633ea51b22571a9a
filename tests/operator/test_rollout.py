"""The rollout's table of transitions: every way, what interrupts what, clocks under a pause, the edits in its midst."""

from dataclasses import replace

import pytest
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st

from trafficsim_api.names import Reason
from trafficsim_api.rollout import PauseReason, Rollout, RolloutPhase
from trafficsim_api.status import RolloutStatus, RolloutWindow
from trafficsim_api.units import format_instant, parse_instant
from trafficsim_operator.plan.analysis import Analysis, Outcome
from trafficsim_operator.plan.rollout import TRANSITIONS, Colour, Seen, advance, goal, is_judged, refusal
from trafficsim_operator.plan.steps import fast_back, pin

NOW = 1_760_000_000_000
RUN = 100_000
PLAN = pin(Rollout(), 10, None)
SPLITTING = (RolloutPhase.SHIFTING, RolloutPhase.ANALYZING)
PAUSABLE = (RolloutPhase.PREPARING, *SPLITTING)
MOVING_BACK = (RolloutPhase.ABORTING, RolloutPhase.SUPERSEDING)
PASS = Analysis(outcome=Outcome.PASS, message="error_rate 0.2% (blue 0.3%), n=812")
FAIL = Analysis(outcome=Outcome.FAIL, message="error_rate 9.1% (blue 0.4%), n=812", reason=Reason.ANALYSIS_FAILED)


def ago(seconds: float) -> str:
    return format_instant(NOW - int(seconds * 1000))


def a_rollout(phase: str = "Analyzing", *, step: int = 1, **given) -> RolloutStatus:
    """Build attempt 1 at its 25 % step (3 of 10 users), which is settled, begun 60 s ago and judged."""
    phase = RolloutPhase(phase)
    started = {"step_started_at": ago(60), "windows_from_ms": RUN - 50_000} if phase is RolloutPhase.ANALYZING else {}
    standard = {"attempt": 1, "since": ago(60), "plan": PLAN, "settled": 2} | started
    if phase is RolloutPhase.STABLE:
        standard = {}
    if phase is RolloutPhase.RETIRING:
        standard["scale_down_at"] = ago(-30)
    if phase is RolloutPhase.REJECTED:
        standard |= {"rejected": "r2", "scale_down_at": ago(-30), "message": "rejected at 10%: …"}
    return RolloutStatus(phase=phase, step=step, **(standard | given))


def a_look(**given) -> Seen:
    """Build a look at 10 users of r1, the spec asking for r2; *green* users, where an int, are held and settled."""
    total, green = given.get("total", 10), given.get("green", 3)
    if isinstance(green, int):
        given["green"] = Colour(held=green, runners=1, ready=1)
        given.setdefault("blue", Colour(held=total - green, runners=2, ready=2))
    standard = {
        "now_ms": NOW,
        "run_ms": RUN,
        "total": 10,
        "on": True,
        "stable": "r1",
        "candidate": "r2",
        "wanted": "r2",
        "plan": PLAN,
    }
    return Seen(**(standard | given))


def after_promotion(**given) -> Seen:
    """Build a look at r2 as the stable version, r1 the one before, which has no users but its runners."""
    old = Colour(runners=2, ready=2)
    standard = {"stable": "r2", "candidate": "", "previous": "r1", "old": old, "green": Colour(gone=True)}
    return a_look(**(standard | {"blue": Colour(held=10, runners=2, ready=2)} | given))


WAYS = [
    pytest.param(a_rollout("Stable"), a_look(candidate=""), "Preparing", id="another version is asked for"),
    pytest.param(
        a_rollout("Stable", attempt=1, rejected="r2"), a_look(candidate=""), "Rejected",
        id="the rejected version is asked for again",
    ),
    pytest.param(a_rollout("Preparing", step=0), a_look(green=0), "Shifting", id="enough runners are ready"),
    pytest.param(a_rollout("Preparing"), a_look(green=0, command="abort"), "Aborting", id="aborted while it starts"),
    pytest.param(a_rollout("Preparing"), a_look(green=0, wanted="r3"), "Superseding", id="a third while it starts"),
    pytest.param(a_rollout("Preparing"), a_look(on=False, ended=True), "Stable", id="the end while it starts"),
    pytest.param(a_rollout("Shifting", settled=1), a_look(), "Analyzing", id="the split is settled"),
    pytest.param(a_rollout("Shifting"), a_look(wanted="r1"), "Aborting", id="back to the stable one in a shift"),
    pytest.param(a_rollout("Shifting"), a_look(wanted="r3"), "Superseding", id="a third version in a shift"),
    pytest.param(a_rollout("Shifting"), a_look(on=False, ended=True), "Stable", id="the end in a shift"),
    pytest.param(a_rollout(), a_look(analysis=PASS), "Shifting", id="a step is passed"),
    pytest.param(a_rollout(step=4), a_look(green=10, analysis=PASS), "Promoting", id="the last step is passed"),
    pytest.param(a_rollout(), a_look(analysis=FAIL), "Aborting", id="a step is failed"),
    pytest.param(a_rollout(), a_look(wanted="r3"), "Superseding", id="a third version while it is judged"),
    pytest.param(a_rollout(), a_look(on=False, ended=True), "Stable", id="the end while it is judged"),
    pytest.param(a_rollout("Promoting", step=4), after_promotion(), "Retiring", id="the promotion is on record"),
    pytest.param(
        a_rollout("Retiring", scale_down_at=ago(0)), after_promotion(old=Colour(gone=True)), "Stable",
        id="the old version's runners are gone",
    ),
    pytest.param(a_rollout("Retiring"), after_promotion(wanted="r3"), "Preparing", id="the next version at once"),
    pytest.param(a_rollout("Aborting", reason="Aborted"), a_look(green=0), "Rejected", id="all users are back"),
    pytest.param(
        a_rollout("Aborting", reason="Withdrawn"), a_look(green=0, wanted="r1"), "Stable",
        id="all users are back, nothing was judged",
    ),
    pytest.param(a_rollout("Rejected"), a_look(green=0, command="retry"), "Preparing", id="retried"),
    pytest.param(a_rollout("Rejected"), a_look(green=0, wanted="r1"), "Stable", id="back to the stable one"),
    pytest.param(a_rollout("Superseding"), a_look(green=0, wanted="r3"), "Preparing", id="the third one's turn"),
    pytest.param(a_rollout("Superseding"), a_look(green=0, wanted="r1"), "Stable", id="no third one after all"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "seen", "phase"), WAYS)
def test_every_way(before, seen, phase):
    """What leads from phase to phase; there is a case for each way of the table, and none for another."""
    after = advance(before, seen)
    assert phase == after.phase
    assert after.phase in TRANSITIONS[before.phase]
    assert after.since == format_instant(NOW)


def test_every_way_of_the_table_is_taken():
    taken = {(case.values[0].phase, RolloutPhase(case.values[2])) for case in WAYS}
    assert taken == {(phase, following) for phase, ways in TRANSITIONS.items() for following in ways}


def test_every_phase_leads_to_rest():
    """From each phase there is a way to Stable, and none stands outside the table."""
    assert set(RolloutPhase) == TRANSITIONS.keys()
    at_rest = {RolloutPhase.STABLE}
    for _ in RolloutPhase:
        at_rest |= {phase for phase, ways in TRANSITIONS.items() if ways & at_rest}
    assert at_rest == set(RolloutPhase)


def test_an_illegal_step_raises(monkeypatch):
    monkeypatch.setitem(TRANSITIONS, RolloutPhase.SHIFTING, frozenset())
    with pytest.raises(AssertionError, match="no way from Shifting to Analyzing"):
        advance(a_rollout("Shifting", settled=1), a_look())


@pytest.mark.parametrize(
    ("before", "seen"),
    [
        pytest.param(a_rollout("Stable"), a_look(candidate="", wanted="r1"), id="nothing is asked for"),
        pytest.param(a_rollout("Stable"), a_look(candidate="", stable=""), id="a first revision is no rollout"),
        pytest.param(a_rollout("Stable"), a_look(candidate="", on=False), id="the simulation is not running"),
        pytest.param(a_rollout("Stable"), a_look(candidate="", plan=None), id="the document can't be acted on"),
        pytest.param(a_rollout("Rejected"), a_look(green=0), id="a rejected version is not tried again"),
        pytest.param(a_rollout("Rejected"), a_look(green=0, wanted="r3", on=False), id="rejected, and not running"),
        pytest.param(a_rollout("Retiring"), after_promotion(wanted="r2"), id="kept for the way back"),
        pytest.param(
            a_rollout("Retiring", scale_down_at=ago(0)), after_promotion(wanted="r2"), id="runners are still there"
        ),
    ],
)
def test_what_stays(before, seen):
    after = advance(before, seen)
    assert (before.phase, before.attempt, before.since) == (after.phase, after.attempt, after.since)


def test_an_attempt_begins_with_its_plan_pinned():
    """Attempts are numbered from 1; nothing of the last one is left but its number."""
    before = a_rollout("Rejected", attempt=3, errors=2, windows=(RolloutWindow(number=1),))
    after = advance(before, a_look(green=0, command="retry"))
    assert (4, PLAN, 0, "", None, ()) == (
        after.attempt, after.plan, after.step, after.rejected, after.scale_down_at, after.windows,
    )  # fmt: skip
    edited = PLAN.model_copy(update={"min_samples": 7})
    assert advance(after, a_look(green=Colour(), plan=edited)).plan == PLAN


def test_a_good_version_goes_all_the_way():
    """10, 25, 50, 75, 100 % of 10 users are 1, 3, 5, 8, 10; each is settled at two looks, then judged."""
    rollout, steps = advance(a_rollout("Stable", step=0), a_look(candidate="", green=0)), []
    for _ in range(60):
        users = goal(rollout, 10)
        is_asked = is_judged(rollout)
        if is_asked:
            steps.append((rollout.percent, rollout.effective_percent, rollout.wanted))
        rollout = advance(rollout, a_look(green=users, analysis=PASS if is_asked else None))
        if rollout.phase is RolloutPhase.PROMOTING:
            break
    assert [(10, 10, 1), (25, 30, 3), (50, 50, 5), (75, 80, 8), (100, 100, 10)] == steps
    assert (10, 100, Reason.PROMOTED) == (rollout.wanted, rollout.percent, rollout.reason)
    assert rollout.message == "r2 is promoted: error_rate 0.2% (blue 0.3%), n=812"
    rollout = advance(rollout, after_promotion())
    assert (RolloutPhase.RETIRING, ago(-60)) == (rollout.phase, rollout.scale_down_at)


def test_preparing_waits_for_the_runners_of_its_step():
    """As many as its first step needs, at least one; it says the cause why there are fewer."""
    before = a_rollout("Preparing", step=0)
    few = Colour(ready=1, runners=2, cause="Pending: no node has room")
    waiting = advance(before, a_look(green=few, needed=2))
    assert "1 of 2 runners of r2 are ready; Pending: no node has room" == waiting.message
    none = advance(before, a_look(green=Colour(), needed=0))
    assert (RolloutPhase.PREPARING, "0 of 1 runners of r2 are ready") == (none.phase, none.message)


@pytest.mark.parametrize(
    ("phase", "reason", "words"),
    [
        ("Preparing", Reason.PREPARE_TIMEOUT, "before its first user: 0 of 1 runners of r2 are ready after 300 s"),
        ("Shifting", Reason.SHIFT_TIMEOUT, "at 25%: 2 of 3 users are at r2, 8 at r1 after 300 s"),
    ],
)
def test_deadlines(phase, reason, words):
    """Preparing and each shift have one; at its last ms it is not over."""
    green = Colour(held=2 if phase == "Shifting" else 0)
    seen = a_look(green=green, blue=Colour(held=8))
    assert advance(a_rollout(phase, since=ago(299.999)), seen).phase == phase
    after = advance(a_rollout(phase, since=ago(300)), seen)
    assert (RolloutPhase.ABORTING, reason, f"rejected {words}") == (after.phase, after.reason, after.message)


def test_analyzing_has_no_deadline():
    held = Analysis(outcome=Outcome.HOLD, message="n=12 of 500")
    after = advance(a_rollout(since=ago(3000), step_started_at=ago(3000)), a_look(analysis=held))
    assert (RolloutPhase.ANALYZING, "n=12 of 500") == (after.phase, after.message)


def test_a_shift_settles_at_two_looks_in_a_row():
    """One look at which the split is not as it is to be begins the count anew."""
    once = advance(a_rollout("Shifting", settled=0), a_look())
    assert (RolloutPhase.SHIFTING, 1) == (once.phase, once.settled)
    disturbed = advance(once, a_look(green=2))
    assert (RolloutPhase.SHIFTING, 0) == (disturbed.phase, disturbed.settled)
    begun = advance(once, a_look())
    assert (RolloutPhase.ANALYZING, ago(0), RUN + 10_000) == (begun.phase, begun.step_started_at, begun.windows_from_ms)


@pytest.mark.parametrize(
    ("green", "blue"),
    [
        pytest.param(Colour(held=3, settled=False), Colour(held=7), id="green is not settled"),
        pytest.param(Colour(held=3), Colour(held=7, settled=False), id="blue is not settled"),
        pytest.param(Colour(held=3), Colour(held=8), id="a place is on twice"),
        pytest.param(Colour(held=3), Colour(held=6), id="a place is nobody's"),
    ],
)
def test_a_split_is_acknowledged_by_both(green, blue):
    assert 0 == advance(a_rollout("Shifting", settled=1), a_look(green=green, blue=blue)).settled


CRASHED = Colour(runners=1, crashed=True, cause="CrashLoopBackOff: exit code 1")


@pytest.mark.parametrize(
    ("phase", "at"), [("Preparing", "before its first user"), ("Shifting", "at 25%"), ("Analyzing", "at 25%")]
)
def test_a_version_that_fails_by_itself_is_rejected_with_the_cause(phase, at):
    """After 10 s of it, long before the deadline; a cause that went away in between begins anew."""
    before = a_rollout(phase)
    failing = advance(before, a_look(green=CRASHED))
    assert (before.phase, ago(0)) == (failing.phase, failing.failing_since)
    later = replace(a_look(green=CRASHED), now_ms=NOW + 9_999)
    assert advance(failing, later).phase is before.phase
    mended = advance(failing, replace(later, green=Colour(runners=1)))
    assert mended.failing_since is None
    after = advance(failing, replace(later, now_ms=NOW + 10_000))
    words = f"rejected {at}: CrashLoopBackOff: exit code 1"
    assert (RolloutPhase.ABORTING, Reason.CANDIDATE_FAILING, words) == (after.phase, after.reason, after.message)


def test_green_silent_in_a_shift_is_rejected():
    silent = Colour(held=2, silent_ms=10_000)
    after = advance(a_rollout("Shifting"), a_look(green=silent))
    assert (RolloutPhase.ABORTING, Reason.CANDIDATE_SILENT) == (after.phase, after.reason)
    assert after.message == "rejected at 25%: its runners have not answered for 10 s"
    heard = advance(a_rollout("Shifting"), a_look(green=replace(silent, silent_ms=9_999)))
    assert heard.phase is RolloutPhase.SHIFTING


@pytest.mark.parametrize("green", [Colour(held=2), Colour(held=2, silent_ms=60_000)])
def test_blue_silent_holds_the_split(green):
    """Nobody moves towards or away from a version that isn't heard, whatever green does; the deadline waits too."""
    seen = a_look(green=green, blue=Colour(held=8, silent_ms=10_000))
    after = advance(a_rollout("Shifting", since=ago(400)), seen)
    assert (RolloutPhase.SHIFTING, ago(0), "r1 does not answer: the split is kept") == (
        after.phase, after.since, after.message,
    )  # fmt: skip


def test_a_blue_without_users_may_be_silent():
    """At 100 % all have come over: nobody waits for the word of runners that have nothing to say."""
    seen = a_look(green=10, blue=Colour(silent_ms=60_000))
    assert RolloutPhase.ANALYZING is advance(a_rollout("Shifting", step=4, settled=1), seen).phase


def test_a_lost_split_voids_the_windows_and_keeps_the_clock():
    """Windows count anew, after what remains of the warm-up, when the split has held for two looks again."""
    before = a_rollout(step_started_at=ago(4))
    lost = advance(before, a_look(green=2, analysis=FAIL))
    assert (RolloutPhase.ANALYZING, 0, False) == (lost.phase, lost.settled, is_judged(lost))
    assert lost.message == "2 of 3 users are at r2, 8 at r1: windows count anew when the split holds"
    again = advance(advance(lost, a_look()), a_look(analysis=FAIL))
    assert (RolloutPhase.ANALYZING, 2, RUN + 6_000) == (again.phase, again.settled, again.windows_from_ms)
    assert (ago(4), True) == (again.step_started_at, is_judged(again))
    late = advance(advance(a_rollout(settled=0), a_look()), a_look())
    assert RUN == late.windows_from_ms


def test_a_passed_step_says_which_split_it_waits_for():
    """Where the users are and the pods' cause; the numbers it was passed by are kept, and told when it goes on."""
    passed = a_rollout(step=4, passed=True, settled=0, message="n=812")
    green = Colour(held=8, runners=1, ready=1, cause="Unschedulable: no node has room")
    waiting = advance(passed, a_look(green=green, blue=Colour(held=1)))
    words = "n=812 · 8 of 10 users are at r2, 1 at r1; Unschedulable: no node has room"
    assert (RolloutPhase.ANALYZING, words) == (waiting.phase, waiting.message)
    assert waiting == advance(waiting, a_look(green=green, blue=Colour(held=1)))
    there = advance(advance(waiting, a_look(green=10)), a_look(green=10))
    assert (RolloutPhase.PROMOTING, "r2 is promoted: n=812") == (there.phase, there.message)
    unjudged = advance(passed.model_copy(update={"message": ""}), a_look(green=8, blue=Colour(held=2)))
    assert "passed · 8 of 10 users are at r2, 2 at r1" == unjudged.message


def test_an_edit_of_load_or_target_voids_the_windows():
    after = advance(a_rollout(), a_look(disturbed=True, analysis=PASS))
    assert (RolloutPhase.ANALYZING, 0) == (after.phase, after.settled)


def test_users_edited_in_mid_rollout_are_split_anew():
    """The same attempt, step and clock: 25 % of 40 users are 10."""
    after = advance(a_rollout(), a_look(total=40, green=3, analysis=PASS))
    assert (RolloutPhase.ANALYZING, 1, 10, 25) == (after.phase, after.step, after.wanted, after.effective_percent)
    assert (1, 0, ago(60)) == (after.attempt, after.settled, after.step_started_at)


def test_a_split_that_never_holds_is_inconclusive():
    after = advance(a_rollout(step_started_at=ago(600)), a_look(green=2))
    assert PauseReason.INCONCLUSIVE is after.pause
    assert "maxDwell is over" in after.message


def test_a_failed_step_pauses_where_the_spec_says_so():
    plan = PLAN.model_copy(update={"on_failure": "pause"})
    after = advance(a_rollout(plan=plan), a_look(analysis=FAIL))
    assert (RolloutPhase.ANALYZING, PauseReason.FAILED, FAIL.message) == (after.phase, after.pause, after.message)
    assert advance(after, a_look(command="abort")).phase is RolloutPhase.ABORTING
    on = advance(after, a_look(command="promote"))
    assert (RolloutPhase.SHIFTING, 2, None) == (on.phase, on.step, on.pause)


def test_a_failed_step_is_told_with_its_numbers():
    after = advance(a_rollout(), a_look(analysis=FAIL))
    assert (Reason.ANALYSIS_FAILED, "rejected at 25%: error_rate 9.1% (blue 0.4%), n=812") == (
        after.reason, after.message,
    )  # fmt: skip


@pytest.mark.parametrize(
    "reason", [PauseReason.INCONCLUSIVE, PauseReason.TARGET_DEGRADED, PauseReason.METRICS_UNAVAILABLE]
)
def test_an_analysis_that_pauses(reason):
    """Resumed it is judged anew, from now on and after the warm-up; promoted or skipped it passes unjudged."""
    undecided = Analysis(outcome=Outcome.PAUSE, pause=reason, message="n=12 of 500", errors=3)
    before = advance(a_rollout(), a_look(analysis=undecided))
    assert (reason, "n=12 of 500", 3, ago(0)) == (before.pause, before.message, before.errors, before.paused_at)
    assert not is_judged(before)
    resumed = advance(before, a_look(command="resume"))
    assert (None, ago(0), RUN + 10_000, 0) == (
        resumed.pause, resumed.step_started_at, resumed.windows_from_ms, resumed.errors,
    )  # fmt: skip
    for command in ("promote", "skip-step"):
        passed = advance(before, a_look(command=command))
        assert (RolloutPhase.SHIFTING, 2) == (passed.phase, passed.step)


# ---- what interrupts what -----------------------------------------------------------------------

INTERRUPTS = [
    ("end", {"on": False, "ended": True}, "Stable"),
    ("suspension", {"on": False, "suspended": True}, ""),
    ("abort", {"command": "abort"}, "Aborting"),
    ("back to stable", {"wanted": "r1"}, "Aborting"),
    ("third version", {"wanted": "r3"}, "Superseding"),
    ("pause", {"paused": True}, ""),
    ("failure", {"analysis": FAIL}, "Aborting"),
]
REASONS = {
    "end": "SimulationEnded",
    "abort": "Aborted",
    "back to stable": "Withdrawn",
    "third version": "Superseded",
    "failure": "AnalysisFailed",
}


@pytest.mark.parametrize("index", range(len(INTERRUPTS) - 1), ids=[name for name, _, _ in INTERRUPTS[:-1]])
def test_what_interrupts_first(index):
    """End, suspension, abort, back to the stable version, a third one, a pause, then the phase's own way."""
    name, first, phase = INTERRUPTS[index]
    for _, second, _ in INTERRUPTS[index + 1 :]:
        after = advance(a_rollout(), a_look(**(second | first)))
        assert (phase or "Analyzing", REASONS.get(name, "")) == (after.phase, after.reason)
        assert (name == "suspension") == (after.suspended_at is not None)
        assert (name == "pause") == (after.pause is not None)


@pytest.mark.parametrize("phase", PAUSABLE)
@pytest.mark.parametrize("pause", [None, *PauseReason])
@pytest.mark.parametrize(
    ("edit", "way", "reason"),
    [
        ({"wanted": "r1"}, "Aborting", "Withdrawn"),
        ({"wanted": "r3"}, "Superseding", "Superseded"),
        ({"command": "abort"}, "Aborting", "Aborted"),
    ],
)
def test_the_way_back_leads_out_of_every_phase_and_pause(phase, pause, edit, way, reason):
    """Whatever holds it, a pause by the spec too; the pause is over then."""
    before = a_rollout(phase, pause=pause, paused_at=ago(5) if pause else None)
    after = advance(before, a_look(paused=pause is PauseReason.SPEC, **edit))
    assert (way, reason, None, None) == (after.phase, after.reason, after.pause, after.paused_at)
    assert 0 == after.wanted


@pytest.mark.parametrize("phase", PAUSABLE)
def test_a_document_that_cannot_be_acted_on_changes_nothing(phase):
    """No revision is wanted then: the rollout goes on by what was accepted."""
    green = 0 if phase is RolloutPhase.PREPARING else 3
    assert advance(a_rollout(phase), a_look(green=green)) == advance(a_rollout(phase), a_look(green=green, wanted=""))


@pytest.mark.parametrize("phase", PAUSABLE)
def test_an_edit_of_the_plan_is_for_the_next_attempt(phase):
    """Steps, dwell and limits are pinned; the spec's pause alone counts at once."""
    edited = pin(Rollout(min_samples=1), 10, None)
    after = advance(a_rollout(phase), a_look(plan=edited, paused=True))
    assert (PLAN, PauseReason.SPEC) == (after.plan, after.pause)


@pytest.mark.parametrize("phase", MOVING_BACK)
@pytest.mark.parametrize("given", [{"command": "abort"}, {"paused": True}, {"command": "pause"}, {"wanted": "r3"}])
def test_users_on_their_way_back_are_not_held_up(phase, given):
    """Neither by a pause nor by a command, nor by what the spec asks for next."""
    after = advance(a_rollout(phase, reason="Aborted", message="why"), a_look(green=2, **given))
    assert (phase, None, "why · 8 of 10 users are at r1, 2 at r2") == (after.phase, after.pause, after.message)


@pytest.mark.parametrize("phase", PAUSABLE)
def test_the_end_of_the_simulation_is_no_verdict(phase):
    """Nothing is rejected, the stable version is kept."""
    after = advance(a_rollout(phase), a_look(on=False, ended=True))
    assert (RolloutPhase.STABLE, Reason.SIMULATION_ENDED, "") == (after.phase, after.reason, after.rejected)


def test_a_verdict_that_was_given_outlasts_the_simulation():
    failed = advance(a_rollout(), a_look(analysis=FAIL))
    after = advance(failed, a_look(on=False, ended=True))
    assert (RolloutPhase.REJECTED, "r2", failed.message) == (after.phase, after.rejected, after.message)
    withdrawn = advance(a_rollout(), a_look(wanted="r1"))
    after = advance(withdrawn, a_look(on=False, ended=True))
    assert (RolloutPhase.STABLE, "") == (after.phase, after.rejected)


def test_the_end_of_the_simulation_ends_retiring():
    after = advance(a_rollout("Retiring"), after_promotion(on=False, ended=True, old=Colour(gone=True)))
    assert RolloutPhase.STABLE is after.phase
    promoted = advance(a_rollout("Promoting"), after_promotion(on=False, ended=True))
    assert RolloutPhase.RETIRING is promoted.phase


# ---- clocks ----------------------------------------------------------------------------------------


def later(seconds: int, **given) -> Seen:
    return replace(a_look(**given), now_ms=NOW + seconds * 1000, run_ms=RUN + seconds * 1000)


@pytest.mark.parametrize(("pause", "resume"), [({"command": "pause"}, {"command": "resume"}), ({"paused": True}, {})])
@pytest.mark.parametrize("phase", PAUSABLE)
def test_clocks_stand_under_a_pause(phase, pause, resume):
    """A pause of 400 s moves deadline and dwell on by 400 s; the windows before it are void."""
    before = a_rollout(phase)
    green = 0 if phase is RolloutPhase.PREPARING else 3
    paused = advance(before, a_look(green=green, **pause))
    assert (phase, ago(0)) == (paused.phase, paused.paused_at)
    still = advance(paused, later(200, green=green, paused="paused" in pause, analysis=FAIL))
    assert still == paused
    # Not ready, resp. not split: nothing else happens at the look that ends the pause.
    away = Colour(held=green and green - 1)
    after = advance(paused, later(400, green=away, blue=Colour(held=7), **resume))
    assert (phase, None, None) == (after.phase, after.pause, after.paused_at)
    assert parse_instant(before.since) + 400_000 == parse_instant(after.since)
    if phase is RolloutPhase.ANALYZING:
        assert parse_instant(before.step_started_at) + 400_000 == parse_instant(after.step_started_at)
        assert RUN + 400_000 == after.windows_from_ms


@pytest.mark.parametrize("phase", [*PAUSABLE, *MOVING_BACK])
def test_clocks_stand_while_the_simulation_is_suspended(phase):
    """A step that was being judged is shifted to again; the others go on where they were."""
    before = a_rollout(phase, reason="Aborted", message="why")
    suspended = advance(before, a_look(on=False, suspended=True))
    assert (phase, ago(0)) == (suspended.phase, suspended.suspended_at)
    still = advance(suspended, replace(later(200), on=False, command="abort", wanted="r3"))
    assert still == suspended
    after = advance(suspended, later(400, green=Colour(held=2), blue=Colour(held=7)))
    assert after.suspended_at is None
    if phase is RolloutPhase.ANALYZING:
        assert (RolloutPhase.SHIFTING, None, format_instant(NOW + 400_000)) == (
            after.phase, after.step_started_at, after.since,
        )  # fmt: skip
    else:
        assert (phase, parse_instant(before.since) + 400_000) == (after.phase, parse_instant(after.since))


def test_a_pause_outlasts_a_suspension():
    """Time suspended within it counts once."""
    paused = advance(a_rollout("Shifting"), a_look(command="pause"))
    suspended = advance(paused, replace(later(100), on=False, suspended=True))
    on = advance(suspended, later(300))
    assert (PauseReason.COMMAND, None) == (on.pause, on.suspended_at)
    assert "paused by command, it waits for resume" == on.message
    after = advance(on, later(400, command="resume", green=2))
    assert parse_instant(paused.since) + 400_000 == parse_instant(after.since)


def test_a_passed_step_that_waits_is_not_shifted_to_again():
    waiting = a_rollout(step=4, passed=True, pause=PauseReason.AWAITING_PROMOTION, paused_at=ago(10))
    suspended = advance(waiting, a_look(green=10, on=False, suspended=True))
    after = advance(suspended, later(60, green=10))
    assert (RolloutPhase.ANALYZING, PauseReason.AWAITING_PROMOTION, True) == (after.phase, after.pause, after.passed)


# ---- pauses and commands ---------------------------------------------------------------------------


def test_a_pause_after_a_step_waits_for_promote():
    steps = tuple(step.model_copy(update={"pause": step.percent == 25}) for step in PLAN.steps)
    waiting = advance(a_rollout(plan=PLAN.model_copy(update={"steps": steps})), a_look(analysis=PASS))
    assert (RolloutPhase.ANALYZING, PauseReason.STEP, True) == (waiting.phase, waiting.pause, waiting.passed)
    assert waiting.message == f"25% is passed, it waits for promote: {PASS.message}"
    for command in ("promote", "resume", "skip-step"):
        after = advance(waiting, a_look(command=command))
        assert (RolloutPhase.SHIFTING, 2, None, False) == (after.phase, after.step, after.pause, after.passed)


def test_a_promotion_that_is_to_be_accepted():
    """With autoPromote false; only promote and promote-full accept it, once the split holds."""
    plan = PLAN.model_copy(update={"auto_promote": False})
    waiting = advance(a_rollout(step=4, plan=plan), a_look(green=10, analysis=PASS))
    assert (RolloutPhase.ANALYZING, PauseReason.AWAITING_PROMOTION) == (waiting.phase, waiting.pause)
    for command in ("resume", "skip-step"):
        assert advance(waiting, a_look(green=10, command=command)) == waiting
    for command in ("promote", "promote-full"):
        accepted = advance(waiting, a_look(green=10, command=command))
        assert (RolloutPhase.ANALYZING, None, 1) == (accepted.phase, accepted.pause, accepted.settled)
        promoted = advance(accepted, a_look(green=10))
        assert RolloutPhase.PROMOTING is promoted.phase
    skipped = advance(a_rollout(step=4, plan=plan), a_look(green=10, command="skip-step"))
    assert PauseReason.AWAITING_PROMOTION is skipped.pause


@pytest.mark.parametrize("phase", SPLITTING)
def test_skip_step_passes_the_present_step(phase):
    after = advance(a_rollout(phase), a_look(command="skip-step"))
    assert (RolloutPhase.SHIFTING, 2, 5) == (after.phase, after.step, after.wanted)


@pytest.mark.parametrize("phase", PAUSABLE)
@pytest.mark.parametrize("pause", [None, PauseReason.COMMAND, PauseReason.INCONCLUSIVE])
def test_promote_full_goes_to_all_users_unjudged(phase, pause):
    """Whatever autoPromote and the steps say, and out of a pause; the runners must be there and the split must hold."""
    plan = PLAN.model_copy(update={"auto_promote": False})
    before = a_rollout(phase, plan=plan, pause=pause, paused_at=ago(5) if pause else None)
    green = 0 if phase is RolloutPhase.PREPARING else 3
    rollout = advance(before, a_look(green=green, command="promote-full"))
    assert (RolloutPhase.SHIFTING, 4, 10) == (rollout.phase, rollout.step, rollout.wanted)
    while rollout.phase is not RolloutPhase.PROMOTING:
        assert not is_judged(rollout)
        rollout = advance(rollout, a_look(green=10))
    assert (RolloutPhase.PROMOTING, "r2 is promoted: not judged, by command") == (rollout.phase, rollout.message)


def test_promote_full_before_there_are_runners():
    """It is kept in mind until they are ready: those that all users need."""
    before = advance(a_rollout("Preparing", step=0), a_look(green=Colour(), command="promote-full"))
    assert (RolloutPhase.PREPARING, 4, True) == (before.phase, before.step, before.passed)
    assert advance(before, a_look(green=0)).step == 4


@pytest.mark.parametrize(
    ("before", "action", "given", "words"),
    [
        (a_rollout(), "promote", {}, "not paused"),
        (a_rollout(), "resume", {}, "not paused"),
        (a_rollout(), "retry", {}, "no version is rejected"),
        (a_rollout("Stable"), "abort", {}, "no rollout is in progress"),
        (a_rollout("Retiring"), "promote", {}, "no rollout is in progress"),
        (a_rollout("Aborting"), "abort", {}, "being moved back already"),
        (a_rollout("Preparing"), "skip-step", {}, "no step has begun"),
        (a_rollout("Shifting", step=4), "skip-step", {}, "promote-full"),
        (a_rollout(pause=PauseReason.COMMAND), "pause", {}, "paused already (PausedByCommand)"),
        (a_rollout(pause=PauseReason.AWAITING_PROMOTION), "resume", {}, "promote accepts it"),
        (a_rollout(pause=PauseReason.AWAITING_PROMOTION), "skip-step", {}, "promote accepts it"),
        (a_rollout(pause=PauseReason.SPEC), "resume", {"paused": True}, "spec.rollout.paused holds"),
        (a_rollout(pause=PauseReason.COMMAND), "promote", {"paused": True}, "spec.rollout.paused holds"),
        (a_rollout(), "promote-full", {"paused": True}, "spec.rollout.paused holds"),
        (a_rollout(), "abort", {"on": False}, "the simulation is not running"),
    ],
)
def test_commands_that_are_refused(before, action, given, words):
    """In words, and the machine does nothing by them either."""
    assert words in refusal(before, action, **({"on": True, "paused": False} | given))
    if "on" not in given and before.phase not in MOVING_BACK:
        seen = a_look(**given)
        assert advance(before, replace(seen, command=action)) == advance(before, seen)


@pytest.mark.parametrize(
    ("before", "action"),
    [
        (a_rollout(), "abort"),
        (a_rollout(), "pause"),
        (a_rollout(pause=PauseReason.SPEC), "abort"),
        (a_rollout(), "skip-step"),
        (a_rollout("Preparing"), "promote-full"),
        (a_rollout("Rejected"), "retry"),
        (a_rollout(pause=PauseReason.INCONCLUSIVE), "resume"),
        (a_rollout(pause=PauseReason.COMMAND), "promote"),
    ],
)
def test_commands_that_are_taken(before, action):
    """Abort also against a pause by the spec."""
    assert "" == refusal(before, action, on=True, paused=before.pause is PauseReason.SPEC)


def test_resume_cannot_override_the_spec():
    paused = advance(a_rollout(), a_look(paused=True))
    still = advance(paused, a_look(paused=True, command="resume"))
    assert PauseReason.SPEC is still.pause
    assert advance(paused, a_look()).pause is None


def test_a_pause_by_command_outlasts_one_by_the_spec():
    paused = advance(a_rollout(), a_look(command="pause"))
    both = advance(paused, a_look(paused=True))
    assert PauseReason.COMMAND is advance(both, a_look()).pause


def test_a_command_is_done_once_in_a_look():
    """skip-step at one step does not skip the next, though both are passed through in the same look."""
    after = advance(a_rollout(step=0), a_look(green=1, command="skip-step"))
    assert (RolloutPhase.SHIFTING, 1) == (after.phase, after.step)


# ---- the way back ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("green", "blue", "phase"),
    [
        pytest.param(Colour(held=2), Colour(held=8), "Aborting", id="users are on their way"),
        pytest.param(Colour(held=2), Colour(held=10), "Aborting", id="green has not dropped them yet"),
        pytest.param(Colour(), Colour(held=9), "Aborting", id="one is nobody's"),
        pytest.param(Colour(), Colour(held=10), "Rejected", id="all are back"),
        pytest.param(Colour(gone=True), Colour(held=10), "Rejected", id="green is gone"),
        pytest.param(Colour(held=2, silent_ms=10_000), Colour(held=10), "Rejected", id="green is silent"),
        pytest.param(Colour(held=2, silent_ms=9_999), Colour(held=10), "Aborting", id="green is silent, not yet"),
        pytest.param(Colour(held=2, silent_ms=10_000), Colour(held=8), "Aborting", id="blue comes first"),
        pytest.param(
            Colour(held=2, silent_ms=10_000), Colour(held=10, settled=False), "Aborting", id="blue's are not on yet"
        ),
    ],
)
def test_the_way_back_never_waits_for_green(green, blue, phase):
    """Blue has all users, and green none by its word, or is gone, or has been silent for 10 s."""
    before = a_rollout("Aborting", reason="AnalysisFailed", message="rejected at 25%: n=812")
    after = advance(before, a_look(green=green, blue=blue))
    assert phase == after.phase
    if phase == "Rejected":
        kept = 0 if green.silent_ms else 300
        assert ("r2", ago(-kept)) == (after.rejected, after.scale_down_at)
        assert after.message.startswith("rejected at 25%: n=812")
        assert bool(green.silent_ms) == ("let go with 2 users" in after.message)


def test_a_rejected_version_stays_so_until_it_changes():
    """Not by asking for the stable version in between; a version after it begins anew."""
    back = advance(a_rollout("Rejected"), a_look(green=0, wanted="r1"))
    assert (RolloutPhase.STABLE, "r2") == (back.phase, back.rejected)
    again = advance(back, a_look(green=0, candidate=""))
    assert (RolloutPhase.REJECTED, "rejected at 10%: …") == (again.phase, again.message)
    other = advance(again, a_look(green=0, wanted="r3"))
    assert (RolloutPhase.PREPARING, 2) == (other.phase, other.attempt)


def test_the_way_back_to_the_version_before_is_fast():
    """Within scaleDownDelay its runners stand: one step, not held, not judged."""
    begun = advance(a_rollout("Retiring"), after_promotion(wanted="r1"))
    assert (RolloutPhase.PREPARING, True, fast_back(PLAN)) == (begun.phase, begun.fast, begun.plan)
    look = {"stable": "r2", "candidate": "r1", "wanted": "r1"}
    shifting = advance(begun, a_look(green=0, **look))
    assert (RolloutPhase.SHIFTING, 10) == (shifting.phase, shifting.wanted)
    rollout = advance(advance(shifting, a_look(green=10, **look)), a_look(green=10, **look))
    assert (RolloutPhase.PROMOTING, "r1 is promoted: " + rollout.plan.note) == (rollout.phase, rollout.message)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"scale_down_at": ago(0)}, id="they are let go"),
        pytest.param({"old": Colour()}, id="they are not ready"),
    ],
)
def test_without_its_runners_the_way_back_is_as_any(given):
    at = {key: value for key, value in given.items() if key == "scale_down_at"}
    look = {key: value for key, value in given.items() if key == "old"}
    begun = advance(a_rollout("Retiring", **at), after_promotion(wanted="r1", **look))
    assert (RolloutPhase.PREPARING, False, PLAN) == (begun.phase, begun.fast, begun.plan)


def test_the_next_version_waits_until_the_old_one_has_no_users():
    """So never more than two versions have users."""
    holding = after_promotion(wanted="r3", old=Colour(held=1, ready=1), blue=Colour(held=9))
    assert RolloutPhase.RETIRING is advance(a_rollout("Retiring"), holding).phase


def test_what_was_taken_back_is_remembered_until_it_is_gone():
    withdrawn = advance(a_rollout("Aborting", reason="Withdrawn"), a_look(green=0, wanted="r1"))
    assert ago(0) == withdrawn.scale_down_at
    gone = advance(withdrawn, a_look(green=Colour(gone=True), wanted="r1"))
    assert gone.scale_down_at is None


# ---- few users -------------------------------------------------------------------------------------


def test_without_users_it_goes_straight_through():
    """One runner proves itself, then it is promoted: there is nothing to judge, and it says so."""
    nobody = {"total": 0, "plan": pin(Rollout(), 0, None)}
    rollout = advance(a_rollout("Stable", step=0), a_look(green=0, candidate="", **nobody))
    unproven = advance(rollout, a_look(green=Colour(), blue=Colour(), **nobody))
    assert RolloutPhase.PREPARING is unproven.phase
    for _ in range(2):
        rollout = advance(rollout, a_look(green=0, **nobody))
    assert (RolloutPhase.PROMOTING, "r2 is promoted: 0 users: there is nothing to judge") == (
        rollout.phase, rollout.message,
    )  # fmt: skip


def test_users_that_come_meanwhile_are_judged():
    """An attempt that began without users does not pass with some."""
    plan = pin(Rollout(), 0, None)
    after = advance(a_rollout(step=0, plan=plan), a_look(green=10))
    assert RolloutPhase.ANALYZING is after.phase


def test_users_that_come_while_it_starts_are_moved_in_steps():
    """As long as nobody has moved, an attempt that began without users takes the steps that they need."""
    before = a_rollout("Preparing", step=0, plan=pin(Rollout(), 0, None))
    assert before.plan != PLAN
    planned = advance(before, a_look(green=0))
    assert (RolloutPhase.PREPARING, PLAN, 1) == (planned.phase, planned.plan, planned.attempt)
    assert (RolloutPhase.SHIFTING, 1) == (
        advance(planned, a_look(green=0)).phase,
        advance(planned, a_look(green=0)).wanted,
    )


def test_users_edited_to_none_do_not_pass_a_step():
    """No data is never success: the step is held until there are users again."""
    after = advance(a_rollout(), a_look(total=0, green=0))
    assert (RolloutPhase.ANALYZING, 1) == (after.phase, after.step)


def test_one_user_goes_over_at_once():
    plan = pin(Rollout(), 1, 5.0)
    shifting = advance(a_rollout("Preparing", step=0, plan=plan), a_look(total=1, green=0))
    assert (1, 100) == (shifting.wanted, shifting.percent)


def test_a_step_that_is_none_by_now_is_passed_over():
    """Users edited from 10 to 1 in the first step: 10 % of one user is nobody."""
    after = advance(a_rollout(step=0), a_look(total=1, green=0))
    assert (RolloutPhase.SHIFTING, 1) == (after.phase, after.step)


@pytest.mark.parametrize("phase", RolloutPhase)
@pytest.mark.parametrize("given", [{}, {"analysis": PASS}, {"command": "abort"}, {"on": False, "suspended": True}])
def test_the_same_look_twice_is_one_look(phase, given):
    """Nothing that is on record already is done again, but for what counts looks."""
    seen = a_look(**given)
    once = advance(a_rollout(phase), seen)
    for _ in range(6):
        after = advance(once, replace(seen, command="", analysis=None))
        again = advance(after, replace(seen, command="", analysis=None))
        once = after
    assert again == after


# ---- any looks at all ------------------------------------------------------------------------------

COLOURS = st.builds(
    Colour,
    held=st.sampled_from([0, 1, 3, 5, 8, 10]),
    ready=st.integers(0, 2),
    settled=st.booleans(),
    silent_ms=st.sampled_from([0, 0, 0, 10_000]),
    crashed=st.sampled_from([False, False, False, True]),
    gone=st.sampled_from([False, False, True]),
)
CALM = {
    "green": None,
    "blue": None,
    "old": Colour(gone=True),
    "wanted": "r2",
    "at": "on",
    "paused": False,
    "command": "",
    "analysis": PASS,
    "took_s": 1,
    "total": 10,
    "disturbed": False,
}
FAULTS = {
    "green": COLOURS,
    "blue": COLOURS,
    "old": COLOURS,
    "wanted": st.sampled_from(["r1", "r3", ""]),
    "at": st.sampled_from(["suspended", "ended"]),
    "paused": st.just(True),
    "command": st.sampled_from(["promote", "promote-full", "skip-step", "pause", "resume", "abort", "retry"]),
    "analysis": st.sampled_from([FAIL, Analysis(outcome=Outcome.PAUSE, message="few"), None]),
    "took_s": st.sampled_from([0, 30, 400]),
    "total": st.sampled_from([0, 1]),
    "disturbed": st.just(True),
}
LOOKS = st.just({}) | st.fixed_dictionaries({}, optional=FAULTS) | st.just({})


@given_any(
    st.lists(LOOKS, min_size=5, max_size=40),
    st.booleans(),
    st.sampled_from(["Stable", "Preparing", "Shifting", "Analyzing", "Aborting", "Rejected", "Superseding"]),
    st.sampled_from([0, 3, 4]),
)
@settings(max_examples=300, deadline=None)
def test_any_looks_keep_to_the_table(looks, is_asking, phase, step):
    """
    Whatever is seen: ways of the table alone, steps that only rise in an attempt, and no promotion but of all users.

    A look without a colour (None) sees it as it is to be.
    """
    rollout, now, stable, candidate, previous = a_rollout(phase, step=step), NOW, "r1", "r2", ""
    for look in (CALM | faults for faults in looks):
        now += look["took_s"] * 1000
        total, users = look["total"], goal(rollout, look["total"])
        seen = Seen(
            now_ms=now,
            run_ms=now - NOW + RUN,
            total=total,
            on=look["at"] == "on",
            suspended=look["at"] == "suspended",
            ended=look["at"] == "ended",
            stable=stable,
            candidate=candidate,
            previous=previous,
            wanted=look["wanted"],
            plan=pin(Rollout(auto_promote=not is_asking), total, 1.0),
            paused=look["paused"],
            command=look["command"],
            green=look["green"] or Colour(held=users, ready=2),
            blue=look["blue"] or Colour(held=total - users, ready=2),
            old=look["old"],
            analysis=look["analysis"] if is_judged(rollout) else None,
            disturbed=look["disturbed"],
        )
        before, rollout = rollout, advance(rollout, seen)
        assert goal(rollout, total) == rollout.wanted
        assert before.attempt <= rollout.attempt <= before.attempt + 1
        assert rollout.attempt > before.attempt or rollout.step >= before.step
        assert rollout.pause is None or rollout.phase in PAUSABLE
        assert (rollout.pause is None) == (rollout.paused_at is None)
        assert rollout.phase is not RolloutPhase.ANALYZING or rollout.step_started_at is not None
        assert RolloutStatus.model_validate_json(rollout.model_dump_json()) == rollout
        if rollout.phase is RolloutPhase.PROMOTING is not before.phase:
            assert (total, 0) == (seen.green.held, seen.blue.held)
            assert rollout.passed or rollout.fast or not total
            stable, candidate, previous = candidate, "", stable
        if rollout.phase is RolloutPhase.REJECTED is not before.phase:
            assert rollout.rejected
        if rollout.attempt > before.attempt:
            candidate, previous = look["wanted"], ""
        if rollout.phase is RolloutPhase.STABLE:
            candidate, previous = "", ""
