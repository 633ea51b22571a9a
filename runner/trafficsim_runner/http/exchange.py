"""
Requests and answers off the hot path: first meetings, odd answers, failures, time-outs, leaving.

A request ends in exactly one of `Walker.answered` and `Walker.failed`, or was never begun (`Walker.refused`).

A server's close that races a send on a kept connection (it answered before, nothing of this answer came) is not the
target's failure: an idempotent request is sent once more on a fresh connection, counted as sent once, its time measured
from the second send. Any other request counts as reset.
"""

from __future__ import annotations

import select
import ssl
from abc import abstractmethod
from typing import Final

from trafficsim_api.layout import Drop, Error
from trafficsim_runner.checks import MISSING, Headers, parsed
from trafficsim_runner.http.coding import decoded
from trafficsim_runner.http.connection import AWAIT, CONNECTING, HANDSHAKE, IDLE, LAST, READING, Connection
from trafficsim_runner.http.cookies import Change, changes_in
from trafficsim_runner.http.failures import kind_of
from trafficsim_runner.http.following import Following, keep_cookies
from trafficsim_runner.http.parser import AnswerParser, ProtocolFault
from trafficsim_runner.http.redirects import REDIRECTS
from trafficsim_runner.http.shapes import parts_of, shape_of
from trafficsim_runner.program import RequestStep, Step
from trafficsim_runner.stats.account import HeadRecord
from trafficsim_runner.users import BEGUN, User

__all__ = ["Exchange"]

READ: Final = 65536
ALL: Final = 1 << 30
_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_BODILESS: Final = (204, 304)


