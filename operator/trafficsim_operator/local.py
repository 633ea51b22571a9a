"""
A local run: the very reconcile loop, for one document, with a fleet of processes and a record in SQLite.

Ctrl-C (SIGINT; SIGTERM and SIGHUP alike) ends the run: users finish their action, the numbers are read to the end and
judged. A second one kills the runners at once; such a run is Inconclusive.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trafficsim_api.document import load_spec
from trafficsim_api.errors import Problem, SpecError, Unavailable
from trafficsim_api.names import Event
from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.policy import Policy
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import Revision, RolloutStatus, Status, TaskStatus
from trafficsim_api.units import parse_instant
from trafficsim_operator.actions import Happening
from trafficsim_operator.edits import Edit, edits
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.local import LocalFleet
from trafficsim_operator.fleet.runners import Runners, Signer
from trafficsim_operator.fleet.workspace import workspace
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observed import Desired, Evidence, Observed, RowsSeen
from trafficsim_operator.plan.acceptance import Refused, accept
from trafficsim_operator.plan.report import Report
from trafficsim_operator.reconcile import World, read, reconcile
from trafficsim_operator.store import Document
from trafficsim_operator.store.sqlite import SqliteRecord

__all__ = ["EXIT", "FAULT", "Frame", "Options", "Outcome", "RolledOut", "View", "run"]

NAMESPACE: Final = "local"
EXIT: Final[Mapping[Verdict, int]] = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INCONCLUSIVE: 2}
FAULT: Final = 3
"""The exit code when the file or the environment is at fault."""

_T = TypeVar("_T")
_LOOK_MS: Final = 1000
_PATIENCE_MS: Final = 30_000  # how long the record may not answer before the run is given up
_ENDED: Final = frozenset({Phase.COMPLETED, Phase.FAILED})
_STARTING: Final = frozenset({Phase.PENDING, Phase.PREFLIGHT, Phase.STARTING})
# The phases are seen anyway.
_TOLD: Final = frozenset(
    {Event.SCALED, Event.SCALED_UP, Event.SCALED_DOWN, Event.FORECAST_OFF, Event.FORECAST_ON, Event.COMMAND}
    | {Event.DRIFT_REPAIRED, Event.SETUP, Event.TEARDOWN, Event.ROLLOUT_STARTED}
    | {Event.STEP_PASSED, Event.ROLLOUT_PAUSED, Event.ROLLOUT_RESUMED, Event.PROMOTED, Event.ROLLOUT_ENDED}
)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KID: Final = "local"
_REFUSED: Final = "refuses the assignment: "  # a worker, and will however long we wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What is to be run: the *body* of the document from *source*, under *policy* with the targets *allowed* beside it.

    *file* is watched for edits when given, paths in the document are relative to *base*, *history* None keeps none,
    and *start_ms* is how long runners and target may take to be ready.
    """

    body: Mapping[str, Any]
    source: str
    policy: Policy
    allowed: tuple[str, ...] = ()
    images: Mapping[str, Path] = field(default_factory=dict)
    history: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    base: Path = Path()
    file: Path | None = None
    start_ms: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One look at the run, for showing."""

    name: str
    spec: TrafficSimulationSpec
    status: Status
    evidence: Evidence
    now_ms: int

    @property
    def elapsed_ms(self) -> int | None:
        """Return the time since the profile's origin, None before there is one."""
        run = self.status.run
        if run is None or run.origin is None:
            return None
        until = parse_instant(run.finished_at) if run.finished_at else self.now_ms
        return until - parse_instant(run.origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledOut:
    """One rollout of the run: from which version to which, and its status as it was last."""

    blue: Revision
    green: Revision
    rollout: RolloutStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: the last frame, the whole account, and the process's *exit* code with its *reason*."""

    frame: Frame
    report: Report
    exit: int
    verdict: Verdict | None
    reason: str
    losses: tuple[str, ...] = ()
    runners: int = 0
    """The most runners that were asked for at a time."""
    rows: Mapping[str, RowsSeen] = field(default_factory=dict)
    """The rows of each feeder of data."""
    rollouts: tuple[RolledOut, ...] = ()
    """Every attempt, in order."""


class View(Protocol):
    """Who is shown the run."""

    def show(self, frame: Frame) -> None:
        """Show a look."""

    def note(self, text: str, *, warning: bool = False) -> None:
        """Say what happened."""

    def close(self) -> None:
        """Take away what must not stay."""


@functools.cache
def _ahead_ns() -> int:
    """Return how far the wall clock is ahead of the monotonic one, as it was when this was first asked."""
    return time.time_ns() - time.monotonic_ns()  # noqa: TID251  # the shell: decisions are handed the instant


def now_ms() -> int:
    """
    Return the time in ms since the Unix epoch; this is where a local run reads it.

    It goes on from the wall clock as it stood at the start: the run ends when its time is over, whoever sets the clock.
    """
    return (time.monotonic_ns() + _ahead_ns()) // 1_000_000  # noqa: TID251


async def run(options: Options, view: View) -> Outcome:
    """
    Drive the simulation until it ended and return its outcome.

    Raises SpecError when file or environment are at fault before anything started.
    """
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(workspace())
        record = await stack.enter_async_context(SqliteRecord(options.history, now_ms))
        signer = _signer(directory / "keys")
        fleet = LocalFleet(
            directory=directory / "runners", keys=directory / "keys", environ=options.environ, now_ms=now_ms,
            images=options.images, base=options.base,
        )  # fmt: skip
        stack.push_async_callback(fleet.aclose)
        runners = Runners(signer=signer)
        stack.push_async_callback(runners.aclose)
        world = World(
            record=record, fleet=fleet, runners=runners, ledgers=Ledgers(watched=True), policy=lambda: options.policy,
            now_ms=now_ms, watched=True,
        )  # fmt: skip
        record.listen(functools.partial(_tell, view))
        stack.callback(view.close)
        local = _Local(options=options, view=view, world=world, record=record, fleet=fleet)
        return await local.run()


def _signer(keys: Path) -> Signer:
    """Make the key of this run and leave its public half where the runners look."""
    key = Ed25519PrivateKey.generate()
    keys.mkdir()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (keys / f"{_KID}.pem").write_bytes(pem)
    return Signer(kid=_KID, key=key)


def _tell(view: View, happening: Happening) -> None:
    if happening.warning or (happening.reason in _TOLD and Phase.COMPLETED not in happening.message):
        view.note(happening.message or happening.reason, warning=happening.warning)


@dataclass(slots=True, kw_only=True)
class _Local:
    """One local run while it goes on."""

    options: Options
    view: View
    world: World
    record: SqliteRecord
    fleet: LocalFleet
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    frame: Frame | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _signals: int = 0
    _runners: int = 0
    _stopped: str = ""
    """Why the run has no verdict of its own: somebody stopped it before it could have one."""
    _failed: str = ""
    """Why it never began."""
    _faults: set[str] = field(default_factory=set)
    _rollouts: dict[int, RolledOut] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the simulation's name."""
        return str(self.options.body["metadata"]["name"])

    async def run(self) -> Outcome:
        """Put the document on record, follow it to its end, and write the end into the history."""
        await self._put(self.options.body)
        with self._interrupts(asyncio.current_task()):
            try:
                async with asyncio.TaskGroup() as group:
                    watcher = group.create_task(self._watch())
                    await self._follow()
                    watcher.cancel()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._signals < 2 or task is None:
                    raise
                task.uncancel()
                self.frame = self.frame or await self._patiently(self._look)
                self._stopped = "stopped at once: the numbers since the last look are missing"
                await self.fleet.aclose(at_once=True)
            except ExceptionGroup as errors:
                # One of two things went wrong; the group around it says nothing more.
                raise errors.exceptions[0] from None
        outcome = await self._patiently(self._outcome)
        try:
            await self.record.finish(
                self.uid, verdict=outcome.verdict.value if outcome.verdict else "", reason=outcome.reason,
                report={"exit": outcome.exit, **asdict(outcome.report)},
            )  # fmt: skip
        except Unavailable as error:
            self.view.note(f"the end of the run is not in the history: {error}", warning=True)
        return outcome

    async def _patiently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Return what *call* does, tried again for a while when the record does not answer."""
        begun_ms = now_ms()
        while True:
            try:
                return await call()
            except Unavailable as error:
                if now_ms() - begun_ms > _PATIENCE_MS:
                    raise SpecError(Problem(field="", reason=str(error))) from error
            await asyncio.sleep(_LOOK_MS / 1000)

    async def _put(self, body: Mapping[str, Any]) -> int:
        return await self.record.put(
            body, namespace=NAMESPACE, name=self.name, uid=self.uid, source=self.options.source,
            allowed=self.options.allowed,
        )  # fmt: skip

    async def _follow(self) -> None:
        """Look, decide, act and show, until the simulation has ended or could not start."""
        begun_ms = answered_ms = now_ms()
        while True:
            self._wake.clear()
            try:
                delay_ms = await reconcile(NAMESPACE, self.name, self.world)
                self.frame = await self._look()
                answered_ms = now_ms()
            except Unavailable as error:
                if now_ms() - answered_ms > _PATIENCE_MS:
                    raise SpecError(Problem(field="", reason=str(error))) from error
                delay_ms = _LOOK_MS
            if self.frame is not None:
                self._runners = max(self._runners, self.frame.status.runners.wanted)
                self._note_rollout(self.frame.status)
                self.view.show(self.frame)
                if self._is_over(self.frame.status, now_ms() - begun_ms):
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(delay_ms or _LOOK_MS, _LOOK_MS) / 1000):
                    await self._wake.wait()

    def _is_over(self, status: Status, elapsed_ms: int) -> bool:
        if status.phase in _ENDED:
            return True
        if status.phase not in _STARTING or status.run is None or status.run.origin is not None:
            return False
        if self.world.stop:
            self._stopped = f"{self.world.stop} before it began"
        elif elapsed_ms - self._setup_ms(status.run.setup) > self.options.start_ms:
            self._failed = f"not begun within {self.options.start_ms // 1000} s: {status.message}"
        elif _REFUSED in status.message:
            self._failed = status.message.partition(_REFUSED)[2]
        return bool(self._stopped or self._failed)

    @staticmethod
    def _setup_ms(setup: TaskStatus | None) -> int:
        """Return how long setup has taken so far: its own time-out bounds it."""
        if setup is None:
            return 0
        return (parse_instant(setup.ended) if setup.ended else now_ms()) - parse_instant(setup.since)

    async def _read(self) -> tuple[Document, Desired]:
        document = await self.record.read(NAMESPACE, self.name)
        assert document is not None, "nobody deletes the document of a local run"
        return document, read(document, self.world.specs)

    async def _look(self) -> Frame:
        document, desired = await self._read()
        assert desired.spec is not None, f"only documents that can be read are put on record: {desired.problems}"
        now = now_ms()
        ledger = await self.world.ledgers.of(document, desired.status, self.record, now)
        evidence = ledger.evidence(desired.spec)
        self._note_faults(runner.acknowledgement for runner in ledger.remembered.values())
        return Frame(name=self.name, spec=desired.spec, status=desired.status, evidence=evidence, now_ms=now)

    def _note_faults(self, acknowledgements: Iterable[Acknowledgement | None]) -> None:
        """Say what scenarios raised, each once: the runners' logs go with them."""
        for fault in [ack.fault for ack in acknowledgements if ack is not None]:
            if fault and fault not in self._faults:
                self._faults.add(fault)
                self.view.note(f"raised in a worker, counted, users go on: {fault}", warning=True)

    def _note_rollout(self, status: Status) -> None:
        """Keep what became of each rollout: the pointers to its versions move on when it is over."""
        rollout = status.rollout
        if rollout is None:
            return
        known = self._rollouts.get(rollout.attempt)
        if known is not None:
            self._rollouts[rollout.attempt] = replace(known, rollout=rollout)
        elif status.stable is not None and status.candidate is not None:
            self._rollouts[rollout.attempt] = RolledOut(blue=status.stable, green=status.candidate, rollout=rollout)

    async def _watch(self) -> None:
        """Take over every edit of the file that can be taken over; say what is wrong with the others."""
        if self.options.file is None:
            return
        async for edit in edits(self.options.file, self.options.body):
            try:
                await self._take_over(edit)
            except Unavailable as error:
                self.view.note(f"edit ignored, save the file again: {error}", warning=True)

    async def _take_over(self, edit: Edit) -> None:
        problems = edit.problems or await self._refusals(edit.body)
        for problem in problems:
            self.view.note(f"edit ignored: {problem}", warning=True)
        if not problems:
            generation = await self._put(edit.body)
            self.view.note(f"edit taken over as generation {generation}: {edit.what}")
            self._wake.set()

    async def _refusals(self, body: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Return why the simulation must not become *body*: what is refused would end the run."""
        if body["metadata"]["name"] != self.name:
            return (Problem(field="metadata.name", reason=f"it stays {self.name} while the simulation runs"),)
        document, desired = await self._read()
        # As the next generation: what an edit asks of its data is judged, what a file became in the run is not.
        desired = replace(desired, spec=load_spec(body).spec, generation=desired.generation + 1)
        assert desired.spec is not None
        owner = Owner(namespace=NAMESPACE, name=self.name, uid=document.uid)
        facts, ca, ca_problem = await self.fleet.look_up(owner, desired.spec, self.options.policy)
        ledger = await self.world.ledgers.of(document, desired.status, self.record, now_ms())
        observed = Observed(
            target=facts, policy=self.options.policy, image=self.fleet.image, cores=self.fleet.cores, ca=ca,
            ca_problem=ca_problem, data=await self.fleet.rows(owner, desired.spec), saved=ledger.saved,
            accepted=ledger.accepted,
        )  # fmt: skip
        answer = accept(desired, observed, desired.status.stable)
        return answer.problems if isinstance(answer, Refused) else ()

    async def _outcome(self) -> Outcome:
        frame = self.frame
        assert frame is not None
        status = frame.status
        document, desired = await self._read()
        ledger = await self.world.ledgers.of(document, desired.status, self.record, now_ms())
        owner = Owner(namespace=NAMESPACE, name=self.name, uid=document.uid)
        verdict, reason = status.verdict, status.verdict_reason
        if self._stopped:
            verdict, reason = Verdict.INCONCLUSIVE, self._stopped
        elif self._failed or status.phase is Phase.FAILED:
            verdict, reason = None, self._failed or status.message
        return Outcome(
            frame=frame, report=ledger.report(), exit=FAULT if verdict is None else EXIT[verdict], verdict=verdict,
            reason=reason, losses=tuple(self.fleet.losses), runners=self._runners,
            rows=await self.fleet.rows(owner, frame.spec), rollouts=tuple(self._rollouts.values()),
        )  # fmt: skip

    @contextlib.contextmanager
    def _interrupts(self, task: asyncio.Task[Any] | None) -> Iterator[None]:
        """Turn the first signal into an orderly end and the second into one at once."""

        def interrupted(number: signal.Signals) -> None:
            self._signals += 1
            if self._signals == 1:
                self.world.stop = f"stopped by {number.name}"
                self.view.note("Ending: users finish their action, then the verdict. Once more to stop at once.")
                self._wake.set()
            else:
                self.fleet.kill()
                # A third one changes nothing: what is left is short.
                if task is not None and self._signals == 2:
                    task.cancel()

        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, interrupted, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
