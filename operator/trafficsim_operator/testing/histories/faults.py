"""What may happen to a rollout, and how: every fault is one function over a history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from trafficsim_operator.plan.pauses import COMMANDS, refusal

if TYPE_CHECKING:
    from trafficsim_operator.testing.histories.history import History

__all__ = ["FAULTS", "Fault"]


class Fault(StrEnum):
    """What may happen."""

    CRASH_BEFORE_ACTS = "crash after the write"
    CRASH_AMID_ACTS = "crash amid the acts"
    CONFLICT = "conflict"
    STALE_OPERATOR = "second operator"
    LOST_ANSWERS = "lost acknowledgements"
    LOST_CALLS = "lost assignments"
    SLOW_RUNNERS = "slow to settle"
    BLUE_LOST = "blue pod lost"
    OTHER_LOST = "other pod lost"
    BLUE_SILENT = "blue silent"
    OTHER_SILENT = "other silent"
    METRICS_OUT = "metric outage"
    NEW_VERSION = "third version"
    BACK = "back to the version before"
    USERS = "users edited"
    STEPS = "steps edited"
    LIMITS = "thresholds edited"
    LOAD = "load edited"
    COMMAND = "command"
    REPLAYED = "command replayed"
    STALE_COMMAND = "stale command"
    PAUSED = "spec paused"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    ENDED = "simulation ended"


def _crash_before(history: History) -> bool:
    history.crash = 0.0
    return True


def _crash_amid(history: History) -> bool:
    history.crash = history.rng.random()
    return True


def _conflict(history: History) -> bool:
    history.conflict = True
    return True


def _stale_operator(history: History) -> bool:
    if not history.past:
        return False
    history.send_again(history.rng.choice(history.past))
    return True


def _lost_answers(history: History) -> bool:
    history.deafness = history.rng.choice((0.3, 1.0))
    return True


def _lost_calls(history: History) -> bool:
    history.losing = history.rng.choice((0.3, 1.0))
    return True


def _slow(history: History) -> bool:
    runners = list(history.fleet.runners.values())
    if not runners:
        return False
    history.rng.choice(runners).settles_ms = history.rng.choice((3_000, 8_000))
    return True


def _lost(history: History, *, blue: bool) -> bool:
    names = history.names(blue=blue)
    if not names:
        return False
    history.lose(history.rng.choice(names))
    return True


def _silent(history: History, *, blue: bool) -> bool:
    names = history.names(blue=blue)
    if not names:
        return False
    some = names if history.rng.random() < 0.7 else names[:1]
    until = history.now_ms + history.rng.choice((1_500, 4_000, 14_000))
    for name in some:
        history.fleet.runners[name].silent_until_ms = until
    return True


def _metrics_out(history: History) -> bool:
    history.outages.append((history.run_ms, history.run_ms + history.rng.choice((1_500, 5_000, 12_000))))
    return True


def _new_version(history: History) -> bool:
    history.ask_version(history.any_version())
    return True


def _back(history: History) -> bool:
    written = history.written
    before = written.previous.revision if written.previous is not None else written.stable.revision
    history.ask_version(before)
    return True


def _users(history: History) -> bool:
    history.ask(users=history.rng.choice(history.counts))
    return True


def _steps(history: History) -> bool:
    history.ask(rollout=history.another_rollout())
    return True


def _limits(history: History) -> bool:
    rate = history.wish.rollout.max_error_rate
    history.ask(rollout=history.wish.rollout.model_copy(update={"max_error_rate": rate % 9_000 + 100}))
    return True


def _load(history: History) -> bool:
    history.ask(load=history.wish.load + 1)
    return True


def _command(history: History) -> bool:
    rollout, on = history.written.rollout, history.written.begun and not history.wish.suspended
    fitting = [action for action in COMMANDS if not refusal(rollout, action, on=on, paused=history.wish.paused)]
    history.command(history.rng.choice(fitting if fitting and history.rng.random() < 0.8 else COMMANDS))
    return True


def _replayed(history: History) -> bool:
    if history.wish.command is None:
        history.command("resume")
        return False
    # A tool of the user's applied the annotation again: nothing is new about it.
    history.ask(command=history.wish.command)
    return True


def _stale_command(history: History) -> bool:
    history.command(history.rng.choice(COMMANDS), attempt=history.written.rollout.attempt - 1)
    return True


def _paused(history: History) -> bool:
    history.ask(paused=not history.wish.paused)
    return True


def _suspended(history: History) -> bool:
    if history.wish.suspended or not history.written.begun:
        return False
    history.suspend()
    return True


def _resumed(history: History) -> bool:
    if not history.wish.suspended:
        return False
    history.ask(suspended=False)
    return True


def _ended(history: History) -> bool:
    if history.wish.ended:
        return False
    history.end()
    return True


FAULTS: Final[Mapping[Fault, Callable[[History], bool]]] = {
    Fault.CRASH_BEFORE_ACTS: _crash_before,
    Fault.CRASH_AMID_ACTS: _crash_amid,
    Fault.CONFLICT: _conflict,
    Fault.STALE_OPERATOR: _stale_operator,
    Fault.LOST_ANSWERS: _lost_answers,
    Fault.LOST_CALLS: _lost_calls,
    Fault.SLOW_RUNNERS: _slow,
    Fault.BLUE_LOST: lambda history: _lost(history, blue=True),
    Fault.OTHER_LOST: lambda history: _lost(history, blue=False),
    Fault.BLUE_SILENT: lambda history: _silent(history, blue=True),
    Fault.OTHER_SILENT: lambda history: _silent(history, blue=False),
    Fault.METRICS_OUT: _metrics_out,
    Fault.NEW_VERSION: _new_version,
    Fault.BACK: _back,
    Fault.USERS: _users,
    Fault.STEPS: _steps,
    Fault.LIMITS: _limits,
    Fault.LOAD: _load,
    Fault.COMMAND: _command,
    Fault.REPLAYED: _replayed,
    Fault.STALE_COMMAND: _stale_command,
    Fault.PAUSED: _paused,
    Fault.SUSPENDED: _suspended,
    Fault.RESUMED: _resumed,
    Fault.ENDED: _ended,
}
"""Each says whether it could be done to the history as it stands."""
