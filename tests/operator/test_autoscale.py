"""Scaling by what runners measure: stories of single decisions, and what holds for any of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.scaling import ScalingReason as Why
from trafficsim_api.status import ScalingStatus, VersionScaling
from trafficsim_api.units import parse_instant
from trafficsim_operator.observed import RunnerLoad
from trafficsim_operator.plan.autoscale import SAMPLE_MS, ScalingSeen, VersionSeen, ahead_ms, scale

NOW = 1_700_000_000_000
MINUTE = 4


def a_version(revision: str = "v1", **fields: Any) -> VersionSeen:
    """Build a stable version of one runner, by its static size, that has all of 1000 places."""
    return VersionSeen(**{"static": 1, "capacity": 1000, "existing": 1, "places": 1000, "revision": revision, **fields})


def a_load(users: float = 100, utilisation: int | None = None, name: str = "a", **fields: Any) -> RunnerLoad:
    """Build the load of a runner that is long ready: by default 100 users take it to its target, 70 %."""
    settled = {"revision": "v1", "strained": False, "covered_ms": 15_000, "ready_ms": 60_000}
    used = round(7 * users) if utilisation is None else utilisation
    return RunnerLoad(**{**settled, "runner": name, "users": users, "utilisation": used, **fields})


def seen(*versions: VersionSeen, **fields: Any) -> ScalingSeen:
    """Build what is seen of *versions* (by default one), all users being on one runner of the first."""
    what: dict[str, Any] = {"total": 1000, "demand": 100, "known_ahead": 0, "max_runners": 12}
    what["loads"] = (a_load(fields.get("demand", 100)),)
    return ScalingSeen(versions=versions or (a_version(),), **{**what, **fields})


def after(status: ScalingStatus) -> int:
    """Return the instant of the sample after that of *status*."""
    assert status.at is not None
    return parse_instant(status.at) + SAMPLE_MS


def course(*looks: ScalingSeen, before: ScalingStatus | None = None) -> list[ScalingStatus]:
    """Return what each of *looks*, one a sample, comes to."""
    found: list[ScalingStatus] = []
    for look in looks:
        before = scale(before, look, NOW if before is None else after(before))
        found.append(before)
    return found


def stable(status: ScalingStatus) -> VersionScaling:
    """Return what *status* says of the stable version."""
    return status.versions[0]


def wanted(statuses: Sequence[ScalingStatus]) -> list[int]:
    """Return the runners that the stable version is to have, status by status."""
    return [stable(status).wanted for status in statuses]


def test_first_sight_keeps_what_there_is() -> None:
    """Whatever is measured at first sight: five runners have been needed for the last 300 s."""
    found = course(*[seen(a_version(existing=5))] * 22)
    assert [5] * 20 + [4] * 2 == wanted(found)


def test_as_many_as_the_load_takes() -> None:
    """300 users at 100 a runner: three, at once."""
    status = course(seen(demand=300, loads=tuple(a_load(100, name=name) for name in "abc")))[0]
    assert (3, 3, 100, 70) == (
        stable(status).wanted,
        stable(status).needed,
        stable(status).users_per_runner,
        stable(status).utilisation,
    )
    assert (Why.LOAD, "300 users at 100 a runner need 3") == (status.reason, status.message)


def test_up_in_steps() -> None:
    """900 users at 100 a runner: 1, then 4 more, then as many again."""
    found = course(*[seen(demand=900)] * 3)
    assert [5, 9, 9] == wanted(found)
    assert [9, 9, 9] == [stable(status).needed for status in found]
    assert [Why.RATE_LIMITED, Why.LOAD, Why.LOAD] == [status.reason for status in found]


def test_by_the_profile_at_once() -> None:
    """Users who are due by the profile are a number: three samples in, no rate holds their runners back."""
    calm = course(*[seen()] * 3)
    found = scale(calm[-1], seen(known_ahead=1000), NOW + 2 * SAMPLE_MS + 2000)
    assert (10, 10) == (stable(found).wanted, stable(found).needed)
    text = "1000 users are due within 45 s by the profile: at 100 a runner they need 10"
    assert (Why.PROFILE, text) == (found.reason, found.message)


def test_without_prediction_nobody_is_ahead() -> None:
    """prediction: false: runners are there for those who have come."""
    calm = course(*[seen()] * 3)
    found = scale(calm[-1], seen(known_ahead=1000, prediction=False), after(calm[-1]))
    assert 1 == stable(found).wanted


def test_how_far_ahead() -> None:
    """The start-up time of a runner and one sample; 30 s are taken while none is known."""
    assert 45_000 == ahead_ms(None)
    status = course(seen(start_ups_ms=(6_000, 8_000)), seen())[-1]
    assert (8_000, 23_000) == (status.start_up_ms, ahead_ms(status))


@pytest.mark.parametrize(
    ("looks", "start_up"),
    [
        pytest.param([(600_000,)], 120_000, id="one that took ten minutes"),
        pytest.param([(600_000,), (8_000,)], 120_000, id="it, and a quick one"),
        pytest.param([(600_000,), (8_000,), (9_000,)], 9_000, id="it among quick ones"),
        pytest.param([(8_000, 8_000, 9_000), (600_000,)], 9_000, id="a slow one after quick ones"),
        pytest.param([(8_000,), (30_000,) * 3, (31_000,)], 30_000, id="all others have become slow"),
        pytest.param([(90_000,), (8_000,) * 5], 8_000, id="five count"),
        pytest.param([(8_000,), (0,)], 8_000, id="by a clock that is behind nothing is known"),
        pytest.param([(0,)], 0, id="nothing ever was"),
    ],
)
def test_one_slow_start_is_not_how_long_runners_take(looks: list[tuple[int, ...]], start_up: int) -> None:
    """The median of the newest five counts, and never more than two minutes."""
    status = course(*[seen(start_ups_ms=starts) for starts in looks])[-1]
    assert start_up == status.start_up_ms
    assert ahead_ms(status) <= 135_000


@pytest.mark.parametrize(("existing", "runners"), [(2, 2), (5, 5), (8, 8), (0, 2)])
def test_after_a_pause_there_are_those_that_it_ended_with(existing: int, runners: int) -> None:
    """Five were wanted before it. Those that are there now were always needed, and none that was let go is missed."""
    busy = course(*[seen(demand=500)] * 2)
    assert 5 == stable(busy[-1]).wanted
    back = seen(a_version(existing=existing, static=2), demand=200, is_resumed=True)
    found = scale(busy[-1], back, NOW + 600_000)
    assert (runners, (runners,) * 20) == (stable(found).wanted, stable(found).recommended)


def test_down_after_300_seconds_one_a_minute() -> None:
    """From 5 runners to 2: none goes before it was not needed for 20 samples, then one every four."""
    busy = course(*[seen(demand=500)] * 2)[-1]
    calm = seen(demand=200)
    found = course(*[calm] * 40, before=busy)
    runners = wanted(found)
    assert [5] * 19 == runners[:19]
    assert [5, 4, 3, 2] == sorted(set(runners), reverse=True)
    changes = [number for number in range(1, 40) if runners[number] != runners[number - 1]]
    assert [MINUTE, MINUTE] == [after - before for before, after in zip(changes, changes[1:], strict=False)]
    assert Why.STABILIZING == found[5].reason
    assert "200 users at 100 a runner need 2" in found[5].message


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({"missing": ("b",)}, Why.METRICS_MISSING, id="a load is not known"),
        pytest.param({"missing": ("b",), "loads": ()}, Why.METRICS_MISSING, id="none is"),
        pytest.param({"in_rollout": True}, Why.ROLLOUT, id="a rollout"),
    ],
)
def test_never_down(fields: dict[str, Any], why: Why) -> None:
    """Neither on missing metrics nor in a rollout, however long; and not for 300 s afterwards."""
    busy = course(*[seen(demand=500)] * 2)[-1]
    held = course(*[seen(demand=100, **fields)] * 60, before=busy)
    assert [5] * 60 == wanted(held)
    assert why == held[-1].reason
    freed = course(*[seen(demand=100)] * 20, before=held[-1])
    assert [5] * 19 + [4] == wanted(freed)


def test_up_in_a_rollout_and_with_a_load_missing() -> None:
    """What holds runners does not keep more from coming."""
    for fields in ({"in_rollout": True}, {"missing": ("b",)}):
        assert 4 == stable(course(seen(demand=400, **fields))[0]).wanted


def test_nobody_tells_any_load() -> None:
    """For 180 s what was measured counts on; then it is what there is, or the static size."""
    busy = course(*[seen(demand=300)] * 2)[-1]
    blind = seen(demand=500, loads=(), missing=("a", "b", "c"))
    found = course(*[blind] * 12, replace(blind, demand=600), replace(blind, demand=900), before=busy)
    assert [5] * 12 + [5, 5] == wanted(found)
    assert [Why.LOAD] * 12 + [Why.METRICS_MISSING] * 2 == [status.reason for status in found]
    late = found[-1]
    assert "no runner has told its load for 180 s" in late.message
    raised = scale(late, replace(blind, versions=(a_version(static=6),)), after(late))
    assert 6 == stable(raised).wanted


def test_the_static_size_at_once() -> None:
    """What users, tier and capacity ask for does not wait for a sample."""
    calm = course(seen())[-1]
    found = scale(calm, seen(a_version(static=4)), NOW + 1_000)
    assert (4, Why.STATIC) == (stable(found).wanted, found.reason)


def test_measurement_only_lowers_users_per_runner() -> None:
    """A runner that could carry 10 000 by its CPU has 1000 places: two for 2000 users."""
    big = seen(a_version(static=2, places=2000), total=2000, demand=2000, loads=(a_load(2000, 140),))
    assert (2, 1000) == (stable(course(big)[0]).wanted, stable(course(big)[0]).users_per_runner)


def test_max_wins() -> None:
    """maxRunners, and what the policy leaves, also over what there is."""
    found = course(*[seen(demand=900, max_runners=6)] * 3)
    assert [5, 6, 6] == wanted(found)
    assert Why.MAX_RUNNERS == found[-1].reason
    assert "900 users at 100 a runner need 9; at most 6 are allowed" in found[-1].message
    lowered = scale(found[-1], seen(demand=900, max_runners=12, most_runners=5, others=1), after(found[-1]))
    assert 4 == stable(lowered).wanted


def test_the_policy_takes_nothing_of_the_size() -> None:
    """Four of a rejected version stand beside, or the policy allows 5 by now: the six that users need stay."""
    busy = seen(a_version(static=6, existing=6), demand=600, most_runners=12, others=4)
    found = course(*[busy] * 2)[-1]
    assert 6 == stable(found).wanted
    for others, most in ((8, 12), (4, 5)):
        cramped = replace(busy, others=others, most_runners=most)
        assert 6 == stable(scale(found, cramped, after(found))).wanted
        assert 6 == stable(scale(found, cramped, after(found) - 10_000)).wanted


def test_a_version_known_without_a_history() -> None:
    """A status that was shortened by hand: what is needed begins it anew between samples, and nothing fails."""
    busy = course(*[seen(demand=500)] * 2)[-1]
    bare = busy.model_copy(update={"versions": (stable(busy).model_copy(update={"recommended": ()}),)})
    found = scale(bare, seen(demand=900), after(bare) - 10_000)
    assert (9,) == stable(found).recommended


@pytest.mark.parametrize("limits", [{"max_runners": 3}, {"max_runners": None, "most_runners": 3}])
def test_off(limits: dict[str, Any]) -> None:
    """minRunners as many as are allowed: the static size, and nothing is kept that would have to be written."""
    off = seen(a_version(static=3), demand=900, min_runners=3, **limits)
    found = scale(course(*[seen(demand=900)] * 3)[-1], off, NOW + 3 * SAMPLE_MS)
    assert (3, Why.OFF, None) == (stable(found).wanted, found.reason, found.at)
    assert found == scale(found, off, NOW + 9 * SAMPLE_MS)
    on = scale(found, seen(a_version(existing=3), demand=900), NOW + 9 * SAMPLE_MS)
    assert (7, Why.RATE_LIMITED) == (stable(on).wanted, on.reason)


def test_somebody_else_scales() -> None:
    """Then runners are left as they are asked for, up and down, and afterwards that is what was needed."""
    foreign = seen(a_version(existing=7, conflict=True), demand=300)
    found = course(seen(demand=300), foreign, seen(demand=300))
    assert [3, 7, 7] == wanted(found)
    assert (Why.CONFLICT, Why.STABILIZING) == (found[1].reason, found[2].reason)


def test_both_versions_of_a_rollout() -> None:
    """Each by what its own runners carry: the new one's half as much, and it is to have a quarter of the users."""
    loads = (a_load(300), a_load(100, 1400, "b", revision="v2"))
    green = a_version("v2", existing=1, places=250)
    both = seen(a_version(), green, demand=400, loads=loads, in_rollout=True)
    status = course(both)[0]
    assert [("v1", 4), ("v2", 2)] == [(version.revision, version.wanted) for version in status.versions]


