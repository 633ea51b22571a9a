"""A world of fakes in which users take CPU, so that its runners follow their load: 20 users take 70 % of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from driven.rollouts import a_world
from trafficsim_api.status import ScalingStatus, Status
from trafficsim_operator.testing.fakes import FakeHealth, FakeWorld

__all__ = ["AT_QUOTA", "USERS", "Loaded", "a_loaded_world", "scaling_of", "wanted", "with_wanted"]

AT_QUOTA: Final = 29  # users
USERS: Final = 60


class Loaded(dict[str, FakeHealth]):
    """The health of every version: users take CPU. Of the runners made from now on *room* find a node."""

    def __init__(self, *, room: int | None = None) -> None:
        super().__init__()
        self._room = room

    def setdefault(self, revision: str, default: FakeHealth | None = None) -> FakeHealth:
        if self._room is None:
            return super().setdefault(revision, FakeHealth(tells=True, users_at_quota=AT_QUOTA))
        self._room -= 1
        problem = "Unschedulable: 0/1 nodes" if self._room < 0 else ""
        return FakeHealth(tells=True, users_at_quota=AT_QUOTA, problem=problem)


def a_loaded_world() -> FakeWorld:
    """Build a world whose runners find nodes, and use CPU."""
    world = a_world()
    world.fleet.health = Loaded()
    return world


def scaling_of(status: Status) -> ScalingStatus:
    """Return how its runners follow the load."""
    assert status.scaling is not None
    return status.scaling


def wanted(status: Status, number: int = 0) -> int:
    """Return the runners that a version is to have: the stable one first."""
    return scaling_of(status).versions[number].wanted


def with_wanted(count: int) -> Callable[[Status], bool]:
    """Return whether the stable version is to have so many runners."""
    return lambda status: status.scaling is not None and wanted(status) == count
