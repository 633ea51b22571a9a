"""
What the operator says about itself: /metrics, /healthz and /readyz; and, the holder of the Lease, /simulations.

Healthy means that a restart would not help: no look hangs, and the watch misses nothing. An API server that is away
makes nobody unhealthy. Ready means that the first list of simulations has arrived, whoever holds the Lease: a standby
hands on to the holder whatever is not about itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trafficsim_api.errors import Unavailable
from trafficsim_api.phases import Phase
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.status import RolloutStatus, ScalingStatus, Status
from trafficsim_operator.actions import Happening
from trafficsim_operator.fleet.runners import Runners
from trafficsim_operator.handlers import Key, Watched
from trafficsim_operator.queue import KeyedQueue
from trafficsim_operator.rollout_metrics import RolloutMetrics
from trafficsim_operator.scaling_metrics import ScalingMetrics
from trafficsim_operator.standby import Standby
from trafficsim_operator.store import Document

__all__ = ["Health", "Metrics", "ObservedRunners", "Office", "serve"]

# What the sums are over: phase, active users, rollout and scaling of a simulation.
_Standing = tuple[Phase, int, RolloutStatus | None, ScalingStatus | None]
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The operator's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.looks = Counter("trafficsim_reconciles", "Looks at simulations by result.", ["result"], registry=r)
        self.look_seconds = Histogram(
            "trafficsim_reconcile_seconds", "How long a look takes.", buckets=_BUCKETS, registry=r
        )
        self.depth = Gauge("trafficsim_queue_depth", "Simulations waiting for a look now.", registry=r)
        self.failing = Gauge("trafficsim_queue_failing", "Simulations whose last look failed.", registry=r)
        self.oldest = Gauge("trafficsim_queue_oldest_seconds", "Age of the longest look going on.", registry=r)
        self.behind = Gauge("trafficsim_watch_behind_seconds", "For how long the watch misses something.", registry=r)
        self.calls = Counter(
            "trafficsim_api_calls", "Calls to the API server.", ["method", "resource", "status"], registry=r
        )
        self.call_seconds = Histogram(
            "trafficsim_api_call_seconds", "How long a call to the API server takes.", buckets=_BUCKETS, registry=r
        )
        self.events = Counter("trafficsim_events", "Events by reason and result.", ["reason", "result"], registry=r)
        self.leader = Gauge("trafficsim_operator_leader", "1: this operator works, 0: it stands by.", registry=r)
        self.transitions = Gauge("trafficsim_lease_transitions", "How often the Lease changed hands.", registry=r)
        self.renewals = Counter("trafficsim_lease_renewals", "Renewals of the Lease.", ["result"], registry=r)
        self.unreachable = Gauge("trafficsim_runners_unreachable", "Runners whose last call failed.", registry=r)
        self.simulations = Gauge("trafficsim_simulations", "Simulations by phase.", ["phase"], registry=r)
        self.users = Gauge("trafficsim_users_active", "Active users over all simulations.", registry=r)
        self.rollouts = RolloutMetrics(r)
        self.scaling = ScalingMetrics(r)
        self._status: dict[Key, _Standing] = {}

    def looked(self, key: Key, seconds: float, error: BaseException | None) -> None:
        """Count a look."""
        result = "done" if error is None else "unavailable" if isinstance(error, Unavailable) else "error"
        self.looks.labels(result).inc()
        self.look_seconds.observe(seconds)

    def called(self, method: str, resource: str, status: int, seconds: float) -> None:
        """Count a call to the API server; status 0: it did not answer."""
        self.calls.labels(method, resource, str(status) if status else "none").inc()
        self.call_seconds.observe(seconds)

    def renewed(self, came_through: bool) -> None:
        """Count an attempt to renew the Lease."""
        self.renewals.labels("renewed" if came_through else "failed").inc()

    def told(self, happening: Happening, came_through: bool) -> None:
        """Count an event."""
        self.events.labels(happening.reason, "published" if came_through else "lost").inc()

    def wrote(self, document: Document, status: Status) -> None:
        """Take a simulation's new status into the sums."""
        self._status[Key(document.namespace, document.name)] = _standing_of(status)
        before = document.body.get("status") or {}
        self.rollouts.wrote(before.get("rollout") or {}, status.rollout)
        self.scaling.wrote(before.get("scaling") or {}, status.scaling)

    def knows(self, key: Key) -> bool:
        """Say whether the sums have the simulation."""
        return key in self._status

    def listed(self, simulations: Mapping[Key, Mapping[str, Any]]) -> None:
        """
        Keep the simulations that exist, and take those in that this process has not written to yet.

        What it wrote is newer than any list.
        """
        self._status = {
            key: self._status[key] if key in self._status else _standing(body) for key, body in simulations.items()
        }

    def table(self) -> list[dict[str, Any]]:
        """Return each simulation's phase and active users."""
        return [
            {"namespace": key.namespace, "name": key.name, "phase": phase.value, "users": active}
            for key, (phase, active, _, _) in sorted(self._status.items())
        ]

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        for phase in Phase:
            self.simulations.labels(phase.value).set(sum(p is phase for p, _, _, _ in self._status.values()))
        self.users.set(sum(active for _, active, _, _ in self._status.values()))
        self.rollouts.tell((key, rollout) for key, (_, _, rollout, _) in self._status.items() if rollout is not None)
        self.scaling.tell((key, scaling) for key, (_, _, _, scaling) in self._status.items() if scaling is not None)
        return generate_latest(self.registry)


