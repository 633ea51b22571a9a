"""What is refused before it replaces the assignment in force, and what workers are told of one that is taken."""

from __future__ import annotations

import pytest

from supervised.running import a_load
from trafficsim_api.places import Places
from trafficsim_api.protocol import Allowed, Assignment, Limits
from trafficsim_runner.admission import objection
from trafficsim_runner.division import divide
from trafficsim_runner.held import Held


def an_assignment(**changes):
    fields = {
        "simulation": "s", "run": 1, "runner": "r", "revision": "v", "epoch": 3, "users": 10, "places": ((0, 10),),
        "processes": 2, "start_at_ms": 1000, "warm_up_ms": 500, "end_ms": 61_000, "load": a_load(),
        "limits": Limits(targets=(Allowed(network="127.0.0.0/8"),), connections=101, concurrency=10),
    }  # fmt: skip
    return Assignment(**fields | changes)


def test_what_can_be_worked_on_is_taken():
    """No objection."""
    assert objection(an_assignment(), known=[("other", "user")]) is None


@pytest.mark.parametrize(
    ("changes", "known", "words"),
    [
        pytest.param({}, [(str(n), "user") for n in range(256)], "257 actions", id="too many actions in one run"),
        pytest.param({"users": -1}, [], "users", id="less than nobody"),
        pytest.param({"epoch": -1}, [], "epoch", id="before the first epoch"),
        pytest.param({"processes": 65}, [], "processes", id="more processes than any machine is given"),
        pytest.param({"places": ((5, 1),)}, [], "places", id="a range that ends before it starts"),
        pytest.param({"places": ((-2, 1),)}, [], "places", id="a place below 0"),
        pytest.param({"end_ms": 10}, [], "before the start", id="ended before it starts"),
        pytest.param({"load": a_load().model_copy(update={"ca": "no PEM"})}, [], "load.ca", id="no certificates"),
        pytest.param({"limits": Limits(targets=(Allowed(network="lo"),))}, [], "no network", id="no network"),
    ],
)
def test_what_cannot_is_refused_with_the_field(changes, known, words):
    """The reason names what is wrong."""
    assert words in (objection(an_assignment(**changes), known) or "")


def test_a_worker_is_told_its_share():
    """Places of its own, limits by exact shares, instants on the monotonic clock."""
    held = Held(assignment=an_assignment(), load={"x": 1}, origin_ns=7_000_000_000)
    division = divide([], held.places, 2)
    told = [held.message(division, index)["assign"] for index in range(2)]
    assert Places.first(10) == Places.union(Places.of(each["places"]) for each in told)
    assert [50, 51] == [each["limits"]["connections"] for each in told]
    assert [5, 5] == [each["limits"]["concurrency"] for each in told]
    assert (7_000_000_000, 67_000_000_000, 500, 3, {"x": 1}) == (
        told[0]["origin_ns"], told[0]["end_ns"], told[0]["warm_up_ms"], told[0]["epoch"], told[0]["load"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        pytest.param({"retire": True}, Places(), id="retiring: nobody stays"),
        pytest.param({"users": 4}, Places.first(4), id="places from T on are none"),
    ],
)
def test_the_places_to_work_on(changes, places):
    """Assigned places that are in force."""
    assert places == Held(assignment=an_assignment(**changes), load={}, origin_ns=0).places
