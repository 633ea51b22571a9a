"""Setup and teardown: once per run, on record before it is begun, whatever fails in between."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficsim_api.protocol import Task
from trafficsim_operator.decide import decide
from trafficsim_operator.fleet.runners import Signer
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import Observed
from trafficsim_operator.reconcile import observe, read
from trafficsim_operator.store import Conflict, Document
from trafficsim_operator.testing.fakes import FakeRecord, FakeWorld

LOGIN = {"flow": [{"request": {"post": "/login"}, "save": {"token": "json.token"}}]}
SWEEP = {"flow": [{"request": {"delete": "/all", "headers": {"authorization": "{{token}}"}}}]}
VALUES = {"token": "secret-1"}


def a_document(**spec: Any) -> dict[str, Any]:
    """Build a document: 1200 users on two runners for a minute, with setup and teardown."""
    step = {"request": {"get": "/", "headers": {"authorization": "{{token}}"}}}
    full = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 1200,
        "duration": "1m",
        "setup": LOGIN,
        "teardown": SWEEP,
        "archetypes": [{"name": "a", "flow": [step, {"think": {"constant": "1s"}}]}],
    } | spec
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {key: value for key, value in full.items() if value is not None},
    }


def a_world(**spec: Any) -> FakeWorld:
    world = FakeWorld()
    world.record.put(a_document(**spec))
    world.fleet.once.values = VALUES
    return world


async def until(world: FakeWorld, phase: str, looks: int = 150) -> Any:
    """Look until *phase* is reached."""
    for _ in range(looks):
        world.waits = min(world.waits or 1000, 5000)
        status = await world.look("n", "shop")
        if status.phase == phase:
            return status
    raise AssertionError(f"{world.status.phase} after {looks} looks: {world.status.message}")


async def until_at_setup(world: FakeWorld) -> Any:
    """Look until setup is ordered."""
    for _ in range(50):
        status = await world.look("n", "shop")
        if status.run and status.run.setup:
            return status
    raise AssertionError(f"{world.status.phase}: {world.status.message}")


def tasks_of(world: FakeWorld) -> list[str]:
    return [begun.partition(" ")[0] for begun in world.fleet.begun]


def assignments(world: FakeWorld) -> list[Any]:
    return [runner.assignment for runner in world.fleet.runners.values() if runner.assignment]


async def test_setup_comes_before_the_first_user_and_teardown_after_the_last() -> None:
    """One runner does each once; every runner gets the values, and they are nowhere in status or events."""
    world = a_world()
    status = await until_at_setup(world)
    assert ("Starting", None, "Running") == (status.phase, status.run.origin, status.run.setup.state)
    assert f"{status.run.setup.runner} is at setup" == status.message
    status = await until(world, "Running")
    assert ("Done", 2, 0, 1) == (
        status.run.setup.state,
        status.run.setup.requests,
        status.run.setup.failed,
        status.run.setup.saved,
    )
    assert [VALUES, VALUES] == [given.load.saved for given in assignments(world)]
    assert ["1-setup"] == tasks_of(world)
    status = await until(world, "Draining")
    status = await until(world, "Completed")
    assert ["1-setup", "1-teardown"] == tasks_of(world)
    assert ("Done", "Passed") == (status.run.teardown.state, status.verdict)
    told = [happening for happening in world.record.happenings if happening.reason in ("Setup", "Teardown")]
    assert [
        f"setup is ordered from {status.run.setup.runner}",
        "setup is done: requests 2, failed 0, values saved 1",
        f"teardown is ordered from {status.run.teardown.runner}",
        "teardown is done: requests 2, failed 0, values saved 0",
    ] == [happening.message for happening in told]
    everything = repr(world.record.writes) + repr(world.record.happenings) + repr(world.record.sealed)
    assert "secret-1" not in everything


async def test_teardown_is_ordered_when_everybody_left() -> None:
    """Its runner is retired by then, and does it all the same, with the values."""
    world = a_world()
    await until(world, "Draining")
    for _ in range(20):
        status = await world.look("n", "shop")
        if status.run.teardown:
            break
    given = next(a for a in assignments(world) if a.task is not None)
    assert (True, "teardown", VALUES) == (given.retire, given.task.kind, given.load.saved)
    assert all(not runner.active(world.now_ms) for runner in world.fleet.runners.values())


async def test_a_setup_that_fails_starts_no_load() -> None:
    """The run is Failed, its action and cause named; nothing is torn down; the next run does it anew."""
    world = a_world()
    world.fleet.once.fault = "login was answered 401"
    status = await until(world, "Failed")
    assert "setup failed: login was answered 401" == status.message
    assert ("SetupFailed", None) == (status.conditions[0].reason, status.run.origin)
    for _ in range(5):
        await world.look("n", "shop")
    assert ["1-setup"] == tasks_of(world)
    world.fleet.once.fault = ""
    world.record.put(a_document(runRequest="again"))
    world.waits = 0
    await until(world, "Running")
    assert ["1-setup", "2-setup"] == tasks_of(world)


async def test_a_teardown_that_fails_is_said_and_changes_no_verdict() -> None:
    """The numbers were gathered before it."""
    world = a_world()
    await until(world, "Running")
    world.fleet.once.fault = "DELETE /all was answered 500"
    status = await until(world, "Completed")
    assert ("Passed", "Failed", "DELETE /all was answered 500") == (
        status.verdict,
        status.run.teardown.state,
        status.run.teardown.message,
    )
    assert any(h.warning and "teardown failed" in h.message for h in world.record.happenings)


async def test_a_runner_lost_at_setup_ends_the_run() -> None:
    """Another runner would do again what it had done."""
    world = a_world()
    world.fleet.once.looks = 100
    status = await until_at_setup(world)
    await world.look("n", "shop")
    del world.fleet.runners[status.run.setup.runner]
    status = await until(world, "Failed")
    assert "was lost in its midst" in status.message
    assert ["1-setup"] == tasks_of(world)


async def test_an_order_lost_on_its_way_is_sent_again() -> None:
    """The status had it before; the runner begins it once."""
    world = a_world()
    status = await until_at_setup(world)
    runner = world.fleet.runners[status.run.setup.runner]
    runner.tasks.clear()
    assert runner.assignment is not None
    runner.assignment = runner.assignment.model_copy(update={"task": None})
    world.fleet.begun.clear()
    await until(world, "Running")
    assert ["1-setup"] == tasks_of(world)


async def test_a_silent_runner_is_waited_for_until_its_deadline() -> None:
    """The task's time-out and half a minute; then nobody knows, and the run has failed."""
    world = a_world(setup={**LOGIN, "timeout": "1m"})
    status = await until_at_setup(world)
    world.fleet.runners[status.run.setup.runner].silent = True
    began = world.now_ms
    status = await until(world, "Failed")
    assert 90_000 <= world.now_ms - began < 100_000
    assert "no word of its end" in status.message


