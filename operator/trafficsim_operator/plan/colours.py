"""
One runner version as it is seen: the places its runners hold by acknowledgement, who is ready, and why others are not.

An unreachable runner keeps its places, and is as settled as it said last; after ten seconds nobody waits for it to be.
One that is being deleted keeps nothing. A cause that does not mend itself (a crash loop, an image that is not there, a
load that its workers refuse) counts as crashed; the end of a container, that is started again, only where no runner of
the version is ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trafficsim_api.protocol import Acknowledgement
from trafficsim_operator.observed import RevisionSeen, Runner, RunnerState
from trafficsim_operator.plan.assignments import cause_of, held_by
from trafficsim_operator.plan.rolling import SILENT_MS, Colour

__all__ = ["colour_of", "is_ready", "written_off"]

# How causes begin that another try does not mend, however other runners do: of a kubelet, and of a runner about its
# workers.
_CRASHES: Final = (
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
    "an assignment was refused",
    "worker ",
)
# How those begin of a container that ended once: of one runner, not of its version. A local one begins with its name.
_ENDS: Final = ("Ended", "Restarted")
_EXITED: Final = (" exited with ", " killed by ")


def colour_of(seen: RevisionSeen | None, run: int) -> Colour:
    """Return how the version *seen* (None: nothing of it exists) stands in *run*."""
    if seen is None:
        return Colour(gone=True)
    runners = [runner for runner in seen.runners if runner.state is not RunnerState.LEAVING]
    acks = {r.uid: ack for r in runners if (ack := held_by(r, run)) is not None}
    ready = sum(is_ready(runner, run) for runner in runners)
    cause, crashed = _fault(seen, runners, ready)
    return Colour(
        held=sum(len(ack.held) for ack in acks.values()),
        active=sum(ack.active for ack in acks.values()),
        runners=len(runners),
        ready=ready,
        settled=all(
            _is_settled(acks[runner.uid])
            for runner in runners
            if runner.uid in acks and (runner.answered or runner.silent_ms < SILENT_MS)
        ),
        silent_ms=_silent_ms(runners, run),
        cause=cause,
        crashed=crashed,
        gone=not runners,
    )


def is_ready(runner: Runner, run: int) -> bool:
    """Say whether *runner* can have users: it answers as the version it is to be, is up and reaches the target."""
    ack = held_by(runner, run)
    if ack is None or not runner.answered or runner.state is not RunnerState.READY:
        return False
    # Subtle: one that is taking or giving up places is not settled, yet its workers are up.
    is_up = ack.settled or bool(ack.held)
    return is_up and ack.target == "reachable" and ack.revision in ("", runner.revision)


def _is_settled(ack: Acknowledgement) -> bool:
    # Subtle: who has not heard yet that a suspended simulation goes on has settled, with no user on.
    return ack.settled and not ack.suspended


def _fault(seen: RevisionSeen, runners: list[Runner], ready: int) -> tuple[str, bool]:
    """Return why the version does not get on, and whether that is a crash of it; what makes it one is told first."""
    if seen.foreign:
        return "its name is taken by an object that is not ours", True
    said = [cause for runner in runners if (cause := cause_of((runner,), ""))] + [seen.problem]
    crash = next((cause for cause in said if _is_crash(cause, ready)), "")
    return crash or said[0], bool(crash)


def _is_crash(cause: str, ready: int) -> bool:
    """Say whether *cause* does not mend itself, where so many runners of the version are *ready*."""
    is_end = cause.startswith(_ENDS) or any(text in cause for text in _EXITED)
    return cause.startswith(_CRASHES) or (is_end and not ready)


def written_off(runners: Iterable[Runner]) -> frozenset[str]:
    """Return the names of the runners whose word is not waited for any more."""
    return frozenset(runner.name for runner in runners if runner.silent_ms >= SILENT_MS)


def _silent_ms(runners: list[Runner], run: int) -> int:
    """Return for how long none of the runners with users has answered; those without count when none has any."""
    holding = [runner for runner in runners if (ack := held_by(runner, run)) is not None and ack.held]
    asked = holding or [runner for runner in runners if runner.state is RunnerState.READY]
    return min((runner.silent_ms for runner in asked), default=0)
