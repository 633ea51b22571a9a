"""
The scenarios: what comes before the faults, what the user does then, and when it has come to its end.

A runner has room for four users. So six users need two runners, ten need three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from trafficsim_api.phases import Phase
from trafficsim_api.rollout import RolloutPhase
from trafficsim_operator.kube import DEPLOYMENTS, PODS
from trafficsim_operator.plan.places import max_over
from trafficsim_operator.testing.fake_runner import FakeHealth
from trafficsim_operator.testing.faults.stand import NAMESPACE, Stand

__all__ = ["SCENARIOS", "Scenario", "spec"]

_ROOM: Final = 4
_GOOD, _BETTER, _BAD = "trafficsim/runner:1", "trafficsim/runner:2", "trafficsim/runner:3"
_ROLLOUT: Final = {
    "steps": [{"percent": 50}, {"percent": 100}],
    "dwell": "3s",
    "warmUp": "0s",
    "window": "1s",
    "maxDwell": "60s",
    "minSamples": 6,
    "scaleDownDelay": "1s",
    "abortScaleDownDelay": "1s",
    "deadline": "120s",
}


def spec(users: int, *, path: str = "/", image: str = _GOOD) -> dict[str, Any]:
    """Return what the user asks for."""
    flow = [{"request": {"get": path}, "action": "list"}, {"think": {"constant": "1s"}}]
    return {
        "target": {"url": "http://web"},
        "users": users,
        "duration": "1h",
        "warmUp": "0s",
        "profile": [{"hold": {"for": "1h"}}],
        "archetypes": [{"name": "a", "flow": flow}],
        "scaling": {"usersPerProcess": _ROOM, "maxProcesses": 1},
        "runner": {"image": image},
        "rollout": dict(_ROLLOUT),
    }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    One scenario.

    *before* is applied and comes to rest without a fault (None: there is nothing yet, not even an operator); *act* is
    what the user does; it has come to its end when *missing* says nothing. *ends*: the run is over then; *is_deleted*:
    with the simulation, so that nobody looks any more.
    """

    name: str
    before: Mapping[str, Any] | None
    act: Callable[[Stand], None]
    missing: Callable[[Stand], str]
    most: int | None
    """The users that may be at work at most."""
    least: int | None
    """And at least, from the beginning of *act* on."""
    ends: bool = False
    is_deleted: bool = False
    health: Mapping[str, FakeHealth] = field(default_factory=dict)
    restart_s: float = 1.5
    """How long it takes until there is an operator again after one was killed."""


