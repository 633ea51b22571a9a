"""
A fake of what a cluster does by itself: Deployments become pods, pods become runners, orphans go.

It is the controllers and the kubelet over a `FakeApiServer`, one step of each whenever time has passed. Pods start and
get ready after a while, an unready one is removed before a ready one, one that is removed drains, and is gone when its
last account was read. `FakePods` is the way to the runners in them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from trafficsim_api.names import Label, hash8
from trafficsim_api.protocol import LAST_READ_S, PORT
from trafficsim_operator.fleet.runners import Request
from trafficsim_operator.kube import CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICA_SETS, Object, Resource
from trafficsim_operator.manifests.deployment import CONTAINER
from trafficsim_operator.testing.fake_apiserver import FakeApiServer, Place, instant
from trafficsim_operator.testing.fake_control import PodRunner, Reply, control
from trafficsim_operator.testing.fake_runner import FakeHealth

__all__ = ["FakeCluster", "FakePods"]

Carry = Callable[[str, float, Callable[[], Reply]], Awaitable[Reply]]


@dataclass(slots=True, kw_only=True)
class _Pod:
    """A pod's life: when it was made, when its container began, when it was told to end."""

    place: Place
    uid: str
    made_ms: int
    address: str
    ip: str
    runner: PodRunner | None = None
    up_ms: int | None = None
    probed: int = -1
    is_ready: bool = False
    ready_ms: int = 0
    ends_ms: int | None = None
    told_ms: int = 0
    """When it was told to end."""
    restarts: int = 0


