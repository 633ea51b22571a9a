"""
The world that a scenario is played in: API server, cluster, runners, a user, and an operator that is started again.

The operator is what `main.run` puts together, but for the watch itself: the fake of the API server wakes the queue.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trafficsim_api.errors import Unavailable
from trafficsim_api.names import COMMAND_ANNOTATION, GROUP, KIND, MANAGED_BY, VERSION, Label
from trafficsim_api.phases import Phase
from trafficsim_api.policy import DEFAULT
from trafficsim_api.status import Status
from trafficsim_operator.fleet.kubernetes import KubernetesFleet
from trafficsim_operator.handlers import Key, Watched
from trafficsim_operator.keys import load_or_create
from trafficsim_operator.kube import ENDPOINT_SLICES, PODS, SERVICES, SIMULATIONS, Object
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observability import ObservedRunners
from trafficsim_operator.queue import KeyedQueue
from trafficsim_operator.reconcile import World, reconcile
from trafficsim_operator.store.kubernetes import KubernetesRecord
from trafficsim_operator.testing.fake_apiserver import FakeApiServer, Place
from trafficsim_operator.testing.fake_cluster import FakeCluster, FakePods
from trafficsim_operator.testing.fake_control import PodRunner
from trafficsim_operator.testing.faults.wire import Wire, WiredKubeApi

__all__ = ["NAMESPACE", "Stand", "Stuck"]

NAMESPACE: Final = "shop"
_OWN: Final = "trafficsim"
_KEY: Final = Key(NAMESPACE, "shop")
_BEGIN_MS: Final = 1_700_000_000_000
_WATCH_S: Final = 0.02
_CHILD_S: Final = 0.1
_RESYNC_S: Final = 60.0
_TICK_S: Final = 0.2


class Stuck(Exception):
    """What was waited for did not come."""


@dataclass(slots=True, kw_only=True)
class Stand:
    """
    One world. *found* gathers what should never be: a look that failed by our own fault, too many users or too few.

    *most* and *least* are the bounds of the users at work now; None: none.
    """

    wire: Wire = field(default_factory=Wire)
    found: list[str] = field(default_factory=list)
    most: int | None = None
    least: int | None = None
    looks: int = 0
    server: FakeApiServer = field(init=False)
    cluster: FakeCluster = field(init=False)
    restart_s: float = 1.5
    """How long it takes until there is an operator again."""
    quiet: bool = False
    """The newest look came through and changed nothing but figures."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _operator: asyncio.Task[None] | None = None
    _queue: KeyedQueue[Key] | None = None
    _watched: Watched = field(default_factory=lambda: Watched())
    _writes: int = 0
    _looked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.server = FakeApiServer(now_ms=self.now_ms, namespaces={NAMESPACE, _OWN})
        self.cluster = FakeCluster(server=self.server, changed=self.check)
        self.server.listeners.append(self._heard)
        self.wire.kill = self._kill
        _target(self.server)

    def now_ms(self) -> int:
        """Return the wall clock."""
        return _BEGIN_MS + round(asyncio.get_running_loop().time() * 1_000)

    # The operator.

    def begin(self) -> None:
        """Start the operator, and the cluster's own clock."""
        self._spawn(self._tick())
        self._start()

    async def end(self) -> None:
        """Take everything down."""
        self.wire.process += 1
        for task in [*self._tasks, *([self._operator] if self._operator else [])]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        while True:
            self.cluster.step()
            await asyncio.sleep(_TICK_S)

    def _start(self) -> None:
        self._operator = asyncio.get_running_loop().create_task(self._operate(self.wire.process))
        self._operator.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Start the operator's process again after it ended, as its Deployment does."""
        self._queue = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, Unavailable):
            self.found.append(f"the operator died: {type(error).__name__}: {error}")
        self.wire.process += 1
        asyncio.get_running_loop().call_later(self.restart_s, self._start)

    def _kill(self) -> None:
        """Kill the operator's process: all that it had in memory is gone."""
        assert self._operator is not None
        self._operator.cancel()
        self._queue = None
        asyncio.get_running_loop().call_later(self.restart_s, self._start)

    async def _operate(self, process: int) -> None:
        api = WiredKubeApi(self.server, self.wire, process)
        if not await api.served(SIMULATIONS):
            raise Unavailable("the kind is not served")
        keys = await load_or_create(api, _OWN)
        pods = FakePods(self.cluster, self.wire.to_runners(process))
        world = World(
            record=KubernetesRecord(api, identity="operator", now_ms=self.now_ms),
            fleet=KubernetesFleet(api, image="trafficsim/runner:1", keys=keys.public, now_ms=self.now_ms),
            runners=ObservedRunners(signer=keys.signer, way=pods),
            ledgers=Ledgers(),
            policy=lambda: DEFAULT,
            now_ms=self.now_ms,
        )

        async def look(key: Key) -> float | None:
            self._writes = self.wire.writes
            wish = await reconcile(key.namespace, key.name, world)
            return None if wish is None else wish / 1000

        self._watched = Watched()
        queue = KeyedQueue[Key](work=look, draw=lambda: 0.5, done=self._done)
        self._queue = queue
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.serve(2))
            group.create_task(self._resync(api, queue))

    async def _resync(self, api: WiredKubeApi, queue: KeyedQueue[Key]) -> None:
        """List the simulations, and look at each: at the beginning, and now and then."""
        while True:
            try:
                items = await api.list(SIMULATIONS, None)
            except Unavailable:
                await asyncio.sleep(1.0)  # the watch asks again soon
                continue
            for item in items:
                queue.add(Key(item["metadata"]["namespace"], item["metadata"]["name"]))
            await asyncio.sleep(_RESYNC_S)

    def _done(self, key: Key, seconds: float, error: BaseException | None) -> None:
        """Take note of a look."""
        self.looks += 1
        self.quiet = error is None and self._writes == self.wire.writes
        if error is not None and not isinstance(error, Unavailable | TimeoutError):
            self.found.append(f"a look failed: {type(error).__name__}: {error}")
        self.check()
        self._looked.set()

    def _heard(self, event: str, place: Place, body: Object) -> None:
        """Wake the operator as its watch does; hold a run that is judged to its numbers."""
        if place.plural == SIMULATIONS.plural and event == "MODIFIED":
            self._hold_to_numbers(body)
        queue = self._queue
        if queue is None:
            return
        labels = body["metadata"].get("labels") or {}
        loop = asyncio.get_running_loop()
        if place.plural == SIMULATIONS.plural:
            key = Key(place.namespace, place.name)
            if event == "DELETED":
                self._watched.gone(key)
                loop.call_later(_WATCH_S, queue.add, key)
            elif self._watched.changed(key, body):
                loop.call_later(_WATCH_S, queue.add, key)
        elif place.plural in ("deployments", "pods") and labels.get(Label.MANAGED_BY) == MANAGED_BY:
            loop.call_later(_WATCH_S, queue.add_after, Key(place.namespace, labels[Label.SIMULATION]), _CHILD_S)

    def _hold_to_numbers(self, body: Object) -> None:
        """No run is judged while users are at work, whose requests would be missing, unless that is said."""
        status = body.get("status") or {}
        is_said = bool((status.get("accounts") or {}).get("missing"))
        if status.get("phase") == Phase.COMPLETED and not is_said and (active := self.active()):
            self._find(f"the run is judged while {active} users are at work, and nothing is missing")

    # The user.

    def apply(self, **spec: Any) -> None:
        """Apply the simulation with *spec*."""
        body = {"metadata": {}, "spec": spec}
        self.server.put(SIMULATIONS, NAMESPACE, _KEY.name, body | {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND})

    def command(self, action: str) -> None:
        """Give a command by annotation."""
        text = f'{{"id": "{action}", "action": "{action}"}}'
        body = {"metadata": {"annotations": {COMMAND_ANNOTATION: text}}}
        self.server.put(SIMULATIONS, NAMESPACE, _KEY.name, body)

    def delete(self) -> None:
        """Delete the simulation."""
        self.server.remove(Place(SIMULATIONS.plural, NAMESPACE, _KEY.name))

    # What is.

    @property
    def body(self) -> Object | None:
        """Return the simulation."""
        return self.server.objects.get(Place(SIMULATIONS.plural, NAMESPACE, _KEY.name))

    @property
    def status(self) -> Status:
        """Return the simulation's status."""
        body = self.body or {}
        return Status.model_validate_json(json.dumps(body.get("status") or {}))

    @property
    def runners(self) -> list[PodRunner]:
        """Return every runner there ever was."""
        return [*self.cluster.ended, *self.cluster.runners.values()]

    def active(self) -> int:
        """Return the users at work now."""
        now = self.now_ms()
        return sum(runner.active(now) for runner in self.cluster.runners.values())

    def check(self) -> None:
        """Hold the users at work now to the bounds."""
        active = self.active()
        if self.most is not None and active > self.most:
            self._find(f"{active} users are at work, {self.most} may be")
        if self.least is not None and active < self.least:
            self._find(f"{active} users are at work, {self.least} are to be")

    def _find(self, what: str) -> None:
        if what not in self.found:
            self.found.append(what)

    async def until(self, holds: Callable[[Stand], str], within_s: float) -> None:
        """Wait until *holds* says nothing is missing, at a look that had nothing to do; raise Stuck with what is."""
        missing = "a look"
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self._looked.clear()
                    await self._looked.wait()
                    missing = holds(self) if self.quiet else "a look that has nothing to do"
                    if not missing:
                        return
        except TimeoutError:
            raise Stuck(f"not within {within_s:.0f} s: {missing}") from None

    async def pass_by(self, holds: Callable[[Stand], str], within_s: float) -> None:
        """Wait until *holds* says nothing is missing, whether or not anybody looks; raise Stuck with what is."""
        deadline = asyncio.get_running_loop().time() + within_s
        while missing := holds(self):
            if asyncio.get_running_loop().time() > deadline:
                raise Stuck(f"not within {within_s:.0f} s: {missing}")
            await asyncio.sleep(_TICK_S)


def _target(server: FakeApiServer) -> None:
    """Make the Service that is hit, with the pod behind it and what its controller says of it."""
    labels = {"app": "web"}
    spec: Mapping[str, Any] = {"selector": labels, "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]}
    server.put(SERVICES, NAMESPACE, "web", {"spec": dict(spec)})
    status = {"phase": "Running", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}]}
    server.put(PODS, NAMESPACE, "web-1", {"metadata": {"labels": labels}, "spec": {}, "status": status})
    managed = {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    endpoints = [{"addresses": ["10.1.0.2"], "conditions": {"ready": True}}]
    server.put(ENDPOINT_SLICES, NAMESPACE, "web-x", {"metadata": {"labels": managed}, "endpoints": endpoints})