class Exchange(Following):
    """The requests on a worker's connections."""

    def request(self, user: User, step: RequestStep, wire: bytes, now_ns: int, due_ns: int) -> None:
        """Begin *user*'s request *wire*, due at *due_ns*; connect first when there is no connection."""
        if self._pools is not None:
            self._ask(user, step, wire, now_ns, due_ns)
            return
        connection = user.connection
        if connection is not None and connection.endpoint is not self._endpoint:
            self._close(connection)
            connection = None
        if self.in_flight >= self.concurrency or (
            connection is None and len(self._connections) >= self.connection_limit
        ):
            self._account.drop(Drop.NO_SLOT)
            self._walker.refused(user, now_ns)
            return
        self.in_flight += 1
        if step.is_timed:
            self._due[user] = due_ns
        if now_ns == due_ns:
            self._account.zero_lag += 1
        else:
            self._account.lag(now_ns - due_ns)
        if connection is None:
            self._connect(user, step, wire, now_ns)
        else:
            self._send(connection, step, wire, now_ns)

    @abstractmethod
    def _ask(self, user: User, step: RequestStep, wire: bytes, now_ns: int, due_ns: int) -> None:
        """Begin a request on a connection of its group's pool, as soon as there is one."""

    @abstractmethod
    def _hand_back(self, connection: Connection, now_ns: int, *, closes: bool) -> None:
        """Let a request's connection go, to its pool if it stays open and has one."""

    def release(self, user: User) -> None:
        """Close the connection of a user that leaves; a request that was not sent yet is counted as dropped."""
        if not self.is_sending(user) and self._is_unsent(user):
            self._account.drop(Drop.LEFT)
        if user.connection is not None:
            if user.connection.state in (CONNECTING, HANDSHAKE):
                self.in_flight -= 1
            self._close(user.connection)
        elif self._waiting.pop(user, None) is not None:
            self.in_flight -= 1
        self._chains.pop(user, None)
        self._due.pop(user, None)
        self._resent.discard(user)

    def _is_unsent(self, user: User) -> bool:
        """Say whether a request of *user* waits for its connection."""
        connection = user.connection
        return user in self._waiting or (connection is not None and connection.state in (CONNECTING, HANDSHAKE))

    def is_sending(self, user: User) -> bool:
        """Say whether a request of *user* was sent and has no end yet (one that waits for a connection was not)."""
        connection = user.connection
        if user in self._chains or user in self._resent:
            return True
        return connection is not None and (connection.state in (AWAIT, LAST, READING) or connection.retried)

    def cut(self, user: User, now_ns: int) -> None:
        """Break off the request *user* is in."""
        connection = user.connection
        if connection is not None and connection.step is not None:
            self._record_failure(connection, connection.step, Error.CUT, now_ns)
        elif self.is_sending(user) and isinstance(user.step, RequestStep):
            self._account.failed(user.step.tally, Error.CUT, user.step.checks.count)

    def give_up(self, user: User) -> None:
        """
        End whatever *user* is in after a mistake of ours: a request that is out failed, another was never sent.

        The mistake may have come between any two lines: what is in flight is counted anew.
        """
        connection, chain = user.connection, self._chains.pop(user, None)
        if connection is not None and connection.state != IDLE and connection.step is not None:
            self._account.failed(connection.step.tally, Error.INTERNAL, connection.step.checks.count)
        elif (chain is not None or user in self._resent) and isinstance(user.step, RequestStep):
            self._account.failed(user.step.tally, Error.INTERNAL, user.step.checks.count)
        else:
            self._account.drop(Drop.INTERNAL)
        if connection is not None:
            self._close(connection)
        self._waiting.pop(user, None)
        self._resent.discard(user)
        self.in_flight = sum(other.state != IDLE for other in self._connections.values()) + len(self._waiting)

    def sweep(self, now_ns: int, most: int = ALL) -> bool:
        """
        End what takes longer than its phase may, among the next *most* connections.

        Say whether that was the last of a round, in which each has its turn: 10 000 at once would be 4 ms in which
        nobody is served.
        """
        rest = self._round = self._round or list(self._connections.values())
        part = rest[-most:]
        del rest[-most:]
        for connection in part:
            # Most wait for their user to think.
            if connection.state == IDLE and now_ns < connection.expires_ns:
                continue
            if self._connections.get(connection.fd) is not connection:
                continue  # it was closed since the round began
            try:
                self._expire(connection, now_ns)
            except Exception as error:  # noqa: BLE001 - one user's step must not keep the others waiting
                self._walker.broke(connection.user, error)
        if not rest:
            self._sweep_waiting(now_ns)
        self.bury()
        return not rest

    def _sweep_waiting(self, now_ns: int) -> None:
        """End the look-ups that take longer than a connect may."""
        for user, (origin, since_ns) in tuple(self._waiting.items()):
            group = self._reserved.get(user)
            most_ns = origin.endpoint.connect_ns if group is None else group.connect_ns
            if now_ns - since_ns > most_ns and user in self._waiting:
                try:
                    self._go_there(user, is_late=True)
                except Exception as error:  # noqa: BLE001 - as above
                    self._walker.broke(user, error)

    def _expire(self, connection: Connection, now_ns: int) -> None:
        waited = now_ns - connection.since_ns
        if connection.state in (CONNECTING, HANDSHAKE):
            group = connection.group
            if waited > (connection.endpoint.connect_ns if group is None else group.connect_ns):
                is_tls = connection.state == HANDSHAKE
                self._suspect(connection)
                self._fail(connection, Error.TLS_TIMEOUT if is_tls else Error.CONNECT_TIMEOUT, now_ns)
        elif connection.state != IDLE and waited > connection.endpoint.request_ns:
            self._fail(connection, Error.REQUEST_TIMEOUT, now_ns)
        elif now_ns >= connection.expires_ns:
            if connection.state == IDLE:
                self._close(connection)
            elif connection.state == AWAIT:
                connection.state = LAST

    # Sending.

    def _send(self, connection: Connection, step: RequestStep, wire: bytes, now_ns: int) -> None:
        connection.step = step
        connection.since_ns = now_ns
        if self._chains:
            chain = self._chains.get(connection.user)
            connection.since_ns = now_ns if chain is None else chain.since_ns
        connection.state = AWAIT
        try:
            size = connection.send(wire)
        except OSError as error:
            self._send_failed(connection, wire, error)
            return
        if connection.retried or self._chains or not connection.user.marks & BEGUN:
            self._count_sent(connection, step, wire)
        else:
            self._account.sent(step.tally, len(wire))
        if size != len(wire):
            self._keep_rest(connection, wire[size:])

    def _count_sent(self, connection: Connection, step: RequestStep, wire: bytes) -> None:
        if not connection.retried and connection.user in self._chains:
            self._account.passed_on(step.tally, size_out=len(wire))
        elif not connection.retried:
            self._account.sent(step.tally, len(wire))
        if not connection.user.marks & BEGUN:
            self._walker.sent(connection.user)

    def _keep_rest(self, connection: Connection, rest: bytes) -> None:
        connection.rest = rest
        connection.state = READING
        connection.received = 0
        self._epoll.modify(connection.fd, _IN | _OUT)

    def _send_failed(self, connection: Connection, wire: bytes, error: OSError) -> None:
        """Handle a send the kernel did not take: for now (wait), or for good."""
        connection.state = AWAIT
        if isinstance(error, (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)):
            step = connection.step
            assert step is not None
            self._count_sent(connection, step, wire)
            self._keep_rest(connection, wire)
        elif self._may_retry(connection):
            self._retry(connection, wire, count=True)
        else:
            self._fail(connection, kind_of(error, connected=True), self._clock())

    def _send_rest(self, connection: Connection) -> None:
        rest = connection.rest
        if rest is None:
            self._epoll.modify(connection.fd, _IN)
            return
        try:
            size = connection.send(rest)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._fail(connection, kind_of(error, connected=True), self._clock())
            return
        if size < len(rest):
            connection.rest = rest[size:]
            return
        connection.rest = None
        if connection.parser is None:
            connection.state = AWAIT
        self._epoll.modify(connection.fd, _IN)

    def _may_retry(self, connection: Connection) -> bool:
        step = connection.step
        return (
            connection.state in (AWAIT, LAST)
            and connection.reused
            and not connection.retried
            and step is not None
            and self._is_idempotent(connection.user, step)
        )

    def _is_idempotent(self, user: User, step: RequestStep) -> bool:
        chain = self._chains.get(user)
        return step.is_idempotent if chain is None else step.is_idempotent or chain.verb == "get"

    def _retry(self, connection: Connection, wire: bytes | None, *, count: bool = False) -> None:
        """Send the request again on a fresh connection; *count*: it was not counted as sent yet."""
        user, step, now_ns = connection.user, connection.step, self._clock()
        assert step is not None
        self._close(connection)
        wire = wire if wire is not None else self._wire_of(user, step)
        if wire is None:
            self._fail_unconnected(user, step, Error.RESET, now_ns)
            return
        user.step = step
        self._connect(user, step, wire, now_ns, retried=not count)

    # Receiving.

    def _handle_event(self, connection: Connection, mask: int) -> None:
        match connection.state:
            case 0:  # CONNECTING
                self._connecting(connection)
            case 1:  # HANDSHAKE
                self._shake_hands(connection)
            case _:
                if mask & _OUT:
                    self._send_rest(connection)
                if mask & ~_OUT and connection.fd in self._connections:
                    self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.recv(READ)
        except OSError as error:
            self._receive_failed(connection, error)
            return
        if connection.state == IDLE:
            if data:
                self._account.count("unsolicited")
            self._close(connection)
        elif connection.parser is None:
            self._first_read(connection, data, self._clock())
        elif data:
            self._feed(connection, connection.parser, data, self._clock(), is_first=False)
        else:
            self._ended(connection)

    def _receive_failed(self, connection: Connection, error: OSError) -> None:
        if isinstance(error, (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)):
            return
        if isinstance(error, (ssl.SSLZeroReturnError, ssl.SSLEOFError)):
            self._ended(connection)
        elif connection.state == IDLE:
            self._close(connection)
        elif self._may_retry(connection):
            self._retry(connection, None)
        else:
            self._fail(connection, kind_of(error, connected=True), self._clock())

    def _ended(self, connection: Connection) -> None:
        """Hear that the server closed its side."""
        parser = connection.parser
        if connection.state == IDLE:
            self._close(connection)
        elif parser is not None and parser.end():
            self._complete(connection, parser, self._clock(), head=None)
        elif self._may_retry(connection):
            self._retry(connection, None)
        else:
            race = connection.state in (AWAIT, LAST) and connection.reused
            self._fail(connection, Error.RESET if race else Error.CLOSED, self._clock())

    def _first_read(self, connection: Connection, data: bytes, now_ns: int) -> None:
        """Take the first bytes of an answer that no memoised head fits."""
        step = connection.step
        assert step is not None
        if not data:
            self._ended(connection)
            return
        if step.is_timed and connection.rest is None:
            record = step.known(data)
            if record is not None:
                self._answered_late(connection, step, record, data, now_ns)
                return
        parser = self._parsers.acquire(is_head=step.is_head, want_body=step.needs_body)
        connection.parser = parser
        connection.received = 0
        connection.state = READING
        self._feed(connection, parser, data, now_ns, is_first=True)

    def _feed(self, connection: Connection, parser: AnswerParser, data: bytes, now_ns: int, *, is_first: bool) -> None:
        connection.received += len(data)
        try:
            complete = parser.feed(data)
        except ProtocolFault:
            self._fail(connection, Error.PROTOCOL, now_ns)
            return
        if complete:
            self._complete(connection, parser, now_ns, head=data if is_first else None)

    def _complete(self, connection: Connection, parser: AnswerParser, now_ns: int, *, head: bytes | None) -> None:
        """Count a parsed answer; *head* is the answer itself when it came whole in one read."""
        step, user = connection.step, connection.user
        assert step is not None
        closes = not parser.keep_alive or (parser.is_spent and not step.is_head) or connection.rest is not None
        if parser.unsolicited:
            self._account.count("unsolicited")
            closes = True
        cookies = changes_in(parser.headers, self._wall_s()) if self._is_home(connection) else ()
        if step.redirects and parser.status in REDIRECTS and self._follow(connection, parser, cookies, closes=closes):
            return
        if head is not None and not closes and not parser.interim and user not in self._chains:
            self._memoise(step, parser, head, cookies)
        status, headers, body = parser.status, parser.headers, parser.body
        missed = step.checks.failed_by_head(status, headers)
        missed += self._look_into(step, user, status, headers, body, cookies)
        self._account.answered(
            step.tally, status=status, took_ns=now_ns - connection.since_ns, size=connection.received,
            checks=step.checks.count, missed=missed, interim=parser.interim,
        )  # fmt: skip
        if step.is_timed:
            self._account.responded(step.tally, now_ns - connection.since_ns, now_ns - self._due.pop(user))
        if self._raw is not None:
            self._raw.add(step.action, user.place, connection.since_ns, now_ns, status)
        connection.parser = None
        self._parsers.release(parser)
        self._go_on(connection, step, now_ns, step.next, closes=closes)

    def _memoise(self, step: RequestStep, parser: AnswerParser, data: bytes, cookies: tuple[Change, ...]) -> None:
        """Keep the head of an answer whose length it tells, so that the next one like it needs no parser."""
        if not step.memoises():
            return
        names = [name for name, _ in parser.headers]
        is_bodiless = step.is_head or parser.status in _BODILESS
        end = data.find(b"\r\n\r\n") + 4
        if not (is_bodiless or b"content-length" in names) or b"transfer-encoding" in names or end < 4:
            return
        status, headers, is_shaped = parser.status, tuple(parser.headers), step.differs
        record = HeadRecord(head=data[:end], total=0 if is_shaped else len(data), status=status, headers=headers)
        record.tally = step.tally
        record.cookies = cookies
        record.checks = step.checks.count
        record.missed = step.checks.failed_by_head(status, headers)
        record.is_plain = not (cookies or step.saves or step.needs_body or step.redirects)
        if not is_shaped:
            self._account.count("head_records")
            # Subtle: records that go must be folded before, their counts are on them.
            if step.memoise(record):
                self._account.fold()
            return
        body = None if is_bodiless else len(data) - end
        shape = shape_of(record, names, body=body, fixed=step.fixed, known=step.shapes)
        if shape is not None:
            record.headers = ()
            step.learn(shape)

    def _answered_late(
        self, connection: Connection, step: RequestStep, record: HeadRecord, data: bytes, now_ns: int
    ) -> None:
        """Count an answer with a known head and its response time, and go on."""
        user, took = connection.user, now_ns - connection.since_ns
        self._account.matched(record, took)
        self._account.responded(step.tally, took, now_ns - self._due.pop(user))
        if self._raw is not None:
            self._raw.add(step.action, user.place, connection.since_ns, now_ns, record.status)
        self._answered_as(connection, record, data, now_ns)

    def _answered_as(self, connection: Connection, record: HeadRecord, data: bytes, now_ns: int) -> None:
        """Go on after an answer with a known head; it is counted but for the checks of its body."""
        step = connection.step
        assert step is not None
        connection.state = IDLE  # whatever happens from here on, this answer was counted
        if not record.is_plain:
            self._look_at(connection, step, record, data)
        self._go_on(connection, step, now_ns, step.next, closes=False)

    def _look_at(self, connection: Connection, step: RequestStep, record: HeadRecord, data: bytes) -> None:
        """Look into the body of an answer with a known head."""
        headers, body = (record.headers, data[len(record.head) :]) if record.total else parts_of(data)
        missed = self._look_into(step, connection.user, record.status, headers, body, record.cookies)
        if missed:
            self._account.missed(step.tally, missed)

    def _look_into(
        self, step: RequestStep, user: User, status: int, headers: Headers, body: bytes,
        cookies: tuple[Change, ...],
    ) -> int:  # fmt: skip
        """Take cookies and saved values from an answer; return how many checks of its body and saves failed."""
        if cookies:
            keep_cookies(user, cookies)
        if step.is_awaited:
            self.hear(user, status, headers, body)
        if not step.looks_into:
            return 0
        body = decoded(body, headers) if step.needs_body else body
        document = parsed(body) if step.reads_json else MISSING
        missed = 0
        for save in step.saves:
            value = save.value(status, headers, body, document)
            saved = user.saved = user.saved or {}
            if value is None:
                missed += 1
                saved.pop(save.variable, None)
            else:
                saved[save.variable] = value
        return missed + step.checks.failed_by_body(body, document) if step.checks_body else missed

    def _go_on(
        self, connection: Connection, step: RequestStep, now_ns: int, following: Step, *, closes: bool
    ) -> None:  # fmt: skip
        user = connection.user
        self.in_flight -= 1
        connection.state = IDLE
        connection.reused, connection.retried = True, False
        user.backoff_ms = 0
        if self._chains:
            self._chains.pop(user, None)
        closes = closes or now_ns >= connection.expires_ns or connection.endpoint is not self._endpoint
        if self._pools is not None or connection.group is not None:
            self._hand_back(connection, now_ns, closes=closes)
        elif closes:
            self._close(connection)
        user.step = following
        self._walker.answered(user, now_ns)
