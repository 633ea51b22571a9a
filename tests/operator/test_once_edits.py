"""Setup and teardown when the document, the policy or the pause of a run changes around them."""

from typing import Any

import pytest

from trafficsim_api.phases import Phase
from trafficsim_api.policy import LOCAL_DEFAULT
from trafficsim_api.protocol import Load
from trafficsim_api.resource import Connections, Target
from trafficsim_api.status import Run, TaskStatus
from trafficsim_api.units import format_instant
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.plan.lifecycle import Life, Seen, live
from trafficsim_operator.testing.fakes import FakeWorld

LOGIN = {"flow": [{"request": {"post": "/login"}, "save": {"token": "json.token"}}]}
MORE = {"flow": [*LOGIN["flow"], {"request": {"get": "/shop"}, "save": {"shop": "json.id"}}]}
SWEEP = {"flow": [{"request": {"delete": "/all", "headers": {"authorization": "{{token}}"}}}]}


at = format_instant


def a_flow(*names: str) -> list[dict[str, Any]]:
    """Build one archetype that looks *names* up."""
    headers = {"x": " ".join(f"{{{{{name}}}}}" for name in names) or "none"}
    return [{"name": "a", "flow": [{"request": {"get": "/", "headers": headers}}, {"think": {"constant": "1s"}}]}]


def a_document(**spec: Any) -> dict[str, Any]:
    """Build a document: 60 users on one runner, with setup and teardown."""
    full = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 60,
        "duration": "20m",
        "setup": LOGIN,
        "teardown": SWEEP,
        "archetypes": a_flow("token"),
    } | spec
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {key: value for key, value in full.items() if value is not None},
    }


async def looks(world: FakeWorld, count: int) -> Any:
    """Look *count* times, a second apart."""
    for _ in range(count):
        world.waits = 1000
        await world.look("n", "shop")
    return world.status


async def at_setup(world: FakeWorld, looks_needed: int = 1 << 30, **spec: Any) -> None:
    """Look until setup is at work; it takes *looks_needed* looks."""
    world.record.put(a_document(**spec))
    world.fleet.once.looks, world.fleet.once.values = looks_needed, {"token": "secret-1"}
    for _ in range(20):
        status = await looks(world, 1)
        if status.run and status.run.setup and world.fleet.begun:
            return
    raise AssertionError(f"{world.status.phase}: {world.status.message}")


async def running(world: FakeWorld, **spec: Any) -> None:
    """Look until users are at work."""
    await at_setup(world, 1, **spec)
    assert "Running" == (await looks(world, 20)).phase


def accepted(status: Any) -> tuple[str, str]:
    return next((c.status, c.message) for c in status.conditions if c.type == "Accepted")


@pytest.mark.parametrize("edit", [{}, {"runner": {"labels": {"team": "a"}}}], ids=["nothing else", "another runner"])
async def test_a_long_pause_leaves_the_runner_at_setup(edit: dict[str, Any]) -> None:
    """Runners go after a minute's pause, but for one at setup; it has the word when it is done."""
    world = FakeWorld()
    await at_setup(world, 200)
    world.record.put(a_document(suspend=True, **edit))
    status = await looks(world, 120)
    assert ("Suspended", "Running") == (status.phase, status.run.setup.state)
    status = await looks(world, 150)
    assert ("Suspended", "Done", {}) == (status.phase, status.run.setup.state, world.fleet.runners)
    world.record.put(a_document(**edit))
    status = await looks(world, 20)
    assert ("Running", ["1-setup"]) == (status.phase, [begun.partition(" ")[0] for begun in world.fleet.begun])


async def test_setup_that_is_taken_out_in_its_midst_is_finished() -> None:
    """An edit of setup is for the next run, so is its removal, whatever else is edited with it."""
    world = FakeWorld()
    await at_setup(world, 20)
    world.record.put(a_document(setup=None, teardown=None, archetypes=a_flow(), users=70))
    status = await looks(world, 40)
    assert ("Running", "Done") == (status.phase, status.run.setup.state)
    assert ("True", "setup: the change takes effect with the next run") == accepted(status)


REFUSED = (
    "archetypes[0].flow[0].request.headers: {{shop}} is not saved by this run's setup; that of the edit is the next's"
)


