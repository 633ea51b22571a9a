"""The fake of a runner's control API: held to what the real supervisor is held to."""

from __future__ import annotations

import signal
import time
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from supervised.control_contract import ControlContract
from supervised.running import Running
from trafficsim_operator.testing.fake_control import PodRunner, control
from trafficsim_operator.testing.fake_runner import FakeHealth


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class FakeRunning(Running):
    """A fake runner, asked as a real one is."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.epoch = 0
        self.start_at_ms = now_ms() - 60_000
        self.runner = PodRunner(
            name="runner-1", uid="runner-1", revision="rev-1", simulation="sim-1", born_ms=now_ms(), settles=0,
            settles_ms=20, health=FakeHealth(tells=True),
        )  # fmt: skip

    def call(self, path, body=None):
        parts = urlsplit(path)
        method = "GET" if body is None else "PUT"
        keys = {"k1": self.key.public_key()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return control(self.runner, keys, now_ms(), method, parts.path, query, body or b"")

    def signal(self, number):
        assert number == signal.SIGTERM
        self.runner.count(now_ms())
        self.runner.leaving_ms = now_ms()


@pytest.fixture
def runner():
    return FakeRunning()


class TestFakeControl(ControlContract):
    """The fake."""
