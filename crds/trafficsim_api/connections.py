"""The users' connections to the target."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import model_validator

from trafficsim_api.model import Model, fault
from trafficsim_api.units import Duration

__all__ = ["Connections"]


class Connections(Model):
    """How users are connected to the target."""

    mode: Literal["perUser"] = "perUser"
    """perUser: each user has a connection of its own, and keeps it."""
    max_age: Duration = timedelta(minutes=5)
    """A connection this old, give or take 20 %, is closed between two requests; the next one opens another."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(seconds=1) <= self.max_age <= timedelta(days=1):
            raise fault("maxAge", "from 1s to 24h is needed")
        return self