async def test_a_new_operator_goes_on() -> None:
    """In the midst of setup, and with the values after it; a replaced runner gets them as well."""
    world = a_world(duration="20m")
    await until_at_setup(world)
    world.world.ledgers = Ledgers()
    await until(world, "Running")
    before = {a.runner: a.digest for a in assignments(world)}
    world.world.ledgers = Ledgers()
    for _ in range(5):
        await world.look("n", "shop")
    assert before == {a.runner: a.digest for a in assignments(world)}
    del world.fleet.runners[min(world.fleet.runners)]
    for _ in range(30):
        await world.look("n", "shop")
    assert [VALUES, VALUES] == [given.load.saved for given in assignments(world)]
    assert ["1-setup"] == tasks_of(world)


async def test_without_its_key_the_values_are_gone_and_the_run_ends() -> None:
    """Users without what setup saved would be another load."""
    world = a_world(duration="20m")
    await until(world, "Running")
    world.world.ledgers = Ledgers()
    other = FakeWorld().world.runners.signer
    assert isinstance(other, Signer)
    world.world.runners.signer = other
    status = await until(world, "Completed")
    assert ("Inconclusive", "what setup saved can no longer be read: its record or the operator's key is gone") == (
        status.verdict,
        status.run.stop,
    )


async def test_a_stop_at_setup_breaks_it_off() -> None:
    """It is taken back from the runner; nothing is torn down."""
    world = a_world()
    world.fleet.once.looks = 100
    await until_at_setup(world)
    world.world.stop = "stopped by SIGINT"
    status = await until(world, "Completed")
    assert ("Failed", "broken off: stopped by SIGINT") == (status.run.setup.state, status.run.setup.message)
    assert ["1-setup"] == tasks_of(world)


