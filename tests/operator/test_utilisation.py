"""What a runner carries: the moving average, what says nothing, and the ceiling of one that could not keep up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.status import VersionScaling
from trafficsim_operator.observed import RunnerLoad
from trafficsim_operator.plan.utilisation import full_milliusers, milliusers_per_runner, sampled


def a_load(users: float = 10, utilisation: int = 500, **fields: Any) -> RunnerLoad:
    """Build the load of a runner that is long ready and told everything."""
    settled = {"runner": "r", "revision": "v1", "strained": False, "covered_ms": 15_000, "ready_ms": 60_000}
    return RunnerLoad(**{**settled, "users": users, "utilisation": utilisation, **fields})


def after(*samples: RunnerLoad | list[RunnerLoad], target: int = 700) -> VersionScaling:
    """Return a version after *samples*, each of one runner or of several."""
    version = VersionScaling(revision="v1")
    for loads in samples:
        version = sampled(version, loads if isinstance(loads, list) else [loads], target=target)
    return version


@pytest.mark.parametrize(
    ("samples", "average"),
    [
        pytest.param([(10, 500)], 20_000, id="the first counts whole"),
        pytest.param([(10, 500), (10, 400)], 22_500, id="the second a half"),
        pytest.param([(10, 500), (10, 500), (10, 400)], 22_000, id="from the third on 0.4"),
        pytest.param([(10, 500)] * 5 + [(10, 400)] * 3, 23_920, id="78 % of a change after three"),
    ],
)
def test_average(samples: list[tuple[float, int]], average: int) -> None:
    """The users that take all of a runner are a moving average of users ÷ utilisation."""
    assert average == after(*(a_load(*sample) for sample in samples)).milliusers


@pytest.mark.parametrize(
    ("version", "capacity", "carried"),
    [
        pytest.param(VersionScaling(revision="v1"), 10, 0, id="not measured"),
        pytest.param(VersionScaling(revision="v1", milliusers=20_000), 1000, 14_000, id="the target's share"),
        pytest.param(VersionScaling(revision="v1", milliusers=20_000, ceiling=15_000), 1000, 10_500, id="ceiling"),
        pytest.param(VersionScaling(revision="v1", milliusers=20_000), 10, 10_000, id="never above the capacity"),
        pytest.param(VersionScaling(revision="v1", milliusers=1), 10, 1, id="never nobody"),
    ],
)
def test_users_per_runner(version: VersionScaling, capacity: int, carried: int) -> None:
    """What a runner carries at the target: measurement only lowers what the static size allows."""
    assert carried == milliusers_per_runner(version, target=700, capacity=capacity)


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(a_load(ready_ms=29_999), id="warming up"),
        pytest.param(a_load(covered_ms=7_499), id="half of it not told"),
        pytest.param(a_load(users=0.9), id="no user"),
        pytest.param(a_load(utilisation=69), id="below a tenth of the target"),
        pytest.param(a_load(revision="v2"), id="of another version"),
    ],
)
def test_says_nothing(load: RunnerLoad) -> None:
    """What tells of no user's cost leaves the average as it was."""
    known = after(a_load())
    assert (20_000, 1) == (known.milliusers, known.samples)
    found = sampled(known, [load], target=700)
    assert (20_000, 1) == (found.milliusers, found.samples)


def test_all_runners_count_together() -> None:
    """The average is over users and utilisation of all runners, not over what each of them says."""
    assert 20_000 == after([a_load(30, 1500), a_load(2, 100)]).milliusers


def test_utilisation_is_the_mean_of_all_in_percent() -> None:
    """Also those that tell nothing of a user's cost are in what is shown."""
    assert 35 == after([a_load(10, 690), a_load(0, 4)]).utilisation


@pytest.mark.parametrize("utilisation", [950, 1000])
def test_used_up_is_a_bound_at_once(utilisation: int) -> None:
    """A runner with all of its CPU gone carries no more than it has, whatever was measured before."""
    assert 12_000 == after(a_load(10, 200), a_load(10, 200), a_load(12, utilisation)).milliusers


def test_more_than_used_up_counts_as_measured() -> None:
    """10 users at 125 % are 8."""
    assert 8_000 == after(a_load(10, 1250)).milliusers


