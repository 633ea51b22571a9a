"""
A node for tests whose pods are processes of this machine.

    async with ProcessKubelet(control_plane.kubeconfig, images={"runner:1": Image(argv=("python", "-m", "app"))}):
        ...

It registers a node, binds pending pods to it and runs the *first* container of each as a process on a loopback
address of its own (127.1.0.n, the pod's status.podIP), in a CPU and memory cgroup with the pod's limits. The pod's
spec decides everything: command, environment, downward API, ConfigMap, Secret, projected and emptyDir volumes,
httpGet and tcpSocket probes, restartPolicy, grace.

What differs from a real node: no images (a mapping says which program an image is), no namespaces (see `podspec` for
how paths are translated; servers must listen on status.podIP, not on 0.0.0.0; process ids are the machine's), no
securityContext, no init containers, a short restart back-off. When one process of a pod is out of memory, the kernel
kills that one and not the whole container. Processes end with the kubelet, however it ends.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from trafficsim_operator.testing.addresses import Addresses
from trafficsim_operator.testing.apiserver import STRATEGIC, UNREACHABLE, Api, ApiError, Changed, Listed, Object
from trafficsim_operator.testing.cgroups import Cgroups, Usage
from trafficsim_operator.testing.node_object import Node
from trafficsim_operator.testing.pods import Backoff, Host, PodProcess
from trafficsim_operator.testing.podspec import Image
from trafficsim_operator.testing.processes import Guard
from trafficsim_operator.testing.scheduling import why_not

_CAPACITY: Final = {"cpu": "64", "memory": "64Gi", "ephemeral-storage": "1Ti", "pods": "250"}
_HOST_ADDRESS: Final = "127.0.0.1"
_RETRY: Final = 0.2  # seconds
_LOOK_AGAIN: Final = 1.0  # seconds until a pod that did not fit is looked at again


class ProcessKubelet:
    """Runs the pods of one control plane as processes; use it as an asynchronous context manager."""

    def __init__(
        self,
        kubeconfig: Path,
        *,
        images: Mapping[str, Image],
        namespaces: Iterable[str] | None = None,
        node: str = "process-node",
        capacity: Mapping[str, str] = _CAPACITY,
        labels: Mapping[str, str] | None = None,
        backoff: Backoff | None = None,
        directory: Path | None = None,
    ) -> None:
        """
        Serve *namespaces*, or all.

        *images* says what each image runs; `images` may be changed while pods wait for one. Logs go to
        *directory*/logs and stay there; without *directory* a temporary one is used and removed.
        """
        self.images = dict(images)
        self.node = node
        self._kubeconfig = kubeconfig
        self._namespaces = None if namespaces is None else frozenset(namespaces)
        self._capacity = dict(capacity)
        self._labels = dict(labels or {})
        self._backoff = backoff or Backoff()
        self._given = directory
        self._pods: dict[str, PodProcess] = {}  # by uid
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._logs: dict[tuple[str, str], Path] = {}
        self._pending: dict[str, Object] = {}
        self._look = asyncio.Event()
        self._connected = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Register the node and begin; raises `Unavailable` where this process may not make cgroups."""
        self._stack = AsyncExitStack()
        cgroups = Cgroups.create()
        directory = self._given or Path(tempfile.mkdtemp(prefix="trafficsim-kubelet-"))
        memory = Path(tempfile.mkdtemp(prefix="trafficsim-kubelet-", dir="/dev/shm"))
        doomed = [directory / "pods", memory] if self._given else [directory, memory]
        guard = Guard(cgroups=cgroups.directories, directories=doomed)
        self._stack.callback(guard.close)
        addresses = Addresses()
        self._stack.callback(addresses.close)
        self._api = await self._stack.enter_async_context(Api(self._kubeconfig))
        self._node = Node(self._api, self.node, address=_HOST_ADDRESS, capacity=self._capacity, labels=self._labels)
        await self._node.register()
        self._connected.set()
        self._host = Host(
            api=self._api,
            node=self.node,
            address=_HOST_ADDRESS,
            images=self.images,
            allocatable=self._capacity,
            cgroups=cgroups,
            addresses=addresses,
            directory=directory,
            shared_memory=memory,
            backoff=self._backoff,
            connected=self._connected,
        )
        for loop in (self._node.beat(self._connected), self._schedule(), self._follow_pods(), self._follow_sources()):
            self._loops.append(asyncio.create_task(loop))

    async def stop(self) -> None:
        """Kill every process, delete the pods that ran here and the node, and leave nothing behind; once is enough."""
        if not self._loops:
            return
        tasks = [*self._loops, *self._tasks.values()]
        self._loops = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for process in self._pods.values():
            meta = process.pod["metadata"]
            with suppress(ApiError, *UNREACHABLE):
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
                await self._api.delete(path, grace=0, uid=meta["uid"])
        with suppress(ApiError, *UNREACHABLE):
            await self._node.unregister()
        self._pods.clear()
        await self._stack.aclose()

    # What tests ask and do to a pod, by its name (and namespace where several are served).

    def pid(self, pod: str, namespace: str | None = None) -> int:
        """Return the process id of the pod's container."""
        pid = self._find(pod, namespace).pid
        if pid is None:
            raise LookupError(f"pod {pod} runs no process")
        return pid

    def pids(self, pod: str, namespace: str | None = None) -> list[int]:
        """Return the ids of all processes of the pod, its workers too."""
        group = self._find(pod, namespace).group
        return [] if group is None else group.members()

    def address(self, pod: str, namespace: str | None = None) -> str:
        """Return the pod's address."""
        return self._find(pod, namespace).state.address

    def usage(self, pod: str, namespace: str | None = None) -> Usage:
        """Return what the pod's cgroup has counted: CPU, kills for want of memory, throttled periods."""
        group = self._find(pod, namespace).group
        if group is None:
            raise LookupError(f"pod {pod} has no cgroup")
        return group.usage()

    def logs(self, pod: str, namespace: str | None = None) -> str:
        """Return what the pod's container printed in all its runs; also after the pod is gone."""
        names = [key for key in self._logs if key[1] == pod and namespace in (None, key[0])]
        if not names:
            raise LookupError(f"no pod {pod} ran here")
        return self._logs[names[-1]].read_text(errors="replace") if self._logs[names[-1]].exists() else ""

    def pods(self) -> list[str]:
        """Return the names of the pods that are here."""
        return sorted(process.pod["metadata"]["name"] for process in self._pods.values())

    def kill(self, pod: str, namespace: str | None = None) -> None:
        """Kill the container's first process with SIGKILL; the others go with it, and it is restarted."""
        os.kill(self.pid(pod, namespace), signal.SIGKILL)

    def stop_answering(self, pod: str, namespace: str | None = None, *, everything: bool = False) -> None:
        """Hold the container's first process with SIGSTOP, or *everything* in the pod."""
        self._send(pod, namespace, signal.SIGSTOP, everything)

    def cont(self, pod: str, namespace: str | None = None) -> None:
        """Let a held pod go on."""
        self._send(pod, namespace, signal.SIGCONT, True)

    async def node_ready(self, ready: bool) -> None:
        """Set the node's Ready condition; pods go on either way."""
        await self._node.set_ready("True" if ready else "False")

    async def disconnect(self) -> None:
        """
        Lose the API server: statuses, deletions and heartbeats stop, processes go on.

        The node is marked Unknown at once, and its pods not ready, as the node controller would after its grace of
        50 s: their condition Ready alone, since nobody knows of their containers.
        """
        await self._node.set_ready("Unknown")
        self._connected.clear()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "False", "lastTransitionTime": now}
        for process in self._pods.values():
            meta = process.pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
            body = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": [ready]}}
            with suppress(ApiError, *UNREACHABLE):
                await self._api.patch(path, body, kind=STRATEGIC)

    async def connect(self) -> None:
        """Find the API server again."""
        self._connected.set()
        await self._node.set_ready("True")

    def _send(self, pod: str, namespace: str | None, number: signal.Signals, everything: bool) -> None:
        for pid in self.pids(pod, namespace) if everything else [self.pid(pod, namespace)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _find(self, pod: str, namespace: str | None) -> PodProcess:
        for process in self._pods.values():
            meta = process.pod["metadata"]
            if meta["name"] == pod and namespace in (None, meta["namespace"]):
                return process
        raise LookupError(f"no pod {pod} is here, only {', '.join(self.pods()) or 'none'}")

    # What the kubelet does by itself.

    def _collection(self, kind: str) -> str:
        if self._namespaces is not None and len(self._namespaces) == 1:
            return f"/api/v1/namespaces/{next(iter(self._namespaces))}/{kind}"
        return f"/api/v1/{kind}"

    def _serves(self, thing: Object) -> bool:
        return self._namespaces is None or thing["metadata"]["namespace"] in self._namespaces

    async def _follow_pods(self) -> None:
        async for change in self._api.follow(self._collection("pods")):
            await self._connected.wait()
            match change:
                case Listed():
                    present = {pod["metadata"]["uid"] for pod in change.objects}
                    for uid in set(self._pods) - present:
                        self._pods[uid].vanish()
                    self._pending = {uid: pod for uid, pod in self._pending.items() if uid in present}
                    for pod in change.objects:
                        self._see(pod)
                case Changed(deleted=True):
                    uid = change.object["metadata"]["uid"]
                    self._pending.pop(uid, None)
                    if uid in self._pods:
                        self._pods[uid].vanish()
                case Changed():
                    self._see(change.object)

    def _see(self, pod: Object) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        if uid in self._pods:
            self._pods[uid].update(pod)
        elif node == self.node and self._serves(pod):
            self._pending.pop(uid, None)
            self._begin(pod)
        elif not node and self._serves(pod) and not pod["metadata"].get("deletionTimestamp"):
            self._pending[uid] = pod
            self._look.set()

    def _begin(self, pod: Object) -> None:
        meta = pod["metadata"]
        process = PodProcess(pod, self._host)
        process.update(pod)
        self._pods[meta["uid"]] = process
        self._logs[meta["namespace"], meta["name"]] = process.log
        task = asyncio.create_task(process.run(), name=f"pod {meta['name']}")
        self._tasks[meta["uid"]] = task
        task.add_done_callback(lambda done: self._ended(meta["uid"], done))

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return  # `stop` still has to delete the pod
        self._pods.pop(uid, None)
        self._tasks.pop(uid, None)
        self._look.set()
        if (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{task.get_name()} failed", "exception": error, "task": task}
            )

    async def _follow_sources(self) -> None:
        """Tell pods of changed ConfigMaps; Secrets are read when a container starts."""
        async for change in self._api.follow(self._collection("configmaps")):
            await self._connected.wait()
            objects = change.objects if isinstance(change, Listed) else (change.object,)
            gone = isinstance(change, Changed) and change.deleted
            for source in objects:
                meta = source["metadata"]
                for process in self._pods.values():
                    if process.pod["metadata"]["namespace"] == meta["namespace"]:
                        process.source_changed("ConfigMap", meta["name"], None if gone else source)

    async def _schedule(self) -> None:
        """Bind pending pods that fit, in the order they were made; say of the others why not."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN if self._pending else None):
                    await self._look.wait()
            self._look.clear()
            await self._connected.wait()
            bound = [process.pod for process in self._pods.values()]
            for uid, pod in sorted(self._pending.items(), key=lambda item: item[1]["metadata"]["creationTimestamp"]):
                reason = why_not(pod, bound, self._capacity, self._node.labels)
                if reason is not None:
                    await self._unschedulable(pod, reason)
                elif await self._bind(pod):
                    bound.append(pod)
                    self._pending.pop(uid, None)

    async def _bind(self, pod: Object) -> bool:
        """Bind *pod* here; False when it has to be tried again."""
        meta = pod["metadata"]
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        body = {"metadata": {"name": meta["name"], "uid": meta["uid"]}, "target": target}
        try:
            await self._api.create(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", body)
        except ApiError as error:
            return error.status in (404, 409)  # gone, or somebody else's now
        except UNREACHABLE:
            await asyncio.sleep(_RETRY)
            return False
        return True

    async def _unschedulable(self, pod: Object, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        known = pod.get("status", {}).get("conditions", ())
        if any(c["type"] == "PodScheduled" and c.get("message") == message for c in known):
            return
        meta = pod["metadata"]
        condition["lastTransitionTime"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": [condition]}}
        with suppress(ApiError, *UNREACHABLE):
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
            await self._api.patch(path, body, kind=STRATEGIC)
            await self._host.event(pod, "Warning", "FailedScheduling", message)
