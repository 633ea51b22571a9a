"""
Measure what one client costs, in a window in the middle of its run.

    CPU µs per request = Δ(user + system time of all the client's processes) / Δ(requests that the server counted)

Both differences are taken over the same window, so that start-up and the final report are left out for every client
alike. Of the product, the runner's processes count: supervisor and workers, what a pod runs. The command line, which
plays the cluster's operator, is counted apart, and moved to the server's cores.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from clients import Client, ClientFailed, Load, Order
from processes import Process, family_of, move, pss_bytes, waited_s
from runner_statistics import Account, account_of
from server import Server

_SETTLE_S: Final = 2.0
_START_WITHIN_S: Final = 60.0
_END_WITHIN_S: Final = 60.0
_TAIL_S: Final = 2.0
_LEAST_REQUESTS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one client did in one round: its *figures* by name, and its requests as the server and as it counted."""

    figures: dict[str, float]
    server_requests: int
    client_requests: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    at: float
    requests: int
    root: int
    family: dict[int, Process]
    waited: dict[int, float]
    account: Account | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where measuring happens: the *server*, its cores and the *client_cores*."""

    server: Server
    server_cores: Sequence[int]
    client_cores: Sequence[int]

    def measure(self, client: Client, load: Load, window_s: float) -> Round:
        """Run *client* once and return what its middle cost."""
        # Many users take a while to leave; what is in the window must not depend on when the load was noticed.
        seconds = int(_SETTLE_S + window_s + _TAIL_S + load.users / 5000 + 0.999)
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            directory = Path(name)
            order = Order(
                load=load, seconds=seconds, url=self.server.url(is_tls=load.is_tls), authority=self.server.authority,
                directory=directory,
            )  # fmt: skip
            before = self.server.requests()
            with self._run(client, order) as process:
                first, last, memory = self._window(process, client, load, window_s)
                code = process.wait(timeout=_END_WITHIN_S)
            after = self.server.requests()
            if not client.is_success(code):
                raise ClientFailed(f"ended with {code}{_last_words(directory)}")
            said = client.requests((directory / "out").read_text(), directory)
        figures = _cost(first, last, client) | {"pss_mib": memory / 2**20}
        return Round(figures=figures, server_requests=after - before, client_requests=said)

    @contextlib.contextmanager
    def _run(self, client: Client, order: Order) -> Iterator[subprocess.Popen[bytes]]:
        """Start *client* on its cores; whatever happens, it has ended afterwards."""
        command = ["taskset", "-c", ",".join(map(str, self.client_cores)), *client.command(order)]
        directory = order.directory
        with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
            environment = {**os.environ, **client.variables}
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory, env=environment
            )
            try:
                yield process
            except (ClientFailed, subprocess.TimeoutExpired, OSError, ValueError) as error:
                raise ClientFailed(f"{error}{_last_words(directory)}") from error
            finally:
                _end(process)

    def _window(
        self, process: subprocess.Popen[bytes], client: Client, load: Load, window_s: float
    ) -> tuple[_Look, _Look, int]:
        """Wait for the load, let it settle, look twice *window_s* apart, and weigh the memory."""
        self._wait_for_load(process, load)
        if client.is_ours:
            move(process.pid, self.server_cores)
        time.sleep(_SETTLE_S)
        # What asking costs the runner stays outside the window: before its beginning and after its end.
        begun = account_of(family_of(process.pid)) if client.is_ours else None
        first = replace(self._look(process.pid), account=begun)
        time.sleep(max(0.0, first.at + window_s - time.monotonic()))
        last = self._look(process.pid)
        if process.poll() is not None:
            raise ClientFailed("ended before the window did")
        memory = sum(pss_bytes(pid) for pid in _counted(last, client))
        return first, replace(last, account=account_of(last.family) if client.is_ours else None), memory

    def _look(self, root: int) -> _Look:
        requests, family = self.server.requests(), family_of(root)
        waited = {pid: waited_s(pid) for pid in family}
        return _Look(at=time.monotonic(), requests=requests, root=root, family=family, waited=waited)

    def _wait_for_load(self, process: subprocess.Popen[bytes], load: Load) -> None:
        deadline = time.monotonic() + _START_WITHIN_S + load.ramp_s
        while (there := self.server.connections()) < load.users:
            if process.poll() is not None:
                raise ClientFailed(f"ended with {process.returncode} before it made load")
            if time.monotonic() > deadline:
                raise ClientFailed(f"has {there} of {load.users} connections after {_START_WITHIN_S:g} s")
            time.sleep(0.1)


def _counted(look: _Look, client: Client) -> list[int]:
    """Return the processes that are the client's: of ours the runner's, without the command line."""
    return [pid for pid in look.family if not (client.is_ours and pid == look.root)]


def _cost(first: _Look, last: _Look, client: Client) -> dict[str, float]:
    """Return the figures of a window."""
    requests, passed = last.requests - first.requests, last.at - first.at
    if requests < _LEAST_REQUESTS:
        raise ClientFailed(f"made {requests} requests in the window: too few to say anything")
    root, counted = last.root, _counted(last, client)
    spent = {pid: last.family[pid].cpu - (first.family[pid].cpu if pid in first.family else 0.0) for pid in counted}
    total, busiest = sum(spent.values()), max(spent.values())
    first_pid = max(spent, key=spent.__getitem__)
    figures = {
        "cpu_us_per_request": total / requests * 1e6,
        "others_us": (total - busiest) / requests * 1e6,
        "requests_per_second": requests / passed,
        "core_share": busiest / passed,
        "waited_share": (last.waited[first_pid] - first.waited.get(first_pid, 0.0)) / passed,
    }
    if client.is_ours:
        figures["cli_us_per_request"] = (last.family[root].own - first.family[root].own) / requests * 1e6
    if first.account is not None and last.account is not None:
        between = last.account.since(first.account)
        said = {"lag_p99_ms": between.lag_p99_ms, "service_p50_ms": between.service_p50_ms}
        figures |= {name: value for name, value in said.items() if value is not None}
    return figures


def _last_words(directory: Path) -> str:
    """Return what the client in *directory* wrote last, errors first."""
    texts = [(directory / name).read_text(errors="replace").strip() for name in ("err", "out")]
    return "".join(f" | {' '.join(text[-600:].split())}" for text in texts if text)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
