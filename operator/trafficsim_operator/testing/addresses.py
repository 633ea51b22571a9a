"""Loopback addresses for pods, 127.1.0.1 and up, each held by one kubelet of this machine at a time."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trafficsim_operator.testing.unavailable import Unavailable


class Addresses:
    """Hands out free addresses; file locks keep kubelets of several test runs apart and vanish with their holder."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.gettempdir()) / f"trafficsim-addresses-{os.getuid()}"
        self._directory.mkdir(exist_ok=True)
        self._held: dict[str, IO[str]] = {}

    def take(self) -> str:
        """Return an address nobody holds."""
        for address in _all():
            if address in self._held:
                continue
            lock = (self._directory / address).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            self._held[address] = lock
            return address
        raise Unavailable("no free address below 127.1.0.0/18")

    def give_back(self, address: str) -> None:
        """Let others have *address*."""
        self._held.pop(address).close()

    def close(self) -> None:
        """Give back everything."""
        for address in tuple(self._held):
            self.give_back(address)


def _all() -> Iterator[str]:
    for third in range(64):
        for fourth in range(1, 255):
            yield f"127.1.{third}.{fourth}"
