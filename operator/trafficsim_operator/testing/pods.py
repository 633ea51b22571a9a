"""One pod as a process: from the bound pod to its last status and its removal."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import podspec, probes, volumes
from trafficsim_operator.testing.addresses import Addresses
from trafficsim_operator.testing.apiserver import STRATEGIC, UNREACHABLE, Api, ApiError, Object
from trafficsim_operator.testing.cgroups import Cgroups, Group
from trafficsim_operator.testing.launch import START_ERROR
from trafficsim_operator.testing.pod_status import (
    Phase,
    PodState,
    Running,
    Terminated,
    Waiting,
    is_changed,
    render,
    restarts_after,
    terminated,
    timestamp,
)
from trafficsim_operator.testing.podspec import CannotRun, Facts, Image, Program
from trafficsim_operator.testing.processes import bound_to_us

_RETRY: Final = 0.2  # seconds until an unreachable API server is asked again
_WAIT: Final = 0.5  # seconds until a missing image or ConfigMap is looked for again


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a container waits before it runs again; a real kubelet's is 10 s to 300 s."""

    first: float = 0.2
    most: float = 2.0
    forget_after: float = 10.0  # seconds a run must last to start over

    def pause(self, row: int) -> float:
        """Return the seconds before restart number *row* of a row of quick ends: first · 2^row, at most `most`."""
        return min(self.first * 2.0**row, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the pods of one kubelet share."""

    api: Api
    node: str
    address: str
    images: MutableMapping[str, Image]
    allocatable: dict[str, str]
    cgroups: Cgroups
    addresses: Addresses
    directory: Path
    shared_memory: Path
    backoff: Backoff
    connected: asyncio.Event

    async def event(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """Tell the API server what happened to *pod*; an event that cannot be written is dropped."""
        meta = pod["metadata"]
        now = timestamp(datetime.now(UTC))
        reference = {"kind": "Pod", "apiVersion": "v1", "uid": meta["uid"]}
        body: Object = {
            "metadata": {"generateName": f"{meta['name'][:50]}.", "namespace": meta["namespace"]},
            "involvedObject": reference | {"name": meta["name"], "namespace": meta["namespace"]},
            "reason": reason,
            "message": message[:1000],
            "type": kind,
            "source": {"component": "process-kubelet", "host": self.node},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        with suppress(ApiError, *UNREACHABLE):
            await self.api.create(f"/api/v1/namespaces/{meta['namespace']}/events", body)


class PodProcess:
    """Runs one pod. `run` returns when the pod is gone; everything else pokes it."""

    def __init__(self, pod: Object, host: Host) -> None:
        self.pod = pod
        self.state = PodState(start_time=datetime.now(UTC))
        meta = pod["metadata"]
        self._host = host
        self._name = f"{meta['namespace']}_{meta['name']}_{meta['uid'][:8]}"
        self._path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self._container: Object = pod["spec"]["containers"][0]
        self._process: asyncio.subprocess.Process | None = None
        self._group: Group | None = None
        self._leaving = asyncio.Event()
        self._poked = asyncio.Event()  # something a waiting pod may have waited for has changed
        self._dirty = asyncio.Event()
        self._gone = False
        self._conditions: list[Object] = []
        self._sources: dict[tuple[str, str], Object | None] = {}
        self._tokens: dict[str, str] = {}
        self._warned: str = ""
        self._events: set[asyncio.Task[None]] = set()

    @property
    def log(self) -> Path:
        """The file with what the container printed, all runs."""
        return self._host.directory / "logs" / f"{self._name}.log"

    @property
    def group(self) -> Group | None:
        """The pod's cgroup, once it has one."""
        return self._group

    @property
    def pid(self) -> int | None:
        """The container's process id while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def update(self, pod: Object) -> None:
        """Take note of what the API server now says about the pod."""
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._leaving.set()
        if is_changed(pod, self._conditions):
            self._dirty.set()
        self._poked.set()

    def vanish(self) -> None:
        """Take note that the API server has no such pod any more: no grace, no status."""
        self._gone = True
        self._leaving.set()
        self._poked.set()

    def source_changed(self, kind: str, name: str, source: Object | None) -> None:
        """Take note of a changed ConfigMap or Secret; its volumes follow at once."""
        if (kind, name) not in podspec.needed(self.pod, self._container):
            return
        self._sources[kind, name] = source
        self._poked.set()
        if self.state.address and isinstance(self.state.state, Running):
            with suppress(CannotRun):  # one that vanished keeps its last files, as on a real node
                self._write_volumes()

    async def run(self) -> None:
        """Live until the pod is deleted; then end the process within its grace and remove every trace."""
        try:
            async with asyncio.TaskGroup() as tasks:
                publisher = tasks.create_task(self._publish())
                life = tasks.create_task(self._live())
                await self._leaving.wait()
                await self._leave(life)
                publisher.cancel()
            await self._clean()
            if not self._gone:
                await self._forget()
        finally:
            await asyncio.shield(self._clean())
            for task in self._events:
                task.cancel()

    async def _live(self) -> None:
        row = 0
        while (program := await self._prepare()) is not None:
            how = await self._run_once(program)
            lasted = (how.ended - how.began).total_seconds()
            if not restarts_after(self.pod["spec"].get("restartPolicy", "Always"), how.exit_code) or self._ending:
                self._set(replace(self.state.ended(how), phase=Phase.FAILED if how.exit_code else Phase.SUCCEEDED))
                return
            row = 0 if lasted > self._host.backoff.forget_after else row
            pause = self._host.backoff.pause(row)
            row += 1
            waiting = Waiting(reason="CrashLoopBackOff", message=f"back-off {pause:g}s restarting failed container")
            self._set(replace(self.state.ended(how), state=waiting, last=how))
            self._tell("Warning", "BackOff", f"Back-off restarting failed container {self._container['name']}")
            await self._pause(pause)
            if not self._ending:
                self._set(replace(self.state, restarts=self.state.restarts + 1))

    @property
    def _ending(self) -> bool:
        return self._leaving.is_set()

    async def _prepare(self) -> Program | None:
        """Return the program once image, sources and volumes are there; None when the pod is leaving first."""
        while not self._ending:
            self._poked.clear()
            try:
                return await self._program()
            except CannotRun as error:
                self._set(replace(self.state, state=Waiting(reason=error.reason, message=str(error))))
                if self._warned != str(error):
                    self._warned = str(error)
                    kind = "FailedMount" if error.reason == "ContainerCreating" else "Failed"
                    self._tell("Warning", kind, f"{error.reason}: {error}")
            except (ApiError, *UNREACHABLE):
                pass
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await self._poked.wait()
        return None

    async def _program(self) -> Program:
        if self._group is None:
            self._allocate()
            self._set(replace(self.state, phase=Phase.PENDING))
        image = self._host.images.get(self._container["image"])
        if image is None:
            pulled = isinstance(self.state.state, Waiting) and self.state.state.reason.endswith(("Pull", "PullBackOff"))
            message = f'image "{self._container["image"]}" is not known to this node'
            raise CannotRun("ImagePullBackOff" if pulled else "ErrImagePull", message)
        if self.pod["spec"].get("initContainers"):
            raise CannotRun("CreateContainerConfigError", "initContainers are not supported on a process node")
        probes.check(self._container)
        await self._read_sources()
        self._write_volumes()
        return podspec.program(self.pod, self._container, image, self._sources, self._facts)

    def _allocate(self) -> None:
        limits = self._container.get("resources", {}).get("limits", {})
        group = self._host.cgroups.make(self.pod["metadata"]["uid"])
        self._group = group
        group.limit(
            cpu=float(podspec.quantity(limits["cpu"])) if "cpu" in limits else None,
            cpu_request=float(podspec.requested(self.pod, "cpu")),
            memory=int(podspec.quantity(limits["memory"])) if "memory" in limits else None,
        )
        self.state = replace(self.state, address=self._host.addresses.take())
        self._directory.mkdir(parents=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for volume in self.pod["spec"].get("volumes", ()):
            self._volume(volume).mkdir(parents=True)
        self._tell("Normal", "Scheduled", f"Bound to {self._host.node} with address {self.state.address}")

    @property
    def _directory(self) -> Path:
        return self._host.directory / "pods" / self._name

    @property
    def _in_memory(self) -> Path:
        return self._host.shared_memory / self._name

    def _volume(self, volume: Object) -> Path:
        medium = (volume.get("emptyDir") or {}).get("medium")
        return (self._in_memory if medium == "Memory" else self._directory / "volumes") / str(volume["name"])

    @property
    def _facts(self) -> Facts:
        server, _, port = self._host.api.server.removeprefix("https://").rpartition(":")
        return Facts(
            pod_ip=self.state.address,
            host_ip=self._host.address,
            allocatable=self._host.allocatable,
            directories={v["name"]: self._volume(v) for v in self.pod["spec"].get("volumes", ())},
            services={"KUBERNETES_SERVICE_HOST": server, "KUBERNETES_SERVICE_PORT": port},
        )

    async def _read_sources(self) -> None:
        namespace = self.pod["metadata"]["namespace"]
        for kind, name in podspec.needed(self.pod, self._container):
            path = f"/api/v1/namespaces/{namespace}/{kind.lower()}s/{name}"
            try:
                self._sources[kind, name] = await self._host.api.get(path)
            except ApiError as error:
                if error.status != 404:
                    raise
                self._sources[kind, name] = None
        account = self.pod["spec"].get("serviceAccountName", "default")
        for audience in podspec.token_audiences(self.pod) - set(self._tokens):
            request: Object = {"spec": {"expirationSeconds": 3600, "audiences": [audience] if audience else []}}
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
            self._tokens[audience] = (await self._host.api.create(path, request))["status"]["token"]

    def _write_volumes(self) -> None:
        for volume in self.pod["spec"].get("volumes", ()):
            files = podspec.volume_files(self.pod, self._container, volume, self._sources, self._facts, self._tokens)
            if files is not None and not volumes.holds(self._volume(volume), files):
                volumes.write_files(self._volume(volume), files)

    async def _run_once(self, program: Program) -> Terminated:
        """Run the process once, with its probes, and return how it ended; nothing of it is left then."""
        assert self._group is not None
        kills = self._group.usage().oom_kills
        began = datetime.now(UTC)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *bound_to_us(program.argv, self._group.procs),
                env=dict(program.env),
                cwd=program.working_directory or self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        probing = asyncio.create_task(self._probe())
        try:
            run = f"process://{self._process.pid}-{self.state.restarts}"
            running = Running(since=began)
            bare = "startupProbe" not in self._container
            ready = bare and "readinessProbe" not in self._container
            self._set(replace(self.state, state=running, run=run, started=bare, ready=ready, phase=Phase.RUNNING))
            self._tell("Normal", "Started", f"Started container {self._container['name']}")
            if self._ending:  # deleted while we launched it: `_leave` saw no process to signal
                self._signal(signal.SIGTERM)
            code = await self._process.wait()
        finally:
            probing.cancel()
            if self._process.returncode is None:  # not in the group yet, when stopped right after the launch
                with suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGKILL)
            await self._group.empty()  # a container's other processes go with its first one
            await self._process.wait()
        await asyncio.gather(probing, return_exceptions=True)
        oom = self._group.usage().oom_kills > kills
        how = terminated(code, oom=oom, began=began, ended=datetime.now(UTC))
        return replace(how, reason="StartError") if how.exit_code == START_ERROR else how

    async def _probe(self) -> None:
        container, address = self._container, self.state.address
        if startup := container.get("startupProbe"):
            passed = asyncio.Event()
            failing = asyncio.create_task(
                probes.watch(startup, container, address, lambda ok, why: passed.set() if ok else self._unhealthy(why))
            )
            try:
                await passed.wait()
            finally:
                failing.cancel()
            self._set(replace(self.state, started=True, ready="readinessProbe" not in container))
        async with asyncio.TaskGroup() as tasks:
            if probe := container.get("readinessProbe"):
                tasks.create_task(probes.watch(probe, container, address, self._readiness, eager=True))
            if probe := container.get("livenessProbe"):
                tasks.create_task(probes.watch(probe, container, address, self._liveness))

    def _readiness(self, passes: bool, message: str) -> None:
        if passes is not self.state.ready:
            self._set(replace(self.state, ready=passes))
            if not passes:
                self._tell("Warning", "Unhealthy", f"Readiness probe failed: {message}")

    def _liveness(self, passes: bool, message: str) -> None:
        if not passes and not self._ending:  # a pod that is leaving is not restarted
            self._unhealthy(message)

    def _unhealthy(self, message: str) -> None:
        self._tell("Warning", "Unhealthy", f"Probe failed, the container will be restarted: {message}")
        task = asyncio.create_task(self._end_process())
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def _end_process(self) -> None:
        """Ask the process to end, and kill it after the pod's grace."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        # Subtle: the methods of Popen poll first, and would take the exit code away from asyncio's watcher.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.pod["spec"].get("terminationGracePeriodSeconds", 30)):
                await process.wait()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    async def _leave(self, life: asyncio.Task[None]) -> None:
        """End the process within the grace that the deletion gives, which may still be shortened."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self.pid is not None and not self._gone:
            self._tell("Normal", "Killing", f"Stopping container {self._container['name']}")
            await self._before_stop(life)
            self._signal(signal.SIGTERM)
        while not life.done():
            self._poked.clear()
            left = began + self._grace - loop.time()
            if left <= 0:
                self._signal(signal.SIGKILL)
            poked = asyncio.create_task(self._poked.wait())
            await asyncio.wait({life, poked}, timeout=max(left, 0.05), return_when=asyncio.FIRST_COMPLETED)
            poked.cancel()

    async def _before_stop(self, life: asyncio.Task[None]) -> None:
        hook = self._container.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            seconds = min(hook["sleep"]["seconds"], self._grace)
            await asyncio.wait({life}, timeout=seconds)
        elif hook:
            self._tell("Warning", "FailedPreStopHook", "only the sleep hook is supported on a process node")

    @property
    def _grace(self) -> float:
        return 0 if self._gone else float(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0)

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()

    def _set(self, state: PodState) -> None:
        self.state = state
        self._dirty.set()

    async def _publish(self) -> None:
        """Write the status whenever it changed, for as long as it takes; it never holds up the process."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not await self._write_status():
                self._dirty.set()
                await asyncio.sleep(_RETRY)

    async def _write_status(self) -> bool:
        """Write the status now; False when the API server has to be asked again."""
        await self._host.connected.wait()
        status = render(self.pod, self.state, self._conditions, host_ip=self._host.address, now=datetime.now(UTC))
        body = {"metadata": {"uid": self.pod["metadata"]["uid"]}, "status": status}
        try:
            await self._host.api.patch(self._path + "/status", body, kind=STRATEGIC)
        except ApiError as error:
            if error.status in (404, 409):  # gone, or another pod of this name
                self._gone = self._gone or error.status == 404
                return True
            return False
        except UNREACHABLE:
            return False
        self._conditions = status["conditions"]
        return True

    async def _forget(self) -> None:
        """Tell the API server how it ended and that nothing is left of the pod."""
        uid = self.pod["metadata"]["uid"]
        while not self._gone:
            if await self._write_status() and not self._gone:
                try:
                    await self._host.api.delete(self._path, grace=0, uid=uid)
                    return
                except ApiError as error:
                    if error.status in (404, 409):
                        return
                except UNREACHABLE:
                    pass
            await asyncio.sleep(_RETRY)

    async def _clean(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        await group.remove()
        self._host.addresses.give_back(self.state.address)
        for directory in (self._directory, self._in_memory):
            shutil.rmtree(directory, ignore_errors=True)

    def _tell(self, kind: str, reason: str, message: str) -> None:
        task = asyncio.create_task(self._host.event(self.pod, kind, reason, message))
        self._events.add(task)
        task.add_done_callback(self._events.discard)
