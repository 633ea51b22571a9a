"""
Who works: of several operators the one that holds the Lease. The others watch, and take over when it ends.

    candidate:  read; free → take it with the resourceVersion that was read (409: another was quicker); else wait
    holder:     renew every period; deadline without success, or another's name in it → the work is stopped → LeaseLost
    end:        work first, then the Lease: `holderIdentity: ""`, so that another takes over at once

A Lease is free when nobody's name is in it, or when it did not change for its duration by the *own* monotonic clock
since it was last seen to: clocks of different machines are never compared. The deadline counts from before a request
was sent, so a holder gives up before others may begin: duration > deadline > 2 · period.

    holder stops ≤ 10 s after its last renewal was sent; others begin ≥ 15 s after they saw it

A Lease does not fence: what a process that was stopped still sends is void by epochs, versions and UIDs
(plan/fence.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from trafficsim_api import names
from trafficsim_operator.kube import LEASES, Changed, Forbidden, Object, Resource

__all__ = ["Elector", "LeaseApi", "LeaseLost", "Mandate", "Timing", "address_of", "identity_of"]

log = logging.getLogger(__name__)

# Work that does not end when it is told to may do nothing any more; nobody waits for it longer than this.
_END_S: Final = 3.0
# What is left of a mandate and shorter is over: no timer is that exact.
_TICK_S: Final = 0.001


class LeaseLost(Exception):
    """The Lease is not this process's any more; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds: a Lease lasts *duration_s*, its holder gives up after *deadline_s*, and renews every *period_s*."""

    duration_s: float = 15.0
    deadline_s: float = 10.0
    period_s: float = 2.0

    def __post_init__(self) -> None:
        assert self.duration_s > self.deadline_s > 2 * self.period_s

    @property
    def request_s(self) -> float:
        """Return how long one attempt may take: less than two periods."""
        return 1.5 * self.period_s


@dataclass(slots=True)
class Mandate:
    """
    Until when, by *clock* in seconds, this process may write and tell runners anything.

    Subtle: a loop's own time may be that of its last turn, so it says nothing after the process was stopped in one.
    """

    clock: Callable[[], float]
    until_s: float = -math.inf

    @classmethod
    def without_end(cls) -> Mandate:
        """Return the mandate of an operator that is alone."""
        return cls(lambda: 0.0, math.inf)

    def holds(self) -> bool:
        """Say whether it may act now: asked before each write, since a process may have been stopped meanwhile."""
        return self.clock() < self.until_s


class LeaseApi(Protocol):
    """What an election needs of the API server; see kube.KubeApi."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return the object, None when there is none."""

    async def create(self, resource: Resource, body: Object) -> Object:
        """Create *body*; raise Changed when it is there."""

    async def replace(self, resource: Resource, body: Object, manager: str) -> Object:
        """Put *body* in the place of what has its version; raise Changed when nothing has."""


def identity_of(name: str, mark: str, address: str) -> str:
    """Return who holds: the pod's *name*, a *mark* that is new with every process, and host:port of its pages."""
    return f"{name}_{mark}@{address}"


def address_of(holder: str) -> str:
    """Return host:port of the *holder*'s pages, "" when it told none."""
    return holder.rpartition("@")[2] if "@" in holder else ""


