"""
Measure the CPU a request costs each client, all in one interleaved run: `make bench`.

    CPU µs per request = Δ(user + system time of all the client's processes) / Δ(requests that the server counted)

Both differences are taken over the same window in the middle of a run, so that start-up and the final report are left
out for every client alike. The server is nginx, pinned to one core; the clients are pinned to another and take turns,
round by round, because rates on shared machines drift by a factor while µs per request hardly do. Requests are nginx's
own count, and what the client says is compared with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from clients import Client, ClientFailed, Ours, Wrk  # noqa: E402 - beside this file
from processes import cpu_seconds  # noqa: E402

from targets.nginx import Nginx, is_installed  # noqa: E402 - the path to it is set above

CONNECTIONS = 64
SETTLE_S = 2
TAIL_S = 2
START_WITHIN_S = 60
END_WITHIN_S = 60
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one client did in one round; *others_us* is what its processes but the busiest cost, per request."""

    cpu_us_per_request: float
    others_us: float
    requests_per_second: float
    server_requests: int
    client_requests: int


class CountedServer:
    """nginx, with the requests that reading its count costs taken out again."""

    def __init__(self, nginx: Nginx) -> None:
        self._nginx = nginx
        self._reads = 0
        self.port = nginx.port

    def requests(self) -> int:
        """Return how many requests others have made so far."""
        self._reads += 1
        return self._nginx.requests() - self._reads


def measure(client: Client, server: CountedServer, core: int, window_s: float) -> Round:
    """Run *client* once and return what its middle cost."""
    seconds = int(SETTLE_S + window_s + TAIL_S + 0.999)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        command = ["taskset", "-c", str(core), *client.command(server.port, seconds, directory)]
        before = server.requests()
        with (directory / "out").open("w+") as out, (directory / "err").open("w+") as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory)
            try:
                first, last = _window(process, server, before, window_s)
                code = process.wait(timeout=END_WITHIN_S)
            except (ClientFailed, subprocess.TimeoutExpired) as error:
                err.seek(0)
                raise ClientFailed(f"{client.name}: {error}\n{err.read()[-2000:]}") from error
            finally:
                _end(process)
            after = server.requests()
            out.seek(0)
            err.seek(0)
            if not client.is_success(code):
                raise ClientFailed(f"{client.name} ended with {code}: {err.read()[-2000:]}")
            said = client.requests(out.read())
    return _round(first, last, server_requests=after - before, client_requests=said)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    at: float
    requests: int
    cpu: dict[int, float]


def _window(
    process: subprocess.Popen[bytes], server: CountedServer, before: int, window_s: float
) -> tuple[_Look, _Look]:
    """Wait for the load, let it settle, and look twice, *window_s* apart."""
    _wait_until(lambda: server.requests() - before > CONNECTIONS * 10, process)
    time.sleep(SETTLE_S)
    first = _look(process, server)
    time.sleep(window_s)
    last = _look(process, server)
    if process.poll() is not None:
        raise ClientFailed("ended before the window did")
    return first, last


def _look(process: subprocess.Popen[bytes], server: CountedServer) -> _Look:
    return _Look(at=time.monotonic(), requests=server.requests(), cpu=cpu_seconds(process.pid))


