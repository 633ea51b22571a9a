"""Places change hands while arrivals come: the target sees each arrival exactly once, whoever begins it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from driven.run import Account, Run, a_document, a_run
from targets.scripted import Route, Scripted

PLACES = 12


def named(users: int) -> list[dict[str, Any]]:
    """
    Return archetypes by which a request tells the number of its arrival.

    As many of equal weight as there are places: n mod T is the archetype, n ÷ T the iteration.
    """
    path = {"get": "/a", "params": {"turn": "{{user.iteration}}", "place": "{{user.archetype}}"}}
    return [{"name": f"p{n}", "weight": 1, "flow": [{"action": "a", "request": path}]} for n in range(users)]


def numbers(lines: Path) -> Counter[int]:
    """Return how often each arrival came."""
    entries = (json.loads(line) for line in lines.read_text().splitlines())
    found = (dict(pair.split("=") for pair in e["query"].split("&")) for e in entries if e["path"] == "/a")
    return Counter(int(one["turn"]) * PLACES + int(one["place"][1:]) for one in found)


def held(run: Run) -> list[int]:
    """Return how many places each runner holds, from the most."""
    acks = [runner.acknowledgement for runner in run.ledger.remembered.values()]
    return sorted((len(ack.held) for ack in acks if ack is not None and not ack.retire), reverse=True)


def each_came_once(lines: Path, account: Account) -> None:
    """Hold the target's own log to one start of each arrival, but for what the runners say themselves."""
    came = numbers(lines)
    last = max(came)
    assert last > 800
    # A machine that stands still for a while leaves arrivals without a user; each of them is counted.
    missing = [n for n in range(last - 90) if not came[n]]
    assert len(missing) <= account.worker("drop_no_slot"), missing
    assert sum(count - 1 for count in came.values()) == account.worker("arrivals_twice")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_scale_out_and_scale_in(tmp_path: Path) -> None:
    """
    60/s on two runners, then three, then two; the rate is edited while places move: nothing twice or left out, but for
    what the runners say themselves.
    """
    spec: dict[str, Any] = {
        "users": PLACES, "duration": "120s", "arrivals": {"rate": "60/s"}, "profile": [{"hold": {"for": "1s"}}],
    }  # fmt: skip
    with Scripted([Route(path="/a"), Route(path="/healthz")], lines=tmp_path / "lines") as server:

        def document(runners: int, **edit: Any) -> dict[str, Any]:
            scaling = {"minRunners": runners, "maxProcesses": 2}
            return a_document(server.url, archetypes=named(PLACES), **{**spec, **edit}, scaling=scaling)

        async def edit(run: Run, body: dict[str, Any]) -> None:
            await run.record.put(body, namespace="local", name="truth", uid="truth-0", source="test", allowed=())

        async with a_run(document(2), directory=tmp_path / "run") as run:
            await run.begins()
            await run.until(lambda run: held(run) == [6, 6])
            await edit(run, document(3))
            await run.until(lambda run: len(held(run)) == 3 and held(run)[2] >= 1, within_s=60)
            await edit(run, document(3, arrivals={"rate": "90/s"}))
            await run.until(lambda run: held(run) == [4, 4, 4], within_s=60)
            await edit(run, document(2, arrivals={"rate": "90/s"}))
            await run.until(lambda run: held(run) == [6, 6], within_s=60)
            # What a giver counted as begun twice is in an account read some seconds later.
            planned = run.account().worker("arrivals_planned")
            await run.until(lambda run: run.account().worker("arrivals_planned") >= planned + 360)
            account = run.account()
    each_came_once(tmp_path / "lines", account)


def revision(run: Run) -> str:
    """Return the version of the runners that is the stable one."""
    return run.status.stable.revision if run.status.stable is not None else ""


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_rollout(tmp_path: Path) -> None:
    """60/s go over from one version of the runners to another, in two steps: nothing twice or left out either."""
    rollout = {
        "steps": [{"percent": 50}, {"percent": 100}], "warmUp": "1s", "window": "1s", "dwell": "4s", "maxDwell": "60s",
        "minSamples": 50,
    }  # fmt: skip
    with Scripted([Route(path="/a"), Route(path="/healthz")], lines=tmp_path / "lines") as server:

        def version(number: int) -> dict[str, Any]:
            runner = {"env": [{"name": "SHOP_VERSION", "value": str(number)}]}
            return a_document(
                server.url, archetypes=named(PLACES), users=PLACES, duration="300s", arrivals={"rate": "60/s"},
                profile=[{"hold": {"for": "1s"}}], rollout=rollout, runner=runner,
            )  # fmt: skip

        async with a_run(version(1), directory=tmp_path / "run") as run:
            await run.begins()
            await run.until(lambda run: held(run) == [PLACES])
            blue, body = revision(run), version(2)
            await run.record.put(body, namespace="local", name="truth", uid="truth-0", source="test", allowed=())
            await run.until(lambda run: revision(run) not in ("", blue), within_s=150)
            # What a giver counted as begun twice is in an account read some seconds later.
            planned = run.account().worker("arrivals_planned")
            await run.until(lambda run: run.account().worker("arrivals_planned") >= planned + 360)
            account = run.account()
    each_came_once(tmp_path / "lines", account)
