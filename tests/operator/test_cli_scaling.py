"""Scaling at the command line: what a file's runners would follow, and why there are so many now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.scaling import ScalingReason
from trafficsim_api.status import ScalingStatus, Status, VersionScaling
from trafficsim_operator.cli.main import main
from trafficsim_operator.cli.scaling_plan import steepest
from trafficsim_operator.cli.scaling_view import scaling_lines

RAMP = [{"ramp": {"to": "100%", "over": "90s"}}, {"hold": {"for": "5m"}}]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        pytest.param(
            {"users": 400, "profile": RAMP},
            (
                "scaling     1 runner at first and at least, without a limit",
                "as many as keep them 70% busy: users a runner carries so are measured in the run",
                "up at once, by as many again or 4 in 15s; down after 5m without need, by 1 or a tenth a minute",
                "ahead of the profile, which rises by at most 200 users in 45s: a start-up time and 15s",
            ),
            id="a profile",
        ),
        pytest.param(
            {"users": 400, "scaling": {"maxRunners": 6, "targetUtilisation": "50%", "prediction": False}},
            (
                "scaling     1 runner at first and at least, at most 6 (scaling.maxRunners)",
                "as many as keep them 50% busy",
                "no prediction: runners are started for users that have come",
            ),
            id="no prediction",
        ),
        pytest.param(
            {"users": 400, "arrivals": {"rate": "20/s"}, "scaling": {"lookAhead": "2m"}},
            ("a demand that keeps rising is forecast 2m ahead",),
            id="the open model",
        ),
        pytest.param(
            {"users": 400, "scaling": {"minRunners": 3, "maxRunners": 3}},
            ("scaling     off: 3 runners at least, 3 runners at most",),
            id="off",
        ),
        pytest.param({"users": 0}, ("scaling     0 users need no runner",), id="nobody"),
    ],
)
def test_what_runners_would_follow(
    spec: dict[str, Any], told: tuple[str, ...], shop: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bounds, target, rates and how far ahead; what is measured in the run is not known before."""
    assert 0 == main(["plan", shop(**spec)])
    out = capfd.readouterr().out
    for text in told:
        assert text in out


def test_the_same_for_machines(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """What is not known before the run is null."""
    assert 0 == main(["plan", "--json", shop(users=1200, scaling={"maxRunners": 6})])
    found = json.loads(capfd.readouterr().out)["scaling"]
    assert found == {
        "leastRunners": 2, "mostRunners": 6, "targetUtilisation": "70%", "usersPerRunner": None, "prediction": True,
        "aheadMs": 45_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "rise"),
    [
        pytest.param(RAMP, 200, id="half of a ramp of 90 s"),
        pytest.param([{"hold": {"for": "5m"}}], 0, id="all at once is there from the start"),
        pytest.param(
            [{"ramp": {"to": "10%", "over": "1m"}}, {"spike": {"to": "100%", "over": "10s", "hold": "10s"}}],
            383,
            id="into a spike",
        ),
    ],
)
def test_the_steepest_rise(profile: list[dict[str, Any]], rise: int) -> None:
    """Of 400 users within 45 s: the most that are due less those who are there."""
    spec = TrafficSimulationSpec.model_validate_json(
        json.dumps({"target": {"url": "http://h"}, "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
                    "users": 400, "profile": profile})
    )  # fmt: skip
    assert rise == steepest(shape(spec.profile), 400, 45_000)


def test_why_there_are_so_many() -> None:
    """A sentence for each version whose runners follow their load, with its name where there are two."""
    load = VersionScaling(
        revision="r1", wanted=3, utilisation=68, reason=ScalingReason.LOAD, message="300 users at 98 need 3"
    )
    size = VersionScaling(revision="r2", wanted=1, reason=ScalingReason.STATIC, message="1 by size")
    assert () == scaling_lines(Status())
    assert () == scaling_lines({})
    one = Status(scaling=ScalingStatus(versions=(load,)))
    assert ("3 wanted, 68% busy: 300 users at 98 need 3",) == scaling_lines(one)
    assert scaling_lines(one) == scaling_lines(json.loads(one.model_dump_json(by_alias=True)))
    two = Status(scaling=ScalingStatus(versions=(load, size)))
    assert ("r1: 3 wanted, 68% busy: 300 users at 98 need 3",) == scaling_lines(two)
    assert () == scaling_lines({"scaling": {"versions": 5}})
