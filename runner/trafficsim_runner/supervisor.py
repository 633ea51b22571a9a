"""
The supervisor: takes assignments, divides them over worker processes, restarts those that die, and keeps the account.

It holds no users itself; a worker that hangs or dies costs the load its share only until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from trafficsim_api.places import Places
from trafficsim_api.protocol import Acknowledgement, Assignment, Limits, Load, Refused, verify
from trafficsim_api.statistics import Answer
from trafficsim_api.units import milliseconds
from trafficsim_runner.child import Child, worker_command
from trafficsim_runner.division import divide, shares
from trafficsim_runner.health.probe import Probe
from trafficsim_runner.health.processes import descriptors
from trafficsim_runner.health.target import REACHABLE, ask
from trafficsim_runner.logs import event
from trafficsim_runner.settings import Settings
from trafficsim_runner.slot import Ack, Slot
from trafficsim_runner.state import Origin, State
from trafficsim_runner.stats.ledger import Ledger, Look, Seen
from trafficsim_runner.stats.merge import Total

__all__ = ["Stale", "Supervisor"]

log: Final = logging.getLogger(__name__)

Command = Callable[[int, int, Path], list[str]]

SECOND_NS: Final = 1_000_000_000
# Workers copy their counters at whole seconds of CLOCK_MONOTONIC; the look follows when they surely have.
LOOK_AFTER_NS: Final = 150_000_000
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
# A process that lived this long starts the back-off anew.
HEALTHY_NS: Final = 30 * SECOND_NS
# A worker speaks every second; one that is silent this long hangs, and is killed.
SILENCE_NS: Final = 30 * SECOND_NS
EXIT_S: Final = 2.0
# A user finishes its action within the request time-out; this much on top covers connecting and bookkeeping.
DRAIN_MARGIN_S: Final = 5.0
ASK_AGAIN_S: Final = 2.0


class Stale(Exception):
    """An assignment older than the one held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The assignment in force; *load* is its JSON as it came; *origin_ns* and *end_ns* are monotonic instants."""

    assignment: Assignment
    load: Mapping[str, Any]
    origin_ns: int
    end_ns: int

    @property
    def places(self) -> Places:
        """Return the places to work on: none when retiring."""
        return Places() if self.assignment.retire else self.assignment.held.below(self.assignment.users)

    @property
    def warm_up_end_ns(self) -> int:
        """Return when the warm-up ends."""
        return self.origin_ns + self.assignment.warm_up_ms * 1_000_000


def _instant(now_ns: int, seen: Sequence[Seen]) -> int:
    """Return the instant a look is of: that of the newest snapshot, unless all are old."""
    newest = max((worker.snapshot.mono_ns for worker in seen), default=0)
    return newest if 0 <= now_ns - newest < SECOND_NS else now_ns


class Supervisor:
    """One runner's supervisor. *assign* is for the control server; *run* keeps the workers until *stop*."""

    def __init__(
        self,
        settings: Settings,
        keys: Mapping[str, Ed25519PublicKey],
        *,
        command: Command = worker_command,
        probe: Probe | None = None,
    ) -> None:
        self.settings = settings
        self.boot = uuid4().hex
        self.state = State(settings.state)
        self.held: Held | None = None
        self.ledger: Ledger | None = None
        self.slots: list[Slot] = []
        self.stopping = False
        self._keys = keys
        self._command = command
        self._probe = probe or Probe(settings.cpu, settings.memory)
        self.target = ""
        self._asking: asyncio.Task[None] | None = None
        self._kills_named = 0
        self._sequence = 0
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._heard = asyncio.Event()
        self._stop = asyncio.Event()
        self._started = asyncio.Event()
        self._group = asyncio.TaskGroup()

    # Assignments

    def assign(self, body: bytes) -> Acknowledgement:
        """
        Take the signed assignment in *body* and return at once what is held now; it is settled later.

        Equal run and epoch: nothing changes. Raises Refused (see protocol.verify) and Stale for an older one.
        """
        assignment = verify(body, self._keys, self.settings.simulation, self.settings.runner)
        if self.stopping:
            raise Refused(503, "the runner is going down")
        if self.held is not None:
            now, new = self._order(self.held.assignment), self._order(assignment)
            if new < now:
                raise Stale(f"run {new[0]} epoch {new[1]} is older than run {now[0]} epoch {now[1]}")
            if new == now:
                return self.acknowledgement()
        load = json.loads(json.loads(body)["payload"])["load"]
        new_run = self.held is None or self.held.assignment.run != assignment.run
        if new_run and self.held is not None:
            self._leave_run()
        self.state.save_assignment(body)
        self._hold(assignment, load)
        event(log, logging.INFO, "assigned", f"epoch {assignment.epoch}: {len(assignment.held)} places",
              run=assignment.run, epoch=assignment.epoch, users=assignment.users, processes=assignment.processes,
              retire=assignment.retire, suspended=assignment.suspended)  # fmt: skip
        return self.acknowledgement()

    def resume(self) -> None:
        """Take up the assignment that an earlier boot of this container left, if it left one."""
        body = self.state.assignment()
        if body is None:
            return
        try:
            assignment = verify(body, self._keys, self.settings.simulation, self.settings.runner)
        except Refused as refused:
            event(log, logging.WARNING, "not-resumed", f"the assignment kept is not taken up: {refused}")
            return
        self._hold(assignment, json.loads(json.loads(body)["payload"])["load"])
        event(log, logging.INFO, "resumed", f"goes on with epoch {assignment.epoch} after a restart",
              run=assignment.run, epoch=assignment.epoch)  # fmt: skip

    @staticmethod
    def _order(assignment: Assignment) -> tuple[int, int]:
        return assignment.run, assignment.epoch

    def _hold(self, assignment: Assignment, load: Mapping[str, Any]) -> None:
        self._ask_target(assignment)
        origin = self._origin(assignment)
        length_ns = (assignment.end_ms - assignment.start_at_ms) * 1_000_000
        self.held = Held(assignment=assignment, load=load, origin_ns=origin, end_ns=origin + length_ns)
        if self.ledger is None:
            self.ledger = Ledger(
                self.state, runner=self.settings.runner, boot=self.boot, run=assignment.run,
                workers=assignment.processes, sequence=self._sequence,
            )  # fmt: skip
        self.ledger.allow(max(len(self.slots), assignment.processes))
        places = self.held.places
        wanted = max(1, assignment.processes) if places or self.slots else 0
        division = divide([slot.places for slot in self.slots], places, wanted)
        for index, part in enumerate(division):
            if index == len(self.slots):
                self.slots.append(Slot(index=index))
            self.slots[index].places = part
        for slot in self.slots:
            if slot not in self._tasks:
                self._tasks[slot] = self._group.create_task(self._keep(slot), name=f"worker-{slot.index}")
            self._tell(slot)

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
            self.target = await ask(load.target, load.ca, limits.targets)
            if self.target != REACHABLE:
                await asyncio.sleep(ASK_AGAIN_S)

    def _origin(self, assignment: Assignment) -> int:
        """Return the run's start as a monotonic instant: computed once, the same for an unchanged start."""
        kept = self.state.origin()
        if kept and (kept.run, kept.start_at_ms) == (assignment.run, assignment.start_at_ms):
            return kept.origin_ns
        ahead_ns = assignment.start_at_ms * 1_000_000 - time.time_ns()
        origin = Origin(run=assignment.run, start_at_ms=assignment.start_at_ms,
                        origin_ns=time.monotonic_ns() + ahead_ns)  # fmt: skip
        self.state.save_origin(origin)
        return origin.origin_ns

    def _leave_run(self) -> None:
        """Send the workers of the run away, their counts with them: a new run starts from nothing."""
        for slot in self.slots:
            slot.leaving = True
            if slot.child is not None:
                slot.child.send({"exit": {}})
        self.slots = []
        if self.ledger is not None:
            self._sequence = self.ledger.ring.sequence
        self.ledger = None
        self.state.forget_run()

    def acknowledgement(self) -> Acknowledgement:
        """Return what the runner does with its assignment now, all workers taken together."""
        clock = time.time_ns() // 1_000_000
        if self.held is None:
            return Acknowledgement(boot=self.boot, simulation=self.settings.simulation, runner=self.settings.runner,
                                   revision=self.settings.revision, clock_ms=clock)  # fmt: skip
        given = self.held.assignment
        return Acknowledgement(
            simulation=self.settings.simulation,
            runner=self.settings.runner,
            boot=self.boot,
            revision=self.settings.revision,
            run=given.run,
            epoch=given.epoch,
            users=given.users,
            places=given.places,
            processes=max(given.processes, len(self.slots)),
            digest=given.digest,
            active=sum(slot.ack.active for slot in self.slots if slot.ack),
            settled=all(slot.settled(given.epoch) for slot in self.slots),
            retire=given.retire,
            suspended=given.suspended,
            drained=self.drained,
            clock_ms=clock,
            target=self.target,
        )

    @property
    def drained(self) -> bool:
        """Say whether no user is active and no request in flight."""
        return self.held is None or all(slot.drained(self.held.assignment.epoch) for slot in self.slots)

    @property
    def ready(self) -> bool:
        """Say whether the runner takes users: not once it is retired and drained, nor when going down."""
        retired = self.held is not None and self.held.assignment.retire and self.drained
        return not retired and not self.stopping

    # Workers

    async def run(self) -> None:
        """Keep the workers and the account until *stop*; then drain, and send the workers away."""
        async with self._group:
            clock = self._group.create_task(self._tick(), name="look")
            self.resume()
            self._started.set()
            await self._stop.wait()
            await self._drain()
            clock.cancel()
            if self._asking is not None:
                self._asking.cancel()
            await self._send_away()

    async def started(self) -> None:
        """Wait until assignments can be taken."""
        await self._started.wait()

    def stop(self) -> None:
        """Begin to drain and to end."""
        self.stopping = True
        self._stop.set()

    def kill(self) -> None:
        """Kill all workers at once."""
        for slot in self.slots:
            if slot.child is not None:
                slot.child.kill()

    async def _drain(self) -> None:
        event(log, logging.INFO, "draining", "users finish their action and leave", grace_s=self.settings.grace_s)
        if self.held is None:
            return
        request_s = milliseconds(self.held.assignment.load.target.timeouts.request) / 1000
        within = min(self.settings.grace_s - EXIT_S, request_s + DRAIN_MARGIN_S)
        deadline = time.monotonic_ns() + int(within * SECOND_NS)
        for slot in self.slots:
            if slot.child is not None:
                slot.child.send({"drain": {"deadline_ns": deadline}})
        with contextlib.suppress(TimeoutError):
            # A worker cuts what is left at the deadline itself; a second is for its answer.
            async with asyncio.timeout(within + 1):
                while not all(slot.child is None or (slot.ack and slot.ack.drained) for slot in self.slots):
                    self._heard.clear()
                    await self._heard.wait()
        self.look()

    async def _send_away(self) -> None:
        for slot in self.slots:
            slot.leaving = True
            if slot.child is not None:
                slot.child.send({"exit": {}})
        await self._await_or_kill(dict(self._tasks))

    async def _await_or_kill(self, tasks: Mapping[Slot, asyncio.Task[None]]) -> None:
        """Wait for processes that were sent away; kill those that do not go."""
        if not tasks:
            return
        await asyncio.wait(tasks.values(), timeout=EXIT_S)
        for slot, task in tasks.items():
            if slot.child is not None:
                slot.child.kill()
            elif not task.done():
                task.cancel()  # it sleeps until it would start the worker again
        await asyncio.wait(tasks.values())

    async def _keep(self, slot: Slot) -> None:
        """Keep a process in *slot*: start it, listen to it, and start it again when it dies."""
        try:
            await self._predecessors_gone(slot)
            failures = 0
            while not slot.leaving and not self.stopping:
                began = time.monotonic_ns()
                await self._live(slot)
                if slot.leaving or self.stopping:
                    break
                failures = 1 if time.monotonic_ns() - began >= HEALTHY_NS else failures + 1
                await asyncio.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (failures - 1)))
        finally:
            self._tasks.pop(slot, None)

    async def _live(self, slot: Slot) -> None:
        """Start a process in *slot*, and listen to it until its death."""
        assert self.held is not None
        slot.life += 1
        path = self.state.slab(self.boot, self.held.assignment.run, slot.index, slot.life)
        try:
            child = await Child.start(lambda fd: self._command(fd, slot.index, path))
        except OSError as error:
            event(log, logging.ERROR, "worker-not-started", f"worker {slot.index} cannot be started: {error}",
                  worker_index=slot.index)  # fmt: skip
            return
        now = time.monotonic_ns()
        slot.path = path
        slot.begin(child, now_ns=now, late=now >= self.held.warm_up_end_ns)
        self._tell(slot)
        self._bury(slot, await self._listen(slot, child))

    async def _predecessors_gone(self, slot: Slot) -> None:
        """Wait for the workers of an earlier run: a user is never at work in both."""
        await self._await_or_kill({other: task for other, task in self._tasks.items()
                                   if other.leaving and other is not slot})  # fmt: skip

    async def _listen(self, slot: Slot, child: Child) -> int:
        try:
            async for message in child.messages():
                self._hear(slot, message)
        except (ValueError, OSError) as error:
            event(log, logging.ERROR, "worker-unclear", f"worker {slot.index} is killed: {error}",
                  worker_index=slot.index)  # fmt: skip
            child.kill()
        except BaseException:
            child.kill()
            raise
        return await child.ended()

    def _hear(self, slot: Slot, message: Mapping[str, Any]) -> None:
        slot.heard_ns = time.monotonic_ns()
        if "ack" in message:
            ack = Ack.of(message["ack"])
            if ack.slab:
                older = slot.open(Path(ack.slab))
                if older is not None:
                    older.close()
            before, slot.ack = slot.ack, ack
            if ack.drained and not (before and before.drained) and not slot.leaving:
                # What is answered after "drained" includes the last request.
                self.look()
            self._heard.set()
        elif "error" in message:
            event(log, logging.ERROR, "worker-refused", str(message["error"].get("message", "")),
                  worker_index=slot.index)  # fmt: skip

    def _tell(self, slot: Slot) -> None:
        """Send the worker in *slot* its part of the assignment."""
        held = self.held
        if held is None or slot.child is None or slot.leaving:
            return
        given = held.assignment
        weights = [len(other.places) for other in self.slots]
        limits = given.limits.model_dump(mode="json", exclude_none=True)
        for name in ("connections", "concurrency"):
            limits[name] = shares(getattr(given.limits, name), weights)[slot.index]
        slot.child.send({"assign": {
            "run": given.run, "epoch": given.epoch, "users": given.users, "places": slot.places.to_lists(),
            "origin_ns": held.origin_ns, "warm_up_ms": given.warm_up_ms, "end_ns": held.end_ns,
            "suspended": given.suspended, "load": held.load, "limits": limits,
        }})  # fmt: skip

    def _bury(self, slot: Slot, code: int) -> None:
        """Take the account of a dead process over, and say why it died."""
        path = self.state.newest(slot.path) if slot.path else None
        lost = 0
        if path is not None and self.ledger is not None and slot in self.slots:
            with contextlib.suppress(OSError, ValueError):
                slot.open(path)
                if slot.slab is not None:
                    lost = self.ledger.swallow(slot.slab, late=slot.late)
        slot.end()
        if slot.leaving or slot not in self.slots:
            return
        kills = self._probe.oom_kills()
        reason = "OOMKilled" if code == -9 and kills > self._kills_named else f"exit code {code}"
        self._kills_named = kills
        if self.ledger is not None:
            self.ledger.own.add("worker_restarts", 1)
            self.ledger.own.add("worker_lost_users", lost)
        event(log, logging.ERROR, "worker-died", f"worker {slot.index} died ({reason}), {lost} users lost",
              worker_index=slot.index, worker_reason=reason, worker_users=lost, process_exit_code=code)  # fmt: skip
        self._heard.set()

    # The account

    @property
    def pids(self) -> list[int]:
        """Return the runner's processes."""
        return [os.getpid(), *(slot.child.pid for slot in self.slots if slot.child)]

    def look(self) -> None:
        """Bring the account up to now."""
        if self.held is None or self.ledger is None:
            return
        now, epoch = time.monotonic_ns(), self.held.assignment.epoch
        seen: list[Seen] = [found for slot in self.slots if (found := slot.seen(epoch))]
        reading = self._probe.read(now, self.pids, self.ledger.workers_cpu_ns(seen))
        self.ledger.look(seen, Look(
            origin_ns=self.held.origin_ns, now_ns=now, mono_ns=_instant(now, seen), wall_ms=time.time_ns() // 1_000_000,
            epoch=epoch, warm_up_ms=self.held.assignment.warm_up_ms,
        ), reading)  # fmt: skip

    async def _tick(self) -> None:
        while True:
            wait_ns = SECOND_NS - (time.monotonic_ns() - LOOK_AFTER_NS) % SECOND_NS
            await asyncio.sleep(wait_ns / SECOND_NS)
            self._probe.find(self.pids)
            self.look()
            self._kill_silent()

    def _kill_silent(self) -> None:
        now = time.monotonic_ns()
        for slot in self.slots:
            if slot.child is not None and now - slot.heard_ns > SILENCE_NS:
                event(log, logging.ERROR, "worker-silent", f"worker {slot.index} hangs and is killed",
                      worker_index=slot.index)  # fmt: skip
                slot.heard_ns = now
                slot.child.kill()

    def gauges(self) -> dict[str, int]:
        """Return the instantaneous figures that go with the statistics."""
        acks = [slot.ack for slot in self.slots if slot.ack]
        reading = self.ledger.reading if self.ledger else None
        return {
            "memory_bytes": reading.memory if reading else 0,
            "memory_limit_bytes": reading.memory_limit if reading else 0,
            "cpu_limit_millicores": reading.cores if reading else 0,
            "fds": descriptors(self.pids),
            "workers": sum(1 for slot in self.slots if slot.child),
            "workers_wanted": len(self.slots),
            "connections": sum(ack.connections for ack in acks),
            "in_flight": sum(ack.in_flight for ack in acks),
            "pooled": sum(ack.pooled for ack in acks),
            "parked": sum(ack.parked for ack in acks),
            "active": sum(ack.active for ack in acks),
            "ring_bytes": self.ledger.ring.size if self.ledger else 0,
        }

    def statistics(self, boot: str, since: int) -> bytes:
        """Return the answer for a reader that knows *boot* up to window *since*."""
        if self.ledger is not None:
            return self.ledger.answer(since if boot == self.boot else 0, self.gauges())
        nothing = Total.empty()
        return Answer(
            runner=self.settings.runner, boot=self.boot, run=0, layout=nothing.layout, sequence=self._sequence,
            first=self._sequence + 1, total=nothing.vector, warmup=nothing.warmup, extremes=(), windows=(),
            gauges=self.gauges(),
        ).encode()  # fmt: skip
