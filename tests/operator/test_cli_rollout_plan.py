"""`trafficsim plan`: how a rollout of the file would go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from trafficsim_operator.cli.main import main


def lines_of(text: str) -> list[str]:
    """Return what stands under `rollout`."""
    part = text.partition("\nrollout ")[2].partition("\n\n")[0]
    return [" ".join(line.split()) for line in part.splitlines()]


def test_steps_are_told_in_whole_users_with_their_least_duration(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A dwell of 30 s; the one of 5 s is as long as its warm-up of 10 s and three windows of 5 s all the same."""
    steps = [{"percent": 10, "dwell": "5s"}, {"percent": 50, "pause": True}, {"percent": 100}]
    assert 0 == main(["plan", shop(users=10, rollout={"steps": steps})])
    assert [
        "a changed runner gets the users in 3 steps, 1m25s at least and what the moves take",
        "10% 1 user, held 25s at least",
        "50% 5 users, held 30s at least, then waits for `trafficsim promote`",
        "100% 10 users, held 30s at least",
        "10 moves of at most 1: 10 to 11 users are on",
        "each held to error_rate ≤ 5%, p95 ≤ 5s, success ≥ 95%, on 500 requests at least",
        "10% is joined with the next step when its users do less than 0.85 requests/s each: too few for it within 10m",
        "a step that fails: all users go back; undecided after 10m: it pauses",
        "1 runner beside 1 until 1m after it",
    ] == lines_of(capfd.readouterr().out)


def test_what_of_it_waits_or_is_refused_is_told(shop: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"targets": [{"cidr": "127.0.0.0/8"}], "maxRunners": 3}))
    rollout = {"onFailure": "pause", "comparison": "relative", "autoPromote": False, "paused": True}
    assert 0 == main(["plan", shop(users=1200, duration="2m", rollout=rollout), "--policy", str(policy)])
    lines = lines_of(capfd.readouterr().out)
    for line in (
        "a step that fails: it pauses; undecided after 10m: it pauses",
        "a limit that the old version breaks, too: it pauses, rolling back cannot help",
        "after the last step it waits for `trafficsim promote`",
        "it is held from the start: rollout.paused is true",
        "2 runners beside 2 until 1m after it",
        "not within the run's 2m: it would end with the run",
        "refused by the policy: a rollout of 2 runners beside 2: 4 runners are more than the policy's 3",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("users", "steps", "note"),
    [
        pytest.param(1, [(100, 1)], "joined with the next step: 10% (no user of 1)", id="one user has no half"),
        pytest.param(0, [(100, 0)], "0 users: there is nothing to judge", id="nobody"),
        pytest.param(10, [(10, 1), (25, 3), (50, 5), (75, 8), (100, 10)], "", id="whole users"),
    ],
)
def test_json_has_the_same(
    users: int, steps: list[tuple[int, int]], note: str, shop: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["plan", "--json", shop(users=users)])
    found = json.loads(capfd.readouterr().out)["rollout"]
    assert steps == [(step["percent"], step["users"]) for step in found["steps"]]
    assert found["note"].startswith(note)
    assert sum(step["heldMs"] for step in found["steps"]) == found["leastMs"]
    assert {"errorRate": "5%", "p95": "5s", "success": "95%", "minSamples": 500} == found["limits"]
    assert (2 if users else 0, []) == (found["runners"], found["refusals"])
