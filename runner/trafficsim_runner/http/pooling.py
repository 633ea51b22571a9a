"""
Requests on pooled connections: which of them is sent when is decided by pool.py, here it is done.

A connection that is opened because a request needs one is that request's until its answer: a connect that fails fails
the request, as with connections of the users' own. Those that a group's min asks for are opened for nobody.

Waiting is lag and not service time. A request that waited too long was never sent: it is dropped with its reason, and
its user goes on as after a failure. Another hop of a redirect, or another try after the server's close, takes the place
of the connection it had before anybody else.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from trafficsim_api.connections import Pool
from trafficsim_api.layout import Drop, Error
from trafficsim_runner.http.connection import IDLE, Connection, age_of, open_connection, set_heartbeat
from trafficsim_runner.http.cookies import Change
from trafficsim_runner.http.endpoint import Endpoint
from trafficsim_runner.http.exchange import ALL, Exchange
from trafficsim_runner.http.opening import Walker
from trafficsim_runner.http.origin import Origin
from trafficsim_runner.http.parser import AnswerParser
from trafficsim_runner.http.pool import Group, Pools, Waiter
from trafficsim_runner.program import RequestStep
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.raw import RawLog
from trafficsim_runner.users import User

__all__ = ["Pooling"]

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
# So many are opened ahead of need at a time, and so long nothing is after one of them failed.
_AT_ONCE: Final = 32
_PAUSE_NS: Final = 1_000_000_000


class Pooling(Exchange):
    """The pools of a worker's connections, where the load asks for them."""

    def __init__(
        self,
        *,
        account: Account,
        walker: Walker,
        clock: Callable[[], int],
        wall_s: Callable[[], float],
        raw: RawLog | None = None,
    ) -> None:
        super().__init__(account=account, walker=walker, clock=clock, wall_s=wall_s, raw=raw)
        self._nobody = User()  # whose connections those are that no request is on
        self._is_serving = False

    # What the worker asks for.

    def share(self, pools: Mapping[str, Pool] | None, otherwise: Pool | None = None) -> None:
        """
        Share connections by group from now on; None: each user has its own.

        *otherwise* is for groups that are not foretold. Connections of the other mode, or of groups that are gone,
        close between requests; who waits is served in the new way.
        """
        if pools is None or otherwise is None:
            self._stop_sharing()
        elif self._pools is None:
            self._pools = Pools(pools, otherwise)
            self._close_idle()
        else:
            beats = {name: group.heartbeat_s for name, group in self._pools.groups.items()}
            self._pools.adopt(pools, otherwise)
            for connection in self._connections.values():
                group = connection.group
                if group is not None and group.heartbeat_s != beats.get(group.name):
                    self._beat(connection, group)
            self._thin_out(self._clock())
        self.bury()

    def _stop_sharing(self) -> None:
        pools, self._pools = self._pools, None
        if pools is None:
            return
        for connection in tuple(self._connections.values()):
            if connection.user is self._nobody:
                self._close(connection)
        self.bury()
        now_ns = self._clock()
        for waiter in tuple(pools.waiters()):
            if pools.forget(waiter.user) is None:
                continue
            try:
                if waiter.again:
                    self._resent.discard(waiter.user)
                    self._connect(waiter.user, waiter.step, waiter.wire, now_ns, retried=waiter.retried)
                else:
                    self.request(waiter.user, waiter.step, waiter.wire, now_ns, waiter.due_ns)
            except Exception as error:  # noqa: BLE001 - one user's step must not keep the others waiting
                self._walker.broke(waiter.user, error)

    def rest(self) -> None:
        """Close what is open for nobody: there are no users, the mins are opened again with the next request."""
        if self._pools is None:
            return
        for group in self._pools.groups.values():
            group.is_used = False
            for connection in tuple(group.idle):
                self._close(connection)
        self.bury()

    def pool_figures(self) -> dict[str, list[int]]:
        """Return the figures (POOL_FIGURES) of each group; nothing when connections are not shared."""
        return {} if self._pools is None else {name: group.figures() for name, group in self._pools.groups.items()}

    # Requests.

    def _ask(self, user: User, step: RequestStep, wire: bytes, now_ns: int, due_ns: int) -> None:
        pools = self._pools
        assert pools is not None
        if user.connection is not None:  # its own, from before
            self._close(user.connection)
        if self.in_flight + pools.waiting >= self.concurrency:
            self._account.drop(Drop.NO_SLOT)
            self._walker.refused(user, now_ns)
            return
        group = pools.group(step.group)
        waiter = Waiter(user, step, wire, since_ns=now_ns, due_ns=due_ns)
        if group.idle and not pools.waiting:
            self._grant(group, waiter, now_ns)
        else:
            pools.queue(group, waiter)
            self._serve(now_ns)
        if not group.is_used:
            group.is_used = True
            self._open_ahead(group, now_ns)

    def _has_room(self) -> bool:
        """Say whether one more connection may be opened; a descriptor counts until it is closed."""
        return len(self._connections) + len(self._doomed) + len(self._reserved) < self.connection_limit

    def _serve(self, now_ns: int) -> None:
        """Give connections to those who wait, as far as there are any."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._pools is not None and self._pools.waiting:
                pools, has_room = self._pools, self._has_room()
                group = pools.turn(has_room)
                if group is None:
                    break
                waiter = group.first
                if (waiter.again or not group.idle) and not (has_room and group.size < group.most):
                    # One must go first. It counts until its descriptor is closed: `bury` comes back then.
                    victim = None if self._doomed else pools.victim(group)
                    if victim is not None:
                        self._close(victim)
                    break
                pools.forget(waiter.user)
                try:
                    self._grant(group, waiter, now_ns)
                except Exception as error:  # noqa: BLE001 - one user's step must not keep the others waiting
                    self._walker.broke(waiter.user, error)
                now_ns = self._clock()  # what the first took to send is lag of the second, not service time
        finally:
            self._is_serving = False

    def _grant(self, group: Group[Connection, User], waiter: Waiter[User], now_ns: int) -> None:
        """Send *waiter*'s request: on an idle connection, else on a new one."""
        user, step = waiter.user, waiter.step
        if waiter.again:
            self._resent.discard(user)
        else:
            self._count_wait(group, waiter, now_ns)
            self.in_flight += 1
            if step.is_timed:
                self._due[user] = waiter.due_ns
            self._account.lag(now_ns - waiter.due_ns)
        if group.idle and not waiter.again:
            connection, _ = group.idle.popitem()
            connection.user, user.connection = user, connection
            self._send(connection, step, waiter.wire, now_ns)
        else:
            group.opening()
            self._reserved[user] = group
            self._connect(user, step, waiter.wire, now_ns, retried=waiter.retried)

    def _count_wait(self, group: Group[Connection, User], waiter: Waiter[User], now_ns: int) -> None:
        waited_ns = now_ns - waiter.since_ns
        if waited_ns > 0:
            group.waited(waited_ns)
            self._account.count("pool_waits")
            self._account.count("pool_wait_ns", waited_ns)

    def _drop(self, group: Group[Connection, User], waiter: Waiter[User], now_ns: int) -> None:
        """Let *waiter* wait no longer: its request is not sent, or if it was before, has failed."""
        user = waiter.user
        if waiter.again:
            self._resent.discard(user)
            self._fail_unconnected(user, waiter.step, Error.CONNECT_TIMEOUT, now_ns)
        else:
            self._count_wait(group, waiter, now_ns)
            group.dropped += 1
            self._account.drop(Drop.POOL_WAIT)
            self._walker.failed(user, now_ns)

    def release(self, user: User) -> None:
        """Let a user that leaves wait no longer, and close the connection it is on."""
        waiter = None if self._pools is None else self._pools.forget(user)
        if waiter is not None and waiter.again:
            self.in_flight -= 1
        elif waiter is not None:
            self._account.drop(Drop.LEFT)
        super().release(user)
        self._unreserve(user)

    def give_up(self, user: User) -> None:
        """See `Exchange.give_up`."""
        super().give_up(user)
        self._unreserve(user)
        begun = 0
        if self._pools is not None:
            self._pools.forget(user)
            begun = sum(waiter.again for waiter in self._pools.waiters())
        out = sum(other.state != IDLE and other.user is not self._nobody for other in self._connections.values())
        self.in_flight = out + len(self._waiting) + begun

    def aim(
        self, endpoint: Endpoint, tls: ssl.SSLContext | None,
        make_tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:  # fmt: skip
        """See `Opening.aim`; who waits for a connection to the old target begins the step again."""
        pools = self._pools
        waiting = [] if pools is None else [w for w in pools.waiters() if w.user not in self._chains]
        for waiter in waiting:
            if pools is not None:
                pools.forget(waiter.user)
        super().aim(endpoint, tls, make_tls)
        for user in [user for user in self._reserved if user not in self._waiting]:
            self._unreserve(user)
        now_ns = self._clock()
        for waiter in waiting:
            if waiter.again:
                self._resent.discard(waiter.user)
                self._fail_unconnected(waiter.user, waiter.step, Error.RESET, now_ns)
            else:
                self._walker.refused(waiter.user, now_ns)
        self.bury()

    # Going through the connections.

    def sweep(self, now_ns: int, most: int = ALL) -> bool:
        """See `Exchange.sweep`; and end waits that took too long, close what is idle too long, keep the mins open."""
        is_round_over = super().sweep(now_ns, most)
        if self._pools is not None:
            self._sweep_pools(self._pools, now_ns)
        return is_round_over

    def _sweep_pools(self, pools: Pools[Connection, User], now_ns: int) -> None:
        for group in tuple(pools.groups.values()):
            for waiter in group.expired(now_ns):
                if pools.forget(waiter.user) is None:
                    continue
                try:
                    self._drop(group, waiter, now_ns)
                except Exception as error:  # noqa: BLE001 - one user's step must not keep the others waiting
                    self._walker.broke(waiter.user, error)
        self._thin_out(now_ns)
        self.bury()
        for group in pools.groups.values():
            self._open_ahead(group, now_ns)
        pools.prune()

    def _thin_out(self, now_ns: int) -> None:
        if self._pools is not None:
            for group in self._pools.groups.values():
                for connection in group.stale(now_ns):
                    self._close(connection)

    def _open_ahead(self, group: Group[Connection, User], now_ns: int) -> None:
        """Open what the group's min asks for; nobody waits for these."""
        missing, origin = min(group.missing, _AT_ONCE), self._home
        if not missing or origin is None or (group.failed_ns and now_ns - group.failed_ns < _PAUSE_NS):
            return
        if origin.names.ask(now_ns):
            return
        usable = origin.permitted(self._allowed)
        for _ in range(missing):
            if not usable or not self._has_room():
                return
            address = usable[group.size % len(usable)]
            try:
                connection = open_connection(address, self._nobody, origin.endpoint, now_ns)
            except OSError:
                group.failed_ns = now_ns
                return
            group.opening()
            connection.address, connection.origin = address, origin
            self._join(connection, group)
            self._connections[connection.fd] = connection
            self._epoll.register(connection.fd, _OUT)
            self._account.count("connects")

    def bury(self) -> None:
        """See `Opening.bury`; what was closed makes room for those who wait."""
        while True:
            for connection in self._doomed:
                if connection.group is not None:
                    connection.group.size -= 1
                    connection.group.closing -= 1
            super().bury()
            if self._pools is None or not self._pools.waiting:
                return
            self._serve(self._clock())
            if not self._doomed or self._is_serving:
                return

    # The way of a connection.

    def _connect(self, user: User, step: RequestStep, wire: bytes, now_ns: int, *, retried: bool = False) -> None:
        if self._pools is None or user in self._reserved:
            super()._connect(user, step, wire, now_ns, retried=retried)
            return
        # Another hop or another try. The connection it had is closed when this batch of events is through: `bury`
        # serves it then, before anybody else of its group.
        if retried:
            self._resent.add(user)
        waiter = Waiter(user, step, wire, since_ns=now_ns, due_ns=now_ns, again=True, retried=retried)
        self._pools.queue(self._pools.group_again(step.group), waiter)

    def _open(
        self, origin: Origin, user: User, step: RequestStep, wire: bytes, now_ns: int, *, retried: bool = False
    ) -> None:  # fmt: skip
        super()._open(origin, user, step, wire, now_ns, retried=retried)
        if user.connection is not None:
            group = self._reserved.pop(user, None)
            if group is not None:
                self._join(user.connection, group)

    def _join(self, connection: Connection, group: Group[Connection, User]) -> None:
        connection.group = group
        if group.heartbeat_s:
            self._beat(connection, group)

    def _beat(self, connection: Connection, group: Group[Connection, User]) -> None:
        set_heartbeat(connection.socket, group.heartbeat_s, connection.endpoint.request_ns // 1_000_000)

    def _unreserve(self, user: User) -> None:
        group = self._reserved.pop(user, None)
        if group is not None:
            group.size -= 1

    def _connected(self, connection: Connection, now_ns: int) -> None:
        group = connection.group
        if connection.step is not None or group is None:
            super()._connected(connection, now_ns)
            return
        connection.state = IDLE
        connection.reused = True  # a close from now on may race the first request on it
        connection.expires_ns = now_ns + age_of(self._nobody, self.max_age_ns)
        self._nobody.iteration += 1  # so that those opened together do not grow old together
        self._epoll.modify(connection.fd, _IN)
        if self._is_kept(connection, group) and group.is_used and group.open <= group.most:
            self._shelve(connection, group, now_ns)
        else:
            self._close(connection)

    def _is_kept(self, connection: Connection, group: Group[Connection, User]) -> bool:
        """Say whether *connection* leads to where requests of *group* go from now on."""
        pools = self._pools
        return pools is not None and pools.groups.get(group.name) is group and connection.endpoint is self._endpoint

    def _hand_back(self, connection: Connection, now_ns: int, *, closes: bool) -> None:
        group = connection.group
        if closes or group is None or not self._is_kept(connection, group) or not group.keeps():
            self._close(connection)
        else:
            self._shelve(connection, group, now_ns)

    def _shelve(self, connection: Connection, group: Group[Connection, User], now_ns: int) -> None:
        """Let *connection* be idle, or go to who waits for it."""
        if connection.user.connection is connection:
            connection.user.connection = None
        connection.user, connection.step = self._nobody, None
        group.idle[connection] = now_ns
        if self._pools is not None and self._pools.waiting:
            self._serve(now_ns)

    def _follow(
        self, connection: Connection, parser: AnswerParser, cookies: tuple[Change, ...], *, closes: bool
    ) -> bool:  # fmt: skip
        group = connection.group
        return super()._follow(
            connection, parser, cookies, closes=closes or (group is not None and not group.keep_alive)
        )

    # Ending.

    def _try_next(self, connection: Connection, now_ns: int) -> None:
        group = connection.group
        if connection.user is self._nobody:
            self._failed_ahead(connection, now_ns)
            return
        if group is not None:  # the next address takes this one's place
            connection.group = None
            self._reserved[connection.user] = group
        super()._try_next(connection, now_ns)

    def _fail(self, connection: Connection, kind: Error, now_ns: int) -> None:
        if connection.user is self._nobody:
            self._failed_ahead(connection, now_ns)
        else:
            super()._fail(connection, kind, now_ns)

    def _failed_ahead(self, connection: Connection, now_ns: int) -> None:
        """Hear that a connection could not be opened ahead of need; a request that needs one will count its failure."""
        if connection.group is not None:
            connection.group.failed_ns = now_ns
        self._close(connection)

    def _fail_unconnected(self, user: User, step: RequestStep, kind: Error, now_ns: int) -> None:
        self._unreserve(user)
        super()._fail_unconnected(user, step, kind, now_ns)

    def _close(self, connection: Connection) -> None:
        group = connection.group
        if group is not None and connection.fd in self._connections:
            group.idle.pop(connection, None)
            group.closing += 1
        super()._close(connection)
