"""A runner in a process of its own, and the operator's side of its control API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trafficsim_api.flow import Archetype
from trafficsim_api.protocol import Acknowledgement, Allowed, Assignment, Limits, Load, sign
from trafficsim_api.resource import Target
from trafficsim_api.statistics import Answer

T = TypeVar("T")

FAKE = (str(Path(__file__).with_name("fake_runner.py")),)
REAL = ("-m", "trafficsim_runner")
HOST = "127.1.0.9"
START_WITHIN_S = 20.0


def until(read: Callable[[], T], holds: Callable[[T], bool] = bool, within_s: float = 10.0) -> T:
    """Return what *read* gives once *holds* is true of it; fail after *within_s*."""
    deadline = time.monotonic() + within_s
    while True:
        value = read()
        if holds(value):
            return value
        assert time.monotonic() < deadline, f"not within {within_s} s; last seen: {value}"
        time.sleep(0.02)


def a_load(url: str = "http://127.1.0.8:1", actions: tuple[str, ...] = ("ping",)) -> Load:
    """Return a load whose users do *actions* (GET /) one after the other, with 50 ms between."""
    flow = [
        step
        for name in actions
        for step in ({"request": {"get": "/"}, "action": name}, {"think": {"constant": "50ms"}})
    ]
    archetype = Archetype.model_validate_json(json.dumps({"name": "visitor", "flow": flow}))
    return Load(target=Target(url=url), archetypes=(archetype,))


class Running:
    """A runner process; *directory* keeps its keys, state and log, also over another `start`; *group* is its cgroup."""

    def __init__(
        self, directory: Path, program: tuple[str, ...] = FAKE, group: Path | None = None, **environ: str
    ) -> None:
        self.directory = directory
        self.program = program
        self.environ = environ
        self.group = group
        self.key = Ed25519PrivateKey.generate()
        self.process: subprocess.Popen[bytes] | None = None
        self.base = ""
        self.epoch = 0
        self.start_at_ms = time.time_ns() // 1_000_000 - 60_000
        (directory / "keys").mkdir(parents=True)
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (directory / "keys" / "k1.pem").write_bytes(public)

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def start(self) -> None:
        """Start the process and wait until its control API listens."""
        environ = os.environ | {
            "TRAFFICSIM_SIMULATION_UID": "sim-1", "TRAFFICSIM_RUNNER_UID": "runner-1", "TRAFFICSIM_REVISION": "rev-1",
            "TRAFFICSIM_LISTEN": f"{HOST}:0", "TRAFFICSIM_KEYS": str(self.directory / "keys"),
            "TRAFFICSIM_STATE": str(self.directory / "state"),
        } | self.environ  # fmt: skip
        log = self.directory / "log"
        before = len(self.events())
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, *self.program], env=environ, stdout=out, stderr=out, preexec_fn=self._join
            )
        listening = until(
            lambda: [e for e in self.events()[before:] if e.get("event.action") == "listening"],
            lambda found: bool(found) or self.process is None or self.process.poll() is not None,
            START_WITHIN_S,
        )
        assert listening, log.read_text()
        self.base = f"http://{HOST}:{listening[0]['server.port']}"

    def _join(self) -> None:
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))

    def events(self) -> list[dict[str, Any]]:
        """Return the events logged so far; text that is no JSON line comes as {"text": …}."""
        log = self.directory / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) if line.startswith("{") and line.endswith("}") else {"text": line} for line in lines]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self, within_s: float = 15.0) -> int:
        """Wait for the process's end and return its exit code."""
        assert self.process is not None
        return self.process.wait(within_s)

    def workers(self) -> list[int]:
        """Return the process ids of the workers, oldest first."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def call(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of a GET, or of a PUT of *body*."""
        request = urllib.request.Request(self.base + path, data=body, method="PUT" if body is not None else "GET")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def assignment(self, places: int = 10, **changes: Any) -> Assignment:
        """Return an assignment of the next epoch: *places* users, begun a minute ago, for an hour; two workers."""
        self.epoch += 1
        now = time.time_ns() // 1_000_000
        fields: dict[str, Any] = {
            "simulation": "sim-1", "run": 1, "runner": "runner-1", "revision": "rev-1", "epoch": self.epoch,
            "users": places, "places": ((0, places),) if places else (), "processes": 2,
            "start_at_ms": self.start_at_ms, "warm_up_ms": 0, "end_ms": now + 3_600_000, "load": a_load(),
            "limits": Limits(targets=(Allowed(network="127.0.0.0/8"),)),
        } | changes  # fmt: skip
        return Assignment(**fields)

    def put(self, assignment: Assignment, key: Ed25519PrivateKey | None = None) -> tuple[int, dict[str, Any]]:
        """Send *assignment* and return status and answer."""
        body = sign(assignment, "k1", key or self.key).model_dump_json().encode()
        status, answer = self.call("/v1/assignment", body)
        return status, json.loads(answer)

    def assign(self, places: int = 10, **changes: Any) -> Acknowledgement:
        """Send the next assignment, and return the acknowledgement once it is settled."""
        assignment = self.assignment(places, **changes)
        status, answer = self.put(assignment)
        assert status == 200, answer
        return until(self.acknowledgement, lambda found: found.settled and found.epoch == assignment.epoch)

    def acknowledgement(self) -> Acknowledgement:
        """Return the acknowledgement now."""
        return Acknowledgement.model_validate_json(self.call("/v1/acknowledgement")[1])

    def statistics(self, boot: str = "", since: int = 0) -> Answer:
        """Return the statistics after window *since* of *boot*."""
        return Answer.decode(self.call(f"/v1/statistics?boot={boot}&since={since}")[1])