@pytest.mark.parametrize(
    ("users", "utilisation", "average"),
    [
        pytest.param(12, 400, 22_500, id="a fifth more"),
        pytest.param(13, 400, 20_000, id="more than a quarter more"),
        pytest.param(13, 1000, 10_000, id="used up all the same"),
        pytest.param(0, 400, 22_500, id="not known"),
    ],
)
def test_nothing_is_measured_while_users_come(users: int, utilisation: int, average: int) -> None:
    """Connecting costs more than being there, so a sample with many newcomers says too little of a runner."""
    known = after(a_load(10, 500))
    assert average == sampled(known, [a_load(10, utilisation)], target=700, active=users).milliusers


CROWDED = {"strained": True, "crowded": True}


@pytest.mark.parametrize(
    ("loads", "average"),
    [
        pytest.param([a_load(10, 300, **CROWDED)], 20_000, id="looks idle"),
        pytest.param([a_load(10, 800, **CROWDED)], 16_250, id="more than it was thought to take"),
        pytest.param([a_load(10, 300, **CROWDED), a_load(10, 400)], 22_500, id="beside one that has its CPU"),
        pytest.param([a_load(10, 300, **CROWDED), a_load(12, 1000)], 12_000, id="beside one that is used up"),
        pytest.param([a_load(8, 1000, **CROWDED)], 8_000, id="used up all the same"),
    ],
)
def test_who_has_no_cpu_is_not_idle(loads: list[RunnerLoad], average: int) -> None:
    """What a runner could not do, since others had the CPU, makes its users no cheaper."""
    assert average == after(a_load(10, 500), loads).milliusers


def test_what_is_crowded_from_the_first_is_a_bound() -> None:
    """It is all that is known; a calm sample counts a half then, as after any first one."""
    crowded = a_load(10, 400, **CROWDED)
    assert [25_000, 25_000, 25_000] == [after(*[crowded] * count).milliusers for count in (1, 2, 3)]
    assert 22_500 == after(crowded, a_load(10, 500)).milliusers


def test_ceiling_takes_two_strained_samples() -> None:
    """One late sample is a hiccup; the second in a row makes the users a ceiling."""
    late = a_load(10, 500, strained=True)
    assert [0, 10_000] == [after(late).ceiling, after(late, late).ceiling]
    assert 0 == after(late, a_load(), late).ceiling


def test_a_ceiling_takes_half_of_the_runners() -> None:
    """One of three that is late is so by its node, or by chance; two of four are a sign."""
    late, good = a_load(10, 500, strained=True), a_load(12, 600)
    assert [0, 10_000] == [after(loads, loads).ceiling for loads in ([late, good, good], [late, late, good, good])]


@pytest.mark.parametrize(
    ("fields", "ceiling"),
    [
        pytest.param({"utilisation": 350}, 10_000, id="half of the target"),
        pytest.param({"utilisation": 349}, 0, id="not this runner is slow"),
    ],
)
def test_strain_of_an_idle_runner_is_not_its_own(fields: dict[str, int], ceiling: int) -> None:
    """Below half of the target more runners would not help."""
    late = a_load(strained=True, **fields)
    assert ceiling == after(late, late).ceiling


def test_no_ceiling_while_users_move() -> None:
    """While a runner warms up it is not known with how many users another was strained."""
    late = a_load(10, 500, strained=True)
    moving = [late, a_load(5, 300, ready_ms=10_000)]
    assert (0, 0) == (after(moving, moving).ceiling, after(moving, moving).strained)


def test_ceiling_rises_and_goes() -> None:
    """It rises by 0.5 % a sample, and is gone once the average is the lesser."""
    late, good = a_load(10, 500, strained=True), a_load(7, 350)
    version = after(late, late)
    assert 10_000 == full_milliusers(version)
    version = sampled(version, [good], target=700)
    assert (20_000, 10_050) == (version.milliusers, version.ceiling)
    counted = 1
    while version.ceiling:
        version, counted = sampled(version, [good], target=700), counted + 1
    assert 138 == counted
    assert 20_000 == full_milliusers(version)


@given(
    st.lists(
        st.builds(
            a_load,
            users=st.floats(0, 5000),
            utilisation=st.integers(0, 1500),
            strained=st.booleans(),
            crowded=st.booleans(),
            ready_ms=st.sampled_from([0, 60_000]),
        ),
        max_size=30,
    )
)
def test_anything_is_taken(loads: list[RunnerLoad]) -> None:
    """Whatever runners tell, the average is unknown or above nothing, and the ceiling below it."""
    version = after(*loads)
    assert version.milliusers >= 0
    assert bool(version.milliusers) == bool(version.samples)
    assert version.ceiling < version.milliusers or version.ceiling == version.milliusers == 0
