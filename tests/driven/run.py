"""
A whole run as tests drive it: the reconcile loop over a fleet of runner processes, with everything in reach.

    async with a_run(a_document(server.url, archetypes=[...]), directory=tmp_path) as run:
        status = await run.ends()
    assert server.log.received == run.account().count("sent")

It is what `trafficsim run` does, but for the terminal: the test sees each look, the merged vectors and the processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trafficsim_api.errors import Unavailable
from trafficsim_api.layout import EXTREMES, Layout
from trafficsim_api.phases import Phase
from trafficsim_api.policy import LOCAL_DEFAULT
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.statistics import Vector, action_counter, histogram, quantiles, total
from trafficsim_api.status import Status
from trafficsim_api.units import parse_instant
from trafficsim_operator.fleet.local import LocalFleet
from trafficsim_operator.fleet.runners import Runners, Signer
from trafficsim_operator.ledger import Ledger, Ledgers
from trafficsim_operator.observed import Evidence
from trafficsim_operator.reconcile import World, read, reconcile
from trafficsim_operator.store.sqlite import SqliteRecord

NAMESPACE, NAME = "local", "truth"
LOOK_S = 1.0


def a_document(url: str, *, archetypes: Sequence[Mapping[str, Any]], **spec: Any) -> dict[str, Any]:
    """Return a document: everybody is on at once, for 6 s, of which the first is the warm-up, unless told otherwise."""
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": NAME},
        "spec": {
            "target": {"url": url, "healthPath": "/healthz", **spec.pop("target", {})},
            "duration": "6s",
            "warmUp": "1s",
            "profile": [{"ramp": {"to": "100%", "over": "1ms"}}],
            "archetypes": list(archetypes),
            **spec,
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The merged account of a run: *warm* is what of *whole* came before the warm-up's end."""

    layout: Layout
    whole: Vector
    warm: Vector
    extremes: tuple[int, ...]

    def _number(self, action: str) -> int:
        return next(number for number, (name, _) in enumerate(self.layout.actions) if name == action)

    def count(self, counter: str, action: str | None = None) -> int:
        """Return an action counter of the whole run, of one *action* or of all."""
        if action is None:
            return total(self.layout, self.whole, counter)
        return action_counter(self.layout, self.whole, self._number(action), counter)

    def worker(self, counter: str) -> int:
        """Return a counter of workers or supervisors."""
        return int(self.whole[self.layout.worker(counter)])

    def quantiles(self, qs: Sequence[float], action: str | None = None, which: str = "service") -> list[int]:
        """Return quantiles (ns, upper edges) over the whole run."""
        number = None if action is None else self._number(action)
        found = quantiles(histogram(self.layout, self.whole, which, number), qs)
        return [value for value in found if value is not None]

    def extreme(self, name: str, action: str) -> int:
        """Return one of EXTREMES of an action."""
        return self.extremes[self._number(action) * len(EXTREMES) + EXTREMES.index(name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look: *began_ms* and *ended_ms* (wall clock) enclose it, *active* is what each runner said in it."""

    began_ms: int
    ended_ms: int
    status: Status
    active: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class Run:
    """A run that goes on, or has ended."""

    world: World
    fleet: LocalFleet
    record: SqliteRecord
    looks: list[Seen] = field(default_factory=list)
    spec: TrafficSimulationSpec | None = None
    failure: BaseException | None = None
    """What ended the following of the run before its time."""
    _looked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def addresses(self) -> list[str]:
        """Return where the runners' control APIs are."""
        return sorted(self.ledger.addresses())

    @property
    def status(self) -> Status:
        """Return the newest status."""
        return self.looks[-1].status if self.looks else Status()

    @property
    def ledger(self) -> Ledger:
        """Return the ledger, from which `account` is made."""
        ledger = self.world.ledgers.get(NAMESPACE, NAME)
        assert ledger is not None, "no look was taken yet"
        return ledger

    def account(self) -> Account:
        """Return the merged account as it stands."""
        layout, whole, warm, extremes = self.ledger.merged()
        return Account(layout=layout, whole=whole, warm=warm, extremes=extremes)

    def evidence(self) -> Evidence:
        """Return what the verdict is judged by."""
        return self.ledger.evidence(self.spec)

    async def until(self, claim: Callable[[Run], object], *, within_s: float = 30) -> None:
        """Wait for the first look after which *claim* holds."""
        async with asyncio.timeout(within_s):
            while not (self.looks and claim(self)):
                if self.failure is not None:
                    raise self.failure
                self._looked.clear()
                await self._looked.wait()

    async def ends(self, *, within_s: float = 60) -> Status:
        """Wait for the end and return the last status."""
        await self.until(lambda run: run.status.phase in (Phase.COMPLETED, Phase.FAILED), within_s=within_s)
        assert Phase.COMPLETED is self.status.phase, self.status.message
        return self.status

    async def begins(self, *, within_s: float = 30) -> int:
        """Wait until the profile has an origin; return it, in wall-clock ms."""
        await self.until(lambda run: run.status.run is not None and run.status.run.origin, within_s=within_s)
        assert self.status.run is not None
        assert self.status.run.origin is not None
        return parse_instant(self.status.run.origin)

    async def follow(self) -> None:
        """Look once a second until the run has ended; whoever waits for it hears of a failure."""
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001  # it is raised in the test
            self.failure = error
            self._looked.set()

    async def _follow(self) -> None:
        while self.status.phase not in (Phase.COMPLETED, Phase.FAILED):
            began = now_ms()
            delay_ms: int | None = None
            with contextlib.suppress(Unavailable):
                delay_ms = await reconcile(NAMESPACE, NAME, self.world)
            document = await self.record.read(NAMESPACE, NAME)
            assert document is not None
            active = {
                runner.name: runner.acknowledgement.active
                for runner in self.ledger.remembered.values()
                if runner.acknowledgement is not None and runner.answered
            }
            self.spec = read(document).spec
            seen = Seen(began_ms=began, ended_ms=now_ms(), status=read(document).status, active=active)
            self.looks.append(seen)
            self._looked.set()
            await asyncio.sleep(min((delay_ms or 1000) / 1000, LOOK_S))


def now_ms() -> int:
    """Return the wall clock in ms."""
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def a_run(
    document: Mapping[str, Any], *, directory: Path, raw: Path | None = None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Run]:
    """Start the simulation in *document*; *raw* is a directory for the raw record of every request."""
    environ = {**os.environ, **(environ or {}), **({"TRAFFICSIM_RAW": str(raw)} if raw else {})}
    key = Ed25519PrivateKey.generate()
    keys = directory / "keys"
    keys.mkdir(parents=True)
    (keys / "truth.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    fleet = LocalFleet(directory=directory / "runners", keys=keys, environ=environ, now_ms=now_ms)
    runners = Runners(signer=Signer(kid="truth", key=key))
    async with SqliteRecord(None, now_ms) as record:
        world = World(
            record=record, fleet=fleet, runners=runners, ledgers=Ledgers(watched=True), policy=lambda: LOCAL_DEFAULT,
            now_ms=now_ms, watched=True,
        )  # fmt: skip
        await record.put(document, namespace=NAMESPACE, name=NAME, uid="truth-0", source="test", allowed=())
        run = Run(world=world, fleet=fleet, record=record)
        following = asyncio.create_task(run.follow())
        try:
            yield run
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await runners.aclose()
            await fleet.aclose()


def children_of(parent: int, program: str) -> list[int]:
    """Return the ids of *parent*'s child processes that run *program*, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, its_parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
            words = (stat.parent / "cmdline").read_text().split("\0")
            if its_parent == parent and program in words:
                found.append(pid)
    return sorted(found)


def supervisors() -> list[int]:
    """Return the process ids of the runners that this process started."""
    return children_of(os.getpid(), "trafficsim_runner")


def workers_of(supervisor: int) -> list[int]:
    """Return the process ids of a runner's workers."""
    return children_of(supervisor, "trafficsim_runner.worker")
