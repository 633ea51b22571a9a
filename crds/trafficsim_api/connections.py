"""
The users' connections to the target: one for each user, or pools shared by endpoint group.

    group   max   idle   keepAlive   priority          min = max ÷ 10, at least 1
    auth     50    30s   yes         high              connect 1s, wait 3s
    user    200    60s   yes         medium            heartbeat 60s with keepAlive, else none
    bulk    100   120s   no          low               any other group: as `user`
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from trafficsim_api.flow import Archetype, actions_of
from trafficsim_api.model import NAME, Model, fault
from trafficsim_api.units import Duration, milliseconds

__all__ = [
    "BUILT_IN",
    "POOL_FIGURES",
    "Connections",
    "Pool",
    "PoolGroup",
    "Priority",
    "added_pools",
    "pool_gauges",
    "pools_for",
    "pools_of",
    "pools_told",
]

POOL_FIGURES: Final = ("size", "used", "waiting", "max", "most", "waits", "wait_us", "longest_us", "dropped")
"""
What is told of a pool: its open connections, those of them in use, the requests that wait, its max, and since the run
began the most open at a time, how many requests waited, how long in all and at most, and how many were dropped for it.
"""

Priority = Literal["high", "medium", "low"]

CONNECT: Final = timedelta(seconds=1)
WAIT: Final = timedelta(seconds=3)
HEARTBEAT: Final = timedelta(seconds=60)
_LONGEST: Final = timedelta(minutes=10)


class PoolGroup(Model):
    """The pool of one endpoint group. What is absent is as in the built-in group, for another one as in `user`."""

    max: Annotated[int, Field(ge=1, le=50_000)] | None = None
    """The most connections of a runner; auth 50, user 200, bulk 100."""
    min: Annotated[int, Field(ge=0, le=50_000)] | None = None
    """So many are kept open from the group's first request on; absent: max ÷ 10, at least 1."""
    idle: Duration | None = None
    """A connection unused this long is closed while more than min are open; auth 30s, user 60s, bulk 120s."""
    keep_alive: bool | None = None
    """false: a connection is closed after its answer, and the request says so; true but for bulk."""
    priority: Priority | None = None
    """Who goes first where the runner has no connection left: auth high, user medium, bulk low."""
    connect: Duration | None = None
    """Until the connection stands, name look-up and TLS handshake included, instead of timeouts.connect; 1s."""
    wait: Duration | None = None
    """A request that found no connection for this long is dropped as `pool_wait`; 3s."""
    heartbeat: Duration | None = None
    """After so long a silence the kernel asks whether the peer is there; 0s: never. Absent: 60s with keepAlive."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for name in ("connect", "wait"):
            value = getattr(self, name)
            if value is not None and not timedelta(milliseconds=10) <= value <= _LONGEST:
                raise fault(name, "from 10ms to 10m is needed")
        if self.idle is not None and not timedelta(milliseconds=100) <= self.idle <= timedelta(hours=1):
            raise fault("idle", "from 100ms to 1h is needed")
        beat = self.heartbeat
        if beat is not None and (beat > timedelta(hours=1) or beat % timedelta(seconds=1)):
            raise fault("heartbeat", "whole seconds up to 1h are needed, 0s for none")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The settings of one group's pool with nothing left open; times in ms, *heartbeat_ms* 0: none."""

    group: str
    most: int
    least: int
    idle_ms: int
    keep_alive: bool
    priority: Priority
    connect_ms: int
    wait_ms: int
    heartbeat_ms: int


BUILT_IN: Final[Mapping[str, PoolGroup]] = {
    "auth": PoolGroup(max=50, idle=timedelta(seconds=30), keep_alive=True, priority="high"),
    "user": PoolGroup(max=200, idle=timedelta(seconds=60), keep_alive=True, priority="medium"),
    "bulk": PoolGroup(max=100, idle=timedelta(seconds=120), keep_alive=False, priority="low"),
}


