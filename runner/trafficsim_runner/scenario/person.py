"""Who a scenario's user is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trafficsim_runner.scenario.play import Play

__all__ = ["Person"]


class Person:
    """The user that a scenario is at work for: the same facts that templates of a flow look up."""

    __slots__ = ("_play",)

    def __init__(self, play: Play) -> None:
        self._play = play

    @property
    def id(self) -> int:
        """Return the user's number, 0 … users-1; in the open model that of the place that took the arrival."""
        return self._play.user.place

    @property
    def archetype(self) -> str:
        """Return the name of the user's archetype, as it was when its iteration began."""
        return self._play.archetype

    @property
    def iteration(self) -> int:
        """Return how often this user has begun anew, from 0."""
        return self._play.user.iteration
