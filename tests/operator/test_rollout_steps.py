"""Users of a step, steps that are joined, and runners for a share of the users: tables of the rules' own numbers."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.rollout import PauseReason, Rollout, RolloutPhase, RolloutStep
from trafficsim_api.status import PlannedStep, Revision, RolloutPlan, RolloutStatus
from trafficsim_api.units import format_instant
from trafficsim_operator.plan.rollout import (
    Colour,
    Replicas,
    chunk,
    goal,
    needed,
    pointers,
    quota,
    replicas,
    runners_for,
)
from trafficsim_operator.plan.steps import effective_percent, fast_back, green_users, pin

NOW = 1_760_000_000_000
AT_REST = (RolloutPhase.STABLE, RolloutPhase.REJECTED)


def a_plan(*percents: int, **changes) -> RolloutPlan:
    steps = tuple(PlannedStep(percent=percent, dwell_ms=30_000) for percent in percents or (10, 25, 50, 75, 100))
    return pin(Rollout(), 1000, None).model_copy(update={"steps": steps, **changes})


def at(phase: RolloutPhase, *, step: int = 0, percents: tuple[int, ...] = (), **given) -> RolloutStatus:
    return RolloutStatus(phase=phase, attempt=1, plan=a_plan(*percents), step=step, **given)


def percents_of(plan: RolloutPlan) -> list[int]:
    return [step.percent for step in plan.steps]


@pytest.mark.parametrize(
    ("total", "users"),
    [
        pytest.param(10, (1, 3, 5, 8, 10), id="the half is rounded up, not to even"),
        pytest.param(1, (0, 0, 1, 1, 1), id="one user cannot be split"),
        pytest.param(2, (1, 1, 1, 1, 2), id="both versions have one below 100"),
        pytest.param(3, (1, 1, 2, 2, 3), id="three users"),
        pytest.param(0, (0, 0, 0, 0, 0), id="nobody"),
        pytest.param(5001, (500, 1250, 2501, 3751, 5001), id="many"),
    ],
)
def test_users_of_a_step(total, users):
    """(2·T·percent + 100) // 200, at least 1 and at most T-1 below 100 % of at least 2."""
    assert users == tuple(green_users(total, percent) for percent in (10, 25, 50, 75, 100))


@given(total=st.integers(2, 20_000), percent=st.integers(1, 99))
def test_a_split_leaves_somebody_on_both_sides(total, percent):
    """And is within half a user of what was asked for wherever that is possible."""
    users = green_users(total, percent)
    assert 1 <= users <= total - 1
    assert abs(200 * users - 2 * total * percent) <= 100 or users in (1, total - 1)


@pytest.mark.parametrize(
    ("users", "total", "percent"), [(3, 10, 30), (1, 3, 33), (2, 3, 67), (0, 0, 0), (10, 10, 100), (1, 1000, 0)]
)
def test_what_whole_users_make_of_a_percentage(users, total, percent):
    assert percent == effective_percent(users, total)


def test_the_plan_is_the_spec_in_integers():
    """Times in ms, shares in hundredths of a percent, a step's own dwell before the rollout's."""
    asked = Rollout(
        steps=(RolloutStep(percent=20, dwell=timedelta(seconds=7), pause=True), RolloutStep(percent=100)),
        max_error_rate=250, comparison="relative", on_failure="pause", auto_promote=False,
    )  # fmt: skip
    plan = pin(asked, 100, None)
    assert plan.steps == (
        PlannedStep(percent=20, dwell_ms=7_000, pause=True),
        PlannedStep(percent=100, dwell_ms=30_000),
    )
    assert (600_000, 250, 5_000, 9_500) == (
        plan.max_dwell_ms, plan.max_error_rate, plan.max_p95_ms, plan.min_success_rate,
    )  # fmt: skip
    assert ("pause", "relative", False) == (plan.on_failure, plan.comparison, plan.auto_promote)
    assert (60_000, 300_000, 10_000, 5_000, 500, 300_000) == (
        plan.scale_down_ms, plan.abort_scale_down_ms, plan.warm_up_ms, plan.window_ms, plan.min_samples,
        plan.deadline_ms,
    )  # fmt: skip
    assert plan.note == ""