async def test_a_pause_repeats_nothing() -> None:
    """Suspended at setup it is finished; suspended later it is not done again; ended while suspended: torn down."""
    world = a_world(duration="20m")
    await until_at_setup(world)
    world.record.put(a_document(duration="20m", suspend=True))
    await until(world, "Suspended")
    for _ in range(5):
        await world.look("n", "shop")
    world.record.put(a_document(duration="20m"))
    world.waits = 0
    await until(world, "Running")
    world.record.put(a_document(duration="20m", suspend=True))
    world.waits = 0
    await until(world, "Suspended")
    world.world.stop = "enough"
    status = await until(world, "Completed")
    assert ["1-setup", "1-teardown"] == tasks_of(world)
    assert "Done" == status.run.teardown.state


async def test_an_end_after_a_long_pause_gets_a_runner_for_teardown() -> None:
    """The pause had let all of them go; afterwards none is left."""
    world = a_world(duration="20m")
    await until(world, "Running")
    world.record.put(a_document(duration="20m", suspend=True))
    world.waits = 0
    await until(world, "Suspended")
    for _ in range(40):
        world.waits = 5000
        await world.look("n", "shop")
    assert {} == world.fleet.runners
    world.world.stop = "enough"
    status = await until(world, "Completed")
    assert ("Done", ["1-setup", "1-teardown"]) == (status.run.teardown.state, tasks_of(world))
    for _ in range(3):
        await world.look("n", "shop")
    assert {} == world.fleet.runners


async def test_an_edit_of_setup_is_for_the_next_run() -> None:
    """The condition Accepted says so; teardown is taken as it stands at the end."""
    world = a_world(duration="3m")
    await until(world, "Running")
    other = {"flow": [*LOGIN["flow"], {"request": {"get": "/more"}}]}
    sweep = {"flow": [{"request": {"get": "/bye"}}]}
    world.record.put(a_document(duration="3m", setup=other, teardown=sweep))
    world.waits = 0
    status = await world.look("n", "shop")
    accepted = next(c for c in status.conditions if c.type == "Accepted")
    assert ("True", "setup: the change takes effect with the next run") == (accepted.status, accepted.message)
    status = await until(world, "Completed")
    assert ["1-setup", "1-teardown"] == tasks_of(world)


async def test_a_run_without_users_waits_and_says_so() -> None:
    """There is no runner that could do it."""
    world = a_world(users=0)
    status = await until(world, "Failed")
    assert "setup waits for a runner: there is none without users" in status.message


