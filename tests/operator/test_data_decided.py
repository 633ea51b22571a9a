"""Test data as decided: what is refused, what is waited for, and rows that are sent once."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from trafficsim_api.status import Status
from trafficsim_api.tables import Table
from trafficsim_operator.observed import RowsSeen
from trafficsim_operator.testing.fakes import FakeWorld

FLOW = [{"request": {"get": "/{{data.accounts.user}}"}}, {"think": {"constant": "1s"}}]


def a_simulation(source: dict[str, Any], *, mode: str = "circular", **spec: Any) -> dict[str, Any]:
    """Build a document whose users look up the accounts in *source*."""
    full = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 400,
        "duration": "2m",
        "archetypes": [{"name": "a", "flow": FLOW}],
        "data": [{"name": "accounts", "from": source, "mode": mode}],
    } | spec
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {key: value for key, value in full.items() if value is not None},
    }


async def until(world: FakeWorld, phase: str, looks: int = 100) -> Status:
    """Look until *phase* is reached."""
    for _ in range(looks):
        status = await world.look("n", "shop")
        if status.phase == phase:
            return status
    raise AssertionError(f"{world.status.phase} after {looks} looks: {world.status.message}")


async def settle(world: FakeWorld, looks: int = 12) -> Status:
    """Look until nothing is in motion."""
    for _ in range(looks):
        status = await world.look("n", "shop")
    return status


def condition(status: Status, kind: str) -> tuple[str, str]:
    """Return status and reason of a condition."""
    return next((c.status, c.reason) for c in status.conditions if c.type == kind)


def inline(count: int) -> dict[str, Any]:
    """Return *count* rows to stand in a document."""
    return {"inline": [{"user": f"u{number}"} for number in range(count)]}


def seen(*columns: str, count: int = 500) -> RowsSeen:
    """Return rows as a fleet finds them."""
    table = Table(columns, tuple(tuple(f"{c}{n}" for c in columns) for n in range(count)))
    return RowsSeen(columns=columns, count=count, digest=table.digest, packed=table.packed)


IN_A_MAP = {"configMap": {"name": "shop", "key": "accounts.csv"}}
ABSENT = RowsSeen(problem="configMap: there is no ConfigMap shop in namespace n", absent=True)


def said(status: Status) -> str:
    """Return what the condition Accepted says."""
    return next(c.message for c in status.conditions if c.type == "Accepted")


async def test_rows_are_sent_once() -> None:
    """A runner says which rows it has; an edit sends it none again, and a newcomer gets them."""
    world = FakeWorld()
    document = a_simulation(inline(10), duration=None)
    world.record.put(deepcopy(document))
    await until(world, "Running")
    await settle(world)
    (first,) = world.fleet.runners.values()
    digest = next(iter(first.rows))
    assert first.assignment is not None
    assert first.assignment.load.data is not None
    assert [digest] == [feed.digest for feed in first.assignment.load.data]
    document["spec"]["users"] = 800
    world.record.put(deepcopy(document))
    await settle(world, 40)
    older, newer = world.fleet.runners.values()
    assert older.assignment is not None
    assert newer.assignment is not None
    assert 800 == older.assignment.users
    assert {} == older.assignment.rows
    assert {digest} == newer.rows


@pytest.mark.parametrize(
    ("rows", "mode", "problem"),
    [
        pytest.param(
            seen("name"), "circular",
            "archetypes[0].flow[0].request.get: data accounts has no column user, only name", id="column",
        ),
        pytest.param(
            seen("user", count=399), "unique",
            "data[0]: unique needs a row for each user: 399 rows are too few for 400 users", id="too-few",
        ),
        pytest.param(
            RowsSeen(problem="configMap: shop, key accounts.csv: line 2: 2 cells are needed, not 1"), "circular",
            "data[0].from: configMap: shop, key accounts.csv: line 2: 2 cells are needed, not 1", id="no-csv",
        ),
    ],
)  # fmt: skip
async def test_rows_that_do_not_fit_are_refused(rows: RowsSeen, mode: str, problem: str) -> None:
    """Where the rows are known, what the document asks of them is judged when it is accepted."""
    world = FakeWorld()
    world.fleet.tables["accounts"] = rows
    world.record.put(a_simulation(IN_A_MAP, mode=mode))
    status = await world.look("n", "shop")
    assert "Failed" == status.phase
    assert ("False", "Invalid") == condition(status, "Accepted")
    assert problem == said(status)


async def test_a_config_map_that_is_not_there_is_waited_for() -> None:
    """Its absence is named while the simulation is Pending, and it goes on when the ConfigMap comes."""
    world = FakeWorld()
    world.fleet.tables["accounts"] = ABSENT
    world.record.put(a_simulation(IN_A_MAP))
    status = await settle(world, 3)
    assert "Pending" == status.phase
    cause = "data[0].from.configMap: there is no ConfigMap shop in namespace n"
    assert cause == status.message
    assert [cause] == [h.message for h in world.record.happenings if h.reason == "DataMissing"], "told once"
    world.fleet.tables["accounts"] = seen("user")
    assert "Passed" == (await until(world, "Completed")).verdict


async def test_a_config_map_that_never_comes_stalls() -> None:
    """After five minutes it is given up, with the cause."""
    world = FakeWorld()
    world.fleet.tables["accounts"] = ABSENT
    world.record.put(a_simulation(IN_A_MAP))
    status = await until(world, "Failed", looks=400)
    assert ("True", "StartTimeout") == condition(status, "Stalled")
    assert "there is no ConfigMap shop" in status.message


async def test_an_edit_beyond_the_rows_is_refused() -> None:
    """More users than unique has rows: the run goes on as it was."""
    world = FakeWorld()
    document = a_simulation(inline(400), mode="unique")
    world.record.put(deepcopy(document))
    await until(world, "Running")
    document["spec"]["users"] = 401
    world.record.put(deepcopy(document))
    status = await settle(world)
    assert "Running" == status.phase
    assert "data[0]: unique needs a row for each user: 400 rows are too few for 401 users" == said(status)
    assert 400 == status.users.active
    document["spec"]["users"] = 300
    world.record.put(deepcopy(document))
    status = await settle(world)
    assert ("True", "Accepted") == condition(status, "Accepted")
    assert 300 == status.users.active


async def test_rows_of_a_refused_edit_go_to_nobody() -> None:
    """Users more than policy allows, and other rows with them: runners are told to go on with what they have."""
    world = FakeWorld()
    world.record.put(a_simulation(inline(400)))
    await until(world, "Running")
    await settle(world)
    world.policy = world.policy.model_copy(update={"max_users": 500})
    world.record.put(a_simulation(inline(300), users=501))
    status = await settle(world)
    assert ("False", "Refused") == condition(status, "Accepted")
    assert "Running" == status.phase
    told = [runner.assignment for runner in world.fleet.runners.values() if runner.assignment]
    assert [{}] == [dict(assignment.rows) for assignment in told if assignment.load.data]
    assert [None] == [feed.digest for assignment in told for feed in assignment.load.data or ()]


async def test_changed_rows_are_live() -> None:
    """Other rows in the ConfigMap: the runners get them, as with any edit of the load."""
    world = FakeWorld()
    world.fleet.tables["accounts"] = seen("user")
    world.record.put(a_simulation(IN_A_MAP, duration=None))
    await until(world, "Running")
    await settle(world)
    world.fleet.tables["accounts"] = newest = seen("user", "more")
    await settle(world)
    assert all({newest.digest} == runner.rows for runner in world.fleet.runners.values())


@pytest.mark.parametrize("broken", [pytest.param(ABSENT, id="gone"), pytest.param(seen("name"), id="other-columns")])
async def test_spoilt_rows_change_nothing_for_who_has_them(broken: RowsSeen) -> None:
    """While the run is on, runners keep the rows they have; status says what is wrong, and the run ends as planned."""
    world = FakeWorld()
    world.fleet.tables["accounts"] = seen("user")
    world.record.put(a_simulation(IN_A_MAP))
    await until(world, "Running")
    await settle(world)
    world.fleet.tables["accounts"] = broken
    status = await settle(world)
    assert "Running" == status.phase
    assert "data" in status.message
    assert "accounts" in status.message or "ConfigMap shop" in status.message
    told = [h.message for h in world.record.happenings if h.reason == "DataMissing"]
    assert [f"{status.message}; users go on with the rows they have"] == told
    assert 400 == status.users.active
    for runner in world.fleet.runners.values():
        assert runner.assignment is not None
        assert [(None, None)] == [(feed.digest, feed.path) for feed in runner.assignment.load.data or ()], "as it has"
    assert "Passed" == (await until(world, "Completed")).verdict


async def test_rows_in_a_path_are_the_runners_to_read() -> None:
    """What the operator cannot read it does not judge: the runner says what is wrong, and status repeats it."""
    world = FakeWorld()
    world.record.put(a_simulation({"path": "/data/accounts.csv"}, mode="unique"))
    await until(world, "Running")
    (runner,) = world.fleet.runners.values()
    assert runner.assignment is not None
    assert runner.assignment.load.data is not None
    assert [("/data/accounts.csv", None)] == [(feed.path, feed.digest) for feed in runner.assignment.load.data]


async def test_all_rows_together_have_a_bound() -> None:
    """A runner takes 16 MiB with an assignment."""
    world = FakeWorld()
    world.fleet.tables["accounts"] = replace(seen("user"), packed="x" * 13 * 2**20)
    world.record.put(a_simulation(IN_A_MAP))
    assert "data: the rows of all feeders are 13 MiB packed; at most 12 are possible" == said(
        await world.look("n", "shop")
    )
