"""The crew: the worker processes of one runner, started, listened to, started again when they die, and sent away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from trafficsim_api.places import Places
from trafficsim_api.turns import Turn, joined
from trafficsim_runner.child import Child
from trafficsim_runner.logs import event
from trafficsim_runner.slot import Ack, Slot
from trafficsim_runner.state import State

__all__ = ["Command", "Crew", "Owner"]

log: Final = logging.getLogger(__name__)

Command = Callable[[int, int, Path], list[str]]

SECOND_NS: Final = 1_000_000_000
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
# A process that lived this long starts the back-off anew.
HEALTHY_NS: Final = 30 * SECOND_NS
# So many deaths in a row are no accident any more.
LOOP_DEATHS: Final = 3
# A worker speaks every second; one that is silent this long hangs, and is killed.
SILENCE_NS: Final = 30 * SECOND_NS
EXIT_S: Final = 2.0
LONGEST_FAULT: Final = 300
# How long a worker that refused is left alone before it is asked again.
REFUSED_NS: Final = 5 * SECOND_NS


class Owner(Protocol):
    """Whom the crew works for."""

    def message(self, slot: Slot) -> Mapping[str, Any]:
        """Return what the worker in *slot* is to do."""

    def is_warm(self, now_ns: int) -> bool:
        """Say whether the warm-up is over."""

    def drained(self) -> None:
        """Hear that a worker has nobody at work any more."""

    def died(self, slot: Slot, code: int) -> str:
        """Hear that the process in *slot* ended with *code*; its slab is open. Return why it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spare:
    """A process that was started and told nothing yet; it will count in the slab at *path*."""

    child: Child
    path: Path

    async def leave(self) -> None:
        """Let the process exit."""
        self.child.send({"exit": {}})
        await self.child.ended(EXIT_S)


