"""
Connections: opened, watched in one epoll, and closed; how requests fail that never get one.

Each user has its own connection, unless they are pooled (pooling.py). Policy is checked at every connect, against the
address itself. Users are spread over the target's addresses; one that cannot be connected to is passed over for the
next, until the name is looked up again, and a request fails when no address is left.
"""

from __future__ import annotations

import select
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from trafficsim_api.layout import Error
from trafficsim_api.protocol import Allowed
from trafficsim_runner.checks import Headers
from trafficsim_runner.http.connection import IDLE, READING, Connection, age_of, open_connection
from trafficsim_runner.http.endpoint import Endpoint
from trafficsim_runner.http.failures import kind_of, kind_of_errno
from trafficsim_runner.http.origin import Chain, Origin
from trafficsim_runner.http.parser import ParserPool
from trafficsim_runner.http.pool import Group, Pools
from trafficsim_runner.http.redirects import Goal
from trafficsim_runner.program import RequestStep
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.raw import RawLog
from trafficsim_runner.users import User

if TYPE_CHECKING:
    from trafficsim_runner.scenario.asking import Ask

__all__ = ["Opening", "Walker"]

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
# To how many other origins redirects may lead.
ELSEWHERE: Final = 64


class Walker(Protocol):
    """Who leads the users from step to step; told how a request ended."""

    def sent(self, user: User) -> None:
        """Hear that the user's first request is on its way."""

    def answered(self, user: User, now_ns: int) -> None:
        """Hear that the request was answered; *user.step* is the next step."""

    def failed(self, user: User, now_ns: int) -> None:
        """Hear that the request failed."""

    def refused(self, user: User, now_ns: int) -> None:
        """Hear that the request was not begun: no slot was free, or the target became another."""

    def broke(self, user: User, error: Exception) -> None:
        """Hear that *error*, a mistake of ours, came up while the user was led on."""


