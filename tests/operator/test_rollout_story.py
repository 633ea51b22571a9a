"""The story of the demo of a rollout: its edits come when they are due, and it says what came, whatever came."""

from __future__ import annotations

from typing import Any

from trafficsim_api.document import load_spec
from trafficsim_api.phases import Phase
from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.status import ColourStatus, Revision, RolloutStatus, Run, Status, Users
from trafficsim_operator.cli.rollout_story import Edit, Story
from trafficsim_operator.local import Frame
from trafficsim_operator.observed import Evidence

ORIGIN_MS = 1_700_000_000_000
SPEC = load_spec(
    {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 100,
            "duration": "3m",
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
        },
    }
).spec


def version(number: int) -> Revision:
    return Revision(revision=f"revision{number}", image=f"demo/shop:{number}", runner={})


def a_frame(at_s: float, *, active: int = 100, stable: int = 1, **status: Any) -> Frame:
    values: dict[str, Any] = {
        "phase": Phase.RUNNING,
        "run": Run(id=1, phase_since="2023-11-14T22:13:20.000Z", origin="2023-11-14T22:13:20.000Z"),
        "users": Users(target=100, wanted=100, active=active, dealt=100),
        "stable": version(stable),
    }
    return Frame(
        name="shop", spec=SPEC, status=Status(**{**values, **status}), evidence=Evidence(),
        now_ms=ORIGIN_MS + int(at_s * 1000),
    )  # fmt: skip


def rolling(at_s: float, phase: RolloutPhase, *, to: int, attempt: int = 1, green: int = 0, **rollout: Any) -> Frame:
    """Return a look at a rollout to version *to*, in which *green* of 100 users have come to it."""
    blue, others = ColourStatus(active=100 - green), ColourStatus(active=green)
    status = RolloutStatus(phase=phase, attempt=attempt, blue=blue, green=others, **rollout)
    promoted = phase in (RolloutPhase.PROMOTING, RolloutPhase.RETIRING)
    pointers = {"previous": version(to - 1)} if promoted else {"candidate": version(to)}
    return a_frame(at_s, stable=to if promoted else to - 1, rollout=status, **pointers)


def told(story: Story, *frames: Frame) -> tuple[list[str], list[Edit]]:
    """Show *frames* to *story*; return the texts and the edits."""
    texts, edits = [], []
    for frame in frames:
        lines, edit = story.see(frame)
        texts += [line.text for line in lines]
        edits += [edit] if edit is not None else []
    return texts, edits


def asked_for_the_good_one() -> Story:
    story = Story()
    assert [Edit.GOOD] == told(story, *(a_frame(second) for second in range(7)))[1]
    return story


def promoted() -> Story:
    story = asked_for_the_good_one()
    told(
        story,
        rolling(8, RolloutPhase.PREPARING, to=2),
        rolling(10, RolloutPhase.SHIFTING, to=2, percent=10, wanted=10),
        rolling(12, RolloutPhase.ANALYZING, to=2, percent=10, wanted=10, green=10),
        rolling(22, RolloutPhase.SHIFTING, to=2, step=1, percent=100, wanted=100, green=10, message="n=700"),
        rolling(25, RolloutPhase.ANALYZING, to=2, step=1, percent=100, wanted=100, green=100),
        rolling(
            35,
            RolloutPhase.RETIRING,
            to=2,
            percent=100,
            green=100,
            message="r2 is promoted: success 100%, n=900; r1 is kept",
        ),
    )
    return story


def test_an_edit_waits_until_all_users_have_been_at_work_for_five_seconds():
    """Fewer or more than asked for are not calm."""
    story = Story()
    looks = [a_frame(0, active=3), a_frame(1), a_frame(5), a_frame(5.5, active=99), a_frame(6), a_frame(10.9)]
    assert [] == told(story, *looks)[1]
    assert [Edit.GOOD] == told(story, a_frame(11))[1]
    assert [] == told(story, a_frame(17), a_frame(30))[1]
    assert 1000 == story.full_ms


def test_each_step_is_told_once_with_what_it_was_judged_by():
    """A look at which nothing changed gives no line."""
    story = asked_for_the_good_one()
    texts, edits = told(
        story,
        rolling(8, RolloutPhase.PREPARING, to=2),
        rolling(9, RolloutPhase.PREPARING, to=2),
        rolling(10, RolloutPhase.SHIFTING, to=2, percent=10, wanted=10),
        rolling(12, RolloutPhase.ANALYZING, to=2, percent=10, wanted=10, green=10),
        rolling(13, RolloutPhase.ANALYZING, to=2, percent=10, wanted=10, green=10),
        rolling(22, RolloutPhase.SHIFTING, to=2, step=1, percent=25, wanted=25, green=10, message="n=700"),
    )
    assert [
        "a runner of version 2 starts beside the old one, without users",
        "version 2 gets 10 %: 10 of 100 users",
        "10 % are there: both versions are measured side by side",
        "10 % is passed: n=700",
        "version 2 gets 25 %: 25 of 100 users",
    ] == texts
    assert [] == edits
    assert [10, 25] == story.good.steps


