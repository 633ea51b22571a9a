"""Sizing: the row of the documentation, each bound, and the refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.errors import SpecError
from trafficsim_api.resource import Archetype, Quantities, Request, Resources, Runner, Scaling, Step, Target
from trafficsim_api.resource import TrafficSimulationSpec as Spec
from trafficsim_operator.plan.sizing import MIB, size
from trafficsim_operator.plan.tiers import tier_of

FLOW = (Step(request=Request(get="/")),)


def a_spec(users: int, *, url: str = "http://shop", cpu: int = 2000, memory: int = 1024, **scaling: int) -> Spec:
    """Build a spec of *users* on runners of *cpu* millicores and *memory* MiB."""
    limits = Quantities.model_validate({"cpu": f"{cpu}m", "memory": memory * MIB})
    return Spec(
        target=Target(url=url),
        users=users,
        archetypes=(Archetype(name="a", flow=FLOW),),
        runner=Runner(resources=Resources(limits=limits)),
        scaling=Scaling(**scaling),
    )


@pytest.mark.parametrize(
    ("users", "runners", "processes"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (50, 1, 1),
        (51, 1, 2),
        (300, 1, 2),
        (500, 1, 2),
        (501, 2, 2),
        (1200, 2, 2),
        (2000, 2, 2),
        (2001, 3, 2),
        (5000, 5, 2),
        (5001, 6, 2),
        (12000, 12, 2),
    ],
)
def test_default_runner(users: int, runners: int, processes: int) -> None:
    """The default runner (2 cores, 1 GiB) with own connections: the documented row."""
    found = size(a_spec(users), connections=1000)
    assert (runners, processes) == (found.runners, found.processes)


@pytest.mark.parametrize(
    ("users", "scaling", "reason"),
    [
        (0, {}, "0 users need no runner"),
        (1, {}, "1 user at 1000 a runner needs 1"),
        (1200, {}, "1200 users at 1000 a runner need 2"),
        (501, {}, "tier medium has at least 2"),
        (1, {"min_runners": 2}, "scaling.minRunners asks for 2"),
    ],
)
def test_why_so_many(users: int, scaling: dict[str, int], reason: str) -> None:
    """One sentence with the term that decided."""
    assert reason == size(a_spec(users, **scaling), connections=1000).reason


@pytest.mark.parametrize(
    ("users", "tier", "strategy"),
    [
        (1, "micro", "single_process"),
        (50, "micro", "single_process"),
        (51, "small", "process_pool"),
        (500, "small", "process_pool"),
        (501, "medium", "worker_distribution"),
        (2000, "medium", "worker_distribution"),
        (2001, "large", "cluster_coordination"),
        (5000, "large", "cluster_coordination"),
        (5001, "xlarge", "distributed_mesh"),
    ],
)
def test_tiers(users: int, tier: str, strategy: str) -> None:
    """The seed's borders and strategies."""
    found = tier_of(users)
    assert found is not None
    assert (tier, strategy) == (found.name, found.strategy)


def test_no_users_no_tier() -> None:
    """0 users: no tier, no runner."""
    assert tier_of(0) is None


@pytest.mark.parametrize(
    ("spec", "runners", "processes", "capacity"),
    [
        pytest.param(a_spec(300, cpu=200, memory=256), 1, 1, 1000, id="a fifth of a core runs one process"),
        pytest.param(a_spec(10, min_runners=3), 3, 1, 1000, id="minRunners"),
        pytest.param(a_spec(600, users_per_process=100), 2, 3, 400, id="usersPerProcess lowers the capacity"),
        pytest.param(a_spec(900, users_per_process=100), 3, 3, 400, id="and then more runners are needed"),
        pytest.param(a_spec(600, users_per_process=100, max_processes=1), 6, 1, 100, id="maxProcesses"),
        pytest.param(a_spec(2000, memory=340), 2, 2, 1000, id="little memory, no TLS"),
        pytest.param(a_spec(2000, url="https://shop", memory=340), 4, 4, 536, id="TLS takes 36 KiB a user"),
    ],
)
def test_bounds(spec: Spec, runners: int, processes: int, capacity: int) -> None:
    """Each term moves what it should."""
    found = size(spec, connections=1000)
    assert (runners, processes, capacity) == (found.runners, found.processes, found.capacity)


def test_one_machine_shares_its_cores() -> None:
    """Locally worker processes in total stay within the cores, at least one a runner."""
    assert [2, 1, 1] == [size(a_spec(users), connections=1000, cores=2).processes for users in (400, 1200, 2001)]


@pytest.mark.parametrize(
    ("spec", "policy", "field", "reason"),
    [
        pytest.param(
            a_spec(5000, max_runners=4),
            None,
            "users",
            "5000 need 5 runners of ≤ 1000 connections; scaling.maxRunners is 4",
            id="maxRunners too small",
        ),
        pytest.param(
            a_spec(5000),
            4,
            "users",
            "5000 need 5 runners of ≤ 1000 connections; the policy's maxRunners is 4",
            id="policy",
        ),
        pytest.param(
            a_spec(10, memory=300),
            None,
            "runner.resources.limits.memory",
            "300Mi leave no room for a user beside 4 processes; at least 321Mi are needed",
            id="no room for a user",
        ),
    ],
)
def test_refusals(spec: Spec, policy: int | None, field: str, reason: str) -> None:
    """What can't be had is refused with the field and the figures."""
    with pytest.raises(SpecError) as caught:
        size(spec, connections=1000, policy_max_runners=policy)
    assert [(field, reason)] == [(problem.field, problem.reason) for problem in caught.value.problems]


@given(st.integers(1, 200_000), st.integers(1, 100))
def test_more_users_never_need_fewer_runners(users: int, more: int) -> None:
    """Runners hold everybody, and rise with the users."""
    few, many = size(a_spec(users), connections=1000), size(a_spec(users + more), connections=1000)
    assert few.runners <= many.runners
    assert few.runners * few.capacity >= users
    assert few.processes * few.per_process >= few.users_per_runner
