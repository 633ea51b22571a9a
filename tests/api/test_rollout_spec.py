"""How a rollout is asked for: the seed's numbers unless told otherwise, and what is refused, in words, by field."""

import json
from datetime import timedelta

import pytest

from trafficsim_api.document import load
from trafficsim_api.errors import SpecError
from trafficsim_api.rollout import Rollout


def document(rollout: object) -> bytes:
    spec = {
        "target": {"url": "http://127.0.0.1:1"},
        "users": 10,
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
        "rollout": rollout,
    }
    whole = {"apiVersion": "trafficsim.io/v1alpha1", "kind": "TrafficSimulation", "metadata": {"name": "shop"}}
    return json.dumps(whole | {"spec": spec}).encode()


def test_defaults():
    """10, 25, 50, 75, 100 %, 30 s each; error_rate above 5 %, p95 above 5 s or success below 95 % roll back."""
    rollout = load(document({}), "shop.yaml").spec.rollout
    assert [10, 25, 50, 75, 100] == [step.percent for step in rollout.steps]
    assert not any(step.pause or step.dwell for step in rollout.steps)
    assert (timedelta(seconds=30), timedelta(minutes=10)) == (rollout.dwell, rollout.max_dwell)
    assert (500, timedelta(seconds=5), 9500) == (rollout.max_error_rate, rollout.max_p95, rollout.min_success_rate)
    assert ("rollback", "absolute", True, False) == (
        rollout.on_failure, rollout.comparison, rollout.auto_promote, rollout.paused,
    )  # fmt: skip
    assert (10, 5, 60, 300, 300) == tuple(
        period.seconds
        for period in (
            rollout.warm_up, rollout.window, rollout.scale_down_delay, rollout.abort_scale_down_delay, rollout.deadline,
        )
    )  # fmt: skip
    assert 500 == rollout.min_samples


def test_what_is_said_counts():
    steps = [{"percent": 20, "pause": True, "dwell": "90s"}, {"percent": 100}]
    asked = {"steps": steps, "warmUp": "3s", "window": "2s", "dwell": "10s", "maxErrorRate": "0.5%", "minSamples": 50}
    rollout = load(document(asked), "shop.yaml").spec.rollout
    assert (True, timedelta(seconds=90)) == (rollout.steps[0].pause, rollout.steps[0].dwell)
    assert (50, 50, timedelta(seconds=2)) == (rollout.max_error_rate, rollout.min_samples, rollout.window)
    assert rollout == Rollout.model_validate_json(rollout.model_dump_json())


@pytest.mark.parametrize(
    ("rollout", "field", "words"),
    [
        pytest.param(
            {"steps": [{"percent": 50}, {"percent": 25}, {"percent": 100}]},
            "rollout.steps[1].percent", "must be above 50, the step before", id="steps fall",
        ),
        pytest.param(
            {"steps": [{"percent": 50}, {"percent": 50}, {"percent": 100}]},
            "rollout.steps[1].percent", "must be above 50, the step before", id="steps stand",
        ),
        pytest.param(
            {"steps": [{"percent": 10}, {"percent": 75}]},
            "rollout.steps[1].percent", "the last step must be 100", id="the last is not all users",
        ),
        pytest.param({"steps": []}, "rollout.steps", "at least 1", id="no step"),
        pytest.param({"steps": [{"percent": 0}, {"percent": 100}]}, "rollout.steps[0].percent", "1", id="nobody"),
        pytest.param({"steps": [{"percent": 101}]}, "rollout.steps[0].percent", "100", id="more than all"),
        pytest.param({"steps": [{"percent": "10%"}]}, "rollout.steps[0].percent", "whole number", id="not a number"),
        pytest.param(
            {"steps": [{"percent": 100, "dwell": "0s"}]}, "rollout.steps[0].dwell", "at least 1s", id="a step's dwell"
        ),
        pytest.param({"dwell": "500ms"}, "rollout.dwell", "at least 1s is needed", id="dwell"),
        pytest.param({"window": "100ms"}, "rollout.window", "at least 1s is needed", id="window"),
        pytest.param({"deadline": "0s"}, "rollout.deadline", "at least 1s is needed", id="deadline"),
        pytest.param(
            {"maxDwell": "20s"}, "rollout.maxDwell", "must be as long as the longest dwell", id="shorter than dwell"
        ),
        pytest.param(
            {"dwell": "1s", "maxDwell": "24s"}, "rollout.maxDwell", "as warmUp and three windows", id="too few windows"
        ),
        pytest.param(
            {"steps": [{"percent": 100, "dwell": "11m"}]},
            "rollout.maxDwell", "must be as long as the longest dwell", id="shorter than a step's dwell",
        ),
        pytest.param({"maxErrorRate": "101%"}, "rollout.maxErrorRate", "at most 100% is possible", id="error rate"),
        pytest.param({"minSuccessRate": "100.01%"}, "rollout.minSuccessRate", "at most 100%", id="success rate"),
        pytest.param({"maxErrorRate": 5}, "rollout.maxErrorRate", "such as 5% or 0.5%", id="a share without its unit"),
        pytest.param({"onFailure": "abort"}, "rollout.onFailure", "rollback", id="another word"),
        pytest.param({"comparison": "blue"}, "rollout.comparison", "absolute", id="another comparison"),
        pytest.param({"minSamples": 0}, "rollout.minSamples", "1", id="no samples"),
        pytest.param({"maxOver": "10%"}, "rollout.maxOver", "unknown field", id="a field that does not exist"),
    ],
)  # fmt: skip
def test_what_is_refused(rollout, field, words):
    with pytest.raises(SpecError) as caught:
        load(document(rollout), "shop.yaml")
    (problem,) = caught.value.problems
    assert field == problem.field.removeprefix("spec.")
    assert words in problem.reason


def test_a_window_count_that_just_does():
    """maxDwell may be exactly warmUp and three windows."""
    assert Rollout(dwell=timedelta(seconds=1), max_dwell=timedelta(seconds=25)).window == timedelta(seconds=5)
