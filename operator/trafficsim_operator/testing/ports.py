"""Free ports for servers that must keep them."""

import random
import socket
from collections.abc import Iterator

# Below Linux's ephemeral range: a client's outgoing connection cannot take the port while its server restarts.
_FIRST, _LAST = 20_000, 32_000


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Return *count* different ports nobody listens on at *address*."""
    candidates = _free(address)
    return [next(candidates) for _ in range(count)]


def _free(address: str) -> Iterator[int]:
    for port in random.sample(range(_FIRST, _LAST), k=_LAST - _FIRST):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
        yield port
