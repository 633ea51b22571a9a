"""The story of a simulation, look by look, in a world of fakes under a clock that is only moved."""

from itertools import pairwise
from typing import Any

from trafficsim_api.phases import TRANSITIONS, Phase
from trafficsim_api.policy import LOCAL_DEFAULT, Policy
from trafficsim_api.status import Status
from trafficsim_api.units import parse_instant
from trafficsim_operator.decide import decide
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import Observed
from trafficsim_operator.plan.bounds import LIMIT, size_of
from trafficsim_operator.reconcile import observe, read
from trafficsim_operator.store import Conflict, Document
from trafficsim_operator.testing.fakes import FakeRecord, FakeWorld


def a_document(**spec: Any) -> dict[str, Any]:
    """Build a document: 400 users for two minutes."""
    full = {
        "target": {"url": "http://127.0.0.1:8080"},
        "users": 400,
        "duration": "2m",
        "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
        "thresholds": [{"rule": "error_rate < 1%"}],
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


async def test_a_runner_killed_for_want_of_memory_makes_it_inconclusive() -> None:
    """One kill within the run is enough, also for an operator that began after it; one before the run is none."""
    for since_origin_ms, verdict in ((-1, "Passed"), (1_000, "Inconclusive")):
        world = FakeWorld()
        world.record.put(a_document())
        status = await until(world, "Running")
        assert status.run is not None
        for runner in world.fleet.runners.values():
            runner.killed_ms = parse_instant(status.run.origin) + since_origin_ms
            break
        await settle(world, 3)
        world.world.ledgers = Ledgers()
        status = await until(world, "Completed")
        assert verdict == status.verdict, status.verdict_reason
        expected = "True" if verdict == "Inconclusive" else "False"
        assert expected == condition(status, "GeneratorSaturated")[0]
    assert "1 process was killed for want of memory (runner.resources.limits.memory)" == status.verdict_reason


async def test_a_run_from_start_to_verdict() -> None:
    """Pending → Preflight → Starting → Running → Draining → Completed, then nothing runs any more."""
    world = FakeWorld()
    world.record.put(a_document())
    status = await until(world, "Completed")
    assert "Passed" == status.verdict
    assert 400 * 105 * 1000 == status.run.planned_user_ms
    assert 0 == status.run.lost_user_ms
    assert 41_900 <= status.accounts.requests <= 42_000
    await settle(world)
    assert {} == world.fleet.runners
    assert [0] == list(world.fleet.replicas.values())
    assert ("True", "Passed") == condition(status, "Finished")
    phases = [write.phase for write in world.record.writes]
    assert all(b in TRANSITIONS[a] or a is b or _passes_through(a, b) for a, b in pairwise(phases))


def _passes_through(a: Phase, b: Phase) -> bool:
    """A look may take several steps."""
    return any(b in TRANSITIONS[between] for between in TRANSITIONS[a])


async def test_nothing_changes_when_nothing_changed() -> None:
    """`decide` twice on the same world gives the same; a finished run costs no write."""
    world = FakeWorld()
    world.record.put(a_document())
    await until(world, "Completed")
    await settle(world)
    writes = len(world.record.writes)
    await settle(world)
    assert writes == len(world.record.writes)


async def test_edit_up_and_down() -> None:
    """1200 → 2001 → 300: runners follow, survivors stay, places are held exactly once."""
    world = FakeWorld()
    world.record.put(a_document(users=1200, duration="20m"))
    await until(world, "Running")
    await settle(world)
    first = {name: r.assignment.held for name, r in world.fleet.runners.items() if r.assignment}
    assert 2 == len(first)
    world.record.put(a_document(users=2001, duration="20m"))
    world.waits = 0
    status = await settle(world, 30)
    assert 3 == len(world.fleet.runners)
    assert set(first) < set(world.fleet.runners)
    for name, before in first.items():
        assert not before - world.fleet.runners[name].assignment.held, "capacity first: nobody moves"
    assert (2001, 2001) == (status.users.target, status.users.placed)
    assert 2001 == sum(len(r.assignment.held) for r in world.fleet.runners.values() if r.assignment)
    world.record.put(a_document(users=300, duration="20m"))
    world.waits = 0
    status = await settle(world, 30)
    assert 1 == len(world.fleet.runners)
    assert set(world.fleet.runners) < set(first)
    assert 300 == sum(len(r.assignment.held) for r in world.fleet.runners.values() if r.assignment)
    assert 2 == len(world.record.kept)


async def test_a_lost_runner_is_replaced_and_stated() -> None:
    """Its places go to the others at once; the loss is told, and more than 1 % makes the run inconclusive."""
    world = FakeWorld()
    world.record.put(a_document(users=1200, duration="3m"))
    await until(world, "Running")
    await settle(world)
    gone = min(world.fleet.runners)
    del world.fleet.runners[gone]
    await world.look("n", "shop")
    status = await until(world, "Completed")
    assert 1 == status.run.lost_runners
    assert [1] == [text.count(gone) for text in status.accounts.missing]
    assert any(h.reason == "RunnerLost" for h in world.record.happenings)
    assert "Inconclusive" == status.verdict
    assert "RunnersLost" == condition(status, "Passed")[1]


async def test_silence_is_not_loss() -> None:
    """An unreachable runner keeps its places; nobody else takes them."""
    world = FakeWorld()
    world.record.put(a_document(users=1200, duration="20m"))
    await until(world, "Running")
    await settle(world)
    silent = next(iter(world.fleet.runners.values()))
    before = {name: r.assignment.places for name, r in world.fleet.runners.items() if r.assignment}
    silent.silent = True
    status = await settle(world, 5)
    assert before == {name: r.assignment.places for name, r in world.fleet.runners.items() if r.assignment}
    assert ("False", "Unreachable") == condition(status, "RunnersHealthy")


async def test_suspend_and_resume() -> None:
    """Suspended: no user is on, places kept, the clock stands; later the runners go; resume brings all back."""
    world = FakeWorld()
    world.record.put(a_document(duration="5m"))
    await until(world, "Running")
    await settle(world, 15)
    origin = world.status.run.origin
    world.record.put(a_document(duration="5m", suspend=True))
    world.waits = 0
    status = await until(world, "Suspended")
    await settle(world, 3)
    assert 0 == sum(r.active(world.now_ms) for r in world.fleet.runners.values())
    assert 400 == status.users.placed
    await settle(world, 20)
    assert {} == world.fleet.runners
    world.record.put(a_document(duration="5m"))
    world.waits = 0
    status = await until(world, "Running")
    assert status.run.origin > origin
    await settle(world, 20)
    assert 400 == sum(r.active(world.now_ms) for r in world.fleet.runners.values())
    status = await until(world, "Completed", 200)
    assert "Passed" == status.verdict


async def test_created_suspended_starts_nothing() -> None:
    """No Deployment until it is resumed; when the answer is told in full there is no look that nobody asks for."""
    world = FakeWorld()
    world.record.put(a_document(suspend=True))
    while world.waits is not None:
        status = await world.look("n", "shop")
    told = len(world.record.writes)
    assert ["error_rate < 1%"] == [rule.rule for rule in status.rules]
    status = await settle(world)
    assert told == len(world.record.writes)
    assert "Suspended" == status.phase
    assert {} == world.fleet.replicas
    assert world.waits is None


async def test_refused_by_policy_prints_what_would_allow_it() -> None:
    """Phase Failed, reason Refused, no runner; a policy that allows it starts the run."""
    world = FakeWorld(policy=Policy(targets=LOCAL_DEFAULT.targets, max_users=100))
    world.record.put(a_document())
    status = await settle(world, 2)
    assert "Failed" == status.phase
    assert ("False", "Refused") == condition(status, "Accepted")
    assert ("True", "Refused") == condition(status, "Stalled")
    assert "maxUsers: 400" in status.message
    assert {} == world.fleet.replicas
    world.policy = LOCAL_DEFAULT
    assert "Running" == (await until(world, "Running")).phase


async def test_more_runners_than_the_policy_has_are_refused_with_all_that_would_allow_them() -> None:
    """There is no size under the policy; pasted into it, what the refusal prints lets the run begin."""
    world = FakeWorld(policy=Policy(targets=LOCAL_DEFAULT.targets, max_users=100, max_runners=4))
    world.record.put(a_document(users=5000))
    status = await settle(world, 2)
    assert ("False", "Refused") == condition(status, "Accepted")
    text, _, snippet = status.message.partition("A policy with this would allow it:\n")
    assert ["maxUsers: 5000", "maxRunners: 5"] == snippet.splitlines(), text
    world.policy = Policy(targets=LOCAL_DEFAULT.targets, max_users=5000, max_runners=5)
    assert "Running" == (await until(world, "Running")).phase


async def test_a_wrong_edit_leaves_the_run_alone() -> None:
    """Accepted turns False and names the field; the runners keep what they were told; the mended edit goes on."""
    world = FakeWorld()
    world.record.put(a_document(duration="20m"))
    await until(world, "Running")
    await settle(world)
    world.record.put(a_document(duration="20m", archetypes=[]))
    status = await settle(world, 3)
    assert "Running" == status.phase
    assert ("False", "Invalid") == condition(status, "Accepted")
    assert any("archetypes" in c.message for c in status.conditions if c.type == "Accepted")
    assert 400 == sum(len(r.assignment.held) for r in world.fleet.runners.values() if r.assignment)
    world.record.put(a_document(duration="20m", users=450))
    status = await settle(world)
    assert ("True", "Accepted") == condition(status, "Accepted")
    assert 450 == status.users.placed


async def test_a_tightened_policy_ends_the_run() -> None:
    """The same document is refused under a new policy: nothing runs on."""
    world = FakeWorld()
    world.record.put(a_document(duration="20m"))
    await until(world, "Running")
    await settle(world)
    world.policy = Policy(targets=LOCAL_DEFAULT.targets, max_users=100)
    status = await settle(world)
    assert "Failed" == status.phase
    assert {} == world.fleet.runners


async def test_commands() -> None:
    """stop ends the run early and is answered once; rerun begins the next; an unknown one is refused by name."""
    world = FakeWorld()
    world.record.put(a_document(duration="20m"))
    await until(world, "Running")
    await settle(world, 20)
    _command(world, '{"id": "1", "action": "explode"}')
    status = await settle(world, 2)
    assert ("1", "Refused") == (status.last_command.id, status.last_command.result)
    _command(world, '{"id": "2", "action": "stop"}')
    status = await until(world, "Completed")
    assert ("2", "Done") == (status.last_command.id, status.last_command.result)
    assert "stopped by command" == status.run.stop
    _command(world, '{"id": "3", "action": "rerun"}')
    status = await until(world, "Running")
    assert 2 == status.run.id
    assert status.verdict is None


def _command(world: FakeWorld, text: str) -> None:
    document = world.record.documents["n", "shop"]
    metadata = {**document["metadata"], "annotations": {"trafficsim.io/command": text}}
    world.record.put({**document, "metadata": metadata})
    world.waits = 0


async def test_run_request_starts_the_next_run() -> None:
    """Any new string starts the next run after a finished one, also across restarts of the operator."""
    world = FakeWorld()
    world.record.put(a_document(runRequest="one"))
    await until(world, "Completed")
    world.record.put(a_document(runRequest="two"))
    world.waits = 0
    assert 2 == (await until(world, "Running")).run.id
    assert 2 == (await until(world, "Completed")).run.id


class ConflictingRecord(FakeRecord):
    """A record that somebody else always writes first."""

    async def write(self, document: Document, status: Status) -> None:
        """Refuse."""
        raise Conflict


async def test_a_conflict_does_nothing() -> None:
    """Intent first: when the status can't be written, no action is carried out and it is looked at again soon."""
    world = FakeWorld(record=ConflictingRecord())
    world.record.put(a_document())
    await world.look("n", "shop")
    assert {} == world.fleet.replicas
    assert [] == world.record.happenings
    assert world.waits is not None
    assert world.waits <= 1000


async def test_runners_that_never_start_fail_with_the_cause() -> None:
    """After the deadline the phase is Failed, the pod's cause is named, nothing is left running."""
    world = FakeWorld()
    world.record.put(a_document())
    world.fleet.problem = "exceeded quota: pods"
    await world.look("n", "shop")
    for runner in world.fleet.runners.values():
        runner.ready_after_ms = 10**9
    status = Status()
    for _ in range(2000):
        status = await world.look("n", "shop")
        for runner in world.fleet.runners.values():
            runner.ready_after_ms = 10**9
        if status.phase == "Failed":
            break
    assert ("True", "StartTimeout") == condition(status, "Stalled")
    assert "exceeded quota: pods" in status.message
    await settle(world, 3)
    assert {} == world.fleet.runners


async def test_an_operator_that_forgot_everything_goes_on() -> None:
    """A restart loses the ledgers; the status and the runners hold all that is needed. All are told the same, once."""
    world = FakeWorld()
    world.record.put(a_document(users=1200))
    await until(world, "Running")
    await settle(world, 20)
    held = {name: r.assignment.held for name, r in world.fleet.runners.items() if r.assignment}
    epoch = world.status.epoch
    world.world.ledgers = type(world.world.ledgers)()
    await settle(world, 5)
    assert held == {name: r.assignment.held for name, r in world.fleet.runners.items() if r.assignment}
    assert [epoch + 1] * 2 == [r.assignment.epoch for r in world.fleet.runners.values() if r.assignment]
    assert "Passed" == (await until(world, "Completed")).verdict


async def test_epochs_survive_a_lost_status() -> None:
    """With the status gone, epochs go on from what the runners acknowledge."""
    world = FakeWorld()
    world.record.put(a_document(users=1200))
    await until(world, "Running")
    await settle(world)
    highest = world.status.epoch
    document = world.record.documents["n", "shop"]
    world.record.documents["n", "shop"] = {**document, "status": {}}
    await settle(world)
    assert world.status.epoch > highest


async def test_decide_is_a_function() -> None:
    """The same world, twice: the same decision."""
    world = FakeWorld()
    world.record.put(a_document())
    await settle(world, 5)
    document = await world.record.read("n", "shop")
    assert document is not None
    desired = read(document)
    observed = await observe(desired, document, world.world)
    assert isinstance(observed, Observed)
    assert decide(desired, observed, world.now_ms) == decide(desired, observed, world.now_ms)


async def test_losses_survive_a_restart_of_the_operator() -> None:
    """The lost runner's account is kept on record, its loss in the status."""
    world = FakeWorld()
    world.record.put(a_document(users=1200, duration="10m"))
    await until(world, "Running")
    await settle(world, 15)
    del world.fleet.runners[min(world.fleet.runners)]
    status = await settle(world, 10)
    assert 1 == status.run.lost_runners
    before = status.accounts
    world.world.ledgers = type(world.world.ledgers)()
    status = await settle(world, 5)
    assert 1 == status.run.lost_runners
    assert before.missing == status.accounts.missing
    assert status.accounts.requests >= before.requests


async def test_a_silent_runner_keeps_its_places_over_a_restart() -> None:
    """Who was never heard may hold what seems missing: nothing is dealt twice."""
    world = FakeWorld()
    world.record.put(a_document(users=1200, duration="10m"))
    await until(world, "Running")
    await settle(world)
    before = {name: r.assignment.held for name, r in world.fleet.runners.items() if r.assignment}
    world.fleet.runners[max(world.fleet.runners)].silent = True
    world.world.ledgers = type(world.world.ledgers)()
    await settle(world, 5)
    assert before == {name: r.assignment.held for name, r in world.fleet.runners.items() if r.assignment}


async def test_a_name_that_does_not_resolve_for_a_moment_stops_nothing() -> None:
    """No assignment goes out by which the runners might connect nowhere."""
    world = FakeWorld()
    world.record.put(a_document(duration="10m"))
    await until(world, "Running")
    await settle(world)
    before = {name: r.assignment for name, r in world.fleet.runners.items()}
    world.fleet.unresolved = "no address for shop"
    await settle(world, 5)
    assert before == {name: r.assignment for name, r in world.fleet.runners.items()}


async def test_a_run_goes_on_by_what_was_accepted_while_an_edit_is_refused() -> None:
    """Replacements come, commands are answered, and the end comes in time with a verdict."""
    world = FakeWorld()
    world.record.put(a_document(users=1200))
    await until(world, "Running")
    await settle(world)
    world.record.put(a_document(users=1200, archetypes=[]))
    world.waits = 0
    await settle(world, 3)
    del world.fleet.runners[min(world.fleet.runners)]
    await settle(world, 20)
    assert 1200 == sum(len(r.assignment.held) for r in world.fleet.runners.values() if r.assignment)
    status = await until(world, "Completed", 200)
    assert status.verdict is not None
    assert ("False", "Invalid") == condition(status, "Accepted")


async def test_a_refused_edit_after_a_restart_still_ends() -> None:
    """This operator never saw what was accepted: the runners go on, a stop ends them, and the verdict says why."""
    world = FakeWorld()
    world.record.put(a_document(duration="10m"))
    await until(world, "Running")
    await settle(world)
    world.record.put(a_document(duration="10m", archetypes=[]))
    world.world.ledgers = type(world.world.ledgers)()
    world.waits = 0
    assert "Running" == (await settle(world, 3)).phase
    _command(world, '{"id": "9", "action": "stop"}')
    status = await until(world, "Completed", 5)
    assert ("9", "Done") == (status.last_command.id, status.last_command.result)
    assert "Inconclusive" == status.verdict
    await settle(world, 3)
    assert {} == world.fleet.runners


async def test_an_edit_of_the_profile_plans_what_was_asked_for() -> None:
    """Half the users for half the time, then all: the plan is of both, and nothing counts as lost."""
    world = FakeWorld()
    half, full = ([{"ramp": {"to": to, "over": "0s"}}, {"hold": {"for": "1h"}}] for to in ("50%", "100%"))
    world.record.put(a_document(duration="4m", profile=half))
    await until(world, "Running")
    for _ in range(24):
        await world.look("n", "shop")
    world.record.put(a_document(duration="4m", profile=full))
    world.waits = 0
    status = await until(world, "Completed", 200)
    assert "Passed" == status.verdict, status.verdict_reason
    assert status.run.lost_user_ms <= status.run.planned_user_ms // 100
    assert 200 * 240_000 < status.run.planned_user_ms < 400 * 240_000


async def test_suspended_for_long_costs_nothing() -> None:
    """While there are runners, a look every five seconds; once they are let go, none that nobody asks for."""
    world = FakeWorld()
    world.record.put(a_document(duration="5m"))
    await until(world, "Running")
    await settle(world)
    world.record.put(a_document(duration="5m", suspend=True))
    world.waits = 0
    await settle(world, 6)
    assert {} != world.fleet.runners
    assert 5000 == world.waits
    await settle(world, 24)
    assert {} == world.fleet.runners
    assert world.waits is None


async def test_a_lost_status_in_a_later_run() -> None:
    """Runs are numbered on from what the runners know, or they would refuse everything."""
    world = FakeWorld()
    world.record.put(a_document(runRequest="one"))
    await until(world, "Completed")
    world.record.put(a_document(runRequest="two", duration="10m"))
    world.waits = 0
    await until(world, "Running")
    await settle(world)
    document = world.record.documents["n", "shop"]
    world.record.documents["n", "shop"] = {**document, "status": {}}
    world.waits = 0
    status = await until(world, "Running")
    await settle(world)
    assert 3 == status.run.id
    assert {3} == {r.assignment.run for r in world.fleet.runners.values() if r.assignment}


async def test_stop_before_it_began() -> None:
    """A stop in Preflight ends the run; nothing starts afterwards."""
    world = FakeWorld()
    world.record.put(a_document())
    await world.look("n", "shop")
    _command(world, '{"id": "1", "action": "stop"}')
    status = await until(world, "Completed")
    await settle(world, 5)
    assert "Inconclusive" == status.verdict
    assert {} == world.fleet.runners


async def test_surplus_runners_that_never_started_are_let_go() -> None:
    """2001 → 400 while the pods for 2001 could not start: one is left."""
    world = FakeWorld()
    world.record.put(a_document(users=900, duration="20m"))
    await until(world, "Running")
    await settle(world)
    world.record.put(a_document(users=2001, duration="20m"))
    world.waits = 0
    for _ in range(5):
        await world.look("n", "shop")
        for runner in world.fleet.runners.values():
            if runner.assignment is None:
                runner.ready_after_ms = 10**9
    assert 900 == world.status.users.dealt
    world.record.put(a_document(users=400, duration="20m"))
    world.waits = 0
    await settle(world, 40)
    assert [1] == list(world.fleet.replicas.values())
    assert 400 == sum(len(r.assignment.held) for r in world.fleet.runners.values() if r.assignment)


async def test_a_clock_that_is_off_is_allowed_for() -> None:
    """A runner five seconds ahead is told instants in its own clock."""
    world = FakeWorld()
    world.record.put(a_document(users=1200, duration="10m"))
    await settle(world, 2)
    ahead = world.fleet.runners[min(world.fleet.runners)]
    ahead.clock_ahead_ms = 5000
    await until(world, "Running")
    await settle(world)
    other = world.fleet.runners[max(world.fleet.runners)]
    assert ahead.assignment.start_at_ms - other.assignment.start_at_ms == 5000


async def test_the_status_stays_within_its_bounds() -> None:
    """However many rules, however long the template: at most 16 KiB."""
    world = FakeWorld(policy=Policy(targets=LOCAL_DEFAULT.targets, max_users=100))
    rules = [{"rule": f"p95({'a' * 100}) < {n}ms over {n}s"} for n in range(1, 33)]
    flow = [{"action": "a" * 100, "request": {"get": "/"}}]
    runner = {"env": [{"name": f"V{n}", "value": "x" * 60} for n in range(40)]}
    spec = {"thresholds": rules, "runner": runner, "archetypes": [{"name": "a", "flow": flow}]}
    world.record.put(a_document(**spec))
    await settle(world, 2)
    world.policy = LOCAL_DEFAULT
    await until(world, "Completed")
    assert max(size_of(write) for write in world.record.writes) <= LIMIT


async def test_what_a_runner_cannot_work_on_is_said() -> None:
    """A runner that reports a problem makes RunnersHealthy false, with its own words."""
    world = FakeWorld()
    world.record.put(a_document(duration="10m"))
    await until(world, "Running")
    await settle(world)
    world.fleet.runners[min(world.fleet.runners)].problem = "the policy does not allow delete"
    status = await settle(world, 3)
    assert ("False", "RunnersFailing") == condition(status, "RunnersHealthy")
    assert "the policy does not allow delete" in next(
        c.message for c in status.conditions if c.type == "RunnersHealthy"
    )
