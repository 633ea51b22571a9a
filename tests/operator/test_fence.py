"""The fence: an operator that has just come is heard by every runner before it moves a place."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.status import Status
from trafficsim_operator.actions import EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.fleet.runners import RunnerRefused
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import Fence, Runner, RunnerState
from trafficsim_operator.plan.fence import PATIENCE_MS, fence_from, is_up, raising, repeated, unfenced
from trafficsim_operator.plan.places import Holder
from trafficsim_operator.reconcile import World, reconcile
from trafficsim_operator.store import Document
from trafficsim_operator.testing.fakes import FakeRecord, FakeWorld

NOW = 1_700_000_000_000


def a_runner(
    epoch: int | None, *, answers: bool = True, state: RunnerState = RunnerState.READY, node_lost: bool = False
) -> Runner:
    """Build a runner that acknowledged *epoch*; 0: it was never told anything, None: it was never heard."""
    said = None if epoch is None else Acknowledgement(boot="b", run=1 if epoch else 0, epoch=epoch)
    return Runner(
        name="a", uid="u", revision="r", state=state, acknowledgement=said, answered=answers, node_lost=node_lost
    )  # fmt: skip


@pytest.mark.parametrize(
    ("on_record", "acknowledged", "epoch"),
    [(0, [], 1), (8, [7, 7], 9), (8, [None, 0], 9), (0, [5, 3], 6), (7, [7], 8)],
    ids=["nothing told yet", "decided, but sent to nobody", "nobody heard", "status lost", "all heard"],
)
def test_the_fence_is_above_all_that_is_known(on_record, acknowledged, epoch):
    """F = max(epoch on record, acknowledged epochs) + 1."""
    runners = [a_runner(number) for number in acknowledged]
    assert Fence(epoch=epoch, since_ms=NOW) == fence_from(Status(epoch=on_record), runners, NOW)


@pytest.mark.parametrize(
    ("runner", "is_unfenced"),
    [
        pytest.param(a_runner(8), True, id="it goes by an older word"),
        pytest.param(a_runner(9), False, id="it has heard this operator"),
        pytest.param(a_runner(12), False, id="and again"),
        pytest.param(a_runner(0), False, id="it was never told anything"),
        pytest.param(a_runner(None), False, id="it was never heard"),
        pytest.param(a_runner(8, answers=False), False, id="it does not answer: it is not waited for"),
        pytest.param(a_runner(8, state=RunnerState.LEAVING), False, id="it is told nothing any more"),
        pytest.param(
            a_runner(8, state=RunnerState.LEAVING, node_lost=True), True, id="its node does not hear that it is to end"
        ),
        pytest.param(a_runner(8, state=RunnerState.STARTING), False, id="it is not up"),
        pytest.param(a_runner(8, state=RunnerState.UNREADY), True, id="retired, and still up"),
    ],
)
def test_who_is_waited_for(runner, is_unfenced):
    """Who answers, was told something, and not under F or later; for ten seconds."""
    fence = Fence(epoch=9, since_ms=NOW)
    assert is_unfenced == bool(unfenced([runner], fence))
    assert is_unfenced is not is_up([runner], fence, NOW + PATIENCE_MS - 1)
    assert is_up([runner], fence, NOW + PATIENCE_MS)
    assert is_up([runner], None, NOW)


def test_what_is_held_is_repeated():
    """Also what is on twice, and what lies beyond T is left out; who does not answer is told nothing."""
    a, b, c = Places.of([(0, 6)]), Places.of([(5, 10)]), Places.of([(10, 12)])
    holders = [
        Holder(name="a", held=a, settled=True, answers=True, takes=True),
        Holder(name="b", held=b, settled=True, answers=True, takes=True),
        Holder(name="c", held=c, settled=True, answers=False, takes=False),
        Holder(name="d", held=Places(), settled=True, answers=True, takes=True),
    ]
    dealt = repeated(14, holders)
    assert {"a": a, "b": b, "d": Places()} == dealt.places
    assert Places.of([(12, 14)]) == dealt.unplaced
    assert dealt.moving
    assert {"a": Places.of([(0, 4)]), "b": Places(), "d": Places()} == repeated(4, holders).places


def test_meanwhile_runners_are_only_added():
    """Scaling up goes on; nobody is retired, and no revision is scaled down or removed."""

    def ensure(revision, replicas):
        return EnsureRevision(revision=revision, template={}, replicas=replicas, reason="")

    actions = (
        ensure("more", 3),
        ensure("same", 2),
        ensure("less", 1),
        ensure("new", 1),
        Retire(revision="more", runners=("a",), replicas=1, reason=""),
        RemoveRevision(revision="same", reason=""),
    )
    kept = raising(actions, {"more": 2, "same": 2, "less": 2})
    assert (ensure("more", 3), ensure("same", 2), ensure("new", 1)) == kept


# In a world of fakes.


def a_document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 1200,
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
        }
        | spec,
    }


class ContestedRecord(FakeRecord):
    """A record to which another operator writes an epoch just before the next write."""

    rival_epoch = 0

    async def write(self, document: Document, status: Status) -> None:
        if self.rival_epoch:
            key = document.namespace, document.name
            self.documents[key]["status"]["epoch"], self.rival_epoch = self.rival_epoch, 0
            self.versions[key] += 1
        await super().write(document, status)


async def at_work(record: FakeRecord | None = None, **spec: Any) -> FakeWorld:
    """1200 users on two runners, and nothing in motion."""
    world = FakeWorld(record=record or FakeRecord())
    world.record.put(a_document(**spec))
    for _ in range(40):
        await world.look("n", "shop")
    assert "Running" == world.status.phase
    assert [600, 600] == [len(runner.assignment.held) for runner in world.fleet.runners.values()]
    return world


def another_operator(world: FakeWorld) -> World:
    """Return the world as an operator sees it that has just begun."""
    return replace(world.world, ledgers=Ledgers())


def told(world: FakeWorld) -> dict[str, Any]:
    return {name: runner.assignment for name, runner in world.fleet.runners.items() if runner.assignment is not None}


def held(world: FakeWorld) -> dict[str, Places]:
    return {name: assignment.held for name, assignment in told(world).items()}


async def test_the_first_look_repeats_and_the_next_ones_move():
    """Two runners have 1200 users, a third is there to take some: nothing moves until both have acknowledged."""
    world = await at_work()
    epoch, before = world.status.epoch, held(world)
    world.record.put(a_document(scaling={"minRunners": 3}))
    world.waits = 0
    for _ in range(2):
        await world.look("n", "shop")
    world.now_ms += 2_000
    assert 3 == len(world.fleet.runners)
    world.world = another_operator(world)
    world.waits = 0
    await world.look("n", "shop")
    assert before == {name: held(world)[name] for name in before}
    again = [assignment.epoch for name, assignment in told(world).items() if name in before]
    assert [world.status.epoch] * 2 == again
    assert world.status.epoch > epoch
    for _ in range(60):
        await world.look("n", "shop")
    assert [400, 400, 400] == [len(places) for places in held(world).values()]


async def test_a_stale_operators_word_is_void_once_the_fence_is_up():
    """It decided, put that on record, and was stopped; what it sends afterwards is refused by every runner."""
    world = await at_work()
    stale = {}

    async def stopped(address, assignment):
        stale[address] = assignment
        return world.fleet.runners[address].acknowledgement(world.now_ms)

    one = world.world
    one.runners.assign = stopped
    world.record.put(a_document(users=700))
    world.waits = 0
    await world.look("n", "shop")
    del one.runners.assign
    assert 2 == len(stale)
    world.world = another_operator(world)
    world.waits = 0
    await world.look("n", "shop")
    before = told(world)
    for address, assignment in stale.items():
        assert assignment.epoch < before[address].epoch
        with pytest.raises(RunnerRefused, match="older epoch"):
            await one.runners.assign(address, assignment)
    assert before == told(world)
    for _ in range(20):
        await world.look("n", "shop")
    assert 700 == sum(map(len, held(world).values()))
    assert 700 == len(Places.union(held(world).values()))


async def test_a_stale_operators_word_before_the_fence_is_seen():
    """It comes between the new one's look and its assignments: these overwrite it, and no user is lost or doubled."""
    world = await at_work()
    (first, before), (second, _) = told(world).items()
    stale = before.model_copy(update={"epoch": before.epoch + 1, "places": ((0, 100),)})
    status = world.record.documents["n", "shop"]["status"]
    status["epoch"] = stale.epoch
    world.world = another_operator(world)
    assign = world.world.runners.assign

    async def late(address, assignment):
        if address == first and told(world)[first].epoch == before.epoch:
            await assign(first, stale)
            assert 100 == len(held(world)[first])
        return await assign(address, assignment)

    world.world.runners.assign = late
    world.waits = 0
    await world.look("n", "shop")
    assert before.held == held(world)[first]
    assert {stale.epoch + 1} == {told(world)[name].epoch for name in (first, second)}


