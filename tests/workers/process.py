"""A worker process as tests drive it: started like the supervisor does, spoken to in JSON lines, its slab read."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from trafficsim_api import layout as names
from trafficsim_api.statistics import total
from trafficsim_runner.stats.slab_reader import Slab, Snapshot

SECOND = 1_000_000_000
LOOPBACK = {"network": "127.0.0.0/8", "ports": []}


def a_load(port, flow, *, scheme="http", users_start_at_once=True, archetypes=None, **more):
    """Return the JSON of a load: *flow* for one archetype, everybody on from the start unless told otherwise."""
    target = {
        "url": f"{scheme}://127.0.0.1:{port}",
        "timeouts": more.pop("timeouts", {"connect": "1s", "request": "30s"}),
    }
    target |= more.pop("target", {})
    load = {"target": target, "archetypes": archetypes or [{"name": "only", "weight": 1, "flow": flow}], **more}
    if users_start_at_once and "profile" not in load:
        load["profile"] = [{"ramp": {"to": "100%", "over": "1ms"}}]
    return load


class WorkerProcess(AbstractContextManager):
    """A worker; leaving the context ends it."""

    def __init__(self, directory: Path, *, index: int = 0, env: dict[str, str] | None = None) -> None:
        self.slab_path = directory / f"worker-{index}.slab"
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "trafficsim_runner.worker",
            "--fd",
            str(theirs.fileno()),
            "--index",
            str(index),
        ]
        self.process = subprocess.Popen(
            [*command, "--slab", str(self.slab_path)], pass_fds=[theirs.fileno()], env={**os.environ, **(env or {})}
        )
        theirs.close()
        ours.setblocking(False)
        self._channel = ours
        self._buffer = b""
        self.messages: list[dict] = []
        self.epoch = 0
        self.origin_ns = 0
        self._marked: dict[str, int] = {}

    def __exit__(self, *_):
        try:
            self._channel.close()
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def send(self, message):
        self._channel.setblocking(True)
        self._channel.sendall(json.dumps(message).encode() + b"\n")
        self._channel.setblocking(False)

    def assign(
        self, load, *, users, places=None, origin_ns=None, seconds=3600.0, warm_up_ms=0, run=1, limits=None, **more
    ):
        self.epoch += 1
        now = time.monotonic_ns()
        if origin_ns is None:
            origin_ns = self.origin_ns = self.origin_ns or now
        task = {
            "run": run, "epoch": self.epoch, "users": users, "places": [[0, users]] if places is None else places,
            "origin_ns": origin_ns, "warm_up_ms": warm_up_ms, "end_ns": origin_ns + int(seconds * SECOND),
            "suspended": False, "load": load,
            "limits": {"targets": [LOOPBACK], "verbs": [], "connections": 1000, "concurrency": 50000, **(limits or {})},
        }  # fmt: skip
        self.send({"assign": {**task, **more}})
        return self.epoch

    def drain(self, within_s=5.0):
        self.send({"drain": {"deadline_ns": time.monotonic_ns() + int(within_s * SECOND)}})
        return self.wait_for(lambda ack: ack["drained"], within_s + 5)

    def read(self, timeout=0.0):
        """Take what the worker said, waiting up to *timeout* seconds for anything."""
        # Closed by itself: a selector is a cycle, and a collection may be long in coming.
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            while selector.select(timeout):
                data = self._channel.recv(1 << 20)
                if not data:
                    raise AssertionError(f"the worker is gone: {self.process.wait(5)}")
                self._buffer += data
                *lines, self._buffer = self._buffer.split(b"\n")
                self.messages += [json.loads(line) for line in lines]
                timeout = 0.0

    def wait_for(self, claim, within_s=10.0):
        """Wait until an acknowledgement of the last epoch fulfils *claim*; return it."""
        deadline = time.monotonic() + within_s
        seen = len(self.messages)
        while True:
            for message in self.messages[seen:]:
                seen += 1
                ack = message.get("ack")
                if ack and ack["epoch"] == self.epoch and claim(ack):
                    return ack
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not within {within_s} s; last said: {self.messages[-1:]}")
            self.read(left)

    def wait_for_error(self, within_s=5.0):
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self.read(0.1)
            for message in self.messages:
                if "error" in message:
                    return message["error"]["message"]
        raise AssertionError("no error was said")

    @property
    def slab(self):
        acks = [message["ack"] for message in self.messages if "ack" in message]
        return Slab.open(acks[-1]["slab"])

    def snapshot(self) -> Snapshot:
        return self.slab.snapshot()

    def wait_until(self, claim, within_s=10.0):
        """Wait until *claim* (a function of this) is true."""
        deadline = time.monotonic() + within_s
        while not claim(self):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s} s: {Figures.of(self)}")
            self.read(0.05)

    def mark(self):
        """Count from here: `live` and Figures leave out what was counted before."""
        self._marked = {}
        self._marked = dict(Figures.of(self)) if any(m.get("ack", {}).get("slab") for m in self.messages) else {}

    def since(self, counter, count):
        """Return *count* of *counter* without what was counted before the last mark."""
        return count - self._marked.get(counter, 0)

    def live(self, counter, action=None):
        """Return a counter of the live area (folded events only)."""
        slab = self.slab
        vector = slab.final().vector
        if counter in names.WORKER_INDEX:
            return self.since(counter, int(vector[slab.layout.worker(counter)]))
        if action is not None:
            return int(vector[slab.layout.action(action, counter)])
        return self.since(counter, total(slab.layout, vector, counter))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(5)


class Figures(dict):
    """Every counter of a worker that is not 0, summed over the actions."""

    @classmethod
    def of(cls, worker):
        slab = worker.slab
        vector = slab.final().vector
        found = cls()
        for counter in names.WORKER_COUNTERS:
            found[counter] = worker.since(counter, int(vector[slab.layout.worker(counter)]))
        for counter in names.ACTION_COUNTERS:
            found[counter] = worker.since(counter, total(slab.layout, vector, counter))
        return cls({key: value for key, value in found.items() if value})
