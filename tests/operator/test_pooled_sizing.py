"""Sizing with pooled connections: what bounds a runner then, and what is refused."""

from __future__ import annotations

import json

import pytest

from trafficsim_api.errors import SpecError
from trafficsim_api.resource import TrafficSimulationSpec as Spec
from trafficsim_operator.plan.sizing import size


def a_spec(users=10, *, groups=None, mode="pooled", url="http://shop", memory="1Gi", steps=("user",), **more):
    connections = {"mode": mode, **({"groups": groups} if groups else {})}
    flow = [{"group": group, "request": {"get": "/"}} for group in steps]
    return Spec.model_validate_json(json.dumps({
        "target": {"url": url}, "users": users, "archetypes": [{"name": "one", "flow": flow}],
        "connections": connections, "runner": {"resources": {"limits": {"cpu": "2", "memory": memory}}}, **more,
    }))  # fmt: skip


def test_connections_bound_no_users():
    """Capacity is what processes and memory hold: 12 001 users need 4 runners, with connections of their own 13."""
    spec, own = a_spec(2000), a_spec(2000, mode="perUser")
    found = size(spec, connections=1000)
    assert (4000, 200, 2) == (found.capacity, found.pooled, found.runners)
    assert (1000, None) == (size(own, connections=1000).capacity, size(own, connections=1000).pooled)
    assert 4 == size(a_spec(12_001), connections=1000).runners
    assert 13 == size(a_spec(12_001, mode="perUser"), connections=1000).runners


def test_tls_costs_memory_by_connection():
    """36 KiB for each connection of the pools, not for each user."""
    own, shared = (
        size(a_spec(100, url="https://shop", memory="400Mi", mode=mode, scaling={"usersPerProcess": 50_000}),
             connections=1000)
        for mode in ("perUser", "pooled")
    )  # fmt: skip
    assert (400 - 64 * 5) * 2**20 // 4 // (38 * 1024) == own.per_process
    assert ((400 - 64 * 5) * 2**20 - 200 * 36 * 1024) // 4 // 2048 == shared.per_process


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        pytest.param(
            {"groups": {"bulk": {"max": 801}}, "steps": ("user", "bulk")},
            "connections.groups.bulk.max: user 200 + bulk 801 = 1001 connections of a runner are more than the "
            "policy's 1000",
            id="more than the policy allows",
        ),
        pytest.param(
            {"groups": {"user": {"max": 1500}}},
            "connections.groups.user.max: user 1500 connections of a runner are more than the policy's 1000",
            id="one group alone",
        ),
        pytest.param(
            {"users": 100, "groups": {"auth": {"max": 1}}, "steps": ("user", "auth")},
            "connections.groups.auth.max: 1 is less than one for each of a runner's 2 worker processes; set it to 2 or "
            "more, or scaling.maxProcesses to 1",
            id="fewer than processes",
        ),
    ],
)
def test_refused(given, problem):
    """Naming the field to change."""
    with pytest.raises(SpecError) as caught:
        size(a_spec(**given), connections=1000)
    assert problem == str(caught.value)


def test_groups_without_requests_do_not_count():
    assert 200 == size(a_spec(groups={"bulk": {"max": 5000}}), connections=200).pooled


def test_processes_that_are_there_count():
    """Within a run they become no fewer, so a max below them is refused then as well."""
    spec = a_spec(5, groups={"user": {"max": 2}})
    assert 1 == size(spec, connections=1000).processes
    with pytest.raises(SpecError, match="a runner's 4 worker processes"):
        size(spec, connections=1000, processes_held=4)


def test_the_largest_max_that_every_process_can_share_is_enough():
    assert 2 == size(a_spec(100, groups={"user": {"max": 2}}), connections=1000).processes