def test_the_policy_counts_both_versions() -> None:
    """The stable one does not take what the rollout was promised, nor the new one what the stable one has."""
    loads = (a_load(900), a_load(900, 12_600, "b", revision="v2"))
    green = a_version("v2", static=2, existing=0)
    both = seen(a_version(), green, demand=900, loads=loads, in_rollout=True, most_runners=8)
    found = course(*[both] * 4)
    assert [(5, 3), (5, 3), (5, 3)] == [tuple(v.wanted for v in status.versions) for status in found[1:]]


def test_after_the_promotion() -> None:
    """The new version's history is what either had: it keeps its runners for 300 s."""
    loads = (a_load(500), a_load(500, None, "b", revision="v2"))
    blue, green = a_version(), a_version("v2")
    both = course(*[seen(blue, green, demand=500, loads=loads, in_rollout=True)] * 2)[-1]
    alone = seen(green, demand=100, loads=loads[1:])
    turned = scale(both, alone, after(both) - 10_000)
    assert (("v2",), (5,) * 20) == (tuple(v.revision for v in turned.versions), stable(turned).recommended)
    assert turned == scale(turned, alone, after(both) - 10_000)
    assert (5,) * 20 == stable(scale(both, alone, after(both) + 600_000)).recommended
    assert [5] * 19 + [4] == wanted(course(*[alone] * 20, before=turned))