@pytest.mark.parametrize("spec", [{"setup": None, "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}]}])
async def test_teardown_alone(spec: dict[str, Any]) -> None:
    """Without setup it is done as soon as users have come."""
    world = a_world(teardown={"flow": [{"request": {"get": "/bye"}}]}, **spec)
    await until(world, "Completed")
    assert ["1-teardown"] == tasks_of(world)


class CrashingRecord(FakeRecord):
    """A record that loses the world after so many writes: the status is written, nothing is done."""

    writes_left = 1 << 30

    async def write(self, document: Document, status: Any) -> None:
        """Write, and say that somebody else did: nothing is done in this look."""
        await super().write(document, status)
        self.writes_left -= 1
        if self.writes_left == 0:
            raise Conflict


@pytest.mark.parametrize("writes", range(1, 13))
async def test_a_crash_after_any_write_changes_nothing(writes: int) -> None:
    """The operator dies right after its write number N, before it acts; the next one goes on."""
    record = CrashingRecord()
    world = FakeWorld(record=record)
    world.fleet.once.values = VALUES
    record.put(a_document())
    record.writes_left = writes
    for _ in range(200):
        world.waits = min(world.waits or 1000, 5000)
        status = await world.look("n", "shop")
        if record.writes_left == 0:
            record.writes_left, world.world.ledgers = 1 << 30, Ledgers()
        if status.phase == "Completed":
            break
    assert "Passed" == world.status.verdict
    assert ["1-setup", "1-teardown"] == tasks_of(world)


async def test_decide_twice_is_the_same() -> None:
    """The same world twice gives the same task to the same runner."""
    world = a_world()
    world.fleet.once.looks = 100
    await until_at_setup(world)
    document = await world.record.read("n", "shop")
    assert document is not None
    desired = read(document)
    observed = await observe(desired, document, world.world)
    assert isinstance(observed, Observed)
    first, second = (decide(desired, observed, world.now_ms) for _ in range(2))
    assert first == second
    assert not [a for a in first.actions if isinstance(getattr(getattr(a, "assignment", None), "task", None), Task)]


class ContestedRecord(FakeRecord):
    """A record whose next write may be lost to somebody else's."""

    contested = False

    async def write(self, document: Document, status: Any) -> None:
        """Refuse while contested."""
        if self.contested:
            self.contested = False
            raise Conflict
        await super().write(document, status)


EVENTS = st.sampled_from(
    ["look"] * 6 + ["wait", "lose", "silence", "speak", "conflict", "forget", "suspend", "resume", "again", "fault"]
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 5)), max_size=40), st.integers(0, 4))
async def test_whatever_happens_it_is_done_once(history: list[tuple[str, int]], looks: int) -> None:
    """
    Over random histories: no task is begun twice under one id, no user is at work without setup, and in the end the
    run has its verdict or says that setup failed.
    """
    record = ContestedRecord()
    world = FakeWorld(record=record)
    world.fleet.once.values, world.fleet.once.looks = VALUES, looks
    small = {"usersPerProcess": 10, "maxProcesses": 1}
    changes: dict[str, Any] = {"duration": "20s", "users": 20, "scaling": small}
    record.put(a_document(**changes))

    async def look(wait_ms: int = 1000) -> None:
        world.waits = min(world.waits or wait_ms, wait_ms)
        await world.look("n", "shop")
        run = world.status.run
        begun = Counter(tasks_of(world))
        assert max(begun.values(), default=0) <= 1, begun
        if any(runner.active(world.now_ms) and not runner.silent for runner in world.fleet.runners.values()):
            assert run is not None
            assert run.setup is not None
            assert "Done" == run.setup.state
        if run is not None and run.teardown is not None:
            assert run.setup is not None
            assert "Done" == run.setup.state

    for event, number in history:
        names = sorted(world.fleet.runners)
        match event:
            case "lose" if names:
                del world.fleet.runners[names[number % len(names)]]
            case "silence" if names:
                world.fleet.runners[names[number % len(names)]].silent = True
            case "speak":
                for runner in world.fleet.runners.values():
                    runner.silent = False
            case "conflict":
                record.contested = True
            case "forget":
                world.world.ledgers = Ledgers()
            case "suspend" | "resume":
                changes["suspend"] = event == "suspend"
            case "again":
                changes["runRequest"] = f"run {number}"
            case "fault":
                world.fleet.once.fault = "401" if number % 2 else ""
        if event in ("suspend", "resume", "again"):
            record.put(a_document(**changes))
        await look(60_000 if event == "wait" else 1000)
    for runner in world.fleet.runners.values():
        runner.silent = False
    record.put(a_document(**changes | {"suspend": False}))
    for _ in range(600):
        await look()
        if world.status.phase in ("Completed", "Failed"):
            break
    run = world.status.run
    assert run is not None
    assert run.setup is not None
    if world.status.phase == "Failed":
        assert "Failed" == run.setup.state
    else:
        assert "Completed" == world.status.phase
        assert run.teardown is not None
