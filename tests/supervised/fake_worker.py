"""
A worker without an engine: it takes assignments, counts ten made-up requests a second for each user, and keeps a slab.

What a real one does to its users takes time; this one settles and drains at once, so a test sees the supervisor alone.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import time
from pathlib import Path
from typing import Any

from trafficsim_api.flow import actions_of
from trafficsim_api.layout import Layout
from trafficsim_api.profile import shape
from trafficsim_api.protocol import Load
from trafficsim_runner.stats.slab import SlabWriter

STEP_S = 0.05


class FakeWorker:
    def __init__(self, channel: socket.socket, slab: Path) -> None:
        self._channel = channel
        self._path = slab
        self._given: dict[str, Any] = {}
        self._slab: SlabWriter | None = None
        self._generation = 0
        self._due = 0.0
        self._draining = False
        self._told: dict[str, Any] = {}
        self._told_at = 0.0
        self._eaten = b""

    def run(self) -> None:
        self._channel.setblocking(False)
        buffer = b""
        while True:
            if select.select([self._channel], [], [], STEP_S)[0]:
                data = self._channel.recv(1 << 20)
                if not data:
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "exit" in message:
                        return
                    self._take(message)
            if self._given:
                self._work()
            eat = self._path.with_name("eat")
            if os.environ.get("FAKE_WORKER_EATS") and eat.exists():
                eat.unlink()
                self._eaten = b"x" * int(os.environ["FAKE_WORKER_EATS"])

    def _take(self, message: dict[str, Any]) -> None:
        if "drain" in message:
            self._draining = not os.environ.get("FAKE_WORKER_STUBBORN")
        elif "assign" in message:
            self._given = message["assign"]
            load = Load.model_validate_json(json.dumps(self._given["load"]))
            known = self._slab.layout.actions if self._slab else ()
            layout = Layout(actions=tuple(dict.fromkeys((*known, *actions_of(load.archetypes)))))
            if self._slab is None or layout.actions != known:
                path = self._path if self._slab is None else Path(f"{self._path}.{self._generation}")
                self._generation += 1
                self._slab = SlabWriter(path, layout, started_ns=time.monotonic_ns(), before=self._slab)

    def _work(self) -> None:
        slab, given, now = self._slab, self._given, time.monotonic_ns()
        assert slab is not None
        held = sum(stop - start for start, stop in given["places"])
        ended = now >= given["end_ns"] or given["suspended"] or self._draining
        on = shape(None).users_at(given["users"], (now - given["origin_ns"]) // 1_000_000) > 0
        active = 0 if ended or not on else held
        self._due += active * 10 * STEP_S
        while self._due >= 1:
            self._due -= 1
            for name in ("sent", "done", "class_2xx"):
                slab.live[slab.layout.action(0, name)] += 1
            slab.live[slab.layout.service(0) + 1780] += 1
            slab.live[slab.layout.worker("iterations")] += 1
        slab.live[slab.layout.worker("cpu_ns")] = time.process_time_ns()
        slab.live[slab.layout.worker("wall_ns")] += int(STEP_S * 1e9)
        if now >= given["origin_ns"] + given["warm_up_ms"] * 1_000_000 and not slab.is_warm:
            slab.mark_warm()
        slab.now(active=active, wanted=held, epoch=given["epoch"])
        told = {
            "epoch": given["epoch"], "active": active, "settled": True, "drained": active == 0,
            "slab": str(slab.path), "in_flight": 0, "connections": active, "pooled": 0, "parked": active,
        }  # fmt: skip
        if told != self._told or time.monotonic() - self._told_at >= 1:
            self._told, self._told_at = told, time.monotonic()
            slab.snapshot(mono_ns=now, wall_ms=time.time_ns() // 1_000_000, active=active, wanted=held,
                          epoch=given["epoch"])  # fmt: skip
            self._channel.send(json.dumps({"ack": told}).encode() + b"\n")


def refuse(channel: socket.socket) -> None:
    """Answer every assignment with an error."""
    with channel.makefile("r") as lines:
        for line in lines:
            if "exit" in json.loads(line):
                return
            channel.send(b'{"error": {"message": "ValueError: not today"}}\n')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--slab", type=Path, required=True)
    given = parser.parse_args()
    if os.environ.get("FAKE_WORKER_DIES"):
        raise SystemExit(3)
    if os.environ.get("FAKE_WORKER_REFUSES"):
        refuse(socket.socket(fileno=given.fd))
        return
    FakeWorker(socket.socket(fileno=given.fd), given.slab).run()


if __name__ == "__main__":
    main()
