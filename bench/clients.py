"""The clients that are compared: how each is started, and how many requests it says it made."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Protocol

HERE = Path(__file__).parent


class ClientFailed(Exception):
    """A client did not do its part; the message is for the reader of the benchmark."""


class Client(Protocol):
    """One client of the comparison."""

    name: str

    def command(self, port: int, seconds: int, directory: Path) -> list[str]:
        """Return what to run for *seconds* against *port*; files may be put into *directory*."""

    def requests(self, output: str) -> int:
        """Return how many requests the client says it made."""

    def is_success(self, code: int) -> bool:
        """Return whether the exit code means that the load was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrk:
    """The measure: C, one thread, epoll. Its settings, with reasons, are in peers/wrk.toml."""

    connections: int
    name: str = "wrk"

    def command(self, port: int, seconds: int, directory: Path) -> list[str]:
        binary = shutil.which("wrk")
        if binary is None:
            raise ClientFailed("wrk is not installed (Debian: wrk)")
        settings = tomllib.loads((HERE / "peers" / "wrk.toml").read_text())
        options = ["-t", str(settings["threads"]), "-c", str(self.connections), "-d", f"{seconds}s"]
        options += ["--timeout", f"{settings['timeout_s']}s"]
        options += ["--latency"] if settings["latency"] else []
        options += ["-s", settings["script"]] if settings["script"] else []
        options += [part for header in settings["headers"] for part in ("-H", header)]
        return [binary, *options, f"http://127.0.0.1:{port}/read"]

    def requests(self, output: str) -> int:
        if errors := re.search(r"Non-2xx.*|Socket errors:.*", output):
            raise ClientFailed(f"wrk saw failures: {errors[0]}")
        found = re.search(r"(\d+) requests in", output)
        if found is None:
            raise ClientFailed(f"wrk printed no count: {output[-300:]}")
        return int(found[1])

    def is_success(self, code: int) -> bool:
        return code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """The product as a user runs it: `trafficsim run FILE --json`, reconcile loop, supervisor, worker and all."""

    name: str = "ours_pure"

    def command(self, port: int, seconds: int, directory: Path) -> list[str]:
        binary = Path(sys.executable).with_name("trafficsim")
        if not binary.exists():
            raise ClientFailed(f"{binary} is missing: install the package first (make setup)")
        template = Template((HERE / "keepalive64.yaml").read_text())
        file = directory / "keepalive64.yaml"
        file.write_text(template.substitute(PORT=port, SECONDS=seconds))
        return [str(binary), "run", str(file), "--json"]

    def requests(self, output: str) -> int:
        try:
            document = json.loads(output)
        except ValueError as error:
            raise ClientFailed(f"trafficsim printed no JSON document: {output[-300:]!r}") from error
        return requests_in(document)

    def is_success(self, code: int) -> bool:
        # A saturated generator is Inconclusive (2), and saturating it is what a benchmark does.
        return code in (0, 1, 2)


def requests_in(document: Mapping[str, Any]) -> int:
    """Return the run's requests as `trafficsim run --json` reports them."""
    status = document.get("status", document)
    accounts = status.get("accounts", status)
    found = accounts.get("requests")
    if not isinstance(found, int):
        raise ClientFailed(f"no count of requests in {sorted(document)}")
    return found