def test_what_the_clock_explains_outlives_a_gap() -> None:
    """An operator that was away, or a pause, begins the newest samples anew and keeps the means; an edit keeps none."""
    open_model = seen(demand=50, known_ahead=None)
    before = course(*[open_model] * 45)[-1]
    assert 2 <= len(before.demand.fives.users)
    away = scale(before, open_model, after(before) + 600_000)
    assert ((50,), before.demand.fives) == (away.demand.users, away.demand.fives)
    edited = scale(before, replace(open_model, total=900), after(before))
    assert ((50,), ()) == (edited.demand.users, edited.demand.fives.users)


def test_a_gap_in_the_looks_forgets_nothing() -> None:
    """An operator that was away for ten minutes does not take runners away at its first look."""
    busy = course(*[seen(demand=500)] * 2)[-1]
    back = scale(busy, seen(demand=100), NOW + 600_000)
    assert (5, (5,) * 20) == (stable(back).wanted, stable(back).recommended)


def test_an_edit_of_the_load_measures_anew() -> None:
    """What a user costs is another matter then: the next sample counts whole."""
    known = course(*[seen(load="x")] * 4)[-1]
    edited = scale(known, seen(load="y", loads=(a_load(100, 350),)), after(known))
    assert (1, 200) == (stable(edited).samples, stable(edited).users_per_runner)