class Elector:
    """
    One candidate for one Lease. *mandate* is what it grants and takes.

    *wall* stamps what people read in the Lease, *draw* in [0, 1) spreads the attempts; *renewed* hears of each attempt
    to renew and whether it came through.
    """

    def __init__(
        self,
        api: LeaseApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        mandate: Mandate,
        wall: Callable[[], datetime],
        draw: Callable[[], float],
        timing: Timing = Timing(),
        renewed: Callable[[bool], None] = lambda came_through: None,
    ) -> None:
        self.holder = ""
        """Who holds the Lease, as far as is known; "" nobody."""
        self.transitions = 0
        """How often it has changed hands."""
        self.refused = ""
        """Why this process may not have the Lease at all: its role says no; "" while it may."""
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._mandate, self._wall, self._draw, self._timing, self._renewed = mandate, wall, draw, timing, renewed
        self._lease: Object | None = None
        """The Lease as it stands after our own last write; None: it must be read first."""
        self._seen: Any = None
        self._seen_s = 0.0
        self._leads = False
        self._why = ""

    @property
    def leads(self) -> bool:
        """Say whether the work is this process's."""
        return self._leads and self._mandate.holds()

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """
        Wait for the Lease and do the *work* while it is held; raise LeaseLost when it is lost, or what the work raises.

        Cancelled: the work is stopped, then the Lease given up.
        """
        while not await self._attempt(self._timing.request_s):  # noqa: ASYNC110 - what is waited for happens elsewhere
            await asyncio.sleep(self._pause_s())
        self._leads = True
        log.info("leading", extra={"lease": self._name, "transitions": self.transitions})
        task = asyncio.create_task(work(), name="the holder's work")
        try:
            why = await self._keep(task)
        finally:
            # From here on nothing is written; then the work is stopped, and only then may another begin.
            self._leads, self._mandate.until_s = False, -math.inf
            task.cancel()
            await asyncio.wait({task}, timeout=_END_S)
            await self._release()
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error
        raise LeaseLost(why)

    async def _keep(self, task: asyncio.Task[None]) -> str:
        """Renew until the Lease is lost or the work ends; return why."""
        while True:
            await asyncio.wait({task}, timeout=max(0.0, min(self._pause_s(), self._left_s())))
            if task.done():
                return "the work ended"
            if self._left_s() > _TICK_S:
                self._renewed(await self._attempt(min(self._timing.request_s, self._left_s())))
            if self._left_s() <= _TICK_S:
                log.error("the Lease is lost", extra={"lease": self._name, "error": self._why})
                return self._why or f"not renewed within {self._timing.deadline_s:.0f}s"

    def _left_s(self) -> float:
        return self._mandate.until_s - self._mandate.clock()

    def _pause_s(self) -> float:
        """Return the period, spread by a tenth, so that candidates do not ask together."""
        return self._timing.period_s * (0.9 + 0.2 * self._draw())

    async def _attempt(self, limit_s: float) -> bool:
        """Try to have the Lease for another duration; whatever goes wrong, it was not renewed."""
        sent_s = self._mandate.clock()
        try:
            async with asyncio.timeout(limit_s):
                try:
                    held = await self._take()
                except Changed:
                    # Of a candidate: another was quicker. Of the holder: whoever touched the Lease, look who has it.
                    held = self._leads and await self._take()
        except Exception as error:  # noqa: BLE001 - a candidate tries again, and a holder gives up at its deadline
            self._why = f"{type(error).__name__}: {error}" if str(error) else f"no answer within {limit_s:.0f}s"
            self.refused = self._why if isinstance(error, Forbidden) else self.refused
            log.warning("the Lease was not to be had", extra={"lease": self._name, "error": self._why})
            return False
        self.refused = ""
        if held:
            self._mandate.until_s = sent_s + self._timing.deadline_s
            self._why = ""
        return held

    async def _take(self) -> bool:
        """Write our name into the Lease if it is ours or free; say whether it is ours now."""
        lease, self._lease = self._lease, None  # until the answer is here, what stands there is not known
        if lease is None:
            lease = await self._api.get(LEASES, self._namespace, self._name)
            if lease is None:
                meta = {"namespace": self._namespace, "name": self._name}
                self._lease = await self._api.create(LEASES, self._signed({"metadata": meta}))
                self._note(self._lease)
                return True
            self._note(lease)
        if not self._is_to_be_had(lease):
            if self._leads:
                self._mandate.until_s, self._why = -math.inf, f"{self.holder} holds it now"
            return False
        self._lease = await self._api.replace(LEASES, self._signed(lease), names.FieldManager.OBJECTS)
        self._note(self._lease)
        return True

    def _is_to_be_had(self, lease: Object) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        unchanged_s = self._mandate.clock() - self._seen_s
        return not self._leads and unchanged_s >= (spec.get("leaseDurationSeconds") or self._timing.duration_s)

    def _note(self, lease: Object) -> None:
        """Take note of what the Lease says, and of when it was seen to change."""
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_s = dict(spec), self._mandate.clock()
        holder = spec.get("holderIdentity") or ""
        if holder not in (self.holder, self._identity):
            log.info("another holds the Lease", extra={"lease": self._name, "holder": holder})
        self.holder, self.transitions = holder, int(spec.get("leaseTransitions") or 0)

    def _signed(self, lease: Object) -> Object:
        """Return *lease* with our name and the present instant in it; a change of hands is counted."""
        spec, now = dict(lease.get("spec") or {}), self._now()
        if spec.get("holderIdentity") != self._identity:
            changes = int(spec.get("leaseTransitions") or 0) + 1 if spec else 0
            spec |= {"holderIdentity": self._identity, "acquireTime": now, "leaseTransitions": changes}
        spec |= {"renewTime": now, "leaseDurationSeconds": math.ceil(self._timing.duration_s)}
        return _with_spec(lease, spec)

    async def _release(self) -> None:
        """Take our name out, if it is in; without success others wait for the duration."""
        try:
            async with asyncio.timeout(self._timing.period_s):
                lease = self._lease or await self._api.get(LEASES, self._namespace, self._name)
                spec = (lease or {}).get("spec") or {}
                if lease is not None and spec.get("holderIdentity") == self._identity:
                    free = dict(spec) | {"holderIdentity": "", "renewTime": self._now()}
                    await self._api.replace(LEASES, _with_spec(lease, free), names.FieldManager.OBJECTS)
                    log.info("the Lease is given up", extra={"lease": self._name})
        except Exception as error:  # noqa: BLE001 - the process ends anyway
            told = {"lease": self._name, "error": str(error) or type(error).__name__}
            log.warning("the Lease was not given up", extra=told)

    def _now(self) -> str:
        return self._wall().isoformat(timespec="microseconds").replace("+00:00", "Z")


def _with_spec(lease: Object, spec: Object) -> Object:
    meta = {key: value for key, value in lease["metadata"].items() if key != "managedFields"}
    return {"metadata": meta, "spec": spec}