class Opening(ABC):
    """
    The connections of a worker.

    *in_flight* counts requests begun and not ended, at most *concurrency*; *connection_limit* bounds the connections.
    *hear* is handed the answers that somebody waits for, before `Walker.answered`; the headers may be the parser's own.
    *reply* is handed them instead of both; it returns the next request, or None when `Walker.answered` is to follow.
    *fold_at*: how many events may wait to be folded into the account. Connections become *max_age_ns* old, ± 20 %.
    """

    def __init__(
        self,
        *,
        account: Account,
        walker: Walker,
        clock: Callable[[], int],
        wall_s: Callable[[], float],
        raw: RawLog | None = None,
    ) -> None:
        self._account = account
        self._walker = walker
        self._clock = clock
        self._wall_s = wall_s
        self._raw = raw
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._doomed: list[Connection] = []
        self._round: list[Connection] = []  # still to be looked at in this round (see `Exchange.sweep`)
        self._parsers = ParserPool()
        self._waiting: dict[User, tuple[Origin, int]] = {}  # for an address, since that instant (ns)
        self._endpoint: Endpoint | None = None
        self._home: Origin | None = None
        self._elsewhere: dict[Endpoint, Origin] = {}
        self._chains: dict[User, Chain] = {}
        self._due: dict[User, int] = {}  # when the request out was due (ns), for those whose response time is kept
        self._pools: Pools[Connection, User] | None = None  # None: each user has its own connection
        self._reserved: dict[User, Group[Connection, User]] = {}  # pooled: for whom a connection is being opened
        self._resent: set[User] = set()  # those waiting whose request was sent before (see Connection.retried)
        self._make_tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
        self._allowed: tuple[Allowed, ...] = ()
        self._verbs: tuple[str, ...] = ()
        self.in_flight = 0
        self.concurrency = 0
        self.connection_limit = 0
        self.fold_at = 1
        self.max_age_ns = 1 << 62
        self.hear: Callable[[User, int, Headers, bytes], None] = _nobody_hears
        self.reply: Callable[[User, int, Headers, bytes], Ask | None] = _nobody_replies

    def aim(
        self, endpoint: Endpoint, tls: ssl.SSLContext | None,
        make_tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:  # fmt: skip
        """
        Send what comes next to *endpoint*; connections to another close after their request.

        *make_tls* makes the TLS context for a redirect to https from a target without TLS.
        """
        home, self._home = self._home, Origin(endpoint, tls, self._names_known)
        self._endpoint, self._make_tls = endpoint, make_tls
        self._elsewhere.clear()
        self._close_idle()
        # Those who wait for the old target's address sent nothing yet: they begin their step again. But who was
        # redirected, or sends once more, did send: such a request goes on with the addresses known.
        waiting = [user for user in self._waiting if user not in self._chains and user not in self._resent]
        if home is not None:
            home.names.close()
        now_ns = self._clock()
        for user in waiting:
            del self._waiting[user]
            self.in_flight -= 1
            self._walker.refused(user, now_ns)

    def allow(
        self, allowed: Sequence[Allowed], *, connections: int, concurrency: int, verbs: Sequence[str] = ()
    ) -> None:  # fmt: skip
        """
        Connect only to what is *allowed*, with at most so many connections and requests in flight.

        *verbs* (in lower case, none: all) are those a redirect may lead to.
        """
        self._allowed, self._verbs = tuple(allowed), tuple(verbs)
        for origin in (self._home, *self._elsewhere.values()):
            if origin is not None:
                origin.forget()
        self.connection_limit, self.concurrency = connections, concurrency

    @property
    def open_connections(self) -> int:
        """Return how many connections are open or being opened."""
        return len(self._connections)

    def close(self) -> None:
        """Close every connection and the epoll."""
        for connection in tuple(self._connections.values()):
            self._close(connection)
        self.bury()
        for origin in (self._home, *self._elsewhere.values()):
            if origin is not None:
                origin.names.close()
        self._epoll.close()

    # Connecting.

    def _connect(self, user: User, step: RequestStep, wire: bytes, now_ns: int, *, retried: bool = False) -> None:
        """Look the name up, unless that was done just now, then open a connection."""
        origin = self._origin_of(user)
        if origin.names.ask(now_ns):
            self._waiting[user] = origin, now_ns
            if retried:
                self._resent.add(user)
        else:
            self._open(origin, user, step, wire, now_ns, retried=retried)

    def _open(
        self, origin: Origin, user: User, step: RequestStep, wire: bytes, now_ns: int, *, retried: bool = False
    ) -> None:  # fmt: skip
        """Open a connection to one of the addresses known; *now_ns* is when its connect phase began."""
        usable = origin.permitted(self._allowed)
        if not usable:
            self._fail_unconnected(user, step, Error.FORBIDDEN, now_ns)
            return
        address = usable[user.place % len(usable)]
        try:
            connection = open_connection(address, user, origin.endpoint, now_ns)
        except OSError as error:
            if origin.pass_over(address):
                self._open(origin, user, step, wire, now_ns, retried=retried)
            else:
                self._fail_unconnected(user, step, kind_of(error, connected=False), now_ns)
            return
        connection.address, connection.origin = address, origin
        connection.step, connection.wire, connection.retried = step, wire, retried
        user.connection = connection
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, _OUT)
        self._account.count("connects")

    def _origin_of(self, user: User) -> Origin:
        """Return where *user*'s request goes: the target, unless it was redirected."""
        chain = self._chains.get(user)
        origin = self._home if chain is None else chain.origin
        assert origin is not None
        return origin

    def _origin_at(self, goal: Goal) -> Origin | None:
        """Return where *goal* is; None when redirects lead to more places than anybody means."""
        home = self._home
        assert home is not None
        if goal.leads_to(home.endpoint):
            return home
        endpoint = goal.endpoint(home.endpoint)
        origin = self._elsewhere.get(endpoint)
        if origin is None and len(self._elsewhere) < ELSEWHERE:
            tls = (home.tls or self._make_tls()) if endpoint.is_tls else None
            origin = self._elsewhere[endpoint] = Origin(endpoint, tls, self._names_known)
        return origin

    def _wire_of(self, user: User, step: RequestStep) -> bytes | None:
        """Return the bytes of *user*'s request, once more: *step*'s, or those that follow a redirect."""
        chain = self._chains.get(user)
        return step.render(user) if chain is None else chain.wire

    def _suspect(self, connection: Connection) -> bool:
        """Pass over the address of a connect that failed; say whether there is another to go to."""
        origin = connection.origin
        if origin is None or connection.address is None:
            return False
        return origin.pass_over(connection.address)

    def _names_known(self, origin: Origin) -> None:
        """Go on with those who waited for an address; without one their requests fail."""
        for user in [user for user, (awaited, _) in self._waiting.items() if awaited is origin]:
            if user not in self._waiting:
                continue  # somebody before it in the list made it leave
            try:
                self._go_there(user)
            except Exception as error:  # noqa: BLE001 - one user's step must not keep the others waiting
                self._walker.broke(user, error)
        self.bury()

    def _go_there(self, user: User, *, is_late: bool = False) -> None:
        """End the look-up *user* waits for; *is_late*: without its answer, and with a connect phase of its own."""
        step, now_ns = user.step, self._clock()
        origin, since_ns = self._waiting.pop(user)
        retried = user in self._resent
        self._resent.discard(user)
        assert isinstance(step, RequestStep)
        wire = self._wire_of(user, step)
        if origin.names.addresses and wire is not None:
            self._open(origin, user, step, wire, now_ns if is_late else since_ns, retried=retried)
        else:
            self._fail_unconnected(user, step, Error.DNS, now_ns)

    def _connecting(self, connection: Connection) -> None:
        """Hear the kernel's verdict on a connect."""
        now_ns = self._clock()
        number = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            if self._suspect(connection):
                self._try_next(connection, now_ns)
            else:
                self._fail(connection, kind_of_errno(number, connected=False), now_ns)
        elif connection.origin is None or connection.origin.tls is None:
            self._connected(connection, now_ns)
        else:
            try:
                connection.start_tls(connection.origin.tls)
            except (OSError, ValueError):
                self._fail(connection, Error.TLS, now_ns)
                return
            self._shake_hands(connection)

    def _try_next(self, connection: Connection, now_ns: int) -> None:
        """Connect to another address instead."""
        user, step, wire, origin = connection.user, connection.step, connection.wire, connection.origin
        assert step is not None and wire is not None and origin is not None
        self._close(connection)
        self._open(origin, user, step, wire, now_ns, retried=connection.retried)

    def _shake_hands(self, connection: Connection) -> None:
        now_ns = self._clock()
        try:
            done = connection.shake_hands()
        except OSError as error:
            ended = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
            is_tls = isinstance(error, ssl.SSLError) and not ended
            self._fail(connection, Error.TLS if is_tls or ended else kind_of(error, connected=True), now_ns)
            return
        if done:
            self._connected(connection, now_ns)
        else:
            self._epoll.modify(connection.fd, _IN if done is None else _OUT)

    def _connected(self, connection: Connection, now_ns: int) -> None:
        step, wire = connection.step, connection.wire
        assert step is not None and wire is not None
        connection.wire = None
        connection.state = IDLE
        connection.expires_ns = now_ns + age_of(connection.user, self.max_age_ns)
        self._epoll.modify(connection.fd, _IN)
        self._send(connection, step, wire, now_ns)

    @abstractmethod
    def _send(self, connection: Connection, step: RequestStep, wire: bytes, now_ns: int) -> None:
        """Send a request on a connection that stands."""

    # Ending.

    def _fail(self, connection: Connection, kind: Error, now_ns: int) -> None:
        step, user = connection.step, connection.user
        assert step is not None
        self._record_failure(connection, step, kind, now_ns)
        self._walker.failed(user, now_ns)

    def _record_failure(self, connection: Connection, step: RequestStep, kind: Error, now_ns: int) -> None:
        size = connection.received if connection.state == READING else 0
        self._account.failed(step.tally, kind, step.checks.count, size)
        if self._raw is not None:
            self._raw.add(step.action, connection.user.place, connection.since_ns, now_ns, 0)
        self._chains.pop(connection.user, None)
        self.in_flight -= 1
        self._close(connection)

    def _fail_unconnected(self, user: User, step: RequestStep, kind: Error, now_ns: int) -> None:
        self._chains.pop(user, None)
        self._account.failed(step.tally, kind, step.checks.count)
        if self._raw is not None:
            self._raw.add(step.action, user.place, now_ns, now_ns, 0)
        self.in_flight -= 1
        self._walker.failed(user, now_ns)

    def _close(self, connection: Connection) -> None:
        """Forget a connection; its descriptor is closed after the batch, so that no event of it reaches a successor."""
        if self._connections.pop(connection.fd, None) is None:
            return
        if connection.user.connection is connection:
            connection.user.connection = None
        if connection.parser is not None:
            self._parsers.release(connection.parser)
            connection.parser = None
        self._account.count("closes")
        self._doomed.append(connection)

    def _close_idle(self) -> None:
        for connection in tuple(self._connections.values()):
            if connection.state == IDLE:
                self._close(connection)
        self.bury()

    def bury(self) -> None:
        """Close the descriptors of connections that are gone."""
        for connection in self._doomed:
            connection.close()
        self._doomed.clear()


def _nobody_hears(user: User, status: int, headers: Headers, body: bytes) -> None:
    """Let an answer be: there is no scenario."""


def _nobody_replies(user: User, status: int, headers: Headers, body: bytes) -> Ask | None:
    """Let an answer be: there is no scenario."""
    return None