@pytest.mark.parametrize(
    ("total", "rps", "percents", "samples", "note"),
    [
        pytest.param(1000, 1.0, [10, 25, 50, 75, 100], 500, "", id="enough for each"),
        pytest.param(1000, None, [10, 25, 50, 75, 100], 500, "", id="not known yet: as asked for"),
        pytest.param(1000, 0.0, [10, 25, 50, 75, 100], 500, "", id="nothing was sent yet: as asked for"),
        # 1 user sends 0.5/s · 590 s = 295, 3 users 885.
        pytest.param(
            10, 0.5, [25, 50, 75, 100], 500,
            "joined with the next step: 10% (about 295 of 500 requests in maxDwell)", id="10 % is joined with 25 %",
        ),
        # 1, 3 and 5 users send 59, 177 and 295; 8 send 472.
        pytest.param(
            10, 0.1, [50, 100], 100,
            "10 users send about 472 of 500 requests in maxDwell at most: "
            "one step of 50% from 100 requests on, then 100%",
            id="too small for any split",
        ),
        pytest.param(1, 1.0, [100], 500, "joined with the next step: 10% (no user of 1), 25% (no user of 1), "
                     "50% (1 of 1 users as well), 75% (1 of 1 users as well)", id="one user: 100 % alone"),
        pytest.param(
            1, 0.1, [100], 100, "1 users send about 59 of 500 requests in maxDwell at most: no split",
            id="one slow user",
        ),
        pytest.param(0, 1.0, [100], 500, "0 users: there is nothing to judge", id="nobody"),
        pytest.param(
            2, 1.0, [75, 100], 500, "joined with the next step: 10% (1 of 2 users as well), "
            "25% (1 of 2 users as well), 50% (1 of 2 users as well)", id="two users: one split",
        ),
    ],
)  # fmt: skip
def test_steps_that_would_not_do_are_joined(total, rps, percents, samples, note):
    """forecast = requests per second of a user · green users · (maxDwell - warmUp), and the note says what was made."""
    plan = pin(Rollout(), total, rps)
    assert (percents, samples, note) == (percents_of(plan), plan.min_samples, plan.note)


def test_a_joined_step_keeps_pause_and_longest_dwell():
    asked = Rollout(
        steps=(
            RolloutStep(percent=10, dwell=timedelta(seconds=90), pause=True),
            RolloutStep(percent=25, dwell=timedelta(seconds=20)),
            RolloutStep(percent=100),
        )
    )
    steps = pin(asked, 10, 0.5).steps
    assert steps == (
        PlannedStep(percent=25, dwell_ms=90_000, pause=True),
        PlannedStep(percent=100, dwell_ms=30_000),
    )
    small = pin(asked, 10, 0.01).steps
    assert small == (PlannedStep(percent=50, dwell_ms=30_000, pause=True), PlannedStep(percent=100, dwell_ms=30_000))


def test_few_samples_asked_for_are_not_raised():
    """A small simulation is judged from 100 requests on, or from fewer where the spec says so."""
    assert pin(Rollout(min_samples=40), 2, 0.05).min_samples == 40


@given(
    total=st.integers(0, 300),
    rps=st.none() | st.floats(0, 5),
    percents=st.lists(st.integers(1, 99), max_size=15, unique=True).map(sorted),
)
def test_every_plan_ends_at_all_users(total, rps, percents):
    """Its steps rise in whole users, the last is 100 %, and none is empty unless there are no users at all."""
    asked = Rollout(steps=tuple(RolloutStep(percent=percent) for percent in [*percents, 100]))
    plan = pin(asked, total, rps)
    users = [green_users(total, step.percent) for step in plan.steps]
    assert plan.steps[-1].percent == 100
    assert users == sorted(set(users))
    assert total == 0 or users[0] > 0


def test_the_fast_way_back_is_one_step_that_is_not_held():
    plan = fast_back(a_plan())
    assert plan.steps == (PlannedStep(percent=100, dwell_ms=0),)
    assert "back to the version before" in plan.note


@pytest.mark.parametrize(
    ("users", "total", "runners", "expected"),
    [(1, 10, 2, 1), (5, 10, 2, 1), (8, 10, 2, 2), (10, 10, 2, 2), (0, 10, 2, 1), (0, 0, 0, 1), (334, 1000, 3, 2)],
)
def test_runners_for_a_share(users, total, runners, expected):
    """⌈runners · users ÷ T⌉, at least 1: a partly filled runner is still a runner."""
    assert expected == runners_for(users, total, runners)


@pytest.mark.parametrize(
    ("phase", "users"),
    [
        (RolloutPhase.STABLE, 0),
        (RolloutPhase.PREPARING, 0),
        (RolloutPhase.SHIFTING, 3),
        (RolloutPhase.ANALYZING, 3),
        (RolloutPhase.PROMOTING, 10),
        (RolloutPhase.RETIRING, 10),
        (RolloutPhase.ABORTING, 0),
        (RolloutPhase.REJECTED, 0),
        (RolloutPhase.SUPERSEDING, 0),
    ],
)
def test_users_the_new_version_is_to_have(phase, users):
    """The step's while both versions have users; all from the promotion on: it is stable then."""
    assert users == goal(at(phase, step=1), 10)


@pytest.mark.parametrize("phase", RolloutPhase)
@given(total=st.integers(0, 500), step=st.integers(0, 4))
def test_quotas_add_up(phase, total, step):
    """In every phase the shares of the versions are all users."""
    shares = quota(at(phase, step=step), total, stable="r1", candidate="r2", previous="r0")
    assert total == sum(shares.values())
    assert {"r0", "r1", "r2"} == shares.keys()
    assert shares["r0"] == 0


