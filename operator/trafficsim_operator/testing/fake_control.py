"""
A fake runner's control API: what a real one answers over HTTP, in front of a `FakeRunner` that lives in a pod.

One suite of tests holds it to a real supervisor process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from trafficsim_api.layout import Layout
from trafficsim_api.protocol import Acknowledgement, Assignment, Refused, verify
from trafficsim_api.statistics import Answer, zeros
from trafficsim_operator.testing.fake_runner import FakeRunner

__all__ = ["PodRunner", "control"]

_MOST_PROCESSES: Final = 64
# A runner with users tells what it had counted when the second began; when the last one has left, all of it.
_LOOK_MS: Final = 1_000
Reply = tuple[int, bytes]


@dataclass(slots=True, kw_only=True)
class PodRunner(FakeRunner):
    """
    A fake runner in a pod: it settles *settles_ms* after it was told something, and leaves when it is told to end.

    *read_done*: how much it had done when its account was last read with nobody at work; as much now, and nothing is
    new.
    """

    simulation: str
    settles_ms: int = 0
    told_ms: int = 0
    leaving_ms: int | None = None
    """Since when it is going down."""
    read_done: int = -1

    def active(self, now_ms: int) -> int:
        """Return the users that are on; none once it is going down."""
        return 0 if self.leaving_ms is not None else FakeRunner.active(self, now_ms)

    def acknowledgement(self, now_ms: int) -> Acknowledgement:
        """Return what it does now."""
        found = FakeRunner.acknowledgement(self, now_ms)
        changes = {"simulation": self.simulation, "revision": self.revision}
        if found.settled and now_ms - self.told_ms < self.settles_ms:
            changes |= {"settled": False}  # type: ignore[dict-item]
        return found.model_copy(update=changes)

    def is_ready(self, now_ms: int) -> bool:
        """Say whether it takes users: not once it is retired and drained, nor when going down."""
        told = self.assignment
        return self.leaving_ms is None and not (told is not None and told.retire and not self.active(now_ms))

    def is_over(self, now_ms: int, linger_ms: int) -> bool:
        """Say whether its process has ended: its last account was read, or nobody came for it."""
        if self.leaving_ms is None:
            return False
        return self.assignment is None or self.read_done == self.done or now_ms - self.leaving_ms >= linger_ms


def control(
    runner: PodRunner,
    keys: Mapping[str, Ed25519PublicKey],
    now_ms: int,
    method: str,
    path: str,
    query: Mapping[str, str],
    body: bytes = b"",
) -> Reply:
    """Return status and body of the answer to one request, with the public *keys* of who may give orders."""
    match method, path:
        case "PUT", "/v1/assignment":
            return _assigned(runner, keys, now_ms, body)
        case "GET", "/v1/acknowledgement":
            return _acknowledged(runner, now_ms)
        case "GET", "/v1/statistics":
            since = query.get("since", "0")
            if not since.isascii() or not since.isdigit() or len(since) > 19:
                return _error(400, "since: a whole number is needed")
            return 200, _statistics(runner, now_ms, query.get("boot", ""), int(since)).encode()
        case "GET", "/healthz":
            return 200, b"alive\n"
        case "GET", "/readyz":
            return (200, b"ready\n") if runner.is_ready(now_ms) else (503, b"retired or going down\n")
        case _:
            return _error(404, "there is nothing here")


def _assigned(runner: PodRunner, keys: Mapping[str, Ed25519PublicKey], now_ms: int, body: bytes) -> Reply:
    try:
        assignment = verify(body, keys, runner.simulation, runner.uid)
        if runner.leaving_ms is not None:
            raise Refused(503, "the runner is going down")
        told = runner.assignment
        if told is not None and _order(assignment) < _order(told):
            return _acknowledged(runner, now_ms, status=409)
        if told is not None and _order(assignment) == _order(told):
            return _acknowledged(runner, now_ms)
        if assignment.processes > _MOST_PROCESSES:
            raise Refused(422, f"processes: {assignment.processes} are more than {_MOST_PROCESSES}", is_signed=True)
        if missing := runner.lacks(assignment):
            raise Refused(422, f"rows were not sent: {', '.join(sorted(missing))}", is_signed=True)
    except Refused as refused:
        if refused.is_signed:
            runner.problem = f"an assignment was refused: {refused}"
        return _error(refused.status, str(refused))
    runner.take(assignment, now_ms)
    runner.told_ms, runner.problem, runner.read_done = now_ms, "", -1
    return _acknowledged(runner, now_ms)


def _order(assignment: Assignment) -> tuple[int, int]:
    return assignment.run, assignment.epoch


def _acknowledged(runner: PodRunner, now_ms: int, status: int = 200) -> Reply:
    return status, runner.acknowledgement(now_ms).model_dump_json().encode()


def _statistics(runner: PodRunner, now_ms: int, boot: str, since: int) -> Answer:
    own = f"boot-{runner.uid}"
    if runner.assignment is None:
        nothing = Layout(actions=())
        return Answer(
            runner=runner.uid, boot=own, run=0, layout=nothing, sequence=0, first=1, total=zeros(nothing),
            warmup=zeros(nothing), extremes=(), windows=(),
        )  # fmt: skip
    if not runner.active(now_ms):
        runner.count(now_ms)
        runner.read_done = runner.done if boot == own else runner.read_done
    elif (looked_ms := now_ms - now_ms % _LOOK_MS) > runner.counted_ms:
        runner.count(looked_ms)
    return runner.answer(since if boot == own else 0)


def _error(status: int, reason: str) -> Reply:
    return status, json.dumps({"error": reason}).encode()
