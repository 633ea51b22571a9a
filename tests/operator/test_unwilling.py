"""Runners that answer, and say no to what they are told: told again ever more rarely, said, not waited for for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api.names import Event
from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement, Assignment
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import ConditionStatus, Status
from trafficsim_operator.fleet.runners import RunnerRefused, Runners, Signer
from trafficsim_operator.ledger import Ledger, Ledgers
from trafficsim_operator.observed import Runner, RunnerState, Unwilling
from trafficsim_operator.plan.look import STEADY_MS
from trafficsim_operator.plan.places import Holder, deal, max_over
from trafficsim_operator.plan.unwilling import PATIENCE_MS, after, is_due, out, sentences, wait_ms
from trafficsim_operator.testing.fakes import FakeRunners, FakeWorld

NOW = 1_700_000_000_000
USERS = 1_200


@pytest.mark.parametrize(
    ("tries", "wait"),
    [(1, 0), (2, 1_000), (3, 2_000), (4, 4_000), (5, 8_000), (6, 16_000), (7, 32_000), (8, 60_000), (1_000, 60_000)],
)
def test_how_long_a_no_is_let_stand(tries, wait):
    """0 after the first, then 1 s · 2^(tries - 2), 60 s at most; at once when it is told something else."""
    assert wait == wait_ms(tries)
    found = Unwilling(word="w", said="507: no room", since_ms=NOW, told_ms=NOW, tries=tries)
    assert is_due(found, "w", NOW + wait)
    assert not wait or not is_due(found, "w", NOW + wait - 1)
    assert is_due(found, "another", NOW)


def a_runner(name: str = "a", *, answered: bool = True) -> Runner:
    return Runner(
        name=name, uid=f"uid-{name}", revision="r", state=RunnerState.READY, answered=answered,
        acknowledgement=Acknowledgement(boot="b", run=1, epoch=1),
    )  # fmt: skip


def test_a_first_no_is_no_refusal_yet():
    """It is told and counts from the second on, and nobody waits for it any more after ten seconds of it."""
    first = after(None, "w", "409: older", NOW)
    assert [] == list(sentences([a_runner()], {"uid-a": first}))
    assert frozenset() == out([a_runner()], {"uid-a": first}, NOW + PATIENCE_MS)
    second = after(first, "w", "507: no room", NOW + 500)
    [text] = sentences([a_runner()], {"uid-a": second})
    assert text == "a refuses what it is told since 2023-11-14T22:13:20.000Z: 507: no room"
    assert [] == list(sentences([a_runner(answered=False)], {"uid-a": second}))
    assert frozenset() == out([a_runner()], {"uid-a": second}, NOW + PATIENCE_MS - 1)
    assert frozenset("a") == out([a_runner()], {"uid-a": second}, NOW + PATIENCE_MS)


@pytest.mark.parametrize(("later_ms", "tries"), [(120_000, 2), (120_001, 1), (7_200_000, 1)])
def test_a_no_of_long_ago_is_forgotten(later_ms, tries):
    """Who goes on saying no is told every minute at least; another one after two minutes is a first one."""
    again = after(after(None, "w", "409: older", NOW), "w", "409: older", NOW + later_ms)
    assert tries == again.tries
    assert (NOW if tries > 1 else NOW + later_ms) == again.since_ms


def test_a_run_begins_without_the_noes_of_the_one_before():
    ledger = Ledger(unwilling={"uid-a": after(None, "w", "409: older", NOW)})
    ledger.begin(Status())
    assert {} == ledger.unwilling


def test_of_many_three_are_named():
    runners = [a_runner(name) for name in "edcba"]
    no = after(after(None, "w", "no", NOW), "w", "no", NOW)
    told = list(sentences(runners, {runner.uid: no for runner in runners}))
    assert ["a", "b", "c"] == [text.partition(" ")[0] for text in told[:3]]
    assert "so do 2 more" == told[3]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        pytest.param(422, '{"error": "load: 300 actions"}', "422: load: 300 actions", id="a reason"),
        pytest.param(409, '{"run": 3, "epoch": 9, "clockMs": %d}', "409: it holds epoch 9 of run 3", id="its all"),
        pytest.param(502, "<html>%d</html>", "502: <html>1</html>", id="something else's words"),
    ],
)
async def test_a_no_is_told_in_words_that_stay(status, body, said):
    """What changes at each answer would be a write of the status at each look."""
    answers = iter((status, (body % number if "%d" in body else body).encode()) for number in (1, 1, 2))

    async def way(*_: object) -> tuple[int, bytes]:
        return next(answers)

    runners = Runners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate()), way=way)
    world, *_ = await at_work()
    assignment = next(runner.assignment for runner in world.fleet.runners.values())
    for _ in range(3 if status == 409 else 2):
        with pytest.raises(RunnerRefused) as raised:
            await runners.assign("a:1", assignment)
        assert said == str(raised.value)


def a_holder(name: str, first: int, last: int, *, refuses: bool = False, settled: bool = True) -> Holder:
    return Holder(
        name=name, held=Places.of([(first, last)]), settled=settled, answers=not refuses, takes=not refuses,
        refuses=refuses,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("holders", "dealt"),
    [
        pytest.param(
            [a_holder("a", 0, 10, refuses=True), a_holder("b", 9, 10)], {"b": (0, 0)},
            id="what it does not give goes back to it",
        ),
        pytest.param(
            [a_holder("a", 0, 6), a_holder("b", 5, 10, refuses=True)], {"a": (0, 5)},
            id="what it has taken stays with it, whoever would be to give",
        ),
        pytest.param(
            [a_holder("a", 0, 9), a_holder("b", 8, 10, refuses=True, settled=False)], {"a": (0, 9)},
            id="not before its users have begun",
        ),
    ],
)  # fmt: skip
def test_no_place_is_on_twice_with_it_for_long(holders, dealt):
    """It keeps what it has: whoever does as it is told lets go."""
    found = deal(10, holders, 10)
    assert {name: Places.of([span] if span[0] < span[1] else []) for name, span in dealt.items()} == found.places


# In a world of fakes.


class NoRunners(FakeRunners):
    """Runners of which some say no to some of what they are told."""

    def __init__(self, world: FakeWorld) -> None:
        super().__init__(world)
        self.no: Callable[[str, Assignment], str] = lambda address, assignment: ""
        self.asked: list[tuple[int, str]] = []

    async def assign(self, address: str, assignment: Assignment) -> Acknowledgement:
        """Tell the runner, unless it says no."""
        if said := self.no(address, assignment):
            self.asked.append((self._world.now_ms, address))
            raise RunnerRefused(said)
        return await super().assign(address, assignment)


def a_document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": USERS,
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
        }
        | spec,
    }


async def at_work() -> tuple[FakeWorld, NoRunners, str, str]:
    """Return a world in which two runners have 600 users each, and their names."""
    world = FakeWorld()
    runners = NoRunners(world)
    world.world.runners = runners
    world.record.put(a_document())
    for _ in range(40):
        await world.look("n", "shop")
    first, second = world.fleet.runners
    assert [600, 600] == held(world)
    return world, runners, first, second


def held(world: FakeWorld) -> list[int]:
    return [len(runner.assignment.held) if runner.assignment else 0 for runner in world.fleet.runners.values()]


async def look(world: FakeWorld, for_ms: int, holds: Callable[[], bool] = lambda: False) -> int:
    """Look for so long, or until *holds*; at no look is a user missing, or more at work than change hands."""
    began = world.now_ms
    while world.now_ms - began < for_ms and not holds():
        world.waits = min(1_000, 5_000 if world.waits is None else world.waits)
        await world.look("n", "shop")
        active = sum(runner.active(world.now_ms) for runner in world.fleet.runners.values())
        assert USERS <= active <= USERS + max_over(USERS)
        assert len(Places.union(r.assignment.held for r in world.fleet.runners.values() if r.assignment)) == USERS
    return world.now_ms - began


def told_figures(world: FakeWorld) -> int:
    """Return how many writes of the status told other figures."""
    return sum(was.figures != now.figures for was, now in pairwise(world.record.writes))


def of_health(writes: list[Status]) -> list[ConditionStatus]:
    return [c for status in writes for c in status.conditions if c.type == "RunnersHealthy"]


def healthy(world: FakeWorld) -> tuple[str, str]:
    return next((c.reason, c.message) for c in world.status.conditions if c.type == "RunnersHealthy")


async def test_others_move_on_without_a_giver_that_refuses():
    """A third runner is to have some of both: after ten seconds it gets users of the other alone, and all rests."""
    world, runners, giver, other = await at_work()
    runners.no = lambda address, assignment: "422: not today" if address == giver else ""
    world.record.put(a_document(scaling={"minRunners": 3, "maxRunners": 3}))
    world.waits = 0
    await look(world, 60_000)
    third = next(name for name in world.fleet.runners if name not in (giver, other))
    mine, *others = held(world)
    assert 600 == mine
    assert [300, 300] == others, "as evenly as it goes"
    reason, message = healthy(world)
    assert "AssignmentRefused" == reason
    assert message.startswith(f"{giver} refuses what it is told since ")
    assert message.endswith(": 422: not today")
    events = [event for event in world.record.happenings if event.reason == Event.ASSIGNMENT_REFUSED]
    assert [(message, True)] == [(event.message, event.warning) for event in events]
    assert third in world.fleet.runners


async def test_it_is_told_again_ever_more_rarely_and_nothing_is_written_meanwhile():
    """In ten minutes as often as 0, 1, 2, 4 … 60 s after one another allow; each costs one epoch and one write."""
    world, runners, giver, _ = await at_work()
    runners.no = lambda address, assignment: "507: no room" if address == giver else ""
    world.record.put(a_document(archetypes=[{"name": "b", "flow": [{"request": {"get": "/new"}}]}]))
    world.waits = 0
    await look(world, 20_000)
    asked, epoch, writes = len(runners.asked), world.status.epoch, len(world.record.writes)
    figures = told_figures(world)
    passed_ms = await look(world, 600_000)
    times = len(runners.asked) - asked
    assert 9 <= times <= 12
    assert times == world.status.epoch - epoch
    told = told_figures(world) - figures
    assert 0 < told <= passed_ms // STEADY_MS + 1, "at their own pace, whatever it says"
    assert len(world.record.writes) - writes <= times + told


async def test_who_says_yes_again_is_one_as_any():
    """Within a minute it is asked, from then on users are spread over all; the condition says nothing any more."""
    world, runners, giver, _ = await at_work()
    runners.no = lambda address, assignment: "422: not today" if address == giver else ""
    world.record.put(a_document(scaling={"minRunners": 3, "maxRunners": 3}))
    world.waits = 0
    await look(world, 120_000)
    assert [600, 300, 300] == held(world)
    runners.no = lambda address, assignment: ""
    assert await look(world, 90_000, lambda: held(world) == [400, 400, 400]) < 90_000
    await look(world, 2_000)
    assert "RunnersReady" == healthy(world)[0]


async def test_a_no_of_the_moment_is_not_told():
    """Another operator's word had just been heard: the next one is taken."""
    world, runners, giver, _ = await at_work()
    runners.no = lambda address, assignment: "" if runners.asked else "409: it holds epoch 9 of run 1"
    before = len(world.record.writes)
    world.record.put(a_document(archetypes=[{"name": "b", "flow": [{"request": {"get": "/new"}}]}]))
    world.waits = 0
    await look(world, 10_000)
    assert 1 == len(runners.asked)
    assert {"True"} == {c.status for c in of_health(world.record.writes[before:])}
    assert [] == [event for event in world.record.happenings if event.reason == Event.ASSIGNMENT_REFUSED]
    assert "/new" in str(world.fleet.runners[giver].assignment)


