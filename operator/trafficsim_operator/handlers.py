"""
What wakes a simulation: kopf watches, these handlers put keys into the queue, and nothing else happens here.

Only `on.event` handlers: they write nothing to the API. Own status writes wake nobody, since generation, deletion and
command stay as they were. Nor does the first sight of a simulation that nobody waits for, a thousand of which there may
be when an operator starts: it has its turn with the resync.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import kopf

from trafficsim_api import names
from trafficsim_api.names import Label
from trafficsim_api.phases import Phase
from trafficsim_operator.plan.commands import asked

__all__ = ["Key", "Watched", "is_waited_for", "register"]

# Children change in bursts: a rollout of ten pods is one look, not forty.
_CHILD_DELAY_S: Final = 0.1
# In so many lists in a row a simulation is missing before it is forgotten. A health check waits for two and a half.
_ABSENT: Final = 3
_AT_REST: Final = frozenset({Phase.SUSPENDED, Phase.COMPLETED, Phase.FAILED})


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


def is_waited_for(body: Mapping[str, Any]) -> bool:
    """
    Say whether somebody waits for a look at the simulation: a run that is on, an edit or a command without an answer.

    So not at one that is suspended or over, has no runner that is ready and no setup going on, and answers all that was
    asked of it.
    """
    meta, status = body["metadata"], body.get("status") or {}
    is_answered = status.get("observedGeneration") == meta.get("generation") and not meta.get("deletionTimestamp")
    is_at_setup = ((status.get("run") or {}).get("setup") or {}).get("state") == "Running"
    has_runners = bool((status.get("runners") or {}).get("ready"))
    if not is_answered or status.get("phase") not in _AT_REST or has_runners or is_at_setup:
        return True
    command = asked(meta.get("annotations"))
    return command is not None and command.id != (status.get("lastCommand") or {}).get("id")


@dataclass(slots=True, kw_only=True)
class Watched:
    """
    What the watch has shown of each simulation: (uid, generation, deletion, command).

    *behind_since* tells for which the API server has something that the watch has not delivered: a watch that misses
    something is dead, however alive its connection looks; a quiet one is not. *absent*: in how many lists in a row one
    that was seen has not been. *waited*: those that somebody waits for. *children*: of each simulation, seen or not,
    those that a standby was told of and that have not gone, by uid.
    """

    seen: dict[Key, tuple[str, int, str, str]] = field(default_factory=dict)
    behind_since: dict[Key, float] = field(default_factory=dict)
    absent: dict[Key, int] = field(default_factory=dict)
    waited: set[Key] = field(default_factory=set)
    children: dict[Key, set[str]] = field(default_factory=dict)

    def awaited(self) -> set[Key]:
        """Return with what to begin: whom somebody waits for, and who has runners, which are to go where it is over."""
        return self.waited | self.children.keys()

    def child(self, key: Key, uid: str, *, is_there: bool) -> None:
        """Take note of a child, which may be told of before its simulation is."""
        left = self.children.pop(key, set()) - {uid} | ({uid} if is_there else set())
        if left:
            self.children[key] = left

    def changed(self, key: Key, body: Mapping[str, Any]) -> bool:
        """Take note of *body* and say whether it asks for something else than before."""
        (self.waited.add if is_waited_for(body) else self.waited.discard)(key)
        now = _asks(body)
        if self.seen.get(key) == now:
            return False
        self.seen[key] = now
        self.behind_since.pop(key, None)
        return True

    def gone(self, key: Key) -> None:
        """Forget a simulation that was deleted."""
        self.seen.pop(key, None)
        self.children.pop(key, None)
        self.waited.discard(key)
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
        # Children outlive their simulation by a moment: whose is neither listed nor seen is nobody's.
        self.children = {key: uids for key, uids in self.children.items() if key in listed or key in self.seen}
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


def register(
    registry: kopf.OperatorRegistry, queue: Queue, watched: Watched, works: Callable[[], bool] = lambda: True
) -> None:
    """
    Have kopf watch simulations, and the Deployments and pods that carry our label.

    While it is not this operator that *works* the queue stays empty: what it would gather is looked at by another, and
    when its turn comes *watched* knows who is waited for.
    """

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)  # type: ignore[arg-type]
    async def on_simulation(type: str | None, namespace: str, name: str, body: kopf.Body, **_: Any) -> None:
        key = Key(namespace, name)
        if type == "DELETED":
            watched.gone(key)
            asks = True
        else:
            asks = watched.changed(key, body) and key in watched.waited
        if asks and works():
            queue.add(key)

    ours = {Label.MANAGED_BY.value: names.MANAGED_BY, Label.SIMULATION.value: kopf.PRESENT}

    @kopf.on.event("apps", "v1", "deployments", labels=ours, registry=registry)  # type: ignore[arg-type]
    @kopf.on.event("", "v1", "pods", labels=ours, registry=registry)  # type: ignore[arg-type]
    async def on_child(type: str | None, namespace: str, uid: str, labels: Mapping[str, str], **_: Any) -> None:
        key = Key(namespace, labels[Label.SIMULATION.value])
        if works():
            queue.add_after(key, _CHILD_DELAY_S)
        else:
            watched.child(key, uid, is_there=type != "DELETED")