@pytest.mark.parametrize("at", ["setup", "work", "work, with another operator"])
async def test_an_edit_that_needs_what_this_run_did_not_save_is_refused(at: str) -> None:
    """Else nothing could be sent any more: every template of the flow would lack its value."""
    world = FakeWorld()
    await (at_setup(world, 20) if at == "setup" else running(world))
    world.record.put(a_document(setup=MORE, archetypes=a_flow("token", "shop")))
    if "another" in at:
        world.world.ledgers = Ledgers()
    status = await looks(world, 40)
    assert ("Running", ("False", REFUSED)) == (status.phase, accepted(status))
    told = [runner.assignment.load.archetypes[0] for runner in world.fleet.runners.values() if runner.assignment]
    assert not [archetype for archetype in told if "shop" in str(archetype.steps)]
    world.record.put(a_document(setup=MORE))
    assert ("True", "setup: the change takes effect with the next run") == accepted(await looks(world, 2))


async def test_a_run_without_setup_gets_none_by_an_edit() -> None:
    """Flows that look up what it would save wait for the next run with it, and so does teardown."""
    world = FakeWorld()
    world.record.put(a_document(setup=None, teardown=None, archetypes=a_flow()))
    await looks(world, 20)
    world.record.put(a_document(archetypes=a_flow()))
    status = await looks(world, 2)
    assert ("False", "teardown.flow[0].request.headers: {{token}} is not saved by this run's setup") == (
        accepted(status)[0],
        accepted(status)[1].partition(";")[0],
    )


async def test_a_policy_that_forbids_the_run_in_the_midst_of_setup() -> None:
    """Nothing is left that seems to be done; when it is allowed again the next run has its own setup."""
    world = FakeWorld()
    await at_setup(world)
    world.policy = LOCAL_DEFAULT.model_copy(update={"max_users": 10})
    status = await looks(world, 3)
    assert ("Failed", "Failed", "broken off: the document is refused") == (
        status.phase,
        status.run.setup.state,
        status.run.setup.message,
    )
    world.fleet.once.looks = 1
    world.policy = LOCAL_DEFAULT
    world.record.put(a_document(seed=1))
    status = await looks(world, 20)
    assert ("Running", 2, "Done") == (status.phase, status.run.id, status.run.setup.state)


@pytest.mark.parametrize("at_end", ["policy", "an edit that this operator cannot take over"])
async def test_a_teardown_that_a_refusal_leaves_undone_is_said(at_end: str) -> None:
    """Neither a run that policy forbids nor one that ends under a refused edit is torn down; that is told."""
    world = FakeWorld()
    await running(world, duration="30s")
    if at_end == "policy":
        world.policy = LOCAL_DEFAULT.model_copy(update={"max_users": 10})
    else:
        world.record.put(a_document(duration="30s", setup=MORE, archetypes=a_flow("shop")))
        world.world.ledgers = Ledgers()
    status = await looks(world, 40)
    assert status.phase in ("Failed", "Completed")
    assert ("Failed", "not done: the document is refused") == (status.run.teardown.state, status.run.teardown.message)
    assert ["1-setup"] == [begun.partition(" ")[0] for begun in world.fleet.begun]


@pytest.mark.parametrize(("waited_ms", "phase"), [(299_000, "Starting"), (300_000, "Failed")])
def test_a_long_setup_takes_nothing_of_the_time_to_start(waited_ms: int, phase: str) -> None:
    """What is still waited for after it has five minutes of its own."""
    done = TaskStatus(
        state="Done", runner="r", uid="u", digest="d", since=at(0), deadline=at(0), ended=at(1_000_000)
    )  # fmt: skip
    seen = Seen(
        now_ms=1_000_000 + waited_ms, generation=1, request=None, suspend=False, duration_ms=None, runners_wanted=2,
        runners_ready=1, runners_up=1, target="reachable", waiting="", cause="", stop="", drained=False, drain_ms=0,
        highest_run=1, restart=False,
    )  # fmt: skip
    life = live(Life(phase=Phase.STARTING, run=Run(id=1, phase_since=at(0), setup=done), reason=""), seen)
    assert phase == life.phase
    assert "1 of 2 runners are ready" in life.message


def test_saved_values_are_in_no_repr() -> None:
    """A log or a traceback with an assignment in it does not tell them."""
    load = Load(
        target=Target(url="http://127.0.0.1:8080"), connections=Connections(), archetypes=(), saved={"token": "secret"}
    )
    assert "secret" not in repr(load)
    assert "secret" in load.model_dump_json()