def _standing(body: Mapping[str, Any]) -> _Standing:
    """Return how a simulation stands; one without a readable status is new."""
    status = body.get("status")
    try:
        found = Status.model_validate_json(json.dumps(status or {}))
    except ValueError:
        return Phase.PENDING, 0, None, None
    return _standing_of(found)


def _standing_of(status: Status) -> _Standing:
    return status.phase, status.users.active, status.rollout, status.scaling


@dataclass(slots=True, kw_only=True)
class ObservedRunners(Runners):
    """The way to the runners, forgetting those that nobody has asked for a while."""

    asked: dict[str, float] = field(default_factory=dict)

    async def acknowledgement(self, address: str) -> Acknowledgement:
        """Return what the runner does now, and remember when it was asked."""
        self.asked[address] = asyncio.get_running_loop().time()
        return await Runners.acknowledgement(self, address)

    async def forget(self, address: str) -> None:
        """Forget a runner that is gone."""
        self.asked.pop(address, None)
        await Runners.forget(self, address)

    async def forget_idle(self, seconds: float) -> None:
        """Forget those that were asked nothing for *seconds*: they are gone."""
        now = asyncio.get_running_loop().time()
        for address in [address for address, at in self.asked.items() if now - at > seconds]:
            await self.forget(address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """
    Whether the operator is alive and ready.

    *stuck_s*: a look that takes longer hangs. *behind_s*: a watch that misses something for longer is dead; it must
    be longer than one resync, since a change just before a list is no fault.
    """

    queue: KeyedQueue[Key]
    watched: Watched
    stuck_s: float
    behind_s: float
    listed: Callable[[], bool]

    def problem(self) -> str:
        """Return why a restart would help, "" if it would not."""
        now = asyncio.get_running_loop().time()
        if (oldest := self.queue.oldest_s()) > self.stuck_s:
            return f"a look has been going on for {oldest:.0f}s"
        if (behind := self.watched.behind_s(now)) > self.behind_s:
            return f"the watch has been missing something for {behind:.0f}s"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """
    Who works: *leads* says whether this operator does; *standby* asks the one that does.

    *refused* says why it never will, "" when it may.
    """

    leads: Callable[[], bool] = lambda: True
    transitions: Callable[[], int] = lambda: 0
    refused: Callable[[], str] = lambda: ""
    standby: Standby | None = None


async def serve(
    metrics: Metrics, health: Health, runners: ObservedRunners, host: str, port: int, office: Office = Office()
) -> web.AppRunner:
    """Begin to serve on host:port; clean up the returned runner to end."""

    async def text(_: web.Request) -> web.Response:
        metrics.depth.set(health.queue.depth)
        metrics.failing.set(health.queue.failing)
        metrics.oldest.set(health.queue.oldest_s())
        metrics.behind.set(health.watched.behind_s(asyncio.get_running_loop().time()))
        metrics.unreachable.set(len(runners.silent))
        metrics.leader.set(office.leads())
        metrics.transitions.set(office.transitions())
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem()
        return web.Response(text=problem or "ok", status=500 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        if why := office.refused():
            return web.Response(text=f"the Lease is refused: {why}\n", status=503)
        ready = health.listed()
        return web.Response(text="ok" if ready else "the first list has not arrived", status=200 if ready else 503)

    async def simulations(request: web.Request) -> web.StreamResponse:
        if not office.leads():
            return await elsewhere(request)
        return web.json_response({"simulations": metrics.table()})

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        if office.leads() or office.standby is None:
            return web.Response(status=404, text="there is no such page\n")
        return await office.standby.forward(request)

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", text),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/simulations", simulations),
            web.route("*", "/{path:.*}", elsewhere),
        ]
    )
    server = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await server.setup()
    try:
        await web.TCPSite(server, host, port).start()
    except OSError:
        await server.cleanup()
        raise
    return server