def _wait_until(claim: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while not claim():
        if process.poll() is not None:
            raise ClientFailed(f"ended with {process.returncode} before it made load")
        if time.monotonic() > deadline:
            raise ClientFailed(f"made no load within {START_WITHIN_S} s")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _round(first: _Look, last: _Look, *, server_requests: int, client_requests: int) -> Round:
    requests = last.requests - first.requests
    if requests < 1000:
        raise ClientFailed(f"made {requests} requests in the window: too few to say anything")
    spent = {pid: seconds - first.cpu.get(pid, 0.0) for pid, seconds in last.cpu.items()}
    total = sum(last.cpu.values()) - sum(first.cpu.values())
    return Round(
        cpu_us_per_request=total / requests * 1e6,
        others_us=(total - max(spent.values())) / requests * 1e6,
        requests_per_second=requests / (last.at - first.at),
        server_requests=server_requests,
        client_requests=client_requests,
    )


def run(clients: Sequence[Client], rounds: int, window_s: float) -> tuple[dict[str, list[Round]], dict[str, str]]:
    """Let the clients take turns; a client that fails is left out of the rounds that follow."""
    done: dict[str, list[Round]] = {client.name: [] for client in clients}
    failures: dict[str, str] = {}
    server_core, client_core = _cores()
    with Nginx(core=server_core) as nginx:
        server = CountedServer(nginx)
        for number in range(1, rounds + 1):
            for client in clients:
                if client.name in failures:
                    continue
                try:
                    result = measure(client, server, client_core, window_s)
                except ClientFailed as error:
                    failures[client.name] = str(error)
                    print(f"round {number}/{rounds}  {client.name:10} failed: {error}", file=sys.stderr, flush=True)
                    continue
                done[client.name].append(result)
                print(
                    f"round {number}/{rounds}  {client.name:10} {result.cpu_us_per_request:6.2f} µs a request, "
                    f"{result.requests_per_second:8.0f} requests/s",
                    file=sys.stderr,
                    flush=True,
                )
    return done, failures


def _cores() -> tuple[int, int]:
    """Return the server's core and the clients': core 1 and core 0 on a machine of two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("One core only: server and clients share it, and the figures say less.", file=sys.stderr)
    return cores[1 % len(cores)], cores[0]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def document_of(done: dict[str, list[Round]], failures: dict[str, str], window_s: float) -> dict[str, Any]:
    """Return the results as one JSON document."""
    case: dict[str, Any] = {}
    for name, rounds in done.items():
        if rounds:
            case[name] = {
                "cpu_us_per_request": _spread([r.cpu_us_per_request for r in rounds]),
                "others_us": _spread([r.others_us for r in rounds]),
                "requests_per_second": _spread([r.requests_per_second for r in rounds]),
                "rounds": [asdict(r) for r in rounds],
            }
    if "wrk" in case:
        for client in case.values():
            ratio = client["cpu_us_per_request"]["median"] / case["wrk"]["cpu_us_per_request"]["median"]
            client["times_wrk"] = round(ratio, 3)
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "window_s": window_s,
        "cases": {"keepalive64": case},
        "failures": failures,
    }


def markdown_of(document: dict[str, Any]) -> str:
    """Return the results as a table for people."""
    machine = document["machine"]
    lines = [
        "# CPU per request",
        "",
        f"{CONNECTIONS} connections, keep-alive, 78 bytes of JSON from nginx; {document['window_s']:g} s windows,",
        "interleaved; user + system time of all the client's processes.",
        f"Python {machine['python']}, Linux {machine['kernel']}, {machine['cores']} cores; {document['at']}.",
        "",
        "| client | µs a request: median (min – max) | × wrk | of it outside the busiest process | requests/s |",
        "|---|---|---|---|---|",
    ]
    for name, client in document["cases"]["keepalive64"].items():
        cpu = client["cpu_us_per_request"]
        lines.append(
            f"| {name} | {cpu['median']:.2f} ({cpu['min']:.2f} – {cpu['max']:.2f}) | {client.get('times_wrk', '')} "
            f"| {client['others_us']['median']:.2f} | {client['requests_per_second']['median']:.0f} |"
        )
    lines += ["", "What the client says it sent, and what nginx counted, over all rounds:", ""]
    for name, client in document["cases"]["keepalive64"].items():
        said = sum(r["client_requests"] for r in client["rounds"])
        counted = sum(r["server_requests"] for r in client["rounds"])
        lines.append(f"- {name}: {said} said, {counted} counted, difference {counted - said}")
    lines += [f"- {name} failed: {reason.splitlines()[0]}" for name, reason in document["failures"].items()]
    return "\n".join(lines) + "\n"


def provide_peers() -> list[str]:
    """Install what is missing where that is possible, and return what is still missing."""
    present = {"wrk": shutil.which("wrk") is not None, "nginx": is_installed()}
    wanted = [PACKAGES[name] for name, there in present.items() if not there]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"Installing {', '.join(wanted)}", file=sys.stderr)
        quiet = {"stdout": subprocess.DEVNULL, "check": False}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]
        subprocess.run(install, env=environment, **quiet)
    return [PACKAGES[name] for name, there in (("wrk", shutil.which("wrk")), ("nginx", is_installed())) if not there]


def main() -> int:
    """Run the benchmark; exit code 0, 1 when a client failed, 3 when the machine lacks something."""
    clients: dict[str, Client] = {c.name: c for c in (Wrk(connections=CONNECTIONS), Ours())}
    parser = argparse.ArgumentParser(description="CPU per request of this generator and of its peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=6.0, metavar="SECONDS", help="measured part of each round")
    parser.add_argument("--clients", default=",".join(clients), help="comma separated")
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="DIRECTORY")
    given = parser.parse_args()
    chosen = [name for name in given.clients.split(",") if name]
    if unknown := set(chosen) - set(clients):
        parser.error(f"unknown clients: {', '.join(sorted(unknown))}")
    if missing := provide_peers():
        print(f"Missing and not installable here: {', '.join(missing)}", file=sys.stderr)
        return 3
    done, failures = run([clients[name] for name in chosen], given.rounds, given.window)
    document = document_of(done, failures, given.window)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "latest.json").write_text(json.dumps(document, indent=1) + "\n")
    (given.results / "latest.md").write_text(markdown_of(document))
    print(markdown_of(document))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
