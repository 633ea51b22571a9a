"""The clients that are compared: how each is started, and how many requests it says it made."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Final, Protocol

HERE = Path(__file__).parent
SIMULATIONS = HERE / "simulations"
PEERS = HERE / "peers"


# Locust counts its run time from before its users start, and starts many of them slower than it is told to.
_LOCUST_EARLY_S: Final = 3
_LOCUST_USERS_PER_S: Final = 500


class ClientFailed(Exception):
    """A client did not do its part; the message is for the reader of the benchmark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    What a client is to do: *users* at once, each on a connection of its own, all there after *ramp_s*.

    *shape* names the simulation (closed, thinking, flow or scenario), *think_ms* the least and longest pause,
    *processes* how many workers ours may have.
    """

    users: int
    shape: str = "closed"
    path: str = "/read"
    is_tls: bool = False
    ramp_s: int = 0
    think_ms: tuple[int, int] = (0, 0)
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One start of a client: *load* for *seconds* after the ramp, against *url*, with files in *directory*."""

    load: Load
    seconds: int
    url: str
    authority: Path
    """The certificate to trust."""
    directory: Path
    """Where it runs."""


class Client(Protocol):
    """One client of the comparison."""

    @property
    def name(self) -> str:
        """Return the name in the results."""

    @property
    def is_ours(self) -> bool:
        """Return whether it is the product."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Return what its environment has beside ours."""

    def command(self, order: Order) -> list[str]:
        """Return what to run; files may be put into the order's directory."""

    def requests(self, output: str, directory: Path) -> int | None:
        """
        Return how many requests the client says it made, None when it says nothing.

        Raises ClientFailed when it says that some went wrong.
        """

    def is_success(self, code: int) -> bool:
        """Return whether the exit code means that the load was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrk:
    """The measure: C, one thread, epoll. Its settings, with reasons, are in peers/wrk.toml."""

    binary: Path
    name: str = "wrk"
    is_ours: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, order: Order) -> list[str]:
        settings = _settings("wrk")
        options = ["-t", str(settings["threads"]), "-c", str(order.load.users), "-d", f"{order.seconds}s"]
        options += ["--timeout", f"{settings['timeout_s']}s"]
        options += ["--latency"] if settings["latency"] else []
        options += ["-s", settings["script"]] if settings["script"] else []
        options += [part for header in settings["headers"] for part in ("-H", header)]
        return [str(self.binary), *options, order.url + order.load.path]

    def requests(self, output: str, directory: Path) -> int | None:
        if errors := re.search(r"Non-2xx.*|Socket errors:.*", output):
            raise ClientFailed(f"wrk saw failures: {errors[0]}")
        found = re.search(r"(\d+) requests in", output)
        if found is None:
            raise ClientFailed(f"wrk printed no count: {output[-300:]}")
        return int(found[1])

    def is_success(self, code: int) -> bool:
        return code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vegeta:
    """Go, one library call per request; its settings, with reasons, are in peers/vegeta.toml."""

    binary: Path
    name: str = "vegeta"
    is_ours: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, order: Order) -> list[str]:
        settings = _settings("vegeta")
        users, targets = order.load.users, order.directory / "targets"
        targets.write_text(f"GET {order.url}{order.load.path}\n")
        options = {
            **{name.replace("_", "-"): value for name, value in settings.items()},
            "targets": targets, "duration": f"{order.seconds}s",
            "workers": users, "max-workers": users, "connections": users,
        }  # fmt: skip
        if order.load.is_tls:
            options["root-certs"] = order.authority
        return [str(self.binary), "attack", *(f"-{name}={_plain(value)}" for name, value in options.items())]

    def requests(self, output: str, directory: Path) -> int | None:
        return None  # its results go nowhere: writing them would be counted as its cost

    def is_success(self, code: int) -> bool:
        return code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Locust:
    """Python and gevent, FastHttpUser; the files it runs, with reasons, are in peers/locust/."""

    binary: Path
    name: str = "locust"
    is_ours: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, order: Order) -> list[str]:
        settings, load = _settings("locust"), order.load
        (order.directory / "load.json").write_text(
            json.dumps({"path": load.path, "think_s": [milliseconds / 1000 for milliseconds in load.think_ms]})
        )
        file = PEERS / "locust" / ("flow.py" if load.shape == "flow" else "fixed.py")
        rate = load.users / load.ramp_s if load.ramp_s else load.users
        options = ["-f", str(file), "--host", order.url, "--users", str(load.users), "--spawn-rate", f"{rate:g}"]
        seconds = order.seconds + load.ramp_s + _LOCUST_EARLY_S + load.users // _LOCUST_USERS_PER_S
        options += ["--run-time", f"{seconds}s", *settings["options"]]
        return [str(self.binary), *options, "--json-file", str(order.directory / "locust")]

    def requests(self, output: str, directory: Path) -> int | None:
        found = sorted(directory.glob("locust*.json"))
        if not found:
            raise ClientFailed(f"locust left no numbers: {output[-300:]}")
        rows = json.loads(found[0].read_text())
        if failures := sum(row["num_failures"] for row in rows):
            raise ClientFailed(f"locust saw {failures} failures")
        return sum(int(row["num_requests"]) for row in rows)

    def is_success(self, code: int) -> bool:
        return code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """
    The product as a user runs it: `trafficsim run FILE --json`, reconcile loop, supervisor, worker and all.

    *python* is the interpreter of the environment it is installed in.
    """

    name: str
    python: Path = Path(sys.executable)
    is_ours: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, order: Order) -> list[str]:
        binary = self.python.with_name("trafficsim")
        if not binary.exists():
            raise ClientFailed(f"{binary} is missing: install the package first (make setup)")
        load = order.load
        tls = f', tls: {{caFrom: {{path: "{order.authority}"}}}}' if load.is_tls else ""
        template = Template((SIMULATIONS / f"{load.shape}.yaml").read_text())
        file = order.directory / "simulation.yaml"
        file.write_text(
            template.substitute(
                URL=order.url,
                PATH=load.path,
                TLS=tls,
                USERS=load.users,
                SECONDS=order.seconds + load.ramp_s,
                RAMP=max(1, load.ramp_s),
                THINK_MIN=load.think_ms[0],
                THINK_MAX=load.think_ms[1],
                PROCESSES=load.processes,
            )
        )
        for scenario in SIMULATIONS.glob("*.py"):  # found beside the file that names them
            shutil.copy(scenario, order.directory)
        options = ["--json", "--history", "none", "--policy", str(SIMULATIONS / "policy.yaml")]
        return [str(binary), "run", str(file), *options]

    def requests(self, output: str, directory: Path) -> int | None:
        try:
            document = json.loads(output)
        except ValueError as error:
            raise ClientFailed(f"trafficsim printed no JSON document: {output[-300:]!r}") from error
        return requests_in(document)

    def is_success(self, code: int) -> bool:
        # A saturated generator is Inconclusive (2), and saturating it is what a benchmark does.
        return code in (0, 1, 2)


def requests_in(document: Mapping[str, Any]) -> int:
    """Return the run's requests as `trafficsim run --json` reports them; raise ClientFailed when some went wrong."""
    found, failed = document.get("requests"), document.get("failed", 0)
    if not isinstance(found, int):
        raise ClientFailed(f"no count of requests in {sorted(document)}")
    missed = sum(row["checks_failed"] for row in document.get("actions", ()))
    if failed or missed:
        raise ClientFailed(f"trafficsim saw {failed} failures and {missed} missed checks: {document.get('errors')}")
    return found


def _settings(peer: str) -> dict[str, Any]:
    return tomllib.loads((PEERS / f"{peer}.toml").read_text())


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
