"""
Random histories of one simulation: edits, losses, silence, conflicts, a forgetful operator. Whatever happens, nobody is
on twice but in a move, epochs only rise, and once the world is quiet everybody is on and nothing more is done.
"""

from collections import Counter
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.plan.places import max_over
from trafficsim_operator.store import Conflict, Document
from trafficsim_operator.testing.fakes import FakeRecord, FakeWorld


class ContestedRecord(FakeRecord):
    """A record whose next writes may be lost to somebody else's."""

    contested = 0

    async def write(self, document: Document, status: Any) -> None:
        """Refuse while contested."""
        if self.contested > 0:
            self.contested -= 1
            raise Conflict
        await super().write(document, status)


def a_document(users: int, *, suspend: bool = False, **extra: Any) -> dict[str, Any]:
    """Build a document whose runners hold ten users each."""
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", "namespace": "n"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": users,
            "suspend": suspend,
            "profile": [{"hold": {"for": "1s"}}, {"ramp": {"to": "100%", "over": "1s"}}],
            "scaling": {"usersPerProcess": 10, "maxProcesses": 1},
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}, {"think": {"constant": "1s"}}]}],
        }
        | extra,
    }


def holding(world: FakeWorld) -> Counter[int]:
    """Return how many runners hold each place."""
    return Counter(
        place
        for r in world.fleet.runners.values()
        if r.assignment and not r.assignment.retire
        for place in r.assignment.held
    )


EVENTS = st.sampled_from(["look"] * 4 + ["edit", "lose", "silence", "speak", "conflict", "forget", "suspend", "resume"])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(EVENTS, st.integers(1, 60)), max_size=25))
@example([("look", 1)] * 7 + [("edit", 1), ("suspend", 1)])  # runners that were still to go when it was suspended
async def test_whatever_happens(history: list[tuple[str, int]]) -> None:
    """The invariants of the module's docstring, over one history."""
    record = ContestedRecord()
    world = FakeWorld(record=record)
    users, suspended = 30, False
    record.put(a_document(users))
    epochs: dict[str, int] = {}

    async def look() -> None:
        world.waits = min(world.waits or 1000, 1000)
        await world.look("n", "shop")
        for name, runner in world.fleet.runners.items():
            if runner.assignment is not None:
                assert runner.assignment.epoch >= epochs.get(name, 0)
                epochs[name] = runner.assignment.epoch
                assert len(runner.assignment.held) <= 10 + max_over(60)
        # A silent runner may still hold what was dealt above T or elsewhere before it fell silent.
        if not any(r.silent for r in world.fleet.runners.values()):
            assert sum(count - 1 for count in holding(world).values()) <= max_over(60)

    for event, number in history:
        names = sorted(world.fleet.runners)
        match event:
            case "edit":
                users = number
            case "lose" if names:
                del world.fleet.runners[names[number % len(names)]]
            case "silence" if names:
                world.fleet.runners[names[number % len(names)]].silent = True
            case "speak":
                for runner in world.fleet.runners.values():
                    runner.silent = False
            case "conflict":
                record.contested = 1
            case "forget":
                world.world.ledgers = Ledgers()
            case "suspend" | "resume":
                suspended = event == "suspend"
        if event in ("edit", "suspend", "resume"):
            record.put(a_document(users, suspend=suspended))
        await look()
    for runner in world.fleet.runners.values():
        runner.silent = False
    record.put(a_document(users))
    for _ in range(150):
        await look()
        if world.status.users.active == users == world.status.users.placed and world.waits == 5000:
            break
    assert "Running" == world.status.phase
    assert dict.fromkeys(range(users), 1) == dict(holding(world))
    assert users == sum(r.active(world.now_ms) for r in world.fleet.runners.values())
    assert world.status.users.placed == users
    assert -(-users // 10) == len(world.fleet.runners) or world.status.tier != "micro"
    await look()
    told = {name: r.assignment for name, r in world.fleet.runners.items()}
    happenings = len(record.happenings)
    for _ in range(5):
        await look()
    assert told == {name: r.assignment for name, r in world.fleet.runners.items()}, "nothing more is done"
    assert happenings == len(record.happenings)
