"""
What the shop sells: its endpoints, their answers and the little state behind them.

Users are computed from their number, tokens carry their own proof, changed profiles and orders are bounded: the shop's
memory does not grow with the load.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from trafficsim_runner.demo.access_log import AccessLog
from trafficsim_runner.demo.delays import Delays
from trafficsim_runner.demo.http_server import Framing, Reply, Request

USERS: Final = 1_000_000
PAGE_SIZE: Final = 20
MAX_BULK: Final = 10_000
KEPT: Final = 100_000  # changed profiles and open orders kept; the oldest go first
UNKNOWN: Final = "(unknown)"
LOG_PATH: Final = "/__log"

_JSON: Final = "content-type: application/json\r\n"
_CITIES: Final = ("Oslo", "Porto", "Quito", "Riga", "Sofia", "Turin", "Umea", "Vienna")
_EXACT: Final = frozenset({"/healthz", "/auth/login", "/users", "/users/bulk", "/orders"})
_WITH_ARGUMENT: Final = {"/users": "/users/{id}", "/reports": "/reports/{name}", "/orders": "/orders/{id}"}
_BULK_ITEM_S: Final = 0.0002


class Answer(NamedTuple):
    """A status, a body and extra header lines, before delay and framing."""

    status: int
    body: bytes
    headers: str = ""


class Shop:
    """The demo shop as a `Site`."""

    def __init__(self, *, seed: int = 0, error_rate: float = 0.0) -> None:
        self.log = AccessLog()
        self._delays = Delays(seed)
        self._faults = random.Random(seed + 1)
        self._error_rate = error_rate
        self._key = f"demo-shop-{seed}".encode()
        self._profiles: dict[int, dict[str, Any]] = {}
        self._orders: dict[int, None] = {}
        self._last_order = 0

    # The site.

    def answer(self, request: Request) -> Reply:
        """Return the reply to *request* and count it; the account's own page is not counted."""
        if request.path == LOG_PATH:
            return Reply(headers=_JSON, body=json.dumps(self.log.as_document()).encode())
        endpoint, argument = endpoint_of(request.path)
        status, body, headers = self._decide(endpoint, argument, request)
        self.log.record(request.method, endpoint, status)
        delay_s = self._delays.draw(request.method, endpoint)
        if endpoint == "/users/bulk":
            delay_s += _BULK_ITEM_S * min(MAX_BULK, request.body.count(b"{"))
        if endpoint == "/reports/{name}" and status == 200:
            return Reply(headers=_JSON, body=body, delay_s=delay_s, framing=Framing.CHUNKED, pieces=4)
        return Reply(status=status, headers=_JSON + headers if body else headers, body=body, delay_s=delay_s)

    def opened(self) -> None:
        """Count an accepted connection."""
        self.log.opened_connections += 1
        self.log.open_connections += 1

    def closed(self) -> None:
        """Count the end of a connection."""
        self.log.open_connections -= 1

    def finished(self, request: Request, reply: Reply, written: float) -> None:
        """Count a written reply."""
        if request.path != LOG_PATH:
            self.log.finished += 1

    def abandoned(self, request: Request, reply: Reply) -> None:
        """Count a reply nobody waited for."""
        if request.path != LOG_PATH:
            self.log.abandoned += 1

    def malformed(self) -> None:
        """Count bytes that were no request."""
        self.log.malformed += 1

    # The endpoints.

    def _decide(self, endpoint: str, argument: str, request: Request) -> Answer:
        if endpoint == UNKNOWN:
            return _refusal(404, "no such page")
        method = "GET" if request.method == "HEAD" else request.method
        endpoint_function = ENDPOINTS.get((method, endpoint))
        if endpoint_function is None:
            return _refusal(405, "this page does not take that method")
        if self._error_rate and endpoint != "/healthz" and self._faults.random() < self._error_rate:
            return _refusal(503, "out of stock of patience")
        return endpoint_function(self, argument, request)

    def health(self, argument: str, request: Request) -> Answer:
        """Say that the shop is open."""
        return Answer(200, b'{"status":"ok"}')

    def login(self, argument: str, request: Request) -> Answer:
        """Exchange a user's name for a token, in the body and as a cookie."""
        match _parsed(request.body):
            case {"user": str() | int() as user}:
                number = _number_in(str(user))
            case _:
                return _refusal(400, "a JSON object with `user` is needed")
        token = self._token(number)
        body = json.dumps({"token": token, "user": {"id": number, "name": f"user-{number}"}}).encode()
        return Answer(200, body, f"set-cookie: session={token}; Path=/; HttpOnly\r\n")

    def profile(self, argument: str, request: Request) -> Answer:
        """Show a user's profile to whoever holds a token."""
        if not self._is_signed_in(request):
            return _refusal(401, "a bearer token is needed", "www-authenticate: Bearer\r\n")
        number = _user_number(argument)
        if number is None:
            return _refusal(404, "no such user")
        return Answer(200, json.dumps(self._profile(number)).encode())

    def users(self, argument: str, request: Request) -> Answer:
        """List a page of users, `?page=` from 0."""
        page = request.query.removeprefix("page=") if request.query else "0"
        if not page.isdecimal() or len(page) > 6 or int(page) * PAGE_SIZE >= USERS:
            return _refusal(400, "page must be a number within the list")
        first = int(page) * PAGE_SIZE
        listed = [{"id": number, "name": f"user-{number}"} for number in range(first, first + PAGE_SIZE)]
        return Answer(200, json.dumps({"page": int(page), "users": listed}).encode())

    def change_profile(self, argument: str, request: Request) -> Answer:
        """Change name, email or city of a user."""
        number = _user_number(argument)
        if number is None:
            return _refusal(404, "no such user")
        changes = _parsed(request.body)
        if not isinstance(changes, dict):
            return _refusal(400, "a JSON object is needed")
        kept = {key: str(changes[key])[:200] for key in ("name", "email", "city") if key in changes}
        self._profiles[number] = {**self._profiles.pop(number, {}), **kept}
        _forget_oldest(self._profiles)
        return Answer(200, json.dumps(self._profile(number)).encode())

    def bulk(self, argument: str, request: Request) -> Answer:
        """Take a list of users at once; slower by 0.2 ms for each."""
        match _parsed(request.body):
            case list() as users if len(users) <= MAX_BULK:
                return Answer(201, json.dumps({"created": len(users)}).encode())
            case _:
                return _refusal(400, f"a JSON list of at most {MAX_BULK} users is needed")

    def report(self, argument: str, request: Request) -> Answer:
        """Compile a report, in four chunks."""
        if not argument.replace("-", "").replace("_", "").isalnum() or len(argument) > 64:
            return _refusal(404, "no such report")
        return Answer(200, b'{"report":"%b","rows":%b}' % (argument.encode(), _REPORT_ROWS))

    def place_order(self, argument: str, request: Request) -> Answer:
        """Place an order."""
        if not isinstance(_parsed(request.body), dict):
            return _refusal(400, "a JSON object is needed")
        self._last_order += 1
        self._orders[self._last_order] = None
        _forget_oldest(self._orders)
        return Answer(
            201, b'{"id":%d,"state":"placed"}' % self._last_order, f"location: /orders/{self._last_order}\r\n"
        )

    def cancel_order(self, argument: str, request: Request) -> Answer:
        """Cancel an order that is still open."""
        number = int(argument) if argument.isdecimal() and len(argument) < 19 else 0
        if number not in self._orders:
            return _refusal(404, "no such order")
        del self._orders[number]
        return Answer(204, b"")

    # State.

    def _token(self, number: int) -> str:
        proof = hashlib.blake2s(b"%d" % number, key=self._key, digest_size=12).hexdigest()
        return f"{number}-{proof}"

    def _is_signed_in(self, request: Request) -> bool:
        scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        number, _, _ = token.partition("-")
        known = scheme.lower() == "bearer" and number.isdecimal() and len(number) < 19
        return known and token == self._token(int(number))

    def _profile(self, number: int) -> dict[str, Any]:
        name = f"user-{number}"
        standard = {"id": number, "name": name, "email": f"{name}@shop.example", "city": _CITIES[number % len(_CITIES)]}
        return {**standard, **self._profiles.get(number, {})}


