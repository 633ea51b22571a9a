"""
A connection, one user's or of a pool: a raw non-blocking socket, TLS straight on its descriptor.

The states are whole numbers because the hot loop compares them:

    CONNECTING → (HANDSHAKE →) IDLE → AWAIT → (READING →) IDLE … CLOSED

A request on a connection that grew too old goes from AWAIT to LAST: out of the hot loop, and closed after its answer.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trafficsim_runner import draws

if TYPE_CHECKING:
    from trafficsim_runner.http.endpoint import Address, Endpoint
    from trafficsim_runner.http.origin import Origin
    from trafficsim_runner.http.parser import AnswerParser
    from trafficsim_runner.http.pool import Group
    from trafficsim_runner.program import RequestStep
    from trafficsim_runner.users import User

__all__ = [
    "AWAIT",
    "CLOSED",
    "CONNECTING",
    "HANDSHAKE",
    "IDLE",
    "LAST",
    "READING",
    "Connection",
    "age_of",
    "open_connection",
    "set_heartbeat",
]

CONNECTING: Final = 0
HANDSHAKE: Final = 1
IDLE: Final = 2
AWAIT: Final = 3  # a request was sent whole, nothing of its answer came
READING: Final = 4  # the request is not yet out whole, or the answer came in part
CLOSED: Final = 5
LAST: Final = 6  # as AWAIT, but the connection is older than it may be

_AGES: Final = 1 << 40  # keeps these draws apart from all others of a user
_PROBES: Final = 3
_PROBES_APART_S: Final = 10


class Connection:
    """
    A connection and the request on it.

    *recv* and *send* are the bound methods of socket or TLS object. *since_ns* is when the current phase began: the
    connect, or the send of the request. *wire* is the request to send once connected, *rest* what the kernel did not
    take yet, *received* how many bytes of the answer came. *reused*: it answered before. *retried*: the request on it
    was sent before, on a connection the server closed. From *expires_ns* on it is closed when no request is on it.
    *group*: the pool it belongs to; None: it is *user*'s own.
    """

    __slots__ = (
        "address", "endpoint", "expires_ns", "fd", "group", "origin", "parser", "received", "recv", "rest", "retried",
        "reused", "send", "since_ns", "socket", "state", "step", "tls", "user", "wire",
    )  # fmt: skip

    def __init__(self, raw: socket.socket, user: User, endpoint: Endpoint, now_ns: int) -> None:
        self.socket: socket.socket = raw
        self.fd = raw.fileno()
        self.recv: Callable[[int], bytes] = raw.recv
        self.send: Callable[[bytes], int] = raw.send
        self.user = user
        self.endpoint = endpoint
        self.state = CONNECTING
        self.since_ns = now_ns
        self.step: RequestStep | None = None
        self.parser: AnswerParser | None = None
        self.rest: bytes | None = None
        self.wire: bytes | None = None
        self.tls: ssl.SSLSocket | None = None
        self.received = 0
        self.reused = False
        self.retried = False
        self.address: Address | None = None
        self.origin: Origin | None = None
        self.expires_ns = 1 << 62
        self.group: Group[Connection, User] | None = None

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Put TLS on the connected socket; `shake_hands` follows."""
        tls = context.wrap_socket(self.socket, server_hostname=self.endpoint.server_name, do_handshake_on_connect=False)
        self.socket = self.tls = tls
        self.state = HANDSHAKE
        # The SSL object itself: the public methods add two frames to every call.
        self.recv = tls._sslobj.read  # type: ignore[attr-defined]
        self.send = tls._sslobj.write  # type: ignore[attr-defined]

    def shake_hands(self) -> bool | None:
        """Go on with the handshake: True when it is done, None to wait for reading, False to wait for writing."""
        assert self.tls is not None
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            return False
        return True

    def close(self) -> None:
        """Close the socket; no TLS farewell is sent, as the kernel's close says it all."""
        self.state = CLOSED
        self.socket.close()
        # The bound methods hold the socket, and the parser nothing of ours: let go of all.
        self.recv, self.send = _no_receive, _no_send
        self.rest = self.wire = None


def age_of(user: User, most_ns: int) -> int:
    """
    Return how old the connection that *user* opens now may become (ns): *most_ns* ± 20 %, evenly.

    Drawn from the user and its iteration, so connections opened together are not closed together.
    """
    return most_ns * 4 // 5 + draws.whole(draws.key_of(user.key, _AGES), user.iteration, 0, most_ns * 2 // 5)


def set_heartbeat(raw: socket.socket, every_s: int, patience_ms: int) -> None:
    """
    Let the kernel ask the peer after each *every_s* of silence whether it is there (0: never).

    A peer that does not answer three times, 10 s apart at most, is gone: the connection ends, but not while a request
    on it may still be answered (*patience_ms*).
    """
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(every_s > 0))
    if every_s:
        apart_s = min(every_s, _PROBES_APART_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every_s)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, apart_s)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        within_ms = max(patience_ms, 1000 * (every_s + _PROBES * apart_s))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, within_ms)
    else:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def _no_receive(_: int) -> bytes:
    raise OSError(errno.EBADF, "closed")


def _no_send(_: bytes) -> int:
    raise OSError(errno.EBADF, "closed")


def open_connection(address: Address, user: User, endpoint: Endpoint, now_ns: int) -> Connection:
    """Begin to connect to *address*; raise OSError when that fails at once."""
    family, where = address
    raw = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            raw.connect(where)
        except BlockingIOError:
            pass
    except OSError:
        raw.close()
        raise
    return Connection(raw, user, endpoint, now_ns)
