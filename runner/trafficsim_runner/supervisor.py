"""
The supervisor: takes assignments, divides them over worker processes, and keeps the account.

It holds no users itself; a worker that hangs or dies costs the load its share only until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from trafficsim_api.connections import added_pools, pool_gauges
from trafficsim_api.protocol import LAST_READ_S, Acknowledgement, Assignment, Limits, Load, Refused, verify
from trafficsim_api.statistics import Answer
from trafficsim_api.turns import places_of
from trafficsim_api.units import milliseconds
from trafficsim_runner.admission import objection
from trafficsim_runner.child import worker_command
from trafficsim_runner.crew import EXIT_S, SECOND_NS, Command, Crew
from trafficsim_runner.division import divide, givers
from trafficsim_runner.health.probe import Probe
from trafficsim_runner.health.processes import descriptors
from trafficsim_runner.health.target import REACHABLE, ask
from trafficsim_runner.held import Held
from trafficsim_runner.logs import event
from trafficsim_runner.once import Once
from trafficsim_runner.rows import RowStore
from trafficsim_runner.settings import Settings
from trafficsim_runner.slot import Slot
from trafficsim_runner.state import Origin, State
from trafficsim_runner.stats.ledger import Ledger, Look, Seen
from trafficsim_runner.stats.merge import Total

__all__ = ["Stale", "Supervisor"]

log: Final = logging.getLogger(__name__)

# Workers copy their counters at whole seconds of CLOCK_MONOTONIC; the look follows when they surely have.
LOOK_AFTER_NS: Final = 150_000_000
# A user finishes its action within the request time-out; this much on top covers connecting and bookkeeping.
DRAIN_MARGIN_S: Final = 5.0
ASK_AGAIN_S: Final = 2.0
# Starts that differ less are one: the operator knows a runner's clock to half a round trip.
SAME_START_NS: Final = 250_000_000
LONGEST_PROBLEM: Final = 500
# As many processes as a runner of the smaller tiers will be given.
SPARES: Final = 2


class Stale(Exception):
    """An assignment older than the one held."""


class Supervisor:
    """One runner's supervisor. *assign* is for the control server; *run* keeps the workers until *stop*."""

    def __init__(
        self,
        settings: Settings,
        keys: Mapping[str, Ed25519PublicKey],
        *,
        command: Command = worker_command,
        probe: Probe | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.boot = uuid4().hex
        self.state = State(settings.state)
        self.rows = RowStore(settings.state)
        self.held: Held | None = None
        self.ledger: Ledger | None = None
        self.target = ""
        self.stopping = False
        self._keys = keys
        self._probe = probe or Probe(settings.cpu, settings.memory)
        self._asking: asyncio.Task[None] | None = None
        self._kills_named = 0
        self._sequence = 0
        self._refused = ""
        self._begun: Origin | None = None
        self._late_us: int | None = None
        self._read_at = 0  # flows begun when the account was last read with nobody at work: as many now, nothing is new
        self._last_read: asyncio.Event | None = None
        self._stop = asyncio.Event()
        self._started = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self.crew = Crew(
            self, self._group, state=self.state, boot=self.boot, command=command, clock=time.monotonic_ns
        )  # fmt: skip
        self.once = Once(self._group, self.state, environ or {}, clock=time.monotonic_ns, wall_s=time.time)

    async def run(self) -> None:
        """Keep the workers and the account until *stop*; then drain, let the account be read, and end."""
        async with self._group:
            clock = self._group.create_task(self._tick(), name="look")
            try:
                await self.crew.hire(min(SPARES, math.ceil((self.settings.cpu or 1000) / 1000)))
                self.once.resume()
                self._resume()
            finally:
                self._started.set()
            await self._stop.wait()
            await self._drain()
            await self._linger()
            clock.cancel()
            if self._asking is not None:
                self._asking.cancel()
            await self.crew.send_away()

    async def started(self) -> None:
        """Wait until assignments can be taken."""
        await self._started.wait()

    def stop(self) -> None:
        """Begin to drain and to end."""
        self.stopping = True
        self._stop.set()

    async def _drain(self) -> None:
        event(log, logging.INFO, "draining", "users finish their action and leave", grace_s=self.settings.grace_s)
        self.once.break_off("the runner went down")
        if self.held is None:
            return
        request_s = milliseconds(self.held.assignment.load.target.timeouts.request) / 1000
        await self.crew.drain(max(1.0, min(self.settings.grace_s - EXIT_S - 1, request_s + DRAIN_MARGIN_S)))
        self.look()

    async def _linger(self) -> None:
        """Wait until the last account was read, for a while: with the process it is gone."""
        self._last_read = asyncio.Event()
        if self.ledger is None or self._read_at == _flows_begun(self.ledger.total):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_READ_S):
                await self._last_read.wait()

    # Assignments

    def assign(self, body: bytes) -> Acknowledgement:
        """
        Take the signed assignment in *body* and return at once what is held now; it is settled later.

        Equal run and epoch: nothing changes. Raises Refused (403 and 422: see protocol.verify and admission; 503: the
        runner is going down) and Stale for an older one. What was signed for this runner and refused is told as the
        problem until another one is taken.
        """
        assignment = self._verified(body)
        if self.stopping:
            raise Refused(503, "the runner is going down")
        new = (assignment.run, assignment.epoch)
        if self.held is not None and new < self.held.order:
            raise Stale(f"run and epoch {new} are older than {self.held.order}")
        if self.held is not None and new == self.held.order:
            self._refused = ""
            return self.acknowledgement()
        is_same_run = self.held is not None and self.held.assignment.run == assignment.run
        known = self.ledger.total.layout.actions if self.ledger and is_same_run else ()
        if reason := objection(assignment, known):
            self._refused = reason
            raise Refused(422, reason)
        rows = self._rows_of(assignment)
        if self.held is not None and not is_same_run:
            self._leave_run()
        try:
            self._hold(assignment, _load_of(body), rows)
        except OSError as error:
            self._refused = f"nothing can be counted in the state directory: {error.strerror}"
            raise Refused(507, self._refused) from error
        self._keep(body)
        event(log, logging.INFO, "assigned", f"epoch {assignment.epoch}: {len(assignment.held)} places",
              run=assignment.run, epoch=assignment.epoch, users=assignment.users, processes=assignment.processes,
              retire=assignment.retire, suspended=assignment.suspended)  # fmt: skip
        return self.acknowledgement()

    def _keep(self, body: bytes) -> None:
        """Keep the envelope for a restart, if there is room: without it a restart waits for the operator."""
        try:
            self.state.save_assignment(body)
        except OSError as error:
            event(log, logging.WARNING, "assignment-not-kept", f"a restart will wait for the operator: {error}")

    def _verified(self, body: bytes) -> Assignment:
        try:
            return verify(body, self._keys, self.settings.simulation, self.settings.runner)
        except Refused as refused:
            if refused.is_signed:  # anybody can send what is not
                self._refused = str(refused)
            raise

    def _rows_of(self, assignment: Assignment) -> Mapping[str, str]:
        """Return the files with the rows of each feeder; what is wrong with them is told as the problem as well."""
        try:
            return self.rows.take(assignment, self.held.rows if self.held else {})
        except Refused as refused:
            self._refused = str(refused)
            raise

    def _resume(self) -> None:
        """Take up the assignment that an earlier boot of this container left, if it left one."""
        body = self.state.assignment()
        if body is None:
            return
        try:
            assignment = self._verified(body)
            rows = self._rows_of(assignment)
        except Refused as refused:
            event(log, logging.WARNING, "not-resumed", f"the assignment kept is not taken up: {refused}")
            return
        try:
            self._hold(assignment, _load_of(body), rows)
        except OSError as error:
            event(log, logging.ERROR, "not-resumed", f"nothing can be counted in the state directory: {error}")
            return
        event(log, logging.INFO, "resumed", f"goes on with epoch {assignment.epoch} after a restart",
              run=assignment.run, epoch=assignment.epoch)  # fmt: skip

    def _hold(self, assignment: Assignment, load: Mapping[str, Any], rows: Mapping[str, str]) -> None:
        origin_ns = self._origin(assignment)
        if self.ledger is None:
            self.ledger = Ledger(
                self.state, runner=self.settings.runner, boot=self.boot, run=assignment.run,
                workers=assignment.processes, sequence=self._sequence,
            )  # fmt: skip
        # From here on nothing is refused any more.
        self._refused = ""
        self._ask_target(assignment)
        self.held = Held(assignment=assignment, load=load, origin_ns=origin_ns, rows=rows)
        self.rows.keep(rows)
        places, division = self.held.places, self.crew.division
        # The workers are there before their first place is: starting them takes longer than the lead of a run's start.
        is_nobody = assignment.retire and not division and not assignment.gives
        had = [slot.places | slot.given for slot in self.crew.slots]
        division = list(divide(division, places, 0 if is_nobody else max(1, assignment.processes)))
        self.ledger.allow(len(division))
        self.crew.man(division, givers(had, places_of(assignment.gives).below(assignment.users), len(division)))
        self.once.follow(assignment)

    def _origin(self, assignment: Assignment) -> int:
        """
        Return the run's start as a monotonic instant: computed once, the same for an unchanged start.

        Who reads a clock that is off, or was set, comes out some ms beside the instant of the first time: that is the
        same start. Only a suspension moves it, by more than that.
        """
        kept = self._begun or self.state.origin()
        if kept and (kept.run, kept.start_at_ms) == (assignment.run, assignment.start_at_ms):
            self._begun = kept
            return kept.origin_ns
        ahead_ns = assignment.start_at_ms * 1_000_000 - time.time_ns()
        origin = Origin(run=assignment.run, start_at_ms=assignment.start_at_ms,
                        origin_ns=time.monotonic_ns() + ahead_ns)  # fmt: skip
        if kept and kept.run == origin.run and abs(kept.origin_ns - origin.origin_ns) < SAME_START_NS:
            origin = replace(origin, origin_ns=kept.origin_ns)
        self._begun = origin
        with contextlib.suppress(OSError):  # without room on the disk a restart computes it anew
            self.state.save_origin(origin)
        return origin.origin_ns

    def _leave_run(self) -> None:
        """Send the workers of the run away, their counts with them: a new run starts from nothing."""
        self.crew.dismiss()
        self.once.forget()
        if self.ledger is not None:
            self._sequence = self.ledger.ring.sequence
        self.ledger = None
        self._read_at, self._late_us = 0, None
        self.state.forget_run()

    def _ask_target(self, assignment: Assignment) -> None:
        """Ask the target's health again when the target, its certificates or what is allowed changed."""
        before = self.held.assignment if self.held else None
        load, limits = assignment.load, assignment.limits
        if before and (before.load.target, before.load.ca, before.limits.targets) == (
            load.target, load.ca, limits.targets
        ):  # fmt: skip
            return
        if self._asking is not None:
            self._asking.cancel()
        self.target = ""
        self._asking = self._group.create_task(self._ask(load, limits), name="target")

    async def _ask(self, load: Load, limits: Limits) -> None:
        while self.target != REACHABLE:
            self.target = await ask(load, limits.targets)
            if self.target != REACHABLE:
                await asyncio.sleep(ASK_AGAIN_S)

    def acknowledgement(self) -> Acknowledgement:
        """Return what the runner does with its assignment now, all workers taken together."""
        settings, clock = self.settings, time.time_ns() // 1_000_000
        if self.held is None:
            return Acknowledgement(simulation=settings.simulation, runner=settings.runner, boot=self.boot,
                                   revision=settings.revision, clock_ms=clock, takes=(), rows=self.rows.digests,
                                   problem=self._problem(0))  # fmt: skip
        given = self.held.assignment
        return Acknowledgement(
            simulation=settings.simulation,
            runner=settings.runner,
            boot=self.boot,
            revision=settings.revision,
            run=given.run,
            epoch=given.epoch,
            users=given.users,
            places=given.places,
            takes=self.crew.takes(given.epoch),
            gives=given.gives,
            processes=max(given.processes, len(self.crew.slots)),
            digest=given.digest,
            active=sum(slot.ack.active for slot in self.crew.slots if slot.ack),
            settled=self.crew.is_settled(given.epoch),
            retire=given.retire,
            suspended=given.suspended,
            drained=self.is_drained,
            clock_ms=clock,
            target=self.target,
            rows=self.rows.digests,
            problem=self._problem(given.epoch),
            fault=self.crew.fault,
            task=self.once.report,
            start_at_ms=given.start_at_ms,
            late_us=self._first_late_us(),
        )

    def _first_late_us(self) -> int | None:
        """
        Return what the first user of the run was late, of all workers'; None while nobody has begun.

        What was told stays: a worker that is started again later begins late, and so would the run seem to.
        """
        if self._late_us is None:
            told = [slot.ack.late_us for slot in self.crew.slots if slot.ack and slot.ack.late_us is not None]
            self._late_us = min(told, default=None)
        return self._late_us

    def _problem(self, epoch: int) -> str:
        refused = f"an assignment was refused: {self._refused}" if self._refused else ""
        return (refused or self.crew.problem(epoch))[:LONGEST_PROBLEM]

    @property
    def is_drained(self) -> bool:
        """Say whether no user is active and no request in flight."""
        return self.held is None or self.crew.is_drained(self.held.assignment.epoch)

    @property
    def is_ready(self) -> bool:
        """Say whether the runner takes users: not once it is retired and drained, nor when going down."""
        retired = self.held is not None and self.held.assignment.retire and self.is_drained
        return not retired and not self.stopping

    # What the crew asks and says

    def message(self, slot: Slot) -> Mapping[str, Any]:
        """Return what the worker in *slot* is to do."""
        assert self.held is not None
        return self.held.message(self.crew.division, slot.index, self.crew.giving, self._probe.cores())

    def is_warm(self, now_ns: int) -> bool:
        """Say whether the warm-up is over."""
        return self.held is not None and now_ns >= self.held.warm_up_end_ns

    def drained(self) -> None:
        """Take a look at once: what is answered after "drained" includes the last request."""
        self.look()

    def died(self, slot: Slot, code: int) -> str:
        """Take the account of a dead process over, and say why it died."""
        kills = self._probe.oom_kills()
        reason = "OOMKilled" if code == -9 and kills > self._kills_named else f"exit code {code}"
        self._kills_named = kills
        if self.ledger is None:
            return reason
        lost = self.ledger.swallow(slot.slab, late=slot.late) if slot.slab else 0
        if self.stopping:
            return reason
        self.ledger.own.add("worker_restarts", 1)
        self.ledger.own.add("worker_lost_users", lost)
        event(log, logging.ERROR, "worker-died", f"worker {slot.index} died ({reason}), {lost} users lost",
              worker_index=slot.index, worker_reason=reason, worker_users=lost, process_exit_code=code)  # fmt: skip
        return reason

    # The account

    def look(self) -> None:
        """Bring the account up to now."""
        if self.held is None or self.ledger is None:
            return
        now, given = time.monotonic_ns(), self.held.assignment
        seen: list[Seen] = [found for slot in self.crew.slots if (found := slot.seen(given.epoch))]
        counted = _instant(now, seen)
        reading = self._probe.read(now, self.crew.pids, self.ledger.workers_cpu_ns(seen))
        self.ledger.look(seen, Look(
            origin_ns=self.held.origin_ns, now_ns=now, mono_ns=counted,
            # The counts' instant, not that of the look: a gap after a lost runner begins here.
            wall_ms=(time.time_ns() - (now - counted)) // 1_000_000, epoch=given.epoch, warm_up_ms=given.warm_up_ms,
        ), reading)  # fmt: skip

    async def _tick(self) -> None:
        while True:
            wait_ns = SECOND_NS - (time.monotonic_ns() - LOOK_AFTER_NS) % SECOND_NS
            await asyncio.sleep(wait_ns / SECOND_NS)
            self._probe.find(self.crew.pids)
            self.look()
            self.crew.kill_silent()
            self.crew.ask_again()

    def gauges(self) -> dict[str, int]:
        """Return the instantaneous figures that go with the statistics."""
        slots = self.crew.slots
        acks = [slot.ack for slot in slots if slot.ack]
        reading = self.ledger.reading if self.ledger else None
        return {
            "memory_bytes": reading.memory if reading else 0,
            "memory_limit_bytes": reading.memory_limit if reading else 0,
            "cpu_limit_millicores": reading.cores if reading else 0,
            "fds": descriptors(self.crew.pids),
            "workers": sum(1 for slot in slots if slot.child),
            "workers_wanted": len(slots),
            "connections": sum(ack.connections for ack in acks),
            "in_flight": sum(ack.in_flight for ack in acks),
            "pooled": sum(ack.pooled for ack in acks),
            "parked": sum(ack.parked for ack in acks),
            "starts_waiting": sum(ack.starts_waiting for ack in acks),
            "starts_limit": sum(ack.starts_limit for ack in acks),
            "active": sum(ack.active for ack in acks),
            "ring_bytes": self.ledger.ring.size if self.ledger else 0,
            **pool_gauges(added_pools(ack.pools for ack in acks)),
        }

    def statistics(self, boot: str, since: int) -> bytes:
        """Return the answer for a reader that knows *boot* up to window *since*."""
        if self.ledger is not None:
            # Whoever looks on without knowing the boot, as people do, is not the one the last account is kept for.
            if boot == self.boot and self.is_drained:
                self._read_at = _flows_begun(self.ledger.total)
            if boot == self.boot and self._last_read is not None:
                self._last_read.set()
            return self.ledger.answer(since if boot == self.boot else 0, self.gauges())
        nothing = Total.empty()
        return Answer(
            runner=self.settings.runner, boot=self.boot, run=0, layout=nothing.layout, sequence=self._sequence,
            first=self._sequence + 1, total=nothing.vector, warmup=nothing.warmup, extremes=(), windows=(),
            gauges=self.gauges(),
        ).encode()  # fmt: skip


def _flows_begun(total: Total) -> int:
    return int(total.vector[total.layout.worker("iterations")])


def _load_of(body: bytes) -> Mapping[str, Any]:
    """Return the load in an envelope that was verified, as it was signed."""
    load: Mapping[str, Any] = json.loads(json.loads(body)["payload"])["load"]
    return load


def _instant(now_ns: int, seen: Sequence[Seen]) -> int:
    """Return the instant a look is of: that of the newest snapshot, unless all are old."""
    newest = max((worker.snapshot.mono_ns for worker in seen), default=0)
    return newest if 0 <= now_ns - newest < SECOND_NS else now_ns
