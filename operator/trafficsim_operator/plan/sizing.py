"""
Sizing: from users to runners and processes.

    pmax       = max(1, min(⌊2·cpu⌋, maxProcesses))
    perProcess = min(usersPerProcess, ⌊(memory - 64 MiB·(pmax+1)) ÷ pmax ÷ (2 KiB, + 36 KiB with TLS, per user)⌋)
    capacity   = min(pmax·perProcess, connections)              each user holds its own connection
    pooled     : TLS takes its 36 KiB for each connection of the pools instead, capacity = pmax·perProcess (pools.py)
    runners    = max(tier's least, ⌈T ÷ capacity⌉), clamped to minRunners … maxRunners
    n          = ⌈T ÷ runners⌉;  floor = 1 micro · min(2, ⌈cpu⌉) small · ⌈cpu⌉ else
    processes  = min(pmax, n, max(floor, ⌈n ÷ perProcess⌉))     within a run it only rises

Default runner (2 cores, 1 GiB): users 1·50·51·300·500·501·1200·2000·2001·5000·5001·12000
→ runners 1·1·1·1·1·2·2·2·3·5·6·12, processes 1·1·2·2·2·2·2·2·2·2·2·2.
Where all runners share one machine, worker processes in total stay within its cores (at least one a runner); in a
rollout those of each version by itself, so that both can carry all users alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.plan.pools import check_processes, pools_in, total_of
from trafficsim_operator.plan.tiers import Tier, tier_of

__all__ = ["MIB", "Sizing", "most_here", "size"]

MIB: Final = 2**20
_PROCESS_BYTES: Final = 64 * MIB
_USER_BYTES: Final = 2048
_TLS_BYTES: Final = 36 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """Each term of the sizing; *runners* and *processes* (per runner) are what comes of it."""

    users: int
    tier: Tier | None
    cpu_millicores: int
    memory: int
    most_processes: int
    per_process: int
    connections: int
    pooled: int | None
    """What a runner's pools may hold; None: each user has its own connection."""
    capacity: int
    needed: int
    max_runners: int | None
    runners: int
    users_per_runner: int
    processes: int
    scaled: str = ""
    """Why there are other *runners* than users, tier and capacity ask for."""

    @property
    def reason(self) -> str:
        """Return in one sentence how the runners came about."""
        if self.scaled:
            return self.scaled
        if self.tier is None:
            return "0 users need no runner"
        by_capacity = -(-self.users // self.capacity)
        if self.runners > self.needed:
            return f"scaling.minRunners asks for {self.runners}"
        if by_capacity >= self.tier.least_runners:
            who = "1 user at" if self.users == 1 else f"{self.users} users at"
            return f"{who} {self.capacity} a runner {'needs' if self.users == 1 else 'need'} {by_capacity}"
        return f"tier {self.tier.name} has at least {self.tier.least_runners}"


def size(
    spec: TrafficSimulationSpec, *, connections: int, policy_max_runners: int | None = None, cores: int | None = None,
    processes_held: int = 0,
) -> Sizing:  # fmt: skip
    """
    Return the sizing of *spec* with at most *connections* open per runner; a runner has *processes_held* already.

    Raises SpecError naming the field when a runner can't hold one user, maxRunners is too small, or pools of
    connections are too large or too small.
    """
    resources, scaling = spec.runner.resources, spec.scaling
    most = max(1, min(2 * resources.cpu // 1000, scaling.max_processes))
    pools = pools_in(spec, connections)
    is_pooled = spec.connections.mode == "pooled"
    per_process = min(scaling.users_per_process, _users_in(spec, most, total_of(pools) if is_pooled else None))
    capacity = most * per_process if is_pooled else min(most * per_process, connections)
    tier = tier_of(spec.users)
    needed = max(tier.least_runners, -(-spec.users // capacity)) if tier else 0
    maximum = min((m for m in (scaling.max_runners, policy_max_runners) if m is not None), default=None)
    by_capacity = -(-spec.users // capacity)
    if maximum is not None and by_capacity > maximum:
        by = "connections" if capacity == connections and not is_pooled else "users"
        who = "scaling.maxRunners" if scaling.max_runners == maximum else "the policy's maxRunners"
        raise SpecError(
            Problem(
                field="users",
                reason=f"{spec.users} need {by_capacity} runners of ≤ {capacity} {by}; {who} is {maximum}",
            )
        )
    runners = max(needed, scaling.min_runners) if tier else 0
    if maximum is not None:
        runners = min(runners, maximum)
    n = -(-spec.users // runners) if runners else 0
    processes = _processes(n, most, per_process, tier, resources.cpu, cores, runners)
    check_processes(pools, max(processes, processes_held))
    return Sizing(
        users=spec.users,
        tier=tier,
        cpu_millicores=resources.cpu,
        memory=resources.memory,
        most_processes=most,
        per_process=per_process,
        connections=connections,
        pooled=total_of(pools) if is_pooled else None,
        capacity=capacity,
        needed=needed,
        max_runners=maximum,
        runners=runners,
        users_per_runner=n,
        processes=processes,
    )


def most_here(sizing: Sizing, cores: int | None) -> int | None:
    """
    Return the most runners that help where all share one machine of so many *cores*; None: each has its own.

        max(static, ⌊cores ÷ processes⌋)

    8 cores and runners of 2 processes: 4. Beyond that, runners would only take each other's CPU.
    """
    return None if cores is None else max(sizing.runners, cores // max(1, sizing.processes))


def _users_in(spec: TrafficSimulationSpec, most: int, pooled: int | None) -> int:
    """Return how many users the memory of one of *most* processes holds; raise SpecError when it is none."""
    memory, is_tls = spec.runner.resources.memory, spec.target.url.startswith("https")
    per_user = _USER_BYTES + (_TLS_BYTES if is_tls and pooled is None else 0)
    shared = _PROCESS_BYTES * (most + 1) + (_TLS_BYTES * (pooled or 0) if is_tls else 0)
    users = (memory - shared) // most // per_user
    if users < 1:
        have, least = memory // MIB, -(-(shared + most * per_user) // MIB)
        raise SpecError(
            Problem(
                field="runner.resources.limits.memory",
                reason=f"{have}Mi leave no room for a user beside {most} processes; at least {least}Mi are needed",
            )
        )
    return users


def _processes(
    n: int, most: int, per_process: int, tier: Tier | None, cpu: int, cores: int | None, runners: int
) -> int:
    if tier is None:
        return 0
    whole_cores = -(-cpu // 1000)
    floor = {"micro": 1, "small": min(2, whole_cores)}.get(tier.name, whole_cores)
    processes = min(most, n, max(floor, -(-n // per_process)))
    return processes if cores is None else max(1, min(processes, cores // runners), -(-n // per_process))