def at_work(users: int, path: str = "/", image: str = _GOOD) -> Callable[[Stand], str]:
    """Return what is missing until *users* are at work as asked, every one once and nothing is left to be done."""

    def missing(stand: Stand) -> str:
        if (active := stand.active()) != users:
            return f"{users} users at work: {active} are"
        status = stand.status
        body = stand.body or {"metadata": {}}
        if status.phase is not Phase.RUNNING or status.observed_generation != body["metadata"].get("generation"):
            return f"phase Running by the newest document, it is {status.phase}: {status.message}"
        if status.users.active != users:
            return f"{users} users to be told of: {status.users.active} are"
        if status.stable is None or status.stable.image != image:
            return f"image {image} to be stable"
        return _places(stand, users, path) or _objects(stand, -(-users // _ROOM))

    return missing


def _places(stand: Stand, users: int, path: str) -> str:
    held = []
    now = stand.now_ms()
    for runner in stand.cluster.runners.values():
        told = runner.assignment
        if told is None:
            return f"{runner.name} to be told something"
        held += list(told.held)
        if told.users != users or not runner.acknowledgement(now).settled:
            return f"{runner.name} to have settled with {users} users"
        if f'"{path}"' not in told.load.model_dump_json():
            return f"{runner.name} to ask for {path}"
    return "" if sorted(held) == list(range(users)) else f"every place once: {sorted(held)}"


def _objects(stand: Stand, runners: int) -> str:
    deployments = stand.server.of(DEPLOYMENTS, NAMESPACE)
    if len(deployments) != 1:
        return f"one Deployment, there are {len(deployments)}"
    pods = [pod for pod in stand.server.of(PODS, NAMESPACE) if pod["metadata"].get("ownerReferences")]
    if len(pods) != runners or len(stand.cluster.runners) != runners:
        return f"{runners} pods, there are {len(pods)}"
    leaving = [pod["metadata"]["name"] for pod in pods if pod["metadata"].get("deletionTimestamp")]
    return f"{leaving} to be gone" if leaving else ""


def rolled(users: int, image: str, phase: RolloutPhase) -> Callable[[Stand], str]:
    """Return what is missing until *users* are at work on *image* and the rollout is where it is to be."""
    there = at_work(users, image=image)

    def missing(stand: Stand) -> str:
        rollout = stand.status.rollout
        if rollout is None or rollout.phase is not phase:
            return (
                f"the rollout to be {phase}: {rollout.phase if rollout else None} {rollout.message if rollout else ''}"
            )
        return there(stand)

    return missing


def nothing_left(stand: Stand) -> str:
    """Return what is left of the simulation."""
    ours = [
        f"{place.plural}/{place.name}"
        for place, item in stand.server.objects.items()
        if place.namespace == NAMESPACE and item["metadata"].get("ownerReferences")
    ]
    return f"{ours} to be gone" if ours or stand.cluster.runners else ""


def completed(stand: Stand) -> str:
    """Return what is missing until the run is over and its runners are gone."""
    status = stand.status
    if status.phase is not Phase.COMPLETED or status.verdict is None:
        return f"phase Completed with a verdict, it is {status.phase}: {status.message}"
    return f"{sorted(stand.cluster.runners)} to be gone" if stand.cluster.runners else ""


def _most(*users: int, back: bool = False) -> int:
    """Return how many may be at work while so many were and are asked for: and a chunk of a move."""
    most = max(users)
    return most + (max(1, most // 4) if back else max_over(most))


_FINISH: Final = Scenario(
    name="finish",
    before=spec(6),
    act=lambda stand: stand.command("stop"),
    missing=completed,
    most=6,
    least=None,
    ends=True,
)
SCENARIOS: Final = (
    Scenario(
        name="start",
        before=None,
        act=lambda stand: stand.apply(**spec(6)),
        missing=at_work(6),
        most=6,
        least=None,
    ),
    Scenario(
        name="edit",
        before=spec(6),
        act=lambda stand: stand.apply(**spec(8, path="/new")),
        missing=at_work(8, path="/new"),
        most=_most(8),
        least=6,
    ),
    Scenario(
        name="scale-out",
        before=spec(4),
        act=lambda stand: stand.apply(**spec(8)),
        missing=at_work(8),
        most=_most(8),
        least=4,
    ),
    Scenario(
        name="scale-in",
        before=spec(8),
        act=lambda stand: stand.apply(**spec(4)),
        missing=at_work(4),
        most=_most(8),
        least=4,
    ),
    Scenario(
        name="promote",
        before=spec(4),
        act=lambda stand: stand.apply(**spec(4, image=_BETTER)),
        missing=rolled(4, _BETTER, RolloutPhase.STABLE),
        most=_most(4, back=True),
        least=4,
    ),
    Scenario(
        name="rollback",
        before=spec(4),
        act=lambda stand: stand.apply(**spec(4, image=_BAD)),
        missing=rolled(4, _GOOD, RolloutPhase.REJECTED),
        most=_most(4, back=True),
        least=4,
        health={_BAD: FakeHealth(tells=True, failed_permille=900)},
    ),
    _FINISH,
    # Longer than users are waited for at the end of a run: a request's time-out and 15 s.
    replace(_FINISH, name="finish-late", restart_s=60.0),
    Scenario(
        name="delete",
        before=spec(6),
        act=lambda stand: stand.delete(),
        missing=nothing_left,
        most=6,
        least=None,
        ends=True,
        is_deleted=True,
    ),
)