async def test_a_write_in_between_puts_the_fence_higher():
    """Whoever wrote an epoch after it was read makes the write fail; the next look takes that one into account."""
    record = ContestedRecord()
    world = await at_work(record=record)
    epoch = world.status.epoch
    new = another_operator(world)
    record.rival_epoch = epoch + 1
    await reconcile("n", "shop", new)
    assert {epoch} == {assignment.epoch for assignment in told(world).values()}
    assert new.ledgers.get("n", "shop").fence is None
    await reconcile("n", "shop", new)
    assert {epoch + 2} == {assignment.epoch for assignment in told(world).values()}
    assert epoch + 2 == new.ledgers.get("n", "shop").fence.epoch


async def test_a_runner_that_does_not_answer_is_fenced_when_it_does():
    """It holds up nobody, keeps its places, and is told them anew as soon as it answers."""
    world = await at_work()
    world.world = another_operator(world)
    world.waits = 0
    silent, other = world.fleet.runners.values()
    epoch = world.status.epoch
    await world.look("n", "shop")
    assert {epoch + 1} == {assignment.epoch for assignment in told(world).values()}
    world.world = another_operator(world)
    silent.silent = True
    for _ in range(5):
        await world.look("n", "shop")
    assert (epoch + 1, epoch + 2) == (silent.assignment.epoch, other.assignment.epoch)
    world.record.put(a_document(users=1100))
    world.waits = 0
    for _ in range(5):
        await world.look("n", "shop")
    assert 1100 == other.assignment.users, "the other is not held up"
    silent.silent = False
    world.waits = 0
    await world.look("n", "shop")
    assert world.status.epoch == silent.assignment.epoch
    assert 1100 == len(Places.union(held(world).values()))


