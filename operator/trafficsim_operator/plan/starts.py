"""
How long runners take to start: from when one has a node until it is ready, answers and its workers are up.

    start = first look at which it is up - when it got its node, or was made where nobody tells of nodes

Made at 0 s, on a node at 600 s, up at 608 s: 8 s. That there was no room for it says nothing of the next one's start.
Measured of a runner that was seen before anybody had told it anything; one that this operator finds at work tells
nothing of its start. It counts as ready since it was made then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trafficsim_operator.observed import Runner, RunnerState
from trafficsim_operator.plan.assignments import held_by

__all__ = ["Starts"]


@dataclass(slots=True, kw_only=True)
class Starts:
    """What is known of the runners' starts, by UID; *measured_ms* are those that ended at the newest look."""

    measured_ms: tuple[int, ...] = ()
    _starting: set[str] = field(default_factory=set)
    _ready_ms: dict[str, int] = field(default_factory=dict)

    def look(self, runners: Iterable[Runner], run: int, now_ms: int) -> None:
        """Take what a look brings."""
        here = {runner.uid: runner for runner in runners}
        self._starting &= here.keys()
        self._ready_ms = {uid: since for uid, since in self._ready_ms.items() if uid in here}
        measured = []
        for uid, runner in here.items():
            if uid in self._ready_ms:
                continue
            if _is_up(runner, run):
                was_starting = uid in self._starting
                self._ready_ms[uid] = now_ms if was_starting else runner.started_ms
                self._starting.discard(uid)
                # Made and placed by the API server's clock, seen by ours.
                measured += [max(0, now_ms - (runner.placed_ms or runner.started_ms))] if was_starting else []
            elif _was_never_told(runner):
                self._starting.add(uid)
        self.measured_ms = tuple(sorted(measured))

    def ready_ms(self, runner: Runner, now_ms: int) -> int:
        """Return for how long *runner* has been ready, 0: it is not."""
        since = self._ready_ms.get(runner.uid)
        return 0 if since is None else max(0, now_ms - since)


def _is_up(runner: Runner, run: int) -> bool:
    ack = held_by(runner, run)
    return runner.answered and runner.state is RunnerState.READY and ack is not None and ack.settled


def _was_never_told(runner: Runner) -> bool:
    """Say whether *runner* is at its start for certain; one that is silent, or came back, may have been told before."""
    ack = runner.acknowledgement
    is_known = runner.answered or runner.state is RunnerState.STARTING
    return is_known and not runner.restarts and (ack is None or not ack.epoch)
