"""
Pooled connections in the sizing: what a runner's pools may hold must be allowed, and suffice for its processes.

    sum of max over the groups of the requests ≤ the policy's connections of a runner
    max of each group ≥ worker processes of a runner: each has a connection at least, none leaves its users waiting
"""

from __future__ import annotations

from collections.abc import Mapping

from trafficsim_api.connections import Pool, pools_for
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.resource import TrafficSimulationSpec

__all__ = ["check_processes", "pools_in", "total_of"]


def pools_in(spec: TrafficSimulationSpec, connections: int) -> dict[str, Pool]:
    """
    Return the pools of *spec*, none unless its connections are pooled.

    Raises SpecError naming the largest group's max when they are more than *connections* together.
    """
    pools = pools_for(spec.connections, spec.archetypes)
    total = total_of(pools)
    if total > connections:
        largest = max(pools.values(), key=lambda pool: pool.most)
        terms = " + ".join(f"{pool.group} {pool.most}" for pool in pools.values())
        sum_of = terms if len(pools) == 1 else f"{terms} = {total}"
        reason = f"{sum_of} connections of a runner are more than the policy's {connections}"
        raise SpecError(Problem(field=_field(largest), reason=reason))
    return pools


def check_processes(pools: Mapping[str, Pool], processes: int) -> None:
    """Raise SpecError when a group has fewer connections than a runner has *processes*."""
    short = [pool for pool in pools.values() if pool.most < processes]
    if short:
        raise SpecError(
            *(
                Problem(
                    field=_field(pool),
                    reason=f"{pool.most} is less than one for each of a runner's {processes} worker processes; set it "
                    f"to {processes} or more, or scaling.maxProcesses to {pool.most}",
                )
                for pool in short
            )
        )


def total_of(pools: Mapping[str, Pool]) -> int:
    """Return how many connections *pools* may hold together."""
    return sum(pool.most for pool in pools.values())


def _field(pool: Pool) -> str:
    return f"connections.groups.{pool.group}.max"
