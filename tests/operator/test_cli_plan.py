"""`trafficsim plan`: every term of the sizing, and what policy says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trafficsim_operator.cli.main import main


@pytest.mark.parametrize(
    ("users", "tier", "runners", "processes"),
    [(1, "micro", 1, 1), (400, "small", 1, 2), (1200, "medium", 2, 2), (2001, "large", 3, 2), (12000, "xlarge", 12, 2)],
)
def test_users_to_runners(
    users: int, tier: str, runners: int, processes: int, shop: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["plan", "--json", shop(users=users)])
    found = json.loads(capfd.readouterr().out)
    assert (tier, runners, processes) == (found["tier"], found["runners"], found["processes"])


def test_each_term_is_shown(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    profile = [{"ramp": {"to": "100%", "over": "2m"}}, {"hold": {"for": "6m"}}, {"ramp": {"to": "0%", "over": "2m"}}]
    assert 0 == main(["plan", shop(users=1200, profile=profile)])
    out = capfd.readouterr().out
    for term in (
        "tier        medium: worker_distribution, at least 2 runners",
        "processes   at most 4 = min(⌊2 × 2 cores⌋, 16)",
        "per process 1 000 users = min(1 000, ⌊(1024 - 64 × 5) MiB ÷ 4 ÷ 2 KiB⌋)",
        "capacity    1 000 users a runner = min(4 × 1 000, 1 000 connections)",
        "runners     2: 1200 users at 1000 a runner need 2",
        "each        600 users in 2 processes",
        "in all      4 cores, 2 GiB",
        "00:00 – 02:00  ramp to 1 200 users",
        "02:00 – 08:00  hold 1 200 users",
        "08:00 – 10:00  ramp to 0 users",
        "policy      allows it",
    ):
        assert term in out


RAMP_AND_HOLD = [{"ramp": {"to": "100%", "over": "1m"}}, {"hold": {"for": "1h6m"}}]


def test_a_run_without_end_has_no_sum(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """How long it will go on is nobody's knowledge: neither user-hours nor arrivals can be told."""
    rows = [{"name": "accounts", "mode": "circular", "from": {"inline": [{"user": "a"}, {"user": "b"}]}}]
    spec = {"users": 500, "arrivals": {"rate": "300/s"}, "data": rows}
    assert 0 == main(["plan", shop(**spec, duration=None)])
    out = capfd.readouterr().out
    assert "until stopped" in out
    assert "at most 500 users; warm-up" in out
    assert "300/s arrivals at 100%, evenly, by at most 500 users at a time" in out
    assert "accounts: 2 rows, circular: every 2 arrivals take each once" in out
    assert 0 == main(["plan", shop(**spec, duration="10m")])
    out = capfd.readouterr().out
    assert "at most 500 users, 81.25 user-hours; warm-up" in out
    assert "300/s arrivals at 100%, evenly: 175 500 in all, by at most 500 users at a time" in out
    assert "accounts: 2 rows, circular: 175 500 arrivals take each 87 750 times" in out


@pytest.mark.parametrize(
    ("duration", "note"),
    [
        ("1m", "the profile takes 1h7m, the run ends after 1m: what the profile has from there on is not run"),
        ("1h7m", ""),
        (None, ""),
    ],
)
def test_a_profile_longer_than_the_run_is_noted(
    duration: str | None, note: str, shop: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is allowed, and seldom meant."""
    file = shop(profile=RAMP_AND_HOLD, duration=duration)
    assert 0 == main(["plan", file])
    noted = [line for line in capfd.readouterr().out.splitlines() if line.startswith("note ")]
    assert ([f"note        {note}"] if note else []) == noted
    assert 0 == main(["plan", "--json", file])
    assert ([note] if note else []) == json.loads(capfd.readouterr().out)["notes"]


@pytest.mark.parametrize(("users", "ahead_ms"), [(2000, None), (2001, 3_030), (12_000, 3_120)])
def test_how_far_ahead_a_large_start_is(
    users: int, ahead_ms: int | None, shop: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """From 2001 users on all runners begin at one instant that they were told; smaller tiers say nothing of it."""
    assert 0 == main(["plan", "--json", shop(users=users)])
    assert ahead_ms == json.loads(capfd.readouterr().out)["startAheadMs"]
    assert 0 == main(["plan", shop(users=users)])
    said = "start       all runners at one instant, told 3."
    assert (ahead_ms is not None) == (said in capfd.readouterr().out)


def test_a_need_that_cannot_be_met(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert 3 == main(["plan", shop(users=5000, scaling={"maxRunners": 4})])
    assert "users: 5000 need 5 runners of ≤ 1000 connections; scaling.maxRunners is 4" in capfd.readouterr().err


def test_the_shipped_policy_refuses_what_it_does_not_know(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The snippet that would allow it is printed with the refusal."""
    assert 3 == main(["plan", "--shipped-policy", shop(users=600, runner={"image": "registry.example.com/own:1"})])
    err = capfd.readouterr().err
    for told in (
        "users: 600 are more than the policy's 500",
        "runner.image: the repository registry.example.com/own",
        "target.url: the policy does not allow 127.0.0.1 port 8080",
        "maxUsers: 600",
        'targets: [{service: "own"}, {cidr: "127.0.0.1/32", ports: [8080]}]',
    ):
        assert told in err


def test_what_needs_more_runners_than_the_policy_has_is_told_all_that_would_allow_it(
    shop: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """There is no size to print; the snippet, made the policy, allows it."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("maxUsers: 500\nmaxRunners: 4\ntargets: [{service: own}]\n")
    file = shop(users=5000)
    assert 3 == main(["plan", "--policy", str(policy), file])
    err = capfd.readouterr().err
    assert "users: 5000 are more than the policy's 500" in err
    assert "users: 5 runners are more than the policy's 4" in err
    policy.write_text(err.partition("A policy with this would allow it:\n")[2])
    assert 0 == main(["plan", "--policy", str(policy), file])


def test_one_document_says_so_where_there_is_no_size(
    shop: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Under `policy`, as in every other plan; nothing is said beside it."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("maxRunners: 4\ntargets: [{cidr: 127.0.0.0/8}]\n")
    assert 3 == main(["plan", "--json", "--policy", str(policy), shop(users=5000)])
    out, err = capfd.readouterr()
    found = json.loads(out)
    refusal = {"field": "users", "reason": "5 runners are more than the policy's 4"}
    assert {"allowed": False, "refusals": [refusal], "snippet": "maxRunners: 5"} == found["policy"]
    assert "" == err


def test_a_target_allowed_for_once(shop: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.yaml").write_text("targets: [{cidr: 10.0.0.0/8}]\n")
    options = ["--policy", str(tmp_path / "policy.yaml")]
    assert 3 == main(["plan", *options, shop()])
    assert 0 == main(["plan", *options, "--allow-target", "127.0.0.1:8080", shop()])
    assert 3 == main(["plan", *options, "--allow-target", "127.0.0.1:8081", shop()])


def test_a_name_that_does_not_resolve(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert 3 == main(["plan", shop(target={"url": "http://no-such-host.invalid"})])
    assert "target.url: no-such-host.invalid " in capfd.readouterr().err