def test_between_samples_nothing_is_written() -> None:
    """Looks come every second or five: the status is the same until the next sample."""
    first = course(seen(demand=300))[-1]
    for later_ms in (1, 1_000, 5_000, 14_999):
        assert first == scale(first, seen(demand=300, loads=(a_load(100, 900),)), NOW + later_ms)
    assert first != scale(first, seen(demand=300, loads=(a_load(100, 900),)), NOW + 15_000)


def test_the_users_at_work_are_counted_at_samples() -> None:
    """In the open model they come and go: what a look between two samples finds costs no runner."""
    first = course(seen(demand=100, known_ahead=None))[-1]
    crowd = seen(demand=300, known_ahead=None)
    assert first == scale(first, crowd, NOW + 5_000)
    assert 3 == stable(scale(first, crowd, NOW + 15_000)).wanted
    assert 3 == stable(scale(first, replace(crowd, known_ahead=300), NOW + 5_000)).wanted


def test_samples_lie_on_a_grid() -> None:
    """A look that comes a little late does not put off the next sample."""
    status = None
    for later_ms in range(0, 300_000, 5_500):
        status = scale(status, seen(), NOW + later_ms)
    assert status is not None
    assert "2023-11-14T22:18:05.000Z" == status.at
    assert 20 == stable(status).samples


