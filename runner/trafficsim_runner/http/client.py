"""
The client: every connection of a worker in one epoll, and one hot loop that takes an answer and sends what follows.

An answer whose head was seen before is counted, and the user's next request sent, within one Python frame. Everything
else (heads met for the first time, chunked bodies, failures, time-outs) goes the ways of exchange.py and opening.py.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final

from trafficsim_api.histogram import LIMIT_NS, bucket_of
from trafficsim_api.layout import LAG
from trafficsim_runner.http.connection import AWAIT, IDLE, Connection
from trafficsim_runner.http.following import keep_cookies
from trafficsim_runner.http.opening import Walker
from trafficsim_runner.http.pooling import Pooling
from trafficsim_runner.http.shapes import parts_of
from trafficsim_runner.program import AGAIN, END, REPEAT, REQUEST, RequestStep, go_round
from trafficsim_runner.stats.account import Account, HeadRecord
from trafficsim_runner.stats.raw import RawLog
from trafficsim_runner.timer import Timer

__all__ = ["Client"]

BATCH: Final = 64
READ: Final = 16384
# How long the hot loop goes on before the event loop gets its turn.
TURN_NS: Final = 2_000_000
_IN: Final = select.EPOLLIN
_LOOPS: Final = (REPEAT, AGAIN)


class Client(Pooling):
    """
    The hot side of the client; *on_timer* is called when *timer* fires.

    `drain` handles what is ready now; its owner calls it whenever the epoll's descriptor (*fileno*) is readable.
    """

    def __init__(
        self,
        *,
        account: Account,
        walker: Walker,
        clock: Callable[[], int],
        wall_s: Callable[[], float],
        raw: RawLog | None = None,
        on_timer: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(account=account, walker=walker, clock=clock, wall_s=wall_s, raw=raw)
        self.timer = Timer()
        self._on_timer = on_timer
        self._has_fired = False
        self._epoll.register(self.timer.fd, _IN)

    def close(self) -> None:
        """Close every connection, the timer and the epoll."""
        super().close()
        self.timer.close()

    def fileno(self) -> int:
        """Return the epoll's descriptor: readable when something is ready."""
        return self._epoll.fileno()

    def drain(self) -> None:
        """Handle what is ready, until nothing is, or for 2 ms."""
        until = self._clock() + TURN_NS
        while self.handle_ready() and self._clock() < until:
            pass

    def handle_ready(self) -> int:
        """Handle one batch of events; return how many there were."""
        events = self._epoll.poll(0, BATCH)
        if events:
            account = self._account
            if account.pending + len(events) > self.fold_at:
                account.fold()
            account.pending += len(events)
            self._handle(events)
            if self._has_fired:
                self._has_fired = False
                self.timer.take()
                self._on_timer()
            if self._doomed:
                self.bury()
        return len(events)

    def _handle(self, events: list[tuple[int, int]]) -> None:  # noqa: C901 - the hot path: one frame for each answer
        connections, clock, account, raw = self._connections, self._clock, self._account, self._raw
        live, heads, sends = account.live, account.heads, account.sends
        for fd, mask in events:
            connection = connections.get(fd)
            if connection is None:
                # The timer's turn comes after the batch; what else is unknown closed earlier in it.
                self._has_fired = self._has_fired or fd == self.timer.fd
                continue
            try:
                if connection.state != AWAIT or mask != _IN:
                    self._handle_event(connection, mask)
                    continue
                try:
                    data = connection.recv(READ)
                except OSError as error:
                    self._receive_failed(connection, error)
                    continue
                now = clock()
                step = connection.step
                assert step is not None
                record = step.last
                if record.total != len(data) or not data.startswith(record.head):
                    found = None if step.is_timed else step.known(data)
                    if found is None:
                        self._first_read(connection, data, now)
                        continue
                    step.last = record = found
                # The answer is whole. Count it: on its head, and by its time.
                if not record.count:
                    heads.append(record)
                record.count += 1
                tally = record.tally
                took = now - connection.since_ns
                if 256 <= took <= LIMIT_NS:
                    e = took.bit_length() - 8
                    live[tally.service + (e << 7) + (took >> e)] += 1
                else:
                    live[tally.service + bucket_of(took)] += 1
                tally.took_ns += took
                if took < tally.least:
                    tally.least = took
                if took > tally.most:
                    tally.most = took
                user = connection.user
                if raw is not None:
                    raw.add(step.action, user.place, connection.since_ns, now, record.status)
                if not connection.reused:
                    connection.reused, connection.retried = True, False
                    user.backoff_ms = 0
                # Go on. The next request is sent here when it is the same for every user.
                following = step.next
                is_over = following.kind == END
                if is_over:
                    following = following.next
                request = following.ready
                if request is None or not record.is_plain or user.leaving or user.cookie_line is not None:
                    if step.is_awaited:
                        self._relay(connection, record, data, now)
                    else:
                        self._pass_on(connection, record, data, now)
                    continue
                if is_over:
                    account.flows += 1
                    user.iteration += 1
                connection.since_ns = now
                connection.step = request
                wire = request.wire
                assert wire is not None
                try:
                    size = connection.send(wire)
                except OSError as error:
                    self._send_failed(connection, wire, error)
                    continue
                if not request.sends:
                    sends.append(request)
                request.sends += 1
                account.zero_lag += 1
                if size != len(wire):
                    self._keep_rest(connection, wire[size:])
            except Exception as error:  # noqa: BLE001 - one user's step must not end the others' batch
                self._walker.broke(connection.user, error)

    def _pass_on(self, connection: Connection, record: HeadRecord, data: bytes, now_ns: int) -> None:
        """
        Look into an answer with a known head, and send the request that follows at once.

        The same as `_answered_as`, with the engine left out for as long as there is nothing to wait for.
        """
        user, step = connection.user, connection.step
        assert step is not None
        following = step.next
        is_over = following.kind == END
        if is_over:
            following = following.next
        if (
            (following.kind != REQUEST and (is_over or following.kind not in _LOOPS)) or user.leaving or step.is_timed
            or self._pools is not None or self._chains or now_ns >= connection.expires_ns
            or connection.endpoint is not self._endpoint
        ):  # fmt: skip
            self._answered_as(connection, record, data, now_ns)
            return
        connection.state = IDLE  # whatever happens from here on, this answer was counted
        if not record.is_plain:
            self._look_at(connection, step, record, data)
        if is_over:
            user.iteration += 1
        elif following.kind != REQUEST:
            following = go_round(user, following)
        wire = following.render(user) if isinstance(following, RequestStep) else None
        if wire is None:
            if is_over:  # the engine goes on from the end of the flow
                user.iteration -= 1
                following = step.next
            self._go_on(connection, step, now_ns, following, closes=False)
            return
        assert isinstance(following, RequestStep)
        if is_over:
            self._account.flows += 1
        user.step = connection.step = following
        connection.state, connection.since_ns = AWAIT, now_ns
        try:
            size = connection.send(wire)
        except OSError as error:
            self._send_failed(connection, wire, error)
            return
        account = self._account
        account.zero_lag += 1
        if not following.sends:
            account.sends.append(following)
        following.sends += 1
        following.extra_bytes += len(wire) if following.wire is None else len(wire) - len(following.wire)
        if size != len(wire):
            self._keep_rest(connection, wire[size:])

    def _relay(self, connection: Connection, record: HeadRecord, data: bytes, now_ns: int) -> None:
        """
        Hand an answer to the scenario that awaits it, and send what that asks for next.

        The same as `_answered_as`, with the engine left out for as long as the scenario goes from request to request.
        """
        user, step = connection.user, connection.step
        assert step is not None
        if (
            user.leaving or step.is_timed or self._pools is not None or self._chains
            or now_ns >= connection.expires_ns or connection.endpoint is not self._endpoint
        ):  # fmt: skip
            self._answered_as(connection, record, data, now_ns)
            return
        connection.state = IDLE  # whatever happens from here on, this answer was counted
        if record.cookies:
            keep_cookies(user, record.cookies)
        headers, body = (record.headers, data[len(record.head) :]) if record.total else parts_of(data)
        ask = self.reply(user, record.status, headers, body)
        if ask is None or ask.step is None:
            self._go_on(connection, step, now_ns, step.next, closes=False)
            return
        sent_ns = self._clock()  # what the scenario computed is lag, not service time
        user.step = connection.step = step = ask.step
        connection.state, connection.since_ns = AWAIT, sent_ns
        cookies = user.cookie_line
        wire = ask.wire if cookies is None or ask.own_cookie else ask.before + cookies + ask.behind
        try:
            size = connection.send(wire)
        except OSError as error:
            self._send_failed(connection, wire, error)
            return
        account, lag = self._account, sent_ns - now_ns
        if not step.sends:
            account.sends.append(step)
        step.sends += 1
        step.extra_bytes += len(wire)
        if 256 <= lag <= LIMIT_NS:
            e = lag.bit_length() - 8
            account.live[LAG + (e << 7) + (lag >> e)] += 1
        else:
            account.lag(lag)
        if size != len(wire):
            self._keep_rest(connection, wire[size:])
