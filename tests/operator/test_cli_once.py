"""Setup and teardown at the command line: planned, done, in a summary and in a cluster's view."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from trafficsim_api.status import Run, TaskStatus
from trafficsim_operator.cli.main import main
from trafficsim_operator.cli.once import done_lines, said

FLOW = [{"request": {"post": "/login"}, "save": {"token": "json.t"}}, {"action": "make", "request": {"get": "/"}}]


@pytest.fixture
def file(tmp_path: Path) -> str:
    document = {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "archetypes": [{"name": "browser", "flow": [{"request": {"get": "/"}}]}],
            "setup": {"flow": FLOW, "timeout": "1m"},
            "teardown": {"flow": [{"repeat": {"times": 2, "flow": [{"request": {"delete": "/"}}]}}]},
        },
    }
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(document))
    return str(tmp_path / "shop.yaml")


def test_plan_lists_them(file: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Their actions, what is saved and how long they may take."""
    assert 0 == main(["plan", file])
    out = capfd.readouterr().out
    assert "setup       once, by one runner: POST /login, make, saves token; within 1m\n" in out
    assert "teardown    once, by one runner: DELETE /; within 5m\n" in out
    assert 0 == main(["plan", "--json", file])
    found = json.loads(capfd.readouterr().out)
    assert {"actions": ["POST /login", "make"], "saves": ["token"], "timeout": "1m"} == found["setup"]
    assert {"actions": ["DELETE /"], "saves": [], "timeout": "5m"} == found["teardown"]


def test_plan_names_a_verb_that_policy_forbids(file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In setup as in a flow."""
    policy = {"targets": [{"cidr": "127.0.0.0/8"}], "verbs": ["get", "post"]}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    assert 3 == main(["plan", "--policy", str(tmp_path / "policy.yaml"), file])
    assert "teardown.flow[0].repeat.flow[0].request: the policy does not allow delete" in capfd.readouterr().err


def a_task(state: Any, **fields: Any) -> TaskStatus:
    now = "2026-01-01T00:00:00.000Z"
    return TaskStatus(state=state, runner="shop-1", uid="u", digest="d", since=now, deadline=now, **fields)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (a_task("Done", requests=3, saved=2), "done, 2 saved, 3 requests on shop-1; in no other number"),
        (a_task("Done", requests=1, failed=1), "done, 1 request, 1 failed on shop-1; in no other number"),
        (a_task("Running"), "is being done on shop-1"),
        (
            a_task("Failed", message="login was answered 401", requests=1),
            "failed: login was answered 401 (1 request on shop-1; in no other number)",
        ),
    ],
)
def test_how_it_went(task: TaskStatus, text: str) -> None:
    """In the summary of a local run as in a view of the cluster's object."""
    run = Run(id=1, phase_since="2026-01-01T00:00:00.000Z", setup=task)
    assert [("setup", text)] == done_lines(run)
    status = {"run": json.loads(run.model_dump_json(by_alias=True, exclude_none=True))}
    assert [f"setup: {text}"] == said(status)
