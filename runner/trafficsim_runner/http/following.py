"""Following redirects: an answer that leads elsewhere goes on as the same request (rules in redirects.py)."""

from __future__ import annotations

from trafficsim_api.layout import Error
from trafficsim_runner.checks import header
from trafficsim_runner.http.connection import Connection
from trafficsim_runner.http.cookies import Change, cookies_in, line_of
from trafficsim_runner.http.opening import Opening
from trafficsim_runner.http.origin import Chain
from trafficsim_runner.http.parser import AnswerParser
from trafficsim_runner.http.redirects import goal_of, verb_after, wire_for
from trafficsim_runner.users import User

__all__ = ["Following", "keep_cookies"]


class Following(Opening):
    """The way of requests over several hops."""

    def _is_home(self, connection: Connection) -> bool:
        """Say whether *connection* leads to the target's host, and not where it redirected to."""
        return self._endpoint is None or connection.endpoint.host.lower() == self._endpoint.host.lower()

    def _follow(
        self, connection: Connection, parser: AnswerParser, cookies: tuple[Change, ...], *, closes: bool
    ) -> bool:  # fmt: skip
        """Go where a redirect leads; say False when it leads nowhere: then it is the answer."""
        step, user, now_ns = connection.step, connection.user, self._clock()
        location = header(parser.headers, b"location")
        if step is None or not location:
            return False
        chain = self._chains.get(user)
        if chain is None:
            origin = connection.origin or self._home
            first = (step.render(user) or b"").partition(b"\r\n")[0].split(b" ")
            assert origin is not None and len(first) == 3
            chain = self._chains[user] = Chain(step, origin, first[1], connection.since_ns)
        keep_cookies(user, cookies)
        wrong = self._lead(chain, user, parser.status, location)
        if wrong is not None:
            self._fail(connection, wrong, now_ns)
            return True
        self._account.passed_on(step.tally, size_in=connection.received)
        connection.parser = None
        self._parsers.release(parser)
        connection.reused, connection.retried = True, False
        user.step = step
        if closes or chain.origin is not connection.origin or now_ns >= connection.expires_ns:
            self._close(connection)
            self._connect(user, step, chain.wire, now_ns)
        else:
            self._send(connection, step, chain.wire, now_ns)
        return True

    def _lead(self, chain: Chain, user: User, status: int, location: bytes) -> Error | None:
        """Let *chain* go on to *location*; return what is wrong with that."""
        if chain.hops >= chain.step.redirects:
            return Error.PROTOCOL
        try:
            goal = goal_of(chain.origin.endpoint, chain.path, location)
        except ValueError:
            return Error.PROTOCOL
        verb, origin, wire = verb_after(status, chain.verb), self._origin_at(goal), chain.step.render(user)
        if (self._verbs and verb not in self._verbs) or origin is None:
            return Error.FORBIDDEN
        if wire is None or self._endpoint is None:
            return Error.INTERNAL
        chain.hops += 1
        chain.verb, chain.origin, chain.path = verb, origin, goal.path
        chain.has_body = chain.has_body and status in (307, 308)
        chain.wire = wire_for(
            wire, verb=verb, endpoint=origin.endpoint, path=goal.path, has_body=chain.has_body,
            is_home=origin.endpoint.host.lower() == self._endpoint.host.lower(),
        )  # fmt: skip
        return None


def keep_cookies(user: User, cookies: tuple[Change, ...]) -> None:
    """Put *cookies* into the user's jar."""
    if not cookies:
        return
    jar = cookies_in(user.cookie_line)
    for name, value in cookies:
        if value is None:
            jar.pop(name, None)
        else:
            jar[name] = value
    user.cookie_line = line_of(jar)
