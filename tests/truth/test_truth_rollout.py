"""
Users delivered while a rollout moves them: what the runners say of each user that came or went, and what the target
heard, held to each other's bounds.

    T ≤ users active, summed over all workers ≤ T + maxOver         at every instant, maxOver = max(1, ⌊T ÷ 10⌋)
    95 % ≤ requests per second ÷ those of the hold before ≤ 115 %   in every window of 4 000 requests during the shift
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from driven.run import NAME, NAMESPACE, Run, a_document, a_run
from targets.scripted import Route, Scripted
from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_api.rollout import RolloutPhase
from trafficsim_operator.plan.places import max_over
from trafficsim_runner.stats.active import ENDING, Change, merged, read_active

WINDOW = 4000
APART = 250  # requests from one window's begin to the next one's
HOLD_S = 8.0
# A user asks five times a second, more or less at its own pace.
ASK = {"action": "get", "request": {"get": "/get"}}
THINK = {"think": {"min": "100ms", "max": "280ms"}}
OVER = (RolloutPhase.RETIRING, RolloutPhase.STABLE)


def a_version(
    number: int, url: str, *, users: int, runners: int, steps: Sequence[int], **rollout: Any
) -> dict[str, Any]:
    """Return the document with version *number* of the runners: the same code in another environment."""
    return a_document(
        url,
        archetypes=[{"name": "only", "flow": [deepcopy(ASK), THINK]}],
        users=users,
        duration="600s",
        runner={"env": [{"name": "SHOP_VERSION", "value": str(number)}]},
        scaling={"minRunners": runners},
        rollout={
            "steps": [{"percent": percent} for percent in steps],
            "warmUp": "1s", "window": "1s", "dwell": "4s", "maxDwell": "60s", "minSamples": 100,
            "maxErrorRate": "50%", "scaleDownDelay": "30s",
        } | rollout,
    )  # fmt: skip


async def put(run: Run, document: Mapping[str, Any]) -> None:
    await run.record.put(document, namespace=NAMESPACE, name=NAME, uid="truth-0", source="test", allowed=())


def phase(run: Run) -> RolloutPhase:
    return run.status.rollout.phase if run.status.rollout is not None else RolloutPhase.STABLE


def active_in(directory: Path) -> list[Change]:
    """Return the users active at each change, summed over all workers of all runners."""
    files = sorted(directory.glob(f"*.{ENDING}"))
    assert files
    return merged(read_active(path) for path in files)


def between(changes: Sequence[Change], begin_ns: int, end_ns: int) -> list[int]:
    """Return each number of active users from *begin_ns* to *end_ns*, the one in force at the begin first."""
    at_begin = [change.active for change in changes if change.at_ns <= begin_ns][-1]
    return [at_begin, *(change.active for change in changes if begin_ns < change.at_ns <= end_ns)]


def rates(lines: Path, begin_ns: int, end_ns: int) -> tuple[float, list[float]]:
    """Return the requests per second of the hold before *begin_ns*, and of each window from then to *end_ns*."""
    came = sorted(json.loads(line)["at"] for line in lines.read_text().splitlines() if '"/get"' in line)
    begin, end = begin_ns / 1e9, end_ns / 1e9
    held = [at for at in came if begin - HOLD_S <= at < begin]
    assert len(held) >= WINDOW
    during = [at for at in came if begin <= at <= end]
    windows = range(0, len(during) - WINDOW, APART)
    return len(held) / HOLD_S, [WINDOW / (during[first + WINDOW] - during[first]) for first in windows]


async def shift(tmp_path: Path, *, users: int, runners: int, steps: Sequence[int], **rollout: Any) -> list[str]:
    """Roll a version out; assert what the runners say, and return in which windows the target heard other than that."""
    active, lines = tmp_path / "active", tmp_path / "lines"
    active.mkdir(parents=True)
    with Scripted([Route(path="/*", delay_s=0.005)], lines=lines) as server:

        def version(number: int) -> Mapping[str, Any]:
            return a_version(number, server.url, users=users, runners=runners, steps=steps, **rollout)

        environ = {"TRAFFICSIM_ACTIVE": str(active)}
        async with a_run(version(1), directory=tmp_path / "run", environ=environ) as run:
            await run.until(lambda run: sum(run.looks[-1].active.values()) == users)
            full_ns = time.monotonic_ns()
            await run.until(lambda run: time.monotonic_ns() - full_ns > (HOLD_S + 1) * 1e9)
            blue = run.status.stable
            await put(run, version(2))
            await run.until(lambda run: phase(run) is RolloutPhase.SHIFTING, within_s=60)
            begin_ns = time.monotonic_ns()
            await run.until(lambda run: phase(run) in OVER, within_s=300)
            end_ns = time.monotonic_ns()
            assert blue is not None
            assert run.status.stable is not None
            assert blue.revision != run.status.stable.revision
            assert users == sum(run.looks[-1].active.values())
            done = {look.status.rollout.percent for look in run.looks if look.status.rollout is not None}
            assert set(steps) <= done
            assert [] == run.fleet.losses
    there = between(active_in(active), full_ns, end_ns)
    hold, found = rates(lines, begin_ns, end_ns)
    print(
        f"{users} users over {(end_ns - begin_ns) / 1e9:.0f} s: {min(there)} … {max(there)} active in {len(there)} "
        f"changes; {hold:.0f}/s before, {min(found) / hold:.1%} … {max(found) / hold:.1%} in {len(found)} windows"
    )
    # As many came and went as moved.
    assert len(there) > 2 * users
    assert users == min(there)
    assert max(there) <= users + max_over(users)
    return [f"{rate / hold:.1%}" for rate in found if not 0.95 <= rate / hold <= 1.15]


async def shift_until_quiet(tmp_path: Path, **load: Any) -> None:
    """Measure again where a busy machine, not the shift, changed the rate: twice at most. The users hold each time."""
    off: list[str] = []
    for attempt in range(3):
        off = await shift(tmp_path / str(attempt), **load)
        if not off:
            return
    pytest.fail(f"in three runs; the last: {off}")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_shift_delivers_the_users_asked_for(tmp_path: Path) -> None:
    """120 users from one runner to another in two steps."""
    await shift_until_quiet(tmp_path, users=120, runners=1, steps=[30, 100])


@pytest.mark.truth
@pytest.mark.timeout(900)
async def test_a_shift_of_two_runners_delivers_the_users_asked_for(tmp_path: Path) -> None:
    """301 users, from two runners to two others, in the five steps of the defaults."""
    await shift_until_quiet(
        tmp_path, users=301, runners=2, steps=[10, 25, 50, 75, 100], warmUp="3s", window="2s", dwell="10s"
    )


async def ordered(run: Run, document: Mapping[str, Any], action: str) -> None:
    """Give the command that is named *action*."""
    command = json.dumps({"id": os.urandom(4).hex(), "action": action})
    metadata = dict(document["metadata"]) | {"annotations": {COMMAND_ANNOTATION: command}}
    await put(run, dict(document) | {"metadata": metadata})


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_users_with_rows_of_their_own_are_never_on_twice(tmp_path: Path) -> None:
    """With unique rows the giver goes first: T - maxOver ≤ users active ≤ T, and the row says who it is."""
    users, active = 40, tmp_path / "active"
    active.mkdir()
    with Scripted([Route(path="/*", delay_s=0.005)]) as server:

        def version(number: int) -> dict[str, Any]:
            found = a_version(number, server.url, users=users, runners=1, steps=[50, 100])
            rows = [{"user": f"u{place}"} for place in range(users)]
            found["spec"]["data"] = [{"name": "accounts", "mode": "unique", "from": {"inline": rows}}]
            found["spec"]["archetypes"][0]["flow"][0]["request"]["headers"] = {"x-user": "{{data.accounts.user}}"}
            return found

        environ = {"TRAFFICSIM_ACTIVE": str(active)}
        async with a_run(version(1), directory=tmp_path / "run", environ=environ) as run:
            await run.until(lambda run: sum(run.looks[-1].active.values()) == users)
            full_ns = time.monotonic_ns()
            await put(run, version(2))
            await run.until(lambda run: phase(run) in (RolloutPhase.SHIFTING, RolloutPhase.ANALYZING), within_s=60)
            await run.until(lambda run: phase(run) in OVER, within_s=120)
            end_ns = time.monotonic_ns()
    there = between(active_in(active), full_ns, end_ns)
    print(f"{users} users: {min(there)} … {max(there)} in {len(there)} changes")
    assert users - max_over(users) <= min(there)
    assert users == max(there)
    assert len(there) > 2 * users
    assert {f"u{place}" for place in range(users)} == {it.user for it in server.log.counts if it.path == "/get"}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_an_abort_takes_nobody_off(tmp_path: Path) -> None:
    """From 50 % back in quarters of the users: never fewer than T, though the way back is in haste."""
    users, active = 60, tmp_path / "active"
    active.mkdir()
    with Scripted([Route(path="/*", delay_s=0.005)]) as server:

        def version(number: int) -> Mapping[str, Any]:
            return a_version(number, server.url, users=users, runners=1, steps=[50, 100], dwell="50s")

        environ = {"TRAFFICSIM_ACTIVE": str(active)}
        async with a_run(version(1), directory=tmp_path / "run", environ=environ) as run:
            await run.until(lambda run: sum(run.looks[-1].active.values()) == users)
            full_ns = time.monotonic_ns()
            await put(run, version(2))
            await run.until(lambda run: phase(run) is RolloutPhase.ANALYZING, within_s=90)
            begin_ns = time.monotonic_ns()
            await ordered(run, version(2), "abort")
            await run.until(lambda run: phase(run) is RolloutPhase.REJECTED, within_s=60)
            end_ns = time.monotonic_ns()
    changes = active_in(active)
    forth, back = between(changes, full_ns, begin_ns), between(changes, begin_ns, end_ns)
    print(f"{users} users: {min(forth)} … {max(forth)} forth, {min(back)} … {max(back)} back, {len(back)} changes")
    assert (users, users) == (min(forth), min(back))
    assert max(forth) <= users + max_over(users)
    assert len(back) > users
    # What a giver was told to drop is on for its action's end, so two quarters may be on twice in haste.
    assert max(back) <= users + 2 * (users // 4)


def test_changes_in_force_at_the_begin_count() -> None:
    """Of 3 from 10 on and 5 from 20 on, 15 … 25 sees both."""
    assert [3, 5] == between([Change(10, 1, 3), Change(20, 1, 5), Change(30, 1, 9)], 15, 25)
