"""A timer descriptor of the kernel (timerfd) on CLOCK_MONOTONIC, set to absolute instants."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Final

__all__ = ["Timer"]

_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long),
    )  # fmt: skip


class Timer:
    """
    Becomes readable at the instant it is armed for.

    Through ctypes, since the standard library has timerfd only from Python 3.13 on.
    """

    __slots__ = ("_pointer", "_spec", "fd")

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, _FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Spec()
        self._pointer = ctypes.byref(self._spec)

    def arm(self, at_ns: int) -> None:
        """Fire at *at_ns* (CLOCK_MONOTONIC); an instant in the past fires at once."""
        self._spec.value_s, self._spec.value_ns = divmod(max(at_ns, 1), 1_000_000_000)
        if _libc.timerfd_settime(self.fd, _ABSOLUTE, self._pointer, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def take(self) -> None:
        """Clear what fired."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