class Crew:
    """
    The workers in *slots*; *group* holds their tasks, *clock* is CLOCK_MONOTONIC in ns.

    Spares are processes started before anybody knows what they will do: a process takes most of a second to begin.
    """

    def __init__(
        self, owner: Owner, group: asyncio.TaskGroup, *, state: State, boot: str, command: Command,
        clock: Callable[[], int],
    ) -> None:  # fmt: skip
        self.slots: list[Slot] = []
        self._owner = owner
        self._group = group
        self._state = state
        self._boot = boot
        self._command = command
        self._clock = clock
        self._spares: list[_Spare] = []
        self._started = 0
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._heard = asyncio.Event()
        self._ending = False
        self.fault = ""  # the first that a worker told of, in short

    @property
    def pids(self) -> list[int]:
        """Return the runner's processes, the supervisor first."""
        return [os.getpid(), *(slot.child.pid for slot in self.slots if slot.child)]

    @property
    def division(self) -> list[Places]:
        """Return the places of each worker."""
        return [slot.places for slot in self.slots]

    @property
    def giving(self) -> list[Places]:
        """Return the places given away whose arrivals each worker still begins."""
        return [slot.given for slot in self.slots]

    async def hire(self, count: int) -> None:
        """Start *count* spares."""
        for index in range(count):
            try:
                self._spares.append(await self._start(index))
            except (OSError, subprocess.SubprocessError) as error:
                event(log, logging.ERROR, "worker-not-started", f"a spare cannot be started: {error}")

    def man(self, division: Sequence[Places], giving: Sequence[Places]) -> None:
        """
        Give the places of *division* to the workers, with new workers where it has more parts, and tell them.

        *giving* has as many parts: the places given away whose arrivals each still begins.
        """
        known = len(self.slots)
        for index, (part, given) in enumerate(zip(division, giving, strict=True)):
            if index == len(self.slots):
                self.slots.append(Slot(index=index))
            self.slots[index].places, self.slots[index].given = part, given
        for slot in self.slots:
            if slot not in self._tasks:
                self._tasks[slot] = self._group.create_task(self._keep(slot), name=f"worker-{slot.index}")
            elif slot.child is not None:
                slot.refusal = ""
                slot.child.send(self._owner.message(slot))
        needed = len(self.slots) - known
        while self.slots and len(self._spares) > needed:
            self._group.create_task(self._spares.pop().leave(), name="spare")

    def dismiss(self) -> None:
        """Send everybody away without waiting; the next crew starts when they are gone."""
        for slot in self.slots:
            slot.leaving = True
            if slot.child is not None:
                slot.child.send({"exit": {}})
        self.slots, self.fault = [], ""

    def is_drained(self, epoch: int) -> bool:
        """Say whether nobody is at work, under the assignment *epoch*."""
        return all(slot.drained(epoch) for slot in self.slots)

    def is_settled(self, epoch: int) -> bool:
        """Say whether everybody does what *epoch* asks."""
        return all(slot.settled(epoch) for slot in self.slots)

    def takes(self, epoch: int) -> tuple[Turn, ...]:
        """Return from which arrivals on the places gained by *epoch* count, as far as workers work by it."""
        acks = (slot.ack for slot in self.slots)
        return joined(turn for ack in acks if ack is not None and ack.epoch == epoch for turn in ack.takes)

    def problem(self, epoch: int) -> str:
        """Return why *epoch* is not carried out and will not be by waiting, "" while there is no such reason."""
        for slot in self.slots:
            if slot.refusal and not (slot.ack and slot.ack.epoch == epoch):
                return f"worker {slot.index} refuses the assignment: {slot.refusal}"
        now = self._clock()
        for slot in self.slots:
            is_young = slot.child is None or now - slot.began_ns < HEALTHY_NS
            if slot.deaths >= LOOP_DEATHS and is_young:
                return f"worker {slot.index} keeps dying: {slot.cause}"
        return ""

    async def drain(self, within_s: float) -> None:
        """Let all users finish their action and leave, and cut them after *within_s*; nobody is started again."""
        self._ending = True
        deadline = self._clock() + int(within_s * SECOND_NS)
        for slot in self.slots:
            if slot.child is not None:
                slot.child.send({"drain": {"deadline_ns": deadline}})
        with contextlib.suppress(TimeoutError):
            # A worker cuts what is left at the deadline itself; a second is for its answer.
            async with asyncio.timeout(within_s + 1):
                while not all(slot.child is None or (slot.ack and slot.ack.drained) for slot in self.slots):
                    self._heard.clear()
                    await self._heard.wait()

    async def send_away(self) -> None:
        """Let all workers exit, and kill those that do not."""
        self._ending = True
        self.dismiss()
        await asyncio.gather(*(spare.leave() for spare in self._spares))
        await self._gone(dict(self._tasks))

    def kill(self) -> None:
        """Kill all workers at once."""
        for child in (*(slot.child for slot in self._tasks), *(spare.child for spare in self._spares)):
            if child is not None:
                child.kill()

    def kill_silent(self) -> None:
        """Kill the workers that hang; they are started again like any that dies."""
        now = self._clock()
        for slot in self.slots:
            if slot.child is not None and now - slot.heard_ns > SILENCE_NS:
                event(log, logging.ERROR, "worker-silent", f"worker {slot.index} hangs and is killed",
                      worker_index=slot.index)  # fmt: skip
                slot.heard_ns = now
                slot.child.kill()

    def ask_again(self) -> None:
        """Tell those again who refused a while ago: what they had no room for then may fit now."""
        now = self._clock()
        for slot in self.slots:
            if slot.child is not None and slot.refusal and now - slot.refused_ns >= REFUSED_NS:
                slot.refused_ns = now
                slot.child.send(self._owner.message(slot))

    async def _gone(self, tasks: Mapping[Slot, asyncio.Task[None]]) -> None:
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
            # A user is never at work in two runs.
            await self._gone({other: task for other, task in self._tasks.items() if other.leaving})
            while self._wanted(slot):
                began = self._clock()
                await self._live(slot)
                if not self._wanted(slot):
                    break
                slot.deaths = 1 if self._clock() - began >= HEALTHY_NS else slot.deaths + 1
                await asyncio.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(slot.deaths - 1, 10)))
        finally:
            self._tasks.pop(slot, None)

    def _wanted(self, slot: Slot) -> bool:
        return not (slot.leaving or self._ending)

    async def _live(self, slot: Slot) -> None:
        """Start a process in *slot*, and listen to it until its death."""
        try:
            spare = self._spare() or await self._start(slot.index)
        except (OSError, subprocess.SubprocessError) as error:
            event(log, logging.ERROR, "worker-not-started", f"worker {slot.index} cannot be started: {error}",
                  worker_index=slot.index)  # fmt: skip
            slot.cause = f"it cannot be started: {error}"
            return
        child, path, now = spare.child, spare.path, self._clock()
        slot.begin(child, path, now_ns=now, late=self._owner.is_warm(now))
        if not slot.leaving:
            child.send(self._owner.message(slot))
        code = await self._listen(slot, child)
        if slot in self.slots:
            with contextlib.suppress(OSError, ValueError):
                slot.open(self._state.newest(path) or path)
            slot.cause = self._owner.died(slot, code)
        slot.end()
        self._heard.set()

    async def _start(self, index: int) -> _Spare:
        self._started += 1
        path = self._state.slab(self._boot, self._started)
        return _Spare(child=await Child.start(lambda fd: self._command(fd, index, path)), path=path)

    def _spare(self) -> _Spare | None:
        while self._spares:
            spare = self._spares.pop(0)
            if spare.child.is_alive:
                return spare
        return None

    async def _listen(self, slot: Slot, child: Child) -> int:
        """Hear the worker out; return the exit code of its process."""
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
        slot.heard_ns = self._clock()
        if "ack" in message:
            ack = Ack.of(message["ack"])
            if ack.slab:
                slot.open(Path(ack.slab))
            before, slot.ack = slot.ack, ack
            if ack.drained and not (before and before.drained) and not slot.leaving:
                self._owner.drained()
            self._heard.set()
        elif "error" in message:
            refusal, slot.refused_ns = str(message["error"].get("message", "")), slot.heard_ns
            if refusal != slot.refusal:
                event(log, logging.ERROR, "worker-refused", refusal, worker_index=slot.index)
            slot.refusal = refusal
        elif "fault" in message:
            text = str(message["fault"].get("message", ""))
            self.fault = self.fault or _in_short(text)
            event(log, logging.ERROR, "worker-fault", text, worker_index=slot.index)


def _in_short(text: str) -> str:
    """
    Return a traceback in one line: the error, and the innermost place, in the user's code if it went through any.

    KeyError: 'id' (flows.py, line 31)
    """
    lines = [line for line in text.splitlines() if line.strip()]
    places = re.findall(r'^  File "((?:.*/)?)([^"/]+)", (line [0-9]+)', text, re.MULTILINE)
    places = [place for place in places if "/trafficsim_runner/" not in place[0]] or places
    place = f" ({places[-1][1]}, {places[-1][2]})" if places else ""
    return (lines[-1].strip()[:LONGEST_FAULT] if lines else "") + place
