"""
The contract of fleets, as tests: a module with a `fleet_stand` fixture takes them in by `class TestX(FleetContract)`.

What happens in a fleet takes time; a test looks again and again, with a deadline, as reconcile does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trafficsim_api.flow import Archetype
from trafficsim_api.protocol import Assignment, Limits, Load
from trafficsim_api.resource import Runner as Template
from trafficsim_api.target import Target
from trafficsim_operator.actions import EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.fleet import Fleet, Owner
from trafficsim_operator.fleet.runners import Runners, Signer, Way
from trafficsim_operator.observed import RevisionSeen, RunnerState

REVISION = "0a1b2c3d"
OTHER = "4e5f6071"


class KillRunner(Protocol):
    """Kill the runner of that name, the hard way."""

    def __call__(self, name: str) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStand:
    """
    A fleet to be tested, whose runners it makes, how to kill one, and the *signer* whose key they trust.

    *patience_s* bounds every wait.
    """

    fleet: Fleet
    owner: Owner
    stranger: Owner
    kill: KillRunner
    signer: Signer
    patience_s: float = 30.0
    way: Way | None = None
    """The way to its runners; None: the network."""

    async def seen(self, revision: str = REVISION) -> RevisionSeen | None:
        """Return the revision as the fleet shows it now."""
        return (await self.fleet.observe(self.owner)).get(revision)

    async def until(self, holds: Callable[[RevisionSeen | None], bool], revision: str = REVISION) -> RevisionSeen:
        """Look until *holds*, and return what was seen then."""
        seen = None
        try:
            async with asyncio.timeout(self.patience_s):
                while True:
                    seen = await self.seen(revision)
                    if holds(seen):
                        return seen or RevisionSeen(revision=revision, replicas=0)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"not within {self.patience_s} s; last seen: {seen}") from None

    async def ensure(self, replicas: int, revision: str = REVISION, template: Mapping[str, Any] | None = None) -> None:
        """Ask for *replicas* runners."""
        action = EnsureRevision(revision=revision, template=template or a_template(), replicas=replicas, reason="test")
        await self.fleet.apply(self.owner, action)

    async def ready(self, count: int, revision: str = REVISION) -> RevisionSeen:
        """Wait until exactly *count* runners live and all are ready."""
        return await self.until(lambda seen: states(seen) == [RunnerState.READY] * count, revision)

    async def drain(self, name: str) -> None:
        """Tell the runner *name* to retire, as reconcile does, and wait until it has drained and is unready."""
        seen = await self.seen()
        [runner] = [runner for runner in seen.runners if runner.name == name] if seen else []
        now_ms = time.time_ns() // 1_000_000
        archetype = Archetype.model_validate({"name": "one", "flow": ({"request": {"get": "/"}},)})
        assignment = Assignment(
            simulation=self.owner.uid, run=1, runner=runner.uid, revision=REVISION, epoch=1, users=0, places=(),
            processes=1, start_at_ms=now_ms, warm_up_ms=0, end_ms=now_ms + 3_600_000, retire=True,
            load=Load(target=Target(url="http://127.0.0.1:9"), archetypes=(archetype,)), limits=Limits(targets=()),
        )  # fmt: skip
        runners = Runners(signer=self.signer, way=self.way)
        try:
            await runners.assign(runner.address or "", assignment)
        finally:
            await runners.aclose()

        def is_drained(seen: RevisionSeen | None) -> bool:
            found = [runner.state for runner in seen.runners if runner.name == name] if seen else []
            return found == [RunnerState.UNREADY]

        await self.until(is_drained)


def states(seen: RevisionSeen | None) -> list[RunnerState]:
    """Return the states of the runners, none for no revision."""
    return [runner.state for runner in seen.runners] if seen else []


def names(seen: RevisionSeen) -> set[str]:
    """Return the names of the runners."""
    return {runner.name for runner in seen.runners}


def a_template(**changes: Any) -> dict[str, Any]:
    """Return a normalised `spec.runner` of a small runner."""
    resources = {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "500m", "memory": "256Mi"}}
    template = Template.model_validate({"resources": resources, **changes}, by_alias=True)
    return template.model_dump(mode="json", by_alias=True, exclude_none=True)


class FleetContract:
    """What reconcile relies on, whatever the runners are."""

    async def test_nothing_exists_before_it_is_asked_for(self, fleet_stand: FleetStand) -> None:
        assert {} == dict(await fleet_stand.fleet.observe(fleet_stand.owner))

    async def test_runners_come_up_ready_with_address_and_identity(self, fleet_stand: FleetStand) -> None:
        await fleet_stand.ensure(2)
        seen = await fleet_stand.ready(2)
        assert 2 == seen.replicas
        assert len({runner.uid for runner in seen.runners}) == len({runner.address for runner in seen.runners}) == 2
        assert {REVISION} == {runner.revision for runner in seen.runners}
        assert all(runner.started_ms > 0 for runner in seen.runners)

    async def test_a_repeat_changes_nothing(self, fleet_stand: FleetStand) -> None:
        await fleet_stand.ensure(1)
        before = await fleet_stand.ready(1)
        await fleet_stand.ensure(1)
        assert names(before) == names(await fleet_stand.ready(1))

    async def test_growing_keeps_those_that_live(self, fleet_stand: FleetStand) -> None:
        await fleet_stand.ensure(1)
        before = await fleet_stand.ready(1)
        await fleet_stand.ensure(2)
        assert names(before) < names(await fleet_stand.ready(2))

    async def test_a_killed_runner_is_replaced(self, fleet_stand: FleetStand) -> None:
        await fleet_stand.ensure(1)
        before = await fleet_stand.ready(1)
        await fleet_stand.kill(before.runners[0].name)

        def is_another(seen: RevisionSeen | None) -> bool:
            if states(seen) != [RunnerState.READY] or seen is None:
                return False
            now, then = seen.runners[0], before.runners[0]
            return (now.uid, now.restarts) != (then.uid, then.restarts)

        await fleet_stand.until(is_another)

    async def test_retiring_takes_away_whom_it_names(self, fleet_stand: FleetStand) -> None:
        """Once they were told to retire and have drained, exactly those go, whoever is the youngest; no other comes."""
        await fleet_stand.ensure(3)
        runners = (await fleet_stand.ready(3)).runners
        going, staying = {runners[0].name, runners[1].name}, {runners[2].name}
        for name in going:
            await fleet_stand.drain(name)
        retire = Retire(revision=REVISION, runners=tuple(going), replicas=1, reason="test")
        await fleet_stand.fleet.apply(fleet_stand.owner, retire)
        await fleet_stand.fleet.apply(fleet_stand.owner, retire)
        left = await fleet_stand.until(lambda seen: seen is not None and names(seen) == staying)
        assert 1 == left.replicas

    async def test_to_nothing_and_back(self, fleet_stand: FleetStand) -> None:
        await fleet_stand.ensure(1)
        before = await fleet_stand.ready(1)
        await fleet_stand.ensure(0)
        await fleet_stand.until(lambda seen: states(seen) == [])
        await fleet_stand.ensure(1)
        assert names(before).isdisjoint(names(await fleet_stand.ready(1)))

    async def test_two_revisions_live_side_by_side_and_one_is_removed(self, fleet_stand: FleetStand) -> None:
        await fleet_stand.ensure(1)
        await fleet_stand.ensure(1, OTHER, a_template(env=({"name": "COLOUR", "value": "green"},)))
        await fleet_stand.ready(1)
        await fleet_stand.ready(1, OTHER)
        remove = RemoveRevision(revision=OTHER, reason="test")
        await fleet_stand.fleet.apply(fleet_stand.owner, remove)
        await fleet_stand.until(lambda seen: seen is None, OTHER)
        await fleet_stand.fleet.apply(fleet_stand.owner, remove)
        await fleet_stand.ready(1)

    async def test_a_stranger_sees_nothing(self, fleet_stand: FleetStand) -> None:
        await fleet_stand.ensure(1)
        await fleet_stand.ready(1)
        assert {} == dict(await fleet_stand.fleet.observe(fleet_stand.stranger))