ENDPOINTS: Final[Mapping[tuple[str, str], Callable[[Shop, str, Request], Answer]]] = {
    ("GET", "/healthz"): Shop.health,
    ("POST", "/auth/login"): Shop.login,
    ("GET", "/users"): Shop.users,
    ("GET", "/users/{id}"): Shop.profile,
    ("PUT", "/users/{id}"): Shop.change_profile,
    ("POST", "/users/bulk"): Shop.bulk,
    ("GET", "/reports/{name}"): Shop.report,
    ("POST", "/orders"): Shop.place_order,
    ("DELETE", "/orders/{id}"): Shop.cancel_order,
}

_REPORT_ROWS: Final = json.dumps(
    [{"day": day, "orders": 40 + day * 7 % 31, "visits": 900 + day * 13} for day in range(60)]
).encode()


def endpoint_of(path: str) -> tuple[str, str]:
    """Return the endpoint's template and the argument in *path*; `/users/7` is (`/users/{id}`, `7`)."""
    if path in _EXACT:
        return path, ""
    parent, _, argument = path.rpartition("/")
    template = _WITH_ARGUMENT.get(parent)
    return (template, argument) if template and argument else (UNKNOWN, "")


def _refusal(status: int, reason: str, headers: str = "") -> Answer:
    return Answer(status, json.dumps({"error": reason}).encode(), headers)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _number_in(name: str) -> int:
    """Return the number a user's name ends in, modulo the number of users; a name without one is user 0."""
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits[-18:]) % USERS if digits else 0


def _user_number(argument: str) -> int | None:
    if not argument.isascii() or not argument.isdecimal() or len(argument) > 18:
        return None
    number = int(argument)
    return number if number < USERS else None


def _forget_oldest(kept: dict[int, Any]) -> None:
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
