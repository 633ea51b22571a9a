"""
The fleet of a local run: each runner is a process of this machine, ended with us, with its things in one directory.

Like a Deployment it keeps the number of runners that was asked for: a dead one is gone, its replacement starts at once,
then after 1 s, 2 s … 30 s while they keep dying. Everything happens within a call; there is no task in the background.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from trafficsim_api import __version__
from trafficsim_api.errors import Unavailable
from trafficsim_api.names import hash8
from trafficsim_api.policy import Policy
from trafficsim_api.resource import Runner as Template
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.actions import EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.environments import environment_of
from trafficsim_operator.fleet.lookup import HostLookups, certificates_of, host_and_port
from trafficsim_operator.fleet.process import RunnerProcess, free_ports, start
from trafficsim_operator.fleet.rows import FileRows, local_rows
from trafficsim_operator.observed import RevisionSeen, RowsSeen, Runner, RunnerState, TargetFacts

__all__ = ["IMAGE", "LocalFleet"]

log = logging.getLogger(__name__)

IMAGE: Final = f"trafficsim/runner:{__version__}"

_DRAIN_S: Final = 35.0  # what a runner may take to drain after SIGTERM, before it is killed
_BACK_OFF_S: Final = 30.0
_SETTLED_S: Final = 60.0  # a runner that lived this long did not die of its start
_LOOKUP_S: Final = 30.0  # how long a resolved address is good for


@dataclass(slots=True, kw_only=True)
class _Revision:
    """A runner revision: what was asked for, and what lives."""

    owner: Owner
    name: str
    template: Template
    replicas: int
    processes: list[RunnerProcess] = field(default_factory=list)
    deaths: int = 0
    """Runners that died one after the other, none of them having lived long."""
    next_start: float = 0.0
    cause: str = ""
    removed: bool = False

    @property
    def staying(self) -> list[RunnerProcess]:
        """Return the processes that were not asked to end."""
        return [process for process in self.processes if process.kill_at is None]


class LocalFleet:
    """
    Runners as subprocesses.

    *directory* is where runners keep their state, *keys* holds the public keys they trust, *environ* what they inherit,
    *images* says what an image is here, and paths in the document are relative to *base*.
    """

    def __init__(
        self,
        *,
        directory: Path,
        keys: Path,
        environ: Mapping[str, str],
        now_ms: Callable[[], int],
        images: Mapping[str, Path] | None = None,
        base: Path = Path(),
    ) -> None:
        self.image = IMAGE
        self.cores: int | None = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._directory, self._keys, self._base = directory, keys, base
        self._environ = {key: value for key, value in environ.items() if not key.startswith("TRAFFICSIM_")}
        self._environ |= {key: environ[key] for key in ("TRAFFICSIM_RAW", "TRAFFICSIM_ACTIVE") if key in environ}
        self._images = dict(images or {})
        self._files = FileRows(base)
        self._now_ms = now_ms
        self._revisions: dict[tuple[str, str], _Revision] = {}
        self._ports: Iterator[int] = free_ports(os.getpid())
        self._started = 0
        self._hosts = HostLookups()
        self._facts: dict[tuple[str, int], tuple[float, TargetFacts]] = {}
        self.losses: list[str] = []
        """Runners that died without being asked to, each with its cause, oldest first."""

    async def observe(self, owner: Owner) -> Mapping[str, RevisionSeen]:
        """Return every revision with its runners; on the way bury and replace the dead, kill the slow to end."""
        seen: dict[str, RevisionSeen] = {}
        for key, revision in list(self._revisions.items()):
            if revision.owner.uid != owner.uid:
                continue
            await self._keep(revision)
            if revision.removed and not revision.processes:
                del self._revisions[key]
                continue
            await asyncio.gather(*(process.probe() for process in revision.processes))
            seen[revision.name] = RevisionSeen(
                revision=revision.name,
                replicas=revision.replicas,
                runners=tuple(_seen(revision.name, process) for process in revision.processes),
                problem=revision.cause if len(revision.staying) < revision.replicas else "",
            )
        return seen

    async def apply(self, owner: Owner, action: EnsureRevision | Retire | RemoveRevision) -> None:
        """Carry out one action; absolute, so a repeat is harmless."""
        key = (owner.uid, action.revision)
        match action:
            case EnsureRevision():
                revision = self._revisions.get(key)
                if revision is None:
                    template = Template.model_validate_json(json.dumps(dict(action.template)))
                    revision = _Revision(owner=owner, name=action.revision, template=template, replicas=0)
                    self._revisions[key] = revision
                    self._say_what_the_image_is(template)
                revision.replicas, revision.removed = action.replicas, False
                await self._keep(revision)
            case Retire():
                revision = self._revisions.get(key)
                if revision is not None:
                    revision.replicas = action.replicas
                    self._end(process for process in revision.processes if process.name in action.runners)
            case RemoveRevision():
                revision = self._revisions.get(key)
                if revision is not None:
                    revision.replicas, revision.removed = 0, True
                    self._end(revision.processes)
            case _:
                assert_never(action)

    async def look_up(
        self, owner: Owner, spec: TrafficSimulationSpec, policy: Policy
    ) -> tuple[TargetFacts, str | None, str]:
        """Return what the URL means here, the PEM of target.tls.caFrom (None: not asked for), and its problem."""
        given = spec.target.tls.ca_from if spec.target.tls else None
        pem, problem = certificates_of(given, self._base)
        key, now = host_and_port(spec), asyncio.get_running_loop().time()
        until, facts = self._facts.get(key, (0.0, None))
        if facts is None or now >= until:
            facts = await self._hosts.resolve(*key)
            if not facts.problem:
                self._facts[key] = (now + _LOOKUP_S, facts)
        return facts, pem, problem

    async def rows(self, owner: Owner, spec: TrafficSimulationSpec) -> Mapping[str, RowsSeen]:
        """Return the rows of each feeder; there is no ConfigMap on this machine."""
        return local_rows(spec, self._files)

    async def aclose(self, *, at_once: bool = False) -> None:
        """End every runner, with patience or *at_once*, and return when all are gone."""
        now = asyncio.get_running_loop().time()
        processes = [process for revision in self._revisions.values() for process in revision.processes]
        for process in processes:
            if at_once:
                process.end_at_once()
            else:
                process.end(now)
        while alive := [process for process in processes if not process.has_ended]:
            self._end_patience(alive)
            await asyncio.sleep(0.02)
        await asyncio.gather(*(process.forget() for process in processes))
        self._revisions.clear()

    def kill(self) -> None:
        """Kill every runner now; for when there is no time to wait."""
        for revision in self._revisions.values():
            for process in revision.processes:
                process.end_at_once()

    # What a Deployment's controllers do.

    async def _keep(self, revision: _Revision) -> None:
        """Bury the dead, end what is too much, start what is missing and due."""
        now = asyncio.get_running_loop().time()
        self._end_patience(revision.processes)
        for process in [process for process in revision.processes if process.has_ended]:
            revision.processes.remove(process)
            if process.kill_at is None:
                self._mourn(revision, process, now)
            await process.forget()
        # As a ReplicaSet does: those that are not ready go first, then the youngest.
        spare = sorted(revision.staying, key=lambda process: (process.is_ready, -process.started_ms))
        self._end(spare[: max(0, len(spare) - revision.replicas)])
        while len(revision.staying) < revision.replicas and now >= revision.next_start:
            self._start_one(revision)

    def _mourn(self, revision: _Revision, process: RunnerProcess, now: float) -> None:
        cause = process.exit_cause()
        if self._now_ms() - process.started_ms >= _SETTLED_S * 1000:
            revision.deaths = 0
        revision.next_start = now + (min(_BACK_OFF_S, 2.0 ** (revision.deaths - 1)) if revision.deaths else 0.0)
        revision.deaths += 1
        revision.cause = f"{process.name} {cause}"
        self.losses.append(revision.cause)
        log.warning("runner died", extra={"runner": process.name, "cause": cause})

    def _start_one(self, revision: _Revision) -> None:
        self._started += 1
        uid = str(uuid.uuid4())
        name = f"{revision.owner.name}-{hash8(revision.owner.uid, revision.name)}-{self._started}"
        port = next(self._ports, None)
        if port is None:
            self._ports = free_ports(os.getpid() + self._started)
            raise Unavailable("no free port on 127.0.0.1")
        try:
            process = start(
                name=name, uid=uid, port=port, directory=self._directory / name, started_ms=self._now_ms(),
                environment=environment_of(revision.template.image or IMAGE, self._images),
                variables=self._variables(revision), grace_s=_DRAIN_S,
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(f"a runner could not be started: {error.strerror}") from error
        process.cause = revision.cause
        revision.processes.append(process)
        log.info("runner started", extra={"runner": name, "address": process.address, "pid": process.process.pid})

    def _variables(self, revision: _Revision) -> dict[str, str]:
        template = revision.template
        cpu = min(template.resources.cpu, 1000 * (self.cores or 1))
        environment = environment_of(template.image or IMAGE, self._images)
        return {
            **self._environ,
            **environment.variables(self._environ),
            **{variable.name: variable.value for variable in template.env},
            "TRAFFICSIM_SIMULATION_UID": revision.owner.uid,
            "TRAFFICSIM_REVISION": revision.name,
            "TRAFFICSIM_KEYS": str(self._keys),
            "TRAFFICSIM_SCENARIOS": str(self._base.absolute()),
            "TRAFFICSIM_CPU": str(cpu),
            "TRAFFICSIM_MEMORY": str(template.resources.memory),
            "TRAFFICSIM_GRACE": str(int(_DRAIN_S) - 5),
        }

    def _say_what_the_image_is(self, template: Template) -> None:
        image = template.image or IMAGE
        if image != IMAGE and image not in self._images:
            log.warning("image is not mapped: the runners run in the current environment", extra={"image": image})

    def _end(self, processes: Iterator[RunnerProcess] | list[RunnerProcess]) -> None:
        now = asyncio.get_running_loop().time()
        for process in processes:
            process.end(now)

    def _end_patience(self, processes: list[RunnerProcess]) -> None:
        now = asyncio.get_running_loop().time()
        for process in processes:
            if process.kill_at is not None and now >= process.kill_at and not process.has_ended:
                log.warning("runner killed: it did not drain in time", extra={"runner": process.name})
                process.end_at_once()


def _seen(revision: str, process: RunnerProcess) -> Runner:
    """Return *process* as the fleet shows it."""
    if process.kill_at is not None:
        state = RunnerState.LEAVING
    elif process.is_ready:
        state = RunnerState.READY
    else:
        state = RunnerState.UNREADY if process.was_ready else RunnerState.STARTING
    cause = process.cause if state is RunnerState.STARTING else ""
    return Runner(
        name=process.name, uid=process.uid, revision=revision, state=state, address=process.address, cause=cause,
        started_ms=process.started_ms,
    )  # fmt: skip
