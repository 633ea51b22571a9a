"""Runners that follow their load, look by look, in a world of fakes: 20 users take 70 % of a runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from driven.loaded import AT_QUOTA, USERS, a_loaded_world, scaling_of, wanted, with_wanted
from driven.rollouts import NEW, a_document, phase, rollout_of, running, some_looks, until
from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import ScalingStatus, Status, VersionScaling
from trafficsim_api.units import parse_instant
from trafficsim_operator.decide import decide
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.plan.autoscale import VersionSeen
from trafficsim_operator.plan.scaling import QUIET_MS, promised
from trafficsim_operator.plan.sizing import most_here, size
from trafficsim_operator.reconcile import observe, read
from trafficsim_operator.testing.fakes import FakeWorld

STEPS = {"steps": [{"percent": 50}, {"percent": 100}], "minSamples": 200}
HIGH_AND_LOW = [{"hold": {"for": "4m"}}, {"ramp": {"to": "20%", "over": "10s"}}, {"hold": {"for": "30m"}}]


def counted(world: FakeWorld, reason: str) -> list[str]:
    """Return the messages of the events of *reason*."""
    return [happening.message for happening in world.record.happenings if happening.reason == reason]


class Watch:
    """A world looked at as it asks for; at each look as many users are at work as are due, a tenth more at most."""

    def __init__(self, world: FakeWorld, document: dict[str, Any]) -> None:
        self.world = world
        self.spec = TrafficSimulationSpec.model_validate_json(json.dumps(document["spec"]))
        self.runners: list[int] = []

    def check(self) -> None:
        status = self.world.status
        assert status.run is not None
        elapsed = self.world.now_ms - parse_instant(status.run.origin or "")
        due = shape(self.spec.profile).users_at(self.spec.users, elapsed)
        at_work = sum(runner.active(self.world.now_ms) for runner in self.world.fleet.runners.values())
        if elapsed > 1_000:
            assert due <= at_work <= due + self.spec.users // 10, self.world.now_ms
        count = sum(self.world.fleet.replicas.values())
        if self.runners[-1:] != [count]:
            self.runners.append(count)

    async def look(self) -> Status:
        status = await self.world.look("n", "shop")
        self.check()
        return status

    async def until(self, is_there: Callable[[Status], bool], looks: int = 4_000) -> Status:
        for _ in range(looks):
            status = await self.look()
            if is_there(status):
                return status
        raise AssertionError(f"not there after {looks} looks: {status.scaling}")


async def watched(world: FakeWorld, **spec: Any) -> Watch:
    """Begin a run of 60 users, from the first on, and watch it."""
    spec = {"users": USERS, "profile": [{"hold": {"for": "1h"}}], "duration": "2h"} | spec
    await running(world, **spec)
    return Watch(world, a_document(**spec))


async def test_a_load_that_needs_three_gets_three_and_gives_them_back() -> None:
    """
    One runner by size; 60 users take all of it, then of two, then 70 % of three. Five minutes after the load fell one
    goes, a minute later the next. Users never fall below what is due; the totals of who went are kept.
    """
    world = a_loaded_world()
    watch = await watched(world, profile=HIGH_AND_LOW)
    assert 1 == len(world.fleet.runners)
    status = await watch.until(with_wanted(3))
    status = await watch.until(lambda status: status.users.wanted == 12)
    assert 3 == wanted(status)
    assert 66 <= scaling_of(status).versions[0].utilisation <= 74
    assert 19 <= scaling_of(status).versions[0].users_per_runner <= 21
    fell_ms = world.now_ms
    status = await watch.until(with_wanted(2))
    assert 280_000 <= world.now_ms - fell_ms <= 320_000
    first_ms = world.now_ms
    status = await watch.until(with_wanted(1))
    assert 60_000 <= world.now_ms - first_ms <= 80_000
    await watch.until(lambda _: len(world.fleet.runners) == 1)
    for _ in range(40):
        await watch.look()
    assert [1, 2, 3, 2, 1] == watch.runners
    assert 2 == len(world.record.kept)
    assert (2, 2) == (len(counted(world, "ScaledUp")), len(counted(world, "ScaledDown")))
    assert "from 1 to 2 runners: " in counted(world, "ScaledUp")[0]


async def test_runners_are_started_ahead_of_a_known_profile() -> None:
    """With prediction the runners are there when the users are; without it they come after them."""
    strained = {}
    for prediction in (True, False):
        world = a_loaded_world()
        world.fleet.ready_after_ms = 20_000
        profile = [
            {"ramp": {"to": "20%", "over": "1s"}}, {"hold": {"for": "2m"}},
            {"ramp": {"to": "100%", "over": "60s"}}, {"hold": {"for": "1h"}},
        ]  # fmt: skip
        watch = await watched(world, users=100, profile=profile, scaling={"prediction": prediction})
        begin = parse_instant(world.status.run.origin or "") + 121_000  # type: ignore[union-attr]
        strained[prediction] = 0
        while world.now_ms < begin + 90_000:
            before_ms = world.now_ms
            await watch.look()
            most = max(runner.active(world.now_ms) for runner in world.fleet.runners.values())
            strained[prediction] += world.now_ms - before_ms if most > AT_QUOTA * 0.8 else 0
        assert 5 == wanted(world.status)
    assert 0 == strained[True]
    assert 10_000 < strained[False], f"{strained} ms"


async def test_nothing_follows_from_a_decision_that_was_carried_out() -> None:
    """`decide` twice on one world gives the same; with its status on record and its actions done nothing is left."""
    world = a_loaded_world()
    watch = await watched(world)
    await watch.until(with_wanted(3))
    await watch.until(lambda _: len(world.fleet.runners) == 3)
    await some_looks(world, 60)
    document = await world.record.read("n", "shop")
    assert document is not None
    desired = read(document)
    observed = await observe(desired, document, world.world)
    first, second = (decide(desired, observed, world.now_ms) for _ in range(2))
    assert first == second
    assert () == first.actions
    assert desired.status.scaling == first.status.scaling


async def test_an_operator_that_begins_anew_goes_on_from_the_record() -> None:
    """It has no loads yet: nobody goes, nothing is asked for twice."""
    world = a_loaded_world()
    watch = await watched(world)
    await watch.until(with_wanted(3))
    world.world.ledgers = Ledgers()
    world.waits = 0
    for _ in range(120):
        await watch.look()
    assert [1, 2, 3] == watch.runners
    assert 3 == wanted(world.status)


async def test_status_is_written_once_a_sample() -> None:
    """What scaling keeps changes every 15 s, and when other runners are wanted; not while suspended."""
    world = a_loaded_world()
    watch = await watched(world)
    await watch.until(with_wanted(3))
    await some_looks(world, 60)
    before, begun_ms = len(world.record.writes), world.now_ms
    await some_looks(world, 120)
    writes = [status.scaling for status in world.record.writes[before - 1 :]]
    changes = sum(left != right for left, right in pairwise(writes))
    assert changes <= (world.now_ms - begun_ms) // 15_000 + 1
    world.record.put(a_document(users=USERS, profile=[{"hold": {"for": "1h"}}], duration="2h", suspend=True))
    await until(world, lambda status: status.phase == "Suspended")
    kept = scaling_of(await some_looks(world, 10))
    await some_looks(world, 200)
    writes_before = len(world.record.writes)
    await some_looks(world, 200)
    assert writes_before == len(world.record.writes)
    assert kept == world.status.scaling


async def test_an_edit_counts_at_once() -> None:
    """Users up: the runners for them, without a rate; users down to what one runner carries: it takes its time."""
    world = a_loaded_world()
    watch = await watched(world)
    await watch.until(with_wanted(3))
    await some_looks(world, 120)
    steady = {"profile": [{"hold": {"for": "1h"}}], "duration": "2h"}
    world.record.put(a_document(users=120, **steady))
    status = await until(world, lambda status: status.users.dealt == 120)
    assert 6 <= wanted(status)
    assert 6 <= sum(runner.assignment is not None for runner in world.fleet.runners.values())
    world.record.put(a_document(users=120, suspend=True, **steady))
    await until(world, lambda status: status.phase == "Suspended")
    world.record.put(a_document(users=120, scaling={"maxRunners": 4}, **steady))
    status = await until(world, lambda status: status.phase == "Running")
    assert 4 == status.runners.wanted


@pytest.mark.parametrize("scaling", [{"minRunners": 2, "maxRunners": 2}, {"maxRunners": 1}])
async def test_without_a_choice_nothing_is_scaled(scaling: dict[str, int]) -> None:
    """As many at most as at least: the runners that the size asks for, however busy."""
    world = a_loaded_world()
    watch = await watched(world, scaling=scaling)
    for _ in range(120):
        await watch.look()
    assert [scaling["maxRunners"]] == watch.runners
    assert [] == counted(world, "ScaledUp")


async def test_a_rollout_takes_no_runner_away() -> None:
    """Up for both versions, down for neither; afterwards the new one has what it needs."""
    world = a_loaded_world()
    watch = await watched(world)
    old = watch.world.status.stable
    assert old is not None
    await watch.until(with_wanted(3))
    await some_looks(world, 60)
    world.record.put(a_document(NEW, rollout=STEPS, users=USERS, profile=[{"hold": {"for": "1h"}}], duration="2h"))
    least: dict[str, int] = {}
    while not phase("Retiring")(world.status):
        await watch.look()
        for revision, count in world.fleet.replicas.items():
            assert least.get(revision, 0) <= count
            least[revision] = count
    status = await watch.until(phase("Stable"))
    assert "Promoted" == rollout_of(status).reason
    assert 3 == least[old.revision]
    for _ in range(80):
        status = await watch.look()
    assert 3 == wanted(status)
    assert 3 == sum(world.fleet.replicas.values())


async def test_a_runner_that_is_lost_while_another_goes() -> None:
    """The one that gives its places away is lost in the midst of it: users are dealt anew, runners as wanted."""
    world = a_loaded_world()
    watch = await watched(world, profile=HIGH_AND_LOW)
    await watch.until(with_wanted(3))
    await watch.until(with_wanted(2))
    lost = next(iter(world.fleet.runners))
    del world.fleet.runners[lost]
    status = await some_looks(world, 40)
    places = [len(r.assignment.held) for r in world.fleet.runners.values() if r.assignment is not None]
    assert (USERS, USERS) == (status.users.placed, sum(places))
    assert 2 == len(world.fleet.runners)
    assert 1 == (status.run.lost_runners if status.run is not None else 0)


def conflict_in(status: Status) -> tuple[str, str, str]:
    return next(
        ((c.status, c.reason, c.message) for c in status.conditions if c.type == "AutoscalerConflict"), ("", "", "")
    )


async def test_another_autoscaler_is_left_alone_until_it_has_been_quiet() -> None:
    """It sets replicas: they are neither repaired nor changed, and the condition says who. Ten quiet minutes end it."""
    world = a_loaded_world()
    watch = await watched(world)
    status = await watch.until(with_wanted(3))
    assert ("", "", "") == conflict_in(status)
    await some_looks(world, 60)
    [revision] = world.fleet.replicas
    world.fleet.scalers[revision] = "kube-controller-manager"
    world.fleet.replicas[revision] = 5
    await some_looks(world, 200)
    assert {revision: 5} == dict(world.fleet.replicas)
    truth, reason, message = conflict_in(world.status)
    assert ("True", "ForeignScaler") == (truth, reason)
    assert f"kube-controller-manager sets the replicas of the runners of version {revision}" in message
    assert 5 == world.status.runners.wanted
    assert 5 == sum(bool(r.assignment and r.assignment.held) for r in world.fleet.runners.values())
    assert 1 == len(counted(world, "AutoscalerConflict"))
    world.fleet.replicas[revision] = 2
    for name in list(world.fleet.runners)[:3]:
        del world.fleet.runners[name]
    status = await some_looks(world, 100)
    assert (2, USERS) == (status.runners.wanted, status.users.placed)
    assert {revision: 2} == dict(world.fleet.replicas)
    wrote = parse_instant(scaling_of(status).foreign[0].at)
    status = await watch.until(lambda status: conflict_in(status)[0] == "False")
    assert QUIET_MS <= world.now_ms - wrote <= QUIET_MS + 5_000
    await until(world, lambda status: status.runners.ready == 3)


async def test_a_conflict_whose_words_were_cut_is_told_once() -> None:
    """A status that would grow too large keeps 128 characters of it: that is no other conflict."""
    world = a_loaded_world()
    await watched(world)
    [revision] = world.fleet.replicas
    world.fleet.scalers[revision] = "kube-controller-manager"
    await some_looks(world, 20)
    condition = next(
        c for c in world.record.documents["n", "shop"]["status"]["conditions"] if c["type"] == "AutoscalerConflict"
    )
    assert len(condition["message"]) > 128
    condition["message"] = condition["message"][:128]
    await some_looks(world, 20)
    assert 1 == len(counted(world, "AutoscalerConflict"))


async def test_an_autoscaler_of_users_stops_scaling() -> None:
    """Users are taken as asked for, with the runners their number takes, up and down; nothing more is scaled."""
    world = a_loaded_world()
    entry = {"manager": "kube-controller-manager", "subresource": "scale", "fieldsV1": {"f:spec": {"f:users": {}}}}

    def put(users: int) -> None:
        document = a_document(users=users, profile=[{"hold": {"for": "1h"}}], duration="2h")
        document["metadata"]["managedFields"] = [entry]
        world.record.put(document)
        world.waits = 0

    put(USERS)
    await until(world, lambda status: status.phase == "Running")
    status = await some_looks(world, 120)
    assert "kube-controller-manager sets users" in conflict_in(status)[2]
    assert 1 == status.runners.wanted
    for users, runners in ((501, 2), (60, 1)):
        put(users)
        status = await some_looks(world, 60)
        assert (users, runners) == (status.users.dealt, status.runners.wanted)
        assert users == status.users.placed


async def test_a_rollout_needs_room_beside_the_runners_that_load_asks_for() -> None:
    """Policy counts both versions' runners: three that load asks for and one of the new version are four."""
    world = a_loaded_world()
    world.policy = world.policy.model_copy(update={"max_runners": 3})
    watch = await watched(world)
    await watch.until(with_wanted(3))
    world.record.put(a_document(NEW, rollout=STEPS, users=USERS, profile=[{"hold": {"for": "1h"}}], duration="2h"))
    status = await some_looks(world, 20)
    said = next(c for c in status.conditions if c.type == "Accepted")
    assert "False" == said.status
    assert "4 runners are more than the policy's 3" in said.message
    assert 3 == wanted(status)
    world.policy = world.policy.model_copy(update={"max_runners": 4})
    status = await watch.until(phase("Retiring"))
    assert "Promoted" == rollout_of(status).reason