async def test_what_an_unheard_runner_may_hold_is_not_short():
    """A new operator that hears one of two runners does not count the other's users as lost: they may be at work."""
    world = await at_work()
    silent, other = world.fleet.runners.values()
    silent.silent = True
    world.world, world.waits, writes = another_operator(world), 0, len(world.record.writes)
    await world.look("n", "shop")
    assert world.status.epoch == other.assignment.epoch, "the fence is not up yet"
    for _ in range(3):
        await world.look("n", "shop")
    silent.silent = False
    for _ in range(10):
        await world.look("n", "shop")
    runs = [status.run for status in world.record.writes[writes:]]
    assert {(0, 0)} == {(run.short_users, run.lost_user_ms) for run in runs}
    assert [600, 600] == [len(places) for places in held(world).values()]


async def test_a_runner_that_refuses_holds_up_nobody_for_long():
    """Ten seconds, then a third one takes places; it is told again ever more rarely, and each time is an epoch."""
    world = await at_work()
    world.world = another_operator(world)
    refusing, other = world.fleet.runners
    assign, asked = world.world.runners.assign, []

    async def refuse(address, assignment):
        if address == refusing:
            asked.append(world.now_ms)
            raise RunnerRefused("507: no room")
        return await assign(address, assignment)

    world.world.runners.assign = refuse
    began, before = world.now_ms, world.status.epoch
    world.record.put(a_document(scaling={"minRunners": 3}))
    world.waits = 0
    moved = 0
    for _ in range(60):
        await world.look("n", "shop")
        if not moved and any(places for name, places in held(world).items() if name not in (refusing, other)):
            moved = world.now_ms
    assert began + PATIENCE_MS <= moved <= began + PATIENCE_MS + 5_000
    waits = [late - soon for soon, late in pairwise(asked)]
    assert waits == sorted(waits)
    assert waits[-1] >= 8_000
    assert world.status.epoch - before >= len(asked)


async def test_a_first_start_knows_no_fence():
    """Nothing was told before, so nothing is told twice: the run begins as soon as it can."""
    world = FakeWorld()
    world.record.put(a_document())
    for _ in range(12):
        await world.look("n", "shop")
    assert "Running" == world.status.phase
    ledger = world.world.ledgers.get("n", "shop")
    assert 1 == ledger.fence.epoch


async def test_a_run_that_ended_needs_none():
    """An operator that comes afterwards sends nothing, writes nothing, and lets the runners go."""
    world = await at_work(duration="10m")
    while "Completed" != world.status.phase:
        await world.look("n", "shop")
    for _ in range(5):
        await world.look("n", "shop")
    writes = len(world.record.writes)
    world.world = another_operator(world)
    for _ in range(5):
        await world.look("n", "shop")
    assert writes == len(world.record.writes)
    assert {} == world.fleet.runners
