"""The pools of connections: the seed's numbers, what fills what is not said, and what is refused."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from trafficsim_api.connections import Connections, added_pools, pool_gauges, pools_for, pools_of, pools_told
from trafficsim_api.document import load
from trafficsim_api.errors import SpecError
from trafficsim_api.resource import Archetype


def connections(**given):
    return Connections.model_validate_json(json.dumps(given))


def pool(name, **groups):
    return pools_of(connections(mode="pooled", groups=groups), [name])[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auth", (50, 5, 30_000, True, "high", 1000, 3000, 60_000)),
        ("user", (200, 20, 60_000, True, "medium", 1000, 3000, 60_000)),
        ("bulk", (100, 10, 120_000, False, "low", 1000, 3000, 0)),
        ("checkout", (200, 20, 60_000, True, "medium", 1000, 3000, 60_000)),
    ],
)
def test_defaults(name, expected):
    """min is a tenth of max; a heartbeat of 60 s goes with keep-alive; an unknown group is as `user`."""
    found = pool(name)
    assert expected == (
        found.most, found.least, found.idle_ms, found.keep_alive, found.priority, found.connect_ms, found.wait_ms,
        found.heartbeat_ms,
    )  # fmt: skip


def test_nothing_is_pooled_unless_asked_for():
    """perUser is the default."""
    assert {} == pools_of(Connections(), ["auth", "user"])


def test_what_is_absent_is_the_built_in_groups():
    found = pool("bulk", bulk={"max": 30, "keepAlive": True})
    assert (30, 3, 120_000, True, "low", 60_000) == (
        found.most, found.least, found.idle_ms, found.keep_alive, found.priority, found.heartbeat_ms,
    )  # fmt: skip


def test_another_group_is_filled_up_with_what_user_is_here():
    """With its min too, unless it has a max of its own."""
    user = {"max": 40, "min": 30, "wait": "1s", "heartbeat": "0s"}
    other, small = pool("mine", user=user), pool("mine", user=user, mine={"max": 5})
    assert (40, 30, 1000, 0) == (other.most, other.least, other.wait_ms, other.heartbeat_ms)
    assert (5, 1, 1000) == (small.most, small.least, small.wait_ms)


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ({"groups": {"auth": {"max": 5}}}, "groups", "belongs to mode pooled"),
        ({"mode": "pooled", "groups": {"auth": {"min": 51}}}, "groups.auth.min", "must not be above max (50)"),
        ({"mode": "pooled", "groups": {"a b": {}}}, "groups", "'a b' is not a name"),
        ({"mode": "pooled", "groups": {"auth": {"wait": "1ms"}}}, "wait", "from 10ms to 10m is needed"),
        ({"mode": "pooled", "groups": {"auth": {"connect": "1h"}}}, "connect", "from 10ms to 10m is needed"),
        ({"mode": "pooled", "groups": {"auth": {"idle": "2h"}}}, "idle", "from 100ms to 1h is needed"),
        (
            {"mode": "pooled", "groups": {"auth": {"heartbeat": "1500ms"}}},
            "heartbeat",
            "whole seconds up to 1h are needed, 0s for none",
        ),
        (
            {"mode": "pooled", "groups": {"bulk": {"heartbeat": "5s"}}},
            "groups.bulk.heartbeat",
            "needs keepAlive: true, this group closes after each answer",
        ),
    ],
)
def test_refused(given, field, reason):
    """In the user's words, with the field."""
    with pytest.raises(ValidationError) as caught:
        connections(**given)
    (problem,) = caught.value.errors()
    assert (field, reason) == (problem["ctx"]["field"], problem["ctx"]["reason"])


DOCUMENT = """
apiVersion: trafficsim.io/v1alpha1
kind: TrafficSimulation
metadata: {name: shop}
spec:
  target: {url: http://shop}
  archetypes: [{name: one, flow: [{group: checkout, request: {get: /}}]}]
  connections:
    mode: pooled
    groups: %s
"""


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ("{chekout: {max: 5}}", "connections.groups.chekout: no request is of this group"),
        ("{checkout: {maxx: 5}}", "connections.groups.checkout.maxx: unknown field (did you mean max?)"),
        ("{checkout: {max: 0}}", "connections.groups.checkout.max: at least 1 is needed"),
        ("{checkout: {priority: hi}}", "connections.groups.checkout.priority: one of high, medium, low is needed"),
        (
            "{checkout: {wait: 5}}",
            "connections.groups.checkout.wait: a duration such as 500ms, 30s, 2m or 1h30m is needed"
            ": whole numbers of h, m, s, ms, in this order",
        ),
        ("[checkout]", "connections.groups: a mapping (key: value) is needed, not a list"),
    ],
)
def test_a_document_names_the_field(groups, problem):
    with pytest.raises(SpecError) as caught:
        load((DOCUMENT % groups).encode(), "shop.yaml")
    assert [problem] == [str(found) for found in caught.value.problems]


def test_a_group_of_the_flows_is_taken():
    assert load((DOCUMENT % "{checkout: {max: 5}, bulk: {max: 1}}").encode(), "shop.yaml")


def test_a_scenario_may_need_every_group():
    """Of which groups its requests are is not known before it is loaded: the built-in ones, and those given."""
    given = connections(mode="pooled", groups={"mine": {"max": 3}})
    flow = Archetype.model_validate({"name": "a", "flow": ({"request": {"get": "/"}},)})
    scenario = Archetype.model_validate({"name": "b", "scenario": "shop.flows:Exporter"})
    assert ["user"] == list(pools_for(given, (flow,)))
    assert ["user", "auth", "bulk", "mine"] == list(pools_for(given, (flow, scenario)))


def test_figures_go_through_the_gauges():
    """Sums, of the longest wait the longest; a group's name may hold slashes."""
    one = {"size": 1, "used": 1, "waiting": 0, "max": 3, "most": 2, "waits": 4, "wait_us": 50, "longest_us": 20,
           "dropped": 0}  # fmt: skip
    both = added_pools([{"a/b": one}, {"a/b": {**one, "longest_us": 30}, "c": one}])
    assert (2, 8, 100, 30) == tuple(both["a/b"][name] for name in ("size", "waits", "wait_us", "longest_us"))
    assert both == pools_told({"workers": 2, **pool_gauges(both)})