async def test_nobody_is_started_for_users_that_would_come_after_the_end() -> None:
    """A profile that goes on beyond the duration is known, and not to come."""
    world = a_loaded_world()
    profile = [{"ramp": {"to": "20%", "over": "1s"}}, {"hold": {"for": "119s"}}, {"ramp": {"to": "100%", "over": "1s"}}]
    await running(world, users=USERS, profile=profile, duration="2m")
    await until(world, lambda status: status.phase == "Draining")
    assert {1} == {wanted(status) for status in world.record.writes if status.scaling}


@pytest.mark.parametrize(("cores", "most"), [(None, None), (8, 4), (1, 1), (2, 1)])
def test_the_most_runners_that_help_on_one_machine(cores: int | None, most: int | None) -> None:
    """Where all share its cores, runners of two processes are no more than half of them."""
    document = a_document(users=400)
    spec = TrafficSimulationSpec.model_validate_json(json.dumps(document["spec"]))
    assert most == most_here(size(spec, connections=1000), cores)


async def test_an_edit_before_the_run_begins_leaves_no_runner_behind():
    """No load asked for the runners that are there when a run begins: they are those of the users asked for by now."""
    world = a_loaded_world()
    document = a_document(users=3000)
    world.record.put(document)
    await until(world, lambda status: status.phase == "Preflight" and len(world.fleet.runners) == 3)
    world.record.put(a_document(users=USERS))
    await until(world, lambda status: status.phase == "Running")
    assert 1 == wanted(world.status)
    await until(world, lambda _: len(world.fleet.runners) == 1)


@pytest.mark.parametrize(
    ("static", "existing", "asked", "reserved"),
    [(2, 3, None, 2), (2, 0, 3, 2), (2, 3, 7, 0), (5, 5, 5, 0), (2, 0, None, 3)],
    ids=["not seen before", "asked for, and not made yet", "its load asks for more", "all there", "nothing yet"],
)
def test_what_a_rollout_was_promised(static: int, existing: int, asked: int | None, reserved: int) -> None:
    """Of a size of 5: what it counts with already, made or asked for, is not counted again."""
    version = VersionSeen(revision="v2", static=static, capacity=100, existing=existing, places=100)
    known = () if asked is None else (VersionScaling(revision="v2", wanted=asked),)
    assert reserved == promised(version, ScalingStatus(versions=known), 5)