async def test_a_runner_that_refuses_the_fence_costs_no_write_at_each_look():
    """A new operator has every runner repeat what it holds; one does not, for ten minutes."""
    world, runners, refusing, _ = await at_work()
    runners.no = lambda address, assignment: "507: no room" if address == refusing else ""
    world.world = replace(world.world, ledgers=Ledgers())
    world.waits = 0
    epoch = world.status.epoch
    await look(world, 600_000)
    assert len(runners.asked) <= 20
    assert world.status.epoch - epoch <= len(runners.asked) + 1
    assert "AssignmentRefused" == healthy(world)[0]


async def test_a_version_that_does_not_give_its_users_back_is_ended():
    """Its rollout fails by its deadline; then it goes as a whole, and its users are at work on the old one."""
    world, runners, *blue = await at_work()
    for health in world.fleet.health.values():
        health.tells = True
    world.fleet.tells = True
    told: list[str] = []

    def no(address: str, assignment: Assignment) -> str:
        told.extend([address] if address not in blue else [])
        return "507: no room" if address not in blue and len(told) > 4 else ""

    runners.no = no
    steps = [{"percent": 50}, {"percent": 100}]
    rollout = {"steps": steps, "dwell": "3s", "warmUp": "0s", "window": "1s", "maxDwell": "60s", "minSamples": 6}
    world.record.put(a_document(rollout=rollout | {"deadline": "60s"}, runner={"image": "trafficsim/runner:2"}))
    world.waits, began, most = 0, world.now_ms, 0
    while world.status.rollout is None or world.status.rollout.phase is not RolloutPhase.REJECTED:
        assert world.now_ms - began < 120_000
        world.waits = min(1_000, 5_000 if world.waits is None else world.waits)
        await world.look("n", "shop")
        most = max(most, sum(runner.active(world.now_ms) for runner in world.fleet.runners.values()))
    assert most <= USERS + max_over(USERS)
    assert "ShiftTimeout" == world.status.rollout.reason
    assert set(blue) == set(world.fleet.runners)
    assert [600, 600] == held(world)
    [text] = world.status.accounts.missing
    assert text.endswith("it was let go before it had drained")
