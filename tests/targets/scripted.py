"""
A server that does what a script says, in a process of its own, and keeps its own account.

    with Scripted(routes=[Route(path="/slow", delay_s=0.2)]) as server:
        ...                              # load on server.url
    assert 5_000 == server.log.received  # the account as it was at the end

A reply is written *delay_s* after the last byte of the request was read, within 1 ms and never early; `log.lateness`
says how well that was kept.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import contextlib
import json
import os
import resource
import signal
import ssl
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from targets.exact_timers import ExactTimers
from targets.spawned import Spawned, stop_at_end_of_input
from trafficsim_runner.demo.http_server import Framing, Reply, Request, listen

LOG_PATH = "/__log"
_LATENESS_KEPT = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """
    What happens to requests of *method* (`*`: any) at *path* (a `*` at its end: anything that starts so).

    *statuses* are used in turn. *framing* is length, chunked or close. With *echo* the body is the request itself as
    JSON: method, path, query, headers, body.
    """

    path: str
    method: str = "*"
    delay_s: float = 0.0
    statuses: Sequence[int] = (200,)
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    body: str = '{"ok":true}'
    framing: str = "length"
    pieces: int = 1
    keep_alive: bool = True
    echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """How many requests of a kind arrived; *user* is their `x-user` header, *path* is without the query."""

    method: str
    path: str
    status: int
    user: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The server's account: received = finished + abandoned + being answered."""

    counts: Sequence[Received]
    received: int
    finished: int
    abandoned: int
    malformed: int
    opened_connections: int
    open_connections: int
    lateness: Mapping[str, float]  # p50, p99, max in seconds after the instant the script asked for

    def count(self, **wanted: Any) -> int:
        """Return how many requests have all the *wanted* fields: `log.count(path="/a", status=200)`."""
        return sum(r.count for r in self.counts if all(getattr(r, name) == value for name, value in wanted.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Files of a server certificate with its chain, and of its key."""

    chain: Path
    key: Path


class Scripted:
    """
    The server as the test sees it.

    *lines* is a file that gets one JSON line for each request, with its monotonic instant.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: Certificate | None = None,
        lines: Path | None = None,
    ) -> None:
        self._host = host
        self._scheme = "https" if tls else "http"
        script = {
            "host": host,
            "port": port,
            "routes": [asdict(route) for route in routes],
            "tls": [str(tls.chain), str(tls.key)] if tls else None,
            "lines": str(lines) if lines else None,
        }
        handle, name = tempfile.mkstemp(suffix=".json", prefix="script-")
        with os.fdopen(handle, "w") as file:
            json.dump(script, file)
        self._file = Path(name)
        self._child = Spawned(Path(__file__), name)
        self._last: Log | None = None

    @property
    def port(self) -> int:
        """Return the port."""
        return self._child.port

    @property
    def pid(self) -> int:
        """Return the process id of the server."""
        return self._child.pid

    @property
    def url(self) -> str:
        """Return the URL without a path."""
        return f"{self._scheme}://{self._host}:{self.port}"

    @property
    def log(self) -> Log:
        """Return the account: read from the running server, or as it was when it stopped."""
        if self._last is not None:
            return self._last
        context = ssl._create_unverified_context() if self._scheme == "https" else None
        with urllib.request.urlopen(self.url + LOG_PATH, timeout=10, context=context) as answer:
            return _log_from(json.load(answer))

    def start(self) -> Self:
        """Start the server."""
        self._child.start()
        return self

    def stop(self) -> Log:
        """Stop the server and return its account."""
        account = self._child.stop()
        if account:
            self._last = _log_from(account)
        self._file.unlink(missing_ok=True)
        assert self._last is not None, "the server left no account"
        return self._last

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _log_from(document: dict[str, Any]) -> Log:
    counts = [Received(**entry) for entry in document.pop("counts")]
    return Log(counts=counts, **document)


# From here on: the child.


class _Site:
    """The scripted site: routes by (method, path), a count for each kind of request."""

    def __init__(self, routes: Sequence[Mapping[str, Any]], lines: str | None) -> None:
        self._exact: dict[tuple[str, str], _Compiled] = {}
        self._prefixes: list[tuple[str, str, _Compiled]] = []
        for route in routes:
            path, compiled = str(route["path"]), _Compiled(route)
            if path.endswith("*"):
                self._prefixes.append((str(route["method"]), path[:-1], compiled))
            else:
                self._exact[str(route["method"]), path] = compiled
        self._lines = Path(lines).open("w") if lines else None
        self._counts: Counter[tuple[str, str, int, str]] = Counter()
        self._totals = dict.fromkeys(("received", "finished", "abandoned", "malformed", "opened_connections"), 0)
        self._open = 0
        self._lateness = array.array("d")

    def answer(self, request: Request) -> Reply:
        if request.path == LOG_PATH:
            return Reply(body=json.dumps(self.account()).encode())
        route = self._route(request)
        reply = route.reply(request) if route else Reply(status=404, body=b'{"error":"not in the script"}')
        user = request.headers.get(b"x-user", b"").decode("latin-1")
        self._totals["received"] += 1
        self._counts[request.method, request.path, reply.status, user] += 1
        if self._lines is not None:
            line = {"at": request.received, "method": request.method, "path": request.path, "query": request.query}
            self._lines.write(json.dumps({**line, "status": reply.status, "user": user}) + "\n")
        return reply

    def _route(self, request: Request) -> _Compiled | None:
        for method in (request.method, "*"):
            if route := self._exact.get((method, request.path)):
                return route
        for method, prefix, route in self._prefixes:
            if method in (request.method, "*") and request.path.startswith(prefix):
                return route
        return None

    def opened(self) -> None:
        self._totals["opened_connections"] += 1
        self._open += 1

    def closed(self) -> None:
        self._open -= 1

    def finished(self, request: Request, reply: Reply, written: float) -> None:
        if request.path == LOG_PATH:
            return
        self._totals["finished"] += 1
        if reply.delay_s > 0 and len(self._lateness) < _LATENESS_KEPT:
            self._lateness.append(written - request.received - reply.delay_s)

    def abandoned(self, request: Request, reply: Reply) -> None:
        if request.path != LOG_PATH:
            self._totals["abandoned"] += 1

    def malformed(self) -> None:
        self._totals["malformed"] += 1

    def account(self) -> dict[str, Any]:
        late = sorted(self._lateness) or [0.0]
        return {
            "counts": [
                {"method": method, "path": path, "status": status, "user": user, "count": n}
                for (method, path, status, user), n in sorted(self._counts.items())
            ],
            **self._totals,
            "open_connections": self._open,
            "lateness": {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "max": late[-1]},
        }

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()


class _Compiled:
    """A route ready to answer: its replies are made once."""

    def __init__(self, route: Mapping[str, Any]) -> None:
        self._echo = bool(route["echo"])
        self._replies = [
            Reply(
                status=status,
                headers="".join(f"{name}: {value}\r\n" for name, value in route["headers"].items()),
                body=str(route["body"]).encode(),
                delay_s=float(route["delay_s"]),
                framing=Framing(route["framing"]),
                pieces=int(route["pieces"]),
                keep_alive=bool(route["keep_alive"]),
            )
            for status in route["statuses"]
        ]
        self._next = 0

    def reply(self, request: Request) -> Reply:
        reply = self._replies[self._next]
        self._next = (self._next + 1) % len(self._replies)
        if not self._echo:
            return reply
        seen = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()},
            "body": request.body.decode("utf-8", "replace"),
        }
        return Reply(
            status=reply.status,
            headers=reply.headers,
            body=json.dumps(seen).encode(),
            delay_s=reply.delay_s,
            framing=reply.framing,
            pieces=reply.pieces,
            keep_alive=reply.keep_alive,
        )


async def _serve(script: Mapping[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stop_at_end_of_input(loop, stop)
    site = _Site(script["routes"], script["lines"])
    context = None
    if script["tls"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*script["tls"])
    server = await listen(site, script["host"], script["port"], call_at=ExactTimers(loop).call_at, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.close()
    site.close()
    print(json.dumps(site.account()), flush=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Serve what a script says; prints the port.")
    parser.add_argument("script", type=Path)
    script = json.loads(parser.parse_args().script.read_text())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(PermissionError):
        # The instants asked for must hold on a machine that is busy with the load itself.
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    asyncio.run(_serve(script))


if __name__ == "__main__":
    _main()
