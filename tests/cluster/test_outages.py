"""What runs while something else is away: the API server, the way to it, the operator, the node. No load is lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.fault_story import FEW, MANY, Lane, a_plain_file, lanes, nothing_left, places_of
from cluster.operator_stand import a_simulation, until
from cluster.rollout_stand import LABEL, TESTS, Subject, condition
from trafficsim_operator.kube import PODS, SIMULATIONS
from trafficsim_operator.testing import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]

Boots = dict[str, tuple[str, str]]


@pytest.fixture
async def lane(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Lane]:
    """An operator that is running, and is started again when it ends."""
    async with lanes(control_plane, tmp_path, 1) as [lane]:
        lane.boot()
        await until(lambda: lane.answers("/readyz"), lambda status: status == 200, 60, "the operator is ready")
        yield lane
        print(lane.operator.log.read_text()[-3000:])


async def begun(lane: Lane) -> Subject:
    """Return a simulation with six users at work on one runner."""
    subject = lane.subject("shop")
    await subject.kube("apply", "-f", "-", stdin=a_plain_file(subject))
    await subject.at_work()
    await subject.until(lambda status: status.get("phase") == "Running", "it is running")
    return subject


async def runners(subject: Subject) -> Boots:
    """Return pod UID → (version, boot) of every runner that answers; a container started again has another boot."""
    return {a.runner: (a.revision, a.boot) for a in await subject.answers() if a is not None}


@asynccontextmanager
async def load_goes_on(subject: Subject, users: int) -> AsyncIterator[None]:
    """Whoever answers meanwhile has all users at work between them; runners are asked, nobody else."""
    seen: list[int] = []

    async def watch() -> None:
        while True:
            answers = [answer for answer in await subject.answers() if answer is not None]
            seen.append(sum(answer.active for answer in answers))
            await asyncio.sleep(0.2)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(seen) >= 5
    assert {users} == set(seen)


async def edited(subject: Subject) -> None:
    """An edit reaches the runners: the operator is at work."""
    scaling = {"usersPerProcess": 8, "minRunners": 2, "maxRunners": 2}
    await subject.patch(users=MANY, scaling=scaling)
    await until(subject.answers, lambda answers: places_of(answers) == [*range(MANY)], 60, "the edit is acknowledged")


async def test_load_goes_on_without_the_api_server(control_plane: ControlPlane, lane: Lane) -> None:
    """It is killed and comes back: no user stops, no runner is started anew, and the operator goes on by itself."""
    subject = await begun(lane)
    before = await runners(subject)
    received = subject.shop.received("/users")

    def while_down() -> None:
        deadline = time.monotonic() + 30
        while subject.shop.received("/users") < received + 15 * FEW and time.monotonic() < deadline:
            time.sleep(0.1)

    async with load_goes_on(subject, FEW):
        await asyncio.to_thread(control_plane.restart_apiserver, while_down)
    assert subject.shop.received("/users") >= received + 15 * FEW
    await edited(subject)
    assert before.items() <= (await runners(subject)).items()
    assert [] == lane.ends
    status = await subject.status()
    assert 0 == status["run"].get("lostRunners", 0)
    assert () == tuple(status["accounts"].get("missing", ()))


@pytest.mark.parametrize("expired", [False, True], ids=["a short gap", "a gap longer than the server remembers"])
async def test_a_deletion_within_a_gap_of_the_watch(lane: Lane, expired: bool) -> None:
    """What is deleted while the operator is cut off drains all the same; afterwards nothing is left, nor missed."""
    subject = await begun(lane)
    lane.server.cut()
    await subject.kube("delete", "tsim", "shop", "--wait=false")
    await until(lambda: nothing_left(subject), bool, 60, "nothing is left")
    lane.server.mend(expired=expired)
    await until(lane.serves, lambda lines: not lines, 60, "the operator knows that it is gone")
    await until(lambda: behind(lane), lambda seconds: seconds == 0.0, 30, "the watch is not taken for dead")
    assert 200 == await lane.answers("/healthz")
    await lane.api.create(SIMULATIONS, a_simulation(lane.namespace, users=501))
    await until(subject.status, lambda status: condition(status, "Accepted")["status"] == "False", 20, "it goes on")
    assert [] == lane.ends


async def behind(lane: Lane) -> float:
    page = await lane.operator.text("/metrics")
    [line] = [line for line in page.splitlines() if line.startswith("trafficsim_watch_behind_seconds ")]
    return float(line.split()[1])


async def test_an_operator_of_another_version_takes_over(lane: Lane) -> None:
    """Another process, name and version, which builds pods otherwise: every runner stays, and the account is whole."""
    subject = await begun(lane)
    before = await runners(subject)
    async with load_goes_on(subject, FEW):
        await lane.halt()
        lane.operator.module = "cluster.newer_operator"
        lane.operator.environ |= {"POD_NAME": "trafficsim-operator-newer", "PYTHONPATH": str(TESTS)}
        lane.boot()
        await until(lambda: lane.answers("/readyz"), lambda status: status == 200, 60, "the newer operator is ready")
    await edited(subject)
    assert before.items() <= (await runners(subject)).items()
    assert "99.0.0" in lane.operator.log.read_text()
    stop = json.dumps({"id": "stop", "action": "stop"})
    await subject.kube("annotate", "tsim", "shop", f"trafficsim.io/command={stop}")
    accounts = (await subject.until(lambda status: status.get("phase") == "Completed", "it is over"))["accounts"]
    assert () == tuple(accounts.get("missing", ()))
    await until(
        lambda: asyncio.to_thread(subject.shop.received, "/users"), lambda n: n == accounts["requests"], 10, "all told"
    )


async def test_a_node_that_is_not_ready_loses_no_runner(lane: Lane) -> None:
    """Its pods count as not ready, and their users go on: a node that tells nothing is no reason to move anybody."""
    subject = await begun(lane)
    before = await runners(subject)
    uids = await pods(subject)
    async with load_goes_on(subject, FEW):
        await lane.kubelet.disconnect()
        await until(lambda: readiness(subject), lambda ready: ready == {False}, 30, "its pods are not ready")
        looks = await looked(lane)
        await until(lambda: looked(lane), lambda count: count >= looks + 3, 30, "the operator has seen that")
        assert uids == await pods(subject)
        await lane.kubelet.connect()
        await until(lambda: readiness(subject), lambda ready: ready == {True}, 30, "its pods are ready again")
    await edited(subject)
    assert before.items() <= (await runners(subject)).items()
    assert 0 == (await subject.status())["run"].get("lostRunners", 0)


async def pods(subject: Subject) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await subject.api.list(PODS, subject.namespace, {LABEL: subject.name})}


async def readiness(subject: Subject) -> set[bool]:
    found = await subject.api.list(PODS, subject.namespace, {LABEL: subject.name})
    return {condition(pod["status"], "Ready")["status"] == "True" for pod in found}


async def looked(lane: Lane) -> float:
    page = await lane.operator.text("/metrics")
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("trafficsim_reconciles_total"))