def test_a_rising_demand_is_forecast_and_acted_on_once_proven() -> None:
    """Open model, ten users more every sample: told after 300 s, compared 60 s later, acted on after eight of those."""
    looks = [seen(demand=100 + 10 * number, known_ahead=None, total=5000) for number in range(40)]
    looks = [replace(look, versions=(a_version(places=5000),)) for look in looks]
    plain = wanted(course(*(replace(look, prediction=False) for look in looks)))
    found = course(*looks)
    assert [0, 340] == [found[19].forecast.users, found[20].forecast.users]
    assert plain[:31] == wanted(found)[:31]
    ahead = [number for number in range(40) if wanted(found)[number] > plain[number]]
    assert ahead
    assert all(number >= 31 for number in ahead)
    said = [status for status in found if status.reason is Why.FORECAST]
    assert "users are due within 60 s by the forecast" in said[0].message


LOOKS = st.lists(
    st.fixed_dictionaries(
        {
            "later": st.sampled_from([1_000, 5_000, 15_000, 16_000, 31_000, 600_000]),
            "demand": st.integers(0, 3000),
            "known_ahead": st.none() | st.integers(0, 3000),
            "utilisation": st.integers(0, 1200),
            "users": st.integers(0, 400),
            "active": st.integers(0, 600),
            "strained": st.booleans(),
            "missing": st.booleans(),
            "silent": st.booleans(),
            "in_rollout": st.booleans(),
            "total": st.sampled_from([3000, 3000, 3000, 2000]),
            "static": st.integers(1, 3),
        }
    ),
    min_size=1,
    max_size=25,
)
MOST = 20


def look_of(step: dict[str, Any]) -> ScalingSeen:
    """Return what a drawn *step* sees."""
    total = step["total"]
    loads = () if step["silent"] else (a_load(step["users"], step["utilisation"], strained=step["strained"]),)
    return ScalingSeen(
        versions=(a_version(static=step["static"], places=total, active=step["active"]),),
        loads=loads,
        missing=("b",) if step["missing"] or step["silent"] else (),
        total=total,
        demand=min(total, step["demand"]),
        known_ahead=step["known_ahead"] if step["known_ahead"] is None else min(total, step["known_ahead"]),
        in_rollout=step["in_rollout"],
        max_runners=MOST,
    )


@settings(max_examples=60, deadline=None)
@given(LOOKS)
def test_what_always_holds(steps: list[dict[str, Any]]) -> None:
    """
    Wanted runners lie within static size and maxRunners; the same look twice changes nothing; none goes while a load is
    missing or a version rolled out, before 300 s, or faster than a minute allows; the status can be read back.
    """
    now = NOW
    status: ScalingStatus | None = None
    runners: list[tuple[int, int, int]] = []
    for step in steps:
        now, look, before = now + step["later"], look_of(step), status
        status = scale(before, look, now)
        found = stable(status)
        assert step["static"] <= found.wanted <= MOST
        assert status == scale(status, look, now)
        assert status == ScalingStatus.model_validate_json(status.model_dump_json(by_alias=True, exclude_none=True))
        if before is not None and found.wanted < stable(before).wanted:
            assert not look.missing
            assert not look.in_rollout
            recent = [count for at, count, _ in runners if now - at <= 285_000]
            assert found.wanted >= max(needed for at, _, needed in runners if now - at <= 285_000)
            minute = [count for at, count, _ in runners if now - at <= 60_000]
            assert recent
            most = max(minute)
            assert found.wanted >= most - max(1, most // 10)
        runners.append((now, found.wanted, found.needed))


@settings(max_examples=60, deadline=None)
@given(LOOKS, st.integers(0, 2000), st.booleans())
def test_more_load_never_yields_fewer(steps: list[dict[str, Any]], more: int, prediction: bool) -> None:
    """Whatever was before: with more users at work, now and to come, there are as many runners or more."""
    now = NOW
    status: ScalingStatus | None = None
    for step in steps[:-1]:
        now += step["later"]
        status = scale(status, look_of(step), now)
    last = replace(look_of(steps[-1]), prediction=prediction)
    ahead = max(last.demand, last.known_ahead or 0)
    few = replace(last, known_ahead=ahead)
    many = replace(last, demand=last.demand + more, known_ahead=ahead + more)
    at = now + steps[-1]["later"]
    assert stable(scale(status, few, at)).wanted <= stable(scale(status, many, at)).wanted