@dataclass(slots=True, kw_only=True)
class FakeCluster:
    """
    The controllers and one node.

    *start_ms* is from a pod's making to its container, *ready_ms* from there to its first probe, *probe_ms* between
    probes; *settles_ms* is what a runner takes to do as it is told. *image_health* says how runners of an image do.
    """

    server: FakeApiServer
    start_ms: int = 800
    ready_ms: int = 400
    probe_ms: int = 1_000
    settles_ms: int = 150
    image_health: dict[str, FakeHealth] = field(default_factory=dict)
    runners: dict[str, PodRunner] = field(default_factory=dict)
    """Those that live, by address."""
    ended: list[PodRunner] = field(default_factory=list)
    changed: Callable[[], None] = lambda: None
    """Told after every step in which a pod began or ended."""
    _pods: dict[str, _Pod] = field(default_factory=dict)
    _followed: dict[str, tuple[str, Place]] = field(default_factory=dict)
    """By Deployment: the version of it that its ReplicaSet is of, and that."""
    _made: int = 0
    _at: tuple[int, int] = (-1, -1)

    def __post_init__(self) -> None:
        self.server.before = self.step

    def step(self) -> None:
        """Let everything happen that is due by now."""
        now = self.server.now_ms()
        while self._at != (now, self.server.version):
            is_changed = self._at[1] != self.server.version
            self._at = now, self.server.version
            if is_changed:
                self._collect(now)
                self._follow(now)
            for pod in list(self._pods.values()):
                self._advance(pod, now)

    def keys(self, runner: PodRunner) -> dict[str, Ed25519PublicKey]:
        """Return the public keys that *runner* trusts, by id."""
        found: dict[str, Ed25519PublicKey] = {}
        pod = next(pod for pod in self._pods.values() if pod.runner is runner)
        body = self.server.objects[pod.place]
        for entry, pem in ((self._keys_map(body) or {}).get("data") or {}).items():
            try:
                key = load_pem_public_key(pem.encode())
            except (ValueError, UnsupportedAlgorithm):
                continue
            if isinstance(key, Ed25519PublicKey):
                found[entry.removesuffix(".pem")] = key
        return found

    def kill(self, name: str) -> None:
        """Kill the container of a pod; it is started again, and goes on with what its runner was told."""
        pod = next(pod for pod in self._pods.values() if pod.place.name == name)
        pod.restarts, pod.up_ms, pod.is_ready, pod.probed = pod.restarts + 1, None, False, -1
        pod.made_ms = self.server.now_ms()
        self.runners.pop(pod.address, None)
        self._at = (-1, -1)

    # Controllers.

    def _collect(self, now: int) -> None:
        """Remove what has owners, all of which are gone."""
        uids = {item["metadata"]["uid"] for item in self.server.objects.values()}
        for place, item in list(self.server.objects.items()):
            owners = item["metadata"].get("ownerReferences") or ()
            if owners and not any(owner["uid"] in uids for owner in owners):
                self._end(place, item, now)

    def _end(self, place: Place, item: Object, now: int) -> None:
        if place.plural == PODS.plural:
            self._terminate(self._pods[item["metadata"]["uid"]], now)
        else:
            self.server.remove(place)

    def _follow(self, now: int) -> None:
        """Have a ReplicaSet for every Deployment, and as many pods as it is to have."""
        for item in self.server.of(DEPLOYMENTS):
            meta, template = item["metadata"], item["spec"]["template"]
            followed = self._followed.get(meta["uid"])
            if followed is not None and followed[0] == meta["resourceVersion"] and followed[1] in self.server.objects:
                place = followed[1]
                self._replicate(self.server.objects[place], self.server.objects[place]["metadata"]["labels"], now)
                continue
            name = f"{meta['name']}-{hash8(template)}"
            labels = template["metadata"]["labels"] | {"pod-template-hash": hash8(template)}
            spec = {"replicas": item["spec"]["replicas"], "template": template, "selector": item["spec"]["selector"]}
            body = {"metadata": {"labels": labels, "ownerReferences": [_reference(DEPLOYMENTS, meta)]}, "spec": spec}
            owned = self.server.put(REPLICA_SETS, meta["namespace"], name, body)
            place = Place(REPLICA_SETS.plural, meta["namespace"], name)
            self._followed[meta["uid"]] = meta["resourceVersion"], place
            self._replicate(owned, labels, now)

    def _replicate(self, owner: Object, labels: Mapping[str, str], now: int) -> None:
        uid, wanted = owner["metadata"]["uid"], int(owner["spec"]["replicas"])
        owned = [item for item in self.server.of(PODS, owner["metadata"]["namespace"]) if _is_owned(item, uid)]
        own = [self._pods[item["metadata"]["uid"]] for item in owned]
        alive = [pod for pod in own if pod.ends_ms is None]
        for _ in range(wanted - len(alive)):
            self._make(owner, labels, now)
        # Who is not ready goes first, then who has been ready for the shortest time.
        alive.sort(key=lambda pod: (pod.up_ms is not None, pod.is_ready, -pod.ready_ms, -pod.made_ms, pod.place.name))
        for pod in alive[: max(0, len(alive) - wanted)]:
            self._terminate(pod, now)

    def _make(self, owner: Object, labels: Mapping[str, str], now: int) -> None:
        self._made += 1
        meta = owner["metadata"]
        name = f"{meta['name']}-{self._made:05}"
        body = {
            "metadata": {"labels": dict(labels), "ownerReferences": [_reference(REPLICA_SETS, meta)]},
            "spec": owner["spec"]["template"]["spec"],
            "status": {"phase": "Pending", "conditions": [_condition("PodScheduled", "True", now)]},
        }
        made = self.server.put(PODS, meta["namespace"], name, body)
        ip = f"10.0.{self._made // 250}.{self._made % 250 + 1}"
        self._pods[made["metadata"]["uid"]] = _Pod(
            place=Place(PODS.plural, meta["namespace"], name), uid=made["metadata"]["uid"], made_ms=now,
            address=f"{ip}:{PORT}", ip=ip,
        )  # fmt: skip

    # The kubelet.

    def _advance(self, pod: _Pod, now: int) -> None:
        runner = pod.runner
        if pod.ends_ms is not None:
            is_over = runner is None or runner.is_over(now, LAST_READ_S * 1_000)
            if is_over and now - pod.told_ms >= self.settles_ms:
                self._gone(pod)
            return
        if runner is None or pod.up_ms is None:
            if now - pod.made_ms >= self.start_ms:
                self._start(pod, now)
            return
        probe = (now - pod.up_ms - self.ready_ms) // self.probe_ms
        if probe > pod.probed:
            pod.probed = probe
            is_ready = runner.is_ready(now)
            if is_ready is not pod.is_ready:
                pod.is_ready = is_ready
                pod.ready_ms = now
                self._tell(pod, ready=is_ready, since=now)

    def _start(self, pod: _Pod, now: int) -> None:
        item = self.server.objects[pod.place]
        container = item["spec"]["containers"][0]
        health = self.image_health.get(container["image"], FakeHealth(tells=True))
        if self._keys_map(item) is None or health.problem:
            reason, _, message = (health.problem or "ContainerCreating").partition(": ")
            waiting = {
                "name": CONTAINER,
                "restartCount": pod.restarts,
                "state": {"waiting": {"reason": reason, "message": message}},
            }
            self._write(pod, "Pending", waiting, [_condition("PodScheduled", "True", pod.made_ms)])
            return
        labels = item["metadata"]["labels"]
        pod.up_ms = now
        pod.runner = pod.runner or PodRunner(
            name=pod.place.name,
            uid=pod.uid,
            revision=labels[Label.REVISION],
            simulation=labels[Label.SIMULATION_UID],
            born_ms=now,
            settles=0,
            settles_ms=self.settles_ms,
            health=health,
        )
        self.runners[pod.address] = pod.runner
        self._tell(pod, ready=False, since=now)
        self.changed()

    def _tell(self, pod: _Pod, *, ready: bool, since: int) -> None:
        running = {"running": {"startedAt": instant(pod.up_ms or 0)}}
        container = {"name": CONTAINER, "restartCount": pod.restarts, "ready": ready, "state": running}
        conditions = [
            _condition("PodScheduled", "True", pod.made_ms),
            _condition("Ready", "True" if ready else "False", since),
        ]
        self._write(pod, "Running", container, conditions)

    def _write(self, pod: _Pod, phase: str, container: Object, conditions: list[Object]) -> None:
        status = {"phase": phase, "podIP": pod.ip, "podIPs": [{"ip": pod.ip}], "containerStatuses": [container],
                  "conditions": conditions}  # fmt: skip
        if phase == "Pending":
            del status["podIP"], status["podIPs"]
        self.server.put(PODS, pod.place.namespace, pod.place.name, {"status": status})

    def _terminate(self, pod: _Pod, now: int) -> None:
        if pod.ends_ms is not None:
            return
        grace_s = int(self.server.objects[pod.place]["spec"].get("terminationGracePeriodSeconds") or 30)
        pod.ends_ms, pod.told_ms = now + grace_s * 1_000, now
        if pod.runner is None:
            self._gone(pod)
            return
        pod.runner.count(now)
        pod.runner.leaving_ms = now
        meta = {"deletionTimestamp": instant(pod.ends_ms), "deletionGracePeriodSeconds": grace_s}
        self.server.put(PODS, pod.place.namespace, pod.place.name, {"metadata": meta})
        self.changed()

    def _gone(self, pod: _Pod) -> None:
        del self._pods[pod.uid]
        if pod.runner is not None:
            self.runners.pop(pod.address, None)
            self.ended.append(pod.runner)
        self.server.remove(pod.place)
        self.changed()

    def _keys_map(self, pod: Object) -> Object | None:
        """Return the ConfigMap with the keys that the pod mounts: without it no container starts."""
        volumes: list[dict[str, Any]] = pod["spec"].get("volumes") or []
        for volume in volumes:
            if "configMap" in volume:
                place = Place(CONFIG_MAPS.plural, pod["metadata"]["namespace"], volume["configMap"]["name"])
                return self.server.objects.get(place)
        return {}


class FakePods:
    """
    The way to the runners in pods; *carry* takes each call there, with what it is, its time-out, and what answers it.
    """

    def __init__(self, cluster: FakeCluster, carry: Carry | None = None) -> None:
        self._cluster, self._carry = cluster, carry

    async def __call__(self, request: Request) -> Reply:
        """Answer one request; see fleet.runners.Way."""

        def answered() -> Reply:
            self._cluster.step()
            runner = self._cluster.runners.get(request.address)
            if runner is None:
                raise aiohttp.ClientConnectionError("nobody is there")
            now = self._cluster.server.now_ms()
            keys = self._cluster.keys(runner) if request.method == "PUT" else {}
            reply = control(runner, keys, now, request.method, request.path, request.query, request.body)
            self._cluster.changed()
            return reply

        if self._carry is None:
            return answered()
        name = request.path.rpartition("/")[2]
        return await self._carry(f"{request.method} {name}", request.deadline.sock_read or 5.0, answered)


def _reference(kind: Resource, meta: Mapping[str, Any]) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "name": meta["name"], "uid": meta["uid"],
            "controller": True}  # fmt: skip


def _is_owned(item: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences") or ())


def _condition(kind: str, status: str, at_ms: int) -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": instant(at_ms)}
