"""
The ledger of one run: what ended workers counted, what living ones count, and the windows between two looks.

    total = Σ ended workers + Σ living workers' snapshots + the supervisor's own counters
    window = total now - total at the last look
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from trafficsim_api.alignment import aligned
from trafficsim_api.layout import WORKER_INDEX
from trafficsim_api.statistics import Answer, Vector, Window, sparse
from trafficsim_runner.health.probe import Reading
from trafficsim_runner.logs import event
from trafficsim_runner.state import State
from trafficsim_runner.stats.merge import Part, Total, together
from trafficsim_runner.stats.own import OwnCounters
from trafficsim_runner.stats.ring import BYTES_PER_WORKER, Ring
from trafficsim_runner.stats.slab_reader import Slab, Snapshot, TornSlab

__all__ = ["Ledger", "Look", "Seen", "snapshot_of"]

log: Final = logging.getLogger(__name__)

# The first window of a boot has no look before it.
FIRST_SPAN_NS: Final = 1_000_000_000
# A worker's utilisation is at most a core; more is the noise of a very short window.
LARGEST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A worker's account at one look; *warmup* None: its warm-up goes on, or it began after the warm-up (*late*)."""

    slab: Slab
    snapshot: Snapshot
    warmup: Vector | None
    late: bool = False

    def part(self) -> Part:
        """Return the worker's account as a part of the runner's."""
        warmup = self.warmup
        if warmup is None:
            warmup = np.zeros_like(self.snapshot.vector) if self.late else self.snapshot.vector
        return Part(
            layout=self.slab.layout, vector=self.snapshot.vector, warmup=warmup, extremes=self.snapshot.extremes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """When a look is taken, in which assignment; *origin_ns* is the run's start, *mono_ns* the counts' instant."""

    origin_ns: int
    now_ns: int
    mono_ns: int
    wall_ms: int
    epoch: int
    warm_up_ms: int

    def since_start_ms(self, mono_ns: int) -> int:
        """Return the instant *mono_ns* in ms from the run's start."""
        return (mono_ns - self.origin_ns) // 1_000_000


class Ledger:
    """The account of run *run* in one boot of the supervisor, and the ring of its windows."""

    def __init__(self, state: State, *, runner: str, boot: str, run: int, workers: int, sequence: int = 0) -> None:
        self._state = state
        self._runner = runner
        self._boot = boot
        self.run = run
        self.ring = Ring(BYTES_PER_WORKER * max(1, workers), sequence)
        self._base, swallowed, lost = _recovered(state, run)
        self._unkept: list[str] = []  # files that are in the account here, and not in the one on disk
        self._keep(swallowed)
        self.own = OwnCounters(state.own(boot, run))
        self.own.add("worker_lost_users", lost)
        self.total = together(self._base.layout, [self._base.part()])
        self._last_mono: int | None = None
        self._busy: dict[str, tuple[int, int, int]] = {}
        self.active = 0
        self.wanted = 0
        self.reading: Reading | None = None

    def allow(self, workers: int) -> None:
        """Make the ring as large as *workers* need."""
        self.ring.capacity = max(self.ring.capacity, BYTES_PER_WORKER * workers)

    def swallow(self, slab: Slab, *, late: bool) -> int:
        """Take the final counts of a dead worker's *slab* into the account; return the users it had."""
        final = slab.final()
        part = Seen(slab=slab, snapshot=final, warmup=slab.warmup(), late=late).part()
        self._base = together(self._base.layout, [self._base.part(), part])
        self._busy.pop(_worker(slab), None)
        self._keep([slab.path.name])
        return final.active

    def _keep(self, swallowed: Sequence[str]) -> None:
        """Keep the account, the files *swallowed* now being in it; without room on the disk they stay, and count."""
        self._unkept += swallowed
        try:
            self._state.save_account(self._runner, self.run, self._base, self._unkept)
        except OSError as error:
            event(log, logging.WARNING, "account-not-kept", f"workers' counts stay where they are: {error}")
            return
        self._state.remove(*self._unkept)
        self._unkept = []

    def workers_cpu_ns(self, seen: Sequence[Seen]) -> int:
        """Return the CPU of all workers of the run, ended ones and *seen*."""
        index = WORKER_INDEX["cpu_ns"]
        return int(self._base.vector[index]) + sum(int(worker.snapshot.vector[index]) for worker in seen)

    def look(self, seen: Sequence[Seen], look: Look, reading: Reading) -> Window:
        """Bring the account up to now and return the window since the last look."""
        if self._last_mono is not None and look.mono_ns <= self._last_mono:
            look = replace(look, mono_ns=max(look.now_ns, self._last_mono + 1))  # no window is empty of time
        self._count(look, reading)
        before = self.total
        total = together(before.layout, [self._base.part(), *(worker.part() for worker in seen)])
        self.own.add_to(total.vector, total.warmup)
        if before.layout != total.layout:
            self.ring.move(before.layout, total.layout)
        previous = aligned(before.vector, before.layout, total.layout)
        # Subtle: a quiet worker was read live, a busy one by its snapshot, which may be a moment older. What was once
        # told is never taken back, so that the windows add up to the total.
        np.maximum(total.vector, previous, out=total.vector)
        indices, counts = sparse(total.vector - previous)
        window = self._window(seen, look, reading, indices, counts)
        self.total, self._last_mono = total, look.mono_ns
        self.active, self.wanted, self.reading = window.active, window.wanted, reading
        folded = self.ring.folded
        self.ring.add(window)
        self.own.add("windows_folded", self.ring.folded - folded)
        return window

    def answer(self, since: int, gauges: Mapping[str, int]) -> bytes:
        """Return the answer to a reader that knows the windows up to *since*."""
        first, windows = self.ring.since(since)
        return Answer(
            runner=self._runner, boot=self._boot, run=self.run, layout=self.total.layout, sequence=self.ring.sequence,
            first=first, total=self.total.vector, warmup=self.total.warmup, extremes=self.total.extremes,
            windows=windows, gauges=gauges,
        ).encode()  # fmt: skip

    def _count(self, look: Look, reading: Reading) -> None:
        own = self.own
        own.add("pod_cpu_ns", reading.cpu_ns)
        span_ns = look.mono_ns - self._last_mono if self._last_mono is not None else 0
        own.add("pod_wall_ns", span_ns)
        own.add("memory_permille_ms", reading.memory_permille * span_ns // 1_000_000)
        own.add("cfs_periods", reading.periods)
        own.add("cfs_throttled", reading.throttled)
        own.add("oom_kills", reading.oom_kills)
        if look.since_start_ms(look.mono_ns) >= look.warm_up_ms:
            own.mark_warm()

    def _window(
        self, seen: Sequence[Seen], look: Look, reading: Reading, indices: npt.NDArray[np.uint32], counts: Vector
    ) -> Window:
        before = self._last_mono if self._last_mono is not None else look.mono_ns - FIRST_SPAN_NS
        start = look.since_start_ms(before)
        used = [self._use(worker) for worker in seen]
        busiest, its_cpu = max(used, key=lambda use: (use[0], -use[1]), default=(0, 0))  # of equals who waits the most
        return Window(
            sequence=self.ring.sequence + 1,
            start_ms=start,
            end_ms=look.since_start_ms(look.mono_ns),
            wall_ms=look.wall_ms,
            epoch=look.epoch,
            active=sum(worker.snapshot.active for worker in seen),
            wanted=sum(worker.snapshot.wanted for worker in seen),
            busiest_permille=busiest,
            core_permille=max((cpu for _, cpu in used), default=0),
            waited_percent=round((busiest - its_cpu) / 10),
            pod_permille=reading.permille,
            warm=start >= look.warm_up_ms,
            indices=indices,
            counts=counts,
        )

    def _use(self, worker: Seen) -> tuple[int, int]:
        """
        Return for how much of the time since its last look the worker was busy, and for how much it ran, in permille.

            (CPU + time ready to run and waiting for a CPU) ÷ wall time,    CPU ÷ wall time

        With neighbours on its core a worker may get half of it and never pause: then it is at its limit at 50 % CPU.
        """
        vector, name = worker.snapshot.vector, _worker(worker.slab)
        wall = int(vector[WORKER_INDEX["wall_ns"]])
        cpu = int(vector[WORKER_INDEX["cpu_ns"]])
        busy = cpu + int(vector[WORKER_INDEX["waited_ns"]])
        last_busy, last_cpu, last_wall = self._busy.get(name, (busy, cpu, wall))  # its start-up is no work
        self._busy[name] = (busy, cpu, wall)
        return _permille(busy - last_busy, wall - last_wall), _permille(cpu - last_cpu, wall - last_wall)


def _permille(spent_ns: int, passed_ns: int) -> int:
    return min(LARGEST, 1000 * max(0, spent_ns) // passed_ns) if passed_ns > 0 else 0


def _worker(slab: Slab) -> str:
    """Return the name of the process' life that *slab* is of, the same over its generations."""
    return slab.path.name.partition(".")[0]


def snapshot_of(slab: Slab, before: Snapshot | None, *, quiet: bool) -> Snapshot | None:
    """Return the worker's snapshot (*quiet*: its live counts, nobody writes); *before* when it died in making one."""
    if quiet:
        return slab.final()
    try:
        return slab.snapshot()
    except TornSlab:
        return before


def _recovered(state: State, run: int) -> tuple[Total, list[str], int]:
    """Return the sum of everything earlier boots left on disk, the files in it, and the users they had at their end."""
    kept = state.account(run)
    if kept is None:
        state.forget_run()
    total, swallowed = kept or (Total.empty(), [])
    done, lost = set(swallowed), 0
    for path in state.slabs():
        if path.name in done:
            continue
        try:
            slab = Slab.open(path)
        except (OSError, ValueError):
            continue
        final = slab.final()
        part = Seen(slab=slab, snapshot=final, warmup=slab.warmup()).part()
        total = together(total.layout, [total.part(), part])
        lost += final.active
        swallowed.append(path.name)
        slab.close()
    for path in state.owns():
        if path.name not in done:
            OwnCounters(path).add_to(total.vector, total.warmup)
            swallowed.append(path.name)
    return total, swallowed, lost
