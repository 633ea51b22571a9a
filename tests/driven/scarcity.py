"""A machine on which something is scarce: descriptors, local ports, memory."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_SET_FLAGS: Final = 0x8914  # SIOCSIFFLAGS
_UP: Final = 0x1  # IFF_UP
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_GROUPS: Final = Path("/sys/fs/cgroup/memory")
_EMPTY_WITHIN_S: Final = 10.0


def few_descriptors(count: int) -> Callable[[], None]:
    """Return what a process does before it begins, so that it and its children have at most *count* descriptors."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@contextlib.contextmanager
def few_ports(count: int) -> Iterator[None]:
    """
    Move into a network of our own, with *count* local ports for connections; skip where that is not allowed.

    What is started within is there as well, and nothing else: loopback alone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_NEW_NETWORK):
            pytest.skip(f"no network of our own can be had here: {os.strerror(ctypes.get_errno())}")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))
            _PORTS.write_text(f"40000 {40000 + count - 1}")
            yield
        finally:
            assert not libc.setns(before, _NEW_NETWORK)
    finally:
        os.close(before)


@contextlib.contextmanager
def little_memory(limit: int) -> Iterator[Path]:
    """Make a memory cgroup of *limit* bytes, empty as yet; skip where none of version 1 can be made."""
    group = _GROUPS / f"trafficsim-truth-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"no memory cgroup of version 1 can be made here: {error.strerror}")
    try:
        yield group
    finally:
        deadline = time.monotonic() + _EMPTY_WITHIN_S
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()
