"""
What wakes a simulation: kopf watches, these handlers put keys into the queue, and nothing else happens here.

Only `on.event` handlers: they write nothing to the API. Own status writes wake nobody, since generation, deletion and
command stay as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import kopf

from trafficsim_api import names
from trafficsim_api.names import Label

__all__ = ["Key", "Watched", "register"]

# Children change in bursts: a rollout of ten pods is one look, not forty.
_CHILD_DELAY_S: Final = 0.1
# In so many lists in a row a simulation is missing before it is forgotten. A health check waits for two and a half.
_ABSENT: Final = 3


class Key(NamedTuple):
    """A simulation's place."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Queue(Protocol):
    """Where keys go."""

    def add(self, key: Key) -> None: ...

    def add_after(self, key: Key, seconds: float) -> None: ...


@dataclass(slots=True, kw_only=True)
class Watched:
    """
    What the watch has shown of each simulation: (uid, generation, deletion, command).

    *behind_since* tells for which the API server has something that the watch has not delivered: a watch that misses
    something is dead, however alive its connection looks; a quiet one is not. *absent*: in how many lists in a row one
    that was seen has not been.
    """

    seen: dict[Key, tuple[str, int, str, str]] = field(default_factory=dict)
    behind_since: dict[Key, float] = field(default_factory=dict)
    absent: dict[Key, int] = field(default_factory=dict)

    def changed(self, key: Key, body: Mapping[str, Any]) -> bool:
        """Take note of *body* and say whether it asks for a look."""
        now = _asks(body)
        if self.seen.get(key) == now:
            return False
        self.seen[key] = now
        self.behind_since.pop(key, None)
        return True

    def gone(self, key: Key) -> None:
        """Forget a simulation that was deleted."""
        self.seen.pop(key, None)
        self.behind_since.pop(key, None)
        self.absent.pop(key, None)

    def compare(self, listed: Mapping[Key, Mapping[str, Any]], now: float) -> None:
        """
        Compare with what the API server has, listed at *now*; what stays different is what the watch misses.

        A deletion during a gap is delivered by no watch, however well it is afterwards: kopf lists anew, and tells of
        what is there. So what three lists in a row lack is forgotten; of one list it may be that the watch is ahead.
        """
        self.absent = {key: self.absent.get(key, 0) + 1 for key in self.seen.keys() - listed.keys()}
        for key in [key for key, times in self.absent.items() if times >= _ABSENT]:
            self.gone(key)
        behind = {key for key, body in listed.items() if self.seen.get(key) != _asks(body)}
        behind |= self.seen.keys() - listed.keys()
        self.behind_since = {key: self.behind_since.get(key, now) for key in behind}

    def unlisted(self) -> None:
        """
        Take note that the API server gave no list: what the watch misses is counted anew from the next one.

        While the API server is away no watch can deliver, and a restart would not help.
        """
        self.behind_since.clear()

    def behind_s(self, now: float) -> float:
        """Return for how many seconds the watch has been missing something, 0 when it misses nothing."""
        return max((now - since for since in self.behind_since.values()), default=0.0)


def _asks(body: Mapping[str, Any]) -> tuple[str, int, str, str]:
    meta = body["metadata"]
    command = (meta.get("annotations") or {}).get(names.COMMAND_ANNOTATION, "")
    return meta["uid"], int(meta.get("generation") or 0), meta.get("deletionTimestamp") or "", command


def register(registry: kopf.OperatorRegistry, queue: Queue, watched: Watched) -> None:
    """Have kopf watch simulations, and the Deployments and pods that carry our label."""

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)  # type: ignore[arg-type]
    async def on_simulation(type: str | None, namespace: str, name: str, body: kopf.Body, **_: Any) -> None:
        key = Key(namespace, name)
        if type == "DELETED":
            watched.gone(key)
            queue.add(key)
        elif watched.changed(key, body):
            queue.add(key)

    ours = {Label.MANAGED_BY.value: names.MANAGED_BY, Label.SIMULATION.value: kopf.PRESENT}

    @kopf.on.event("apps", "v1", "deployments", labels=ours, registry=registry)  # type: ignore[arg-type]
    @kopf.on.event("", "v1", "pods", labels=ours, registry=registry)  # type: ignore[arg-type]
    async def on_child(namespace: str, labels: Mapping[str, str], **_: Any) -> None:
        queue.add_after(Key(namespace, labels[Label.SIMULATION.value]), _CHILD_DELAY_S)
