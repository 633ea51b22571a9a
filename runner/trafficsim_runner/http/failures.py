"""Which kind of error a failed system call or TLS handshake is: the generator's, the network's or the target's."""

from __future__ import annotations

import errno
import ssl
from typing import Final

from trafficsim_api.layout import Error

__all__ = ["kind_of", "kind_of_errno"]

_KINDS: Final = {
    errno.EADDRNOTAVAIL: Error.NO_PORT,
    errno.EADDRINUSE: Error.NO_PORT,
    errno.EMFILE: Error.NO_FD,
    errno.ENFILE: Error.NO_FD,
    errno.ENOBUFS: Error.NO_FD,
    errno.ENOMEM: Error.NO_FD,
    errno.EACCES: Error.FORBIDDEN,
    errno.EPERM: Error.FORBIDDEN,
    errno.ECONNREFUSED: Error.REFUSED,
    errno.ETIMEDOUT: Error.CONNECT_TIMEOUT,
    errno.ECONNRESET: Error.RESET,
    errno.EPIPE: Error.RESET,
    errno.ECONNABORTED: Error.RESET,
}


def kind_of_errno(number: int, *, connected: bool) -> Error:
    """Return the kind of system error *number*; one not listed is an unreachable network, or once connected a reset."""
    if number == errno.ETIMEDOUT and connected:
        return Error.RESET  # the kernel gave up on a standing connection
    return _KINDS.get(number, Error.RESET if connected else Error.UNREACHABLE)


def kind_of(error: OSError, *, connected: bool) -> Error:
    """Return the kind of *error*, which a call on a socket raised."""
    if isinstance(error, ssl.SSLError):
        return Error.TLS
    return kind_of_errno(error.errno or 0, connected=connected)
