"""The assignment in force, and what of it each worker is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trafficsim_api.connections import pools_for, pools_of
from trafficsim_api.places import Places
from trafficsim_api.protocol import Assignment
from trafficsim_api.turns import within
from trafficsim_runner.division import pool_limits, pool_shares, shares
from trafficsim_runner.health.load import share_of_cores

__all__ = ["Held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """
    An assignment with its *load* as JSON, as it came; *origin_ns* is the run's start as a monotonic instant.

    *rows* are the files with the rows of each feeder.
    """

    assignment: Assignment
    load: Mapping[str, Any]
    origin_ns: int
    rows: Mapping[str, str] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, int]:
        """Return what assignments are ordered by."""
        return self.assignment.run, self.assignment.epoch

    @property
    def places(self) -> Places:
        """Return the places to work on: none when retiring."""
        given = self.assignment
        return Places() if given.retire else given.held.below(given.users)

    @property
    def warm_up_end_ns(self) -> int:
        """Return when the warm-up ends."""
        return self.origin_ns + self.assignment.warm_up_ms * 1_000_000

    @property
    def end_ns(self) -> int:
        """Return when the runner drains alone."""
        return self.origin_ns + (self.assignment.end_ms - self.assignment.start_at_ms) * 1_000_000

    def _pools(self, weights: Sequence[int]) -> list[dict[str, tuple[int, int]]]:
        """
        Return the most and the least connections of each group's pool, for each worker; nothing unless pooled.

        The entry "" is for a group that no action of the load has.
        """
        load = self.assignment.load
        pools = pools_for(load.connections, load.archetypes)
        found: list[dict[str, tuple[int, int]]] = [{} for _ in weights]
        otherwise = pools_of(load.connections, ("user",)).get("user")
        for name, pool in (pools if otherwise is None else {**pools, "": otherwise}).items():
            parts = zip(pool_shares(pool.most, weights), shares(pool.least, weights), strict=True)
            for worker, part in zip(found, parts, strict=True):
                worker[name] = part
        return found

    def message(
        self, division: Sequence[Places], index: int, giving: Sequence[Places] = (), cores: int = 1000
    ) -> dict[str, Any]:
        """
        Return what worker number *index* of *division* is told: its places, and its exact share of the limits.

        *giving* are the places given away whose arrivals each worker still begins, *cores* the runner's quota
        (millicores).
        """
        given = self.assignment
        still = giving[index] if index < len(giving) else Places()
        weights = [len(places) + (len(giving[i]) if i < len(giving) else 0) for i, places in enumerate(division)]
        limits = given.limits.model_dump(mode="json", exclude_none=True)
        pools = self._pools(weights)
        pooled = [sum(most for name, (most, _) in worker.items() if name) for worker in pools]
        limits["connections"] = pool_limits(given.limits.connections, pooled, weights)[index]
        limits["concurrency"] = shares(given.limits.concurrency, weights)[index]
        return {"assign": {
            "run": given.run, "epoch": given.epoch, "users": given.users, "places": division[index].to_lists(),
            "origin_ns": self.origin_ns, "warm_up_ms": given.warm_up_ms, "end_ns": self.end_ns,
            "suspended": given.suspended, "load": self.load, "limits": limits,
            "pools": pools[index],
            "rows": self.rows,
            "cores": share_of_cores(cores, len(division)),
            "takes": [turn.model_dump(mode="json") for turn in within(given.takes, division[index] | still)],
            "gives": [turn.model_dump(mode="json") for turn in within(given.gives, still)],
        }}  # fmt: skip