class Connections(Model):
    """How users are connected to the target."""

    mode: Literal["perUser", "pooled"] = "perUser"
    """perUser: each user has a connection of its own, and keeps it. pooled: the requests of a group share its pool."""
    groups: Annotated[dict[str, PoolGroup], Field(max_length=32)] | None = None
    """The pools of mode pooled, by endpoint group; limits hold per runner."""
    max_age: Duration = timedelta(minutes=5)
    """A connection this old, give or take 20 %, is closed between two requests; the next one opens another."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not timedelta(seconds=1) <= self.max_age <= timedelta(days=1):
            raise fault("maxAge", "from 1s to 24h is needed")
        if self.groups is not None and self.mode != "pooled":
            raise fault("groups", "belongs to mode pooled")
        for name in self.groups or {}:
            if not re.fullmatch(NAME, name) or len(name) > 128:
                raise fault("groups", f"{name[:128]!r} is not a name")
            _check(name, self)
        return self


def _check(name: str, connections: Connections) -> None:
    """Raise a fault when what the user said of a group contradicts itself or what it is filled up with."""
    filled = _filled(name, connections)
    given = (connections.groups or {})[name]
    if filled.least > filled.most:
        raise fault(f"groups.{name}.min", f"must not be above max ({filled.most})")
    if not filled.keep_alive and given.heartbeat:
        raise fault(f"groups.{name}.heartbeat", "needs keepAlive: true, this group closes after each answer")


def pools_of(connections: Connections, groups: Iterable[str]) -> dict[str, Pool]:
    """Return the pool of each of *groups*, in their order; none unless the mode is pooled."""
    if connections.mode != "pooled":
        return {}
    return {group: _filled(group, connections) for group in dict.fromkeys(groups)}


def pools_for(connections: Connections, archetypes: tuple[Archetype, ...]) -> dict[str, Pool]:
    """
    Return the pools that the requests of *archetypes* may need; none unless the mode is pooled.

    Of which groups a scenario's requests are is not known before it is loaded: the built-in ones and those given count.
    """
    groups = [group for _, group in actions_of(archetypes)]
    if any(archetype.scenario is not None for archetype in archetypes):
        groups += [*BUILT_IN, *(connections.groups or ())]
    return pools_of(connections, groups)


def _filled(group: str, connections: Connections) -> Pool:
    """Return the settings of *group*: what is given, else the built-in group's, else those of `user`."""
    given, user = connections.groups or {}, BUILT_IN["user"]
    layers = [given.get(group), BUILT_IN.get(group)]
    if group not in BUILT_IN:
        layers += [given.get("user"), user]
    known = [layer for layer in layers if layer is not None]

    def first(name: str) -> object:
        return next((value for layer in known if (value := getattr(layer, name)) is not None), None)

    most = next(layer.max for layer in known if layer.max is not None)
    # A min goes with the max it was written for: a group with a max of its own does not take over another's min.
    until = next(at for at, layer in enumerate(known) if layer.max is not None)
    least = next((layer.min for layer in known[: until + 1] if layer.min is not None), None)
    keep_alive = bool(first("keep_alive"))
    beat = first("heartbeat") if keep_alive else timedelta()
    return Pool(
        group=group,
        most=most,
        least=max(1, most // 10) if least is None else least,
        idle_ms=_ms(first("idle"), HEARTBEAT),
        keep_alive=keep_alive,
        priority=next(layer.priority for layer in known if layer.priority is not None),
        connect_ms=_ms(first("connect"), CONNECT),
        wait_ms=_ms(first("wait"), WAIT),
        heartbeat_ms=_ms(beat, HEARTBEAT),
    )


def _ms(value: object, otherwise: timedelta) -> int:
    return milliseconds(value if isinstance(value, timedelta) else otherwise)


def added_pools(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """
    Return the figures of all *parts* together, by group.

    Sums, of the longest wait the longest; the most open at a time is a bound, as each part's may be another instant's.
    """
    found: dict[str, dict[str, int]] = {}
    for pools in parts:
        for group, figures in pools.items():
            whole = found.setdefault(group, dict.fromkeys(POOL_FIGURES, 0))
            for name in POOL_FIGURES:
                value = figures.get(name, 0)
                whole[name] = max(whole[name], value) if name == "longest_us" else whole[name] + value
    return found


def pool_gauges(pools: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the figures of *pools* as gauges of a statistics answer: `pool/<group>/<figure>`."""
    return {f"pool/{group}/{name}": value for group, figures in pools.items() for name, value in figures.items()}


def pools_told(gauges: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the pools' figures, by group, that the *gauges* of a statistics answer tell."""
    found: dict[str, dict[str, int]] = {}
    for gauge, value in gauges.items():
        if gauge.startswith("pool/"):
            group, _, name = gauge.removeprefix("pool/").rpartition("/")
            found.setdefault(group, {})[name] = value
    return found