def test_a_promotion_leads_to_the_faulty_version():
    """The next edit comes when all users have been at work for a while."""
    story = promoted()
    assert story.good.promoted
    looks = [rolling(at, RolloutPhase.RETIRING, to=2, percent=100, green=100) for at in (36, 38, 41)]
    assert ([], [Edit.BAD]) == told(story, *looks)
    assert not story.is_shown


def test_the_faulty_version_is_rolled_back_and_that_is_the_end():
    """What was told of the rollout before is no news of this one."""
    story = promoted()
    told(story, *(rolling(at, RolloutPhase.RETIRING, to=2, percent=100, green=100) for at in (36, 41)))
    texts, edits = told(
        story,
        rolling(42, RolloutPhase.RETIRING, to=2, percent=100, green=100),
        rolling(43, RolloutPhase.PREPARING, to=3, attempt=2),
        rolling(45, RolloutPhase.SHIFTING, to=3, attempt=2, percent=10, wanted=10),
        rolling(47, RolloutPhase.ANALYZING, to=3, attempt=2, percent=10, wanted=10, green=10),
        rolling(52, RolloutPhase.ABORTING, to=3, attempt=2, green=4, message="rejected at 10%: n=219 · 96 of 100"),
        rolling(54, RolloutPhase.REJECTED, to=3, attempt=2, message="rejected at 10%: n=219", rejected="revision3"),
        *(rolling(at, RolloutPhase.REJECTED, to=3, attempt=2, rejected="revision3") for at in (55, 60)),
    )
    assert texts[-2:] == [
        "version 3 is rejected at 10%: n=219; its users go back",
        "all users are back; version 3 is rejected",
    ]
    assert [Edit.STOP] == edits
    assert story.is_shown
    assert (
        "Version 2 was promoted after 30 s, by way of 10, 100 %: success 100%, n=900.",
        "Version 3 was rolled back after 11 s: rejected at 10%: n=219.",
        "Version 3 never had more than 10 users; its verdict was followed within 2.0 s.",
        "At every look from 0 s to 54 s between 100 and 100 users were active, of 100 asked for.",
    ) == story.words()


def test_a_way_back_between_two_looks_is_not_missed():
    """It may be over within a second."""
    story = promoted()
    told(story, *(rolling(at, RolloutPhase.RETIRING, to=2, percent=100, green=100) for at in (36, 41)))
    told(
        story,
        rolling(45, RolloutPhase.SHIFTING, to=3, attempt=2, percent=10, wanted=10),
        rolling(54, RolloutPhase.REJECTED, to=3, attempt=2, message="rejected at 10%: n=219", rejected="revision3"),
    )
    assert (True, "rejected at 10%: n=219") == (story.bad.rejected, story.bad.message)
    assert story.is_shown


def test_a_good_version_that_is_rolled_back_ends_it():
    """There is nothing to compare a faulty one with; it is not as described."""
    story = asked_for_the_good_one()
    _, edits = told(
        story,
        rolling(10, RolloutPhase.SHIFTING, to=2, percent=10, wanted=10),
        rolling(20, RolloutPhase.REJECTED, to=2, message="rejected at 10%: n=219", rejected="revision2"),
        *(rolling(at, RolloutPhase.REJECTED, to=2, rejected="revision2") for at in (21, 26)),
    )
    assert [Edit.STOP] == edits
    assert not story.is_shown
    assert "Version 2 was rolled back after 15 s: rejected at 10%: n=219." == story.words()[0]


def test_a_faulty_version_that_got_further_is_not_as_described():
    """Only a way back at the first step is."""
    story = promoted()
    told(story, *(rolling(at, RolloutPhase.RETIRING, to=2, percent=100, green=100) for at in (36, 41)))
    told(
        story,
        rolling(45, RolloutPhase.SHIFTING, to=3, attempt=2, percent=10, wanted=10),
        rolling(47, RolloutPhase.SHIFTING, to=3, attempt=2, step=1, percent=25, wanted=25),
        rolling(54, RolloutPhase.REJECTED, to=3, attempt=2, message="rejected at 25%", rejected="revision3"),
    )
    assert story.bad.rejected
    assert not story.is_shown


def test_a_pause_is_told_and_what_is_not_over_is_said_to_be_so():
    """The demo's time ends; it says how far it came."""
    story = asked_for_the_good_one()
    texts, _ = told(
        story,
        rolling(10, RolloutPhase.SHIFTING, to=2, percent=10, wanted=10),
        rolling(
            20,
            RolloutPhase.ANALYZING,
            to=2,
            percent=10,
            wanted=10,
            pause=PauseReason.INCONCLUSIVE,
            message="n=3 of 500",
        ),
    )
    assert "version 2 waits (Inconclusive): n=3 of 500" == texts[-1]
    told(story, a_frame(25, active=3, phase=Phase.DRAINING))  # those who leave at the end are not missed
    assert (
        "Version 2 was neither promoted nor rolled back: it came to 10 % before the run was over.",
        "At every look from 0 s to 20 s between 100 and 100 users were active, of 100 asked for.",
    ) == story.words()


def test_a_run_that_never_had_its_users_says_so():
    """Nothing was rolled out."""
    story = Story()
    assert ([], []) == told(story, a_frame(3, active=7, phase=Phase.STARTING), a_frame(4, active=7))
    assert ("Version 1 never had all of its users at work, so that nothing was rolled out.",) == story.words()