@pytest.mark.parametrize(("phase", "size"), [("Aborting", 25), ("Superseding", 25), ("Shifting", None)])
def test_users_go_back_faster(phase, size):
    """max(1, ⌊T ÷ 4⌋) at once while users go back."""
    assert size == chunk(at(RolloutPhase(phase)), 100)
    assert (None if size is None else 1) == chunk(at(RolloutPhase(phase)), 3)


def of(rollout: RolloutStatus, *, now_ms: int = NOW, held: int = 0, old_held: int = 0) -> Replicas:
    return replicas(
        rollout,
        total=100,
        now_ms=now_ms,
        blue_runners=4,
        green_runners=10,
        green=Colour(held=held),
        old=Colour(held=old_held),
    )


def test_green_is_scaled_ahead_of_its_users():
    """For its first step while it is prepared, then for the most of now, this step and the next; blue keeps all."""
    assert Replicas(blue=4, green=1) == of(at(RolloutPhase.PREPARING))
    assert Replicas(blue=4, green=3) == of(at(RolloutPhase.SHIFTING))
    assert Replicas(blue=4, green=8) == of(at(RolloutPhase.ANALYZING, step=2))
    assert Replicas(blue=4, green=6) == of(at(RolloutPhase.SHIFTING), held=60)
    assert Replicas(blue=4, green=10) == of(at(RolloutPhase.ANALYZING, step=4))
    assert 3 == needed(at(RolloutPhase.PREPARING, step=1), 100, 10)


def test_nothing_is_made_for_a_rollout_that_begins_paused():
    assert Replicas(blue=4) == of(at(RolloutPhase.PREPARING, pause=PauseReason.SPEC))


@pytest.mark.parametrize("phase", ["Aborting", "Superseding", "Promoting"])
def test_runners_stay_while_users_are_on_their_way(phase):
    assert Replicas(blue=4) == of(at(RolloutPhase(phase)))


def test_runners_without_users_go_when_it_is_due():
    """A rejected version's after abortScaleDownDelay, the old one's after scaleDownDelay and without users."""
    due = format_instant(NOW + 1)
    rejected, retiring = (at(RolloutPhase(phase), scale_down_at=due) for phase in ("Rejected", "Retiring"))
    assert (Replicas(blue=4), Replicas(blue=4, green=0)) == (of(rejected), of(rejected, now_ms=NOW + 1))
    assert (Replicas(blue=4), Replicas(blue=4, previous=0)) == (of(retiring), of(retiring, now_ms=NOW + 1))
    assert Replicas(blue=4) == of(retiring, now_ms=NOW + 1, old_held=1)
    assert Replicas(blue=4, green=0) == of(at(RolloutPhase.STABLE))


def revision(name: str) -> Revision:
    return Revision(revision=name, image=f"image:{name}", runner={})


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(("Stable", 0), ("Preparing", 1), ("r1", "r3", None), id="an attempt begins"),
        pytest.param(("Superseding", 1), ("Preparing", 2), ("r1", "r3", None), id="a third version"),
        pytest.param(("Analyzing", 1), ("Promoting", 1), ("r2", None, "r1"), id="promoted"),
        pytest.param(("Promoting", 1), ("Promoting", 1), ("r1", "r2", "r0"), id="promoted already"),
        pytest.param(("Analyzing", 1), ("Shifting", 1), ("r1", "r2", "r0"), id="the next step"),
        pytest.param(("Aborting", 1), ("Rejected", 1), ("r1", "r2", "r0"), id="rejected: kept to be told of"),
        pytest.param(("Retiring", 1), ("Stable", 1), ("r1", None, None), id="at rest"),
    ],
)
def test_pointers(before, after, expected):
    """Stable, candidate and previous; the promotion flips them."""
    before, after = (RolloutStatus(phase=RolloutPhase(phase), attempt=attempt) for phase, attempt in (before, after))
    r0, r1, r2, r3 = map(revision, ("r0", "r1", "r2", "r3"))
    found = pointers(before, after, stable=r1, candidate=r2, previous=r0, wanted=r3)
    assert expected == tuple(item and item.revision for item in found)


def test_the_candidate_is_pointed_to_until_its_runners_are_gone():
    """A version taken back is no candidate any more when scaleDownAt is cleared; never one that is stable."""
    r1, r2 = revision("r1"), revision("r2")
    going = RolloutStatus(phase=RolloutPhase.STABLE, attempt=1, scale_down_at=format_instant(NOW))
    gone = RolloutStatus(phase=RolloutPhase.STABLE, attempt=1)
    given = {"stable": r1, "candidate": r2, "previous": None, "wanted": r1}
    assert (r1, r2, None) == pointers(going, going, **given)
    assert (r1, None, None) == pointers(going, gone, **given)
    assert (r2, None, None) == pointers(going, going, **(given | {"stable": r2}))


def test_a_rejected_version_that_is_asked_for_again_is_pointed_to():
    r1, r2 = revision("r1"), revision("r2")
    stable, rejected = (RolloutStatus(phase=phase, attempt=1, rejected="r2") for phase in AT_REST)
    found = pointers(stable, rejected, stable=r1, candidate=None, previous=None, wanted=r2)
    assert (r1, r2, None) == found
