"""
Measure what this generator and its peers cost, all in interleaved rounds: `make bench`.

The server is nginx, pinned to a core; the clients are pinned to another and take turns, round by round, because rates
on shared machines drift by a factor while µs per request hardly do. See measure.py for what is measured, cases.py for
the cases, bars.py for the bars and peers/ for how the peers are set up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bars import Outcome
from cases import CASES, Case, Entry, entries
from clients import Client, ClientFailed, Locust, Ours, Vegeta, Wrk
from measure import Place, Round
from provide import Missing, compiled, install_packages, locust, vegeta, wrk
from report import Results, document_of, markdown_of
from server import Server

HERE = Path(__file__).parent
FIRST_THINK_MS = 360
TRIES = 5
TRIAL_S = 2.0
CLOSE = (0.47, 0.53)
WITHIN = (0.45, 0.55)


@dataclass(slots=True, kw_only=True)
class Measuring:
    """One case while it is measured at a place; *thinks* are the mean think times found, by entry, in ms."""

    case: Case
    place: Place
    window_s: float
    thinks: dict[str, int] = field(default_factory=dict)

    def measure(self, entry: Entry) -> Round:
        """Return one round of *entry*."""
        if self.case.share:
            return self._at_share(entry)
        if not self.case.fewer:
            return self.place.measure(entry.client, entry.load, self.window_s)
        few = self.place.measure(entry.client, replace(entry.load, users=self.case.fewer), self.window_s)
        many = self.place.measure(entry.client, entry.load, self.window_s)
        grown = (many.figures["pss_mib"] - few.figures["pss_mib"]) * 2**20
        figures = {"bytes_per_user": grown / (entry.load.users - self.case.fewer)}
        if isinstance(entry.client, Ours):
            figures["parked_bytes"] = _parked_bytes(entry.client)
        return replace(many, figures={**many.figures, **figures})

    def _at_share(self, entry: Entry) -> Round:
        """Return a round in which the worker used as much of its core as the case asks for."""
        if entry.name not in self.thinks:
            self._find_think(entry)
        for _ in range(TRIES):
            found = self._thinking(entry, self.window_s)
            if WITHIN[0] <= found.figures["core_share"] <= WITHIN[1]:
                break
        return found

    def _find_think(self, entry: Entry) -> None:
        self.thinks[entry.name] = FIRST_THINK_MS
        for _ in range(TRIES):
            share = self._thinking(entry, TRIAL_S).figures["core_share"]
            if CLOSE[0] <= share <= CLOSE[1]:
                return

    def _thinking(self, entry: Entry, window_s: float) -> Round:
        """
        Measure with the think time found so far, and find a better one from what a request cost.

            think = users · CPU of the worker per request / share

        10 000 users at 15 µs need 300 ms to make half a core's load. Not from the share that was seen: on a core that
        others use as well it would run away.
        """
        mean = self.thinks[entry.name]
        load = replace(entry.load, think_ms=(mean * 2 // 3, mean * 4 // 3))
        found = self.place.measure(entry.client, load, window_s)
        share = found.figures["core_share"]
        if not CLOSE[0] <= share <= CLOSE[1]:
            cost_us = found.figures["cpu_us_per_request"] - found.figures["others_us"]
            self.thinks[entry.name] = max(1, round(entry.load.users * cost_us / self.case.share / 1000))
        _say(f"{'':14} {entry.name}: a mean think time of {mean} ms makes {share:.1%} of a core")
        return replace(found, figures={**found.figures, "think_ms": float(mean)})


def _parked_bytes(client: Ours) -> float:
    environment = {**os.environ, **client.variables}
    command = [str(client.python), str(HERE / "parked.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClientFailed(f"the parked record could not be weighed: {done.stderr[-500:]}")
    return float(done.stdout)


def run(case: Case, clients: Sequence[Client], results: Results, *, rounds: int, window_s: float) -> None:
    """Let the clients of *case* take turns; one that fails is left out of the rounds that follow."""
    taking_part = entries(case, clients)
    done = results.rounds[case.name] = {entry.name: [] for entry in taking_part}
    failures = results.failures[case.name] = {}
    server_cores, client_cores = _cores(case)
    with Server(server_cores) as server:
        place = Place(server=server, server_cores=server_cores, client_cores=client_cores)
        measuring = Measuring(case=case, place=place, window_s=window_s)
        for number in range(1, rounds + 1):
            for entry in [entry for entry in taking_part if entry.name not in failures]:
                head = f"{case.name} {number}/{rounds}  {entry.name:12}"
                try:
                    found = measuring.measure(entry)
                except ClientFailed as error:
                    failures[entry.name] = str(error)
                    _say(f"{head} failed: {error}")
                    continue
                done[entry.name].append(found)
                _say(f"{head} {_line(found.figures)}")


def _line(figures: Mapping[str, float]) -> str:
    parts = [
        f"{figures['cpu_us_per_request']:7.2f} µs a request",
        f"{figures['requests_per_second']:8.0f} requests/s",
        f"{figures['core_share']:6.1%} of a core",
    ]
    if "bytes_per_user" in figures:
        parts.append(f"{figures['bytes_per_user']:.0f} B a user")
    if "lag_p99_ms" in figures:
        parts.append(f"lag p99 {figures['lag_p99_ms']:.2f} ms")
    return ", ".join(parts)


ALL_CORES = tuple(sorted(os.sched_getaffinity(0)))


def _cores(case: Case) -> tuple[list[int], list[int]]:
    """Return the server's cores and the clients': core 1 and core 0 on a machine of two."""
    cores = list(ALL_CORES)
    if case.workers == 1:
        return [cores[1 % len(cores)]], [cores[0]]
    return cores[case.workers :] or [cores[-1]], cores[: case.workers]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


CLIENTS: Mapping[str, Callable[[], Client]] = {
    "wrk": lambda: Wrk(binary=wrk(os.environ)),
    "vegeta": lambda: Vegeta(binary=vegeta(os.environ)),
    "locust": lambda: Locust(binary=locust(os.environ)),
    "ours_pure": lambda: Ours(name="ours_pure"),
    "ours_compiled": lambda: Ours(name="ours_compiled", python=compiled()),
}


def _provided(names: Sequence[str], absent: dict[str, str]) -> list[Client]:
    clients: list[Client] = []
    for name in names:
        try:
            clients.append(CLIENTS[name]())
        except Missing as missing:
            absent[name] = str(missing)
            _say(f"{name} is absent: {missing}")
    return clients


def _chosen(parser: argparse.ArgumentParser, text: str, known: Sequence[str], what: str) -> list[str]:
    chosen = [name for name in text.split(",") if name]
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown {what}: {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    return chosen


def _write(results: Results, given: argparse.Namespace, name: str) -> str:
    """Write the results as JSON and as a page; return the page."""
    document = document_of(results, rounds=given.rounds, window_s=given.window)
    page = markdown_of(document, CASES)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (given.results / f"{name}.md").write_text(page)
    return page


def main() -> int:
    """
    Run the benchmark.

    Exit code 0: every bar that could be measured passes · 1: a client failed · 2: a bar was missed · 3: the machine
    lacks something.
    """
    parser = argparse.ArgumentParser(description="What this generator and its peers cost.")
    names = [case.name for case in CASES]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=6.0, metavar="SECONDS", help="measured part of each round")
    parser.add_argument("--cases", default=",".join(names), help="comma separated")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="comma separated")
    parser.add_argument("--keep", action="store_true", help="keep the other cases of the latest results as they stand")
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="DIRECTORY")
    given = parser.parse_args()
    cases = _chosen(parser, given.cases, names, "cases")
    chosen = _chosen(parser, given.clients, list(CLIENTS), "clients")
    try:
        install_packages()
    except Missing as missing:
        _say(str(missing))
        return 3
    latest = given.results / "latest.json"
    kept = json.loads(latest.read_text()) if given.keep else None
    if kept is not None and (kept["rounds"], kept["window_s"]) != (given.rounds, given.window):
        parser.error(f"the latest results have {kept['rounds']} rounds with windows of {kept['window_s']:g} s")
    results, page = Results(kept=kept), ""
    clients = _provided(chosen, results.absent)
    if len(ALL_CORES) < 2:
        _say("One core only: server and clients share it, and the figures say less.")
    os.sched_setaffinity(0, ALL_CORES[1:] or ALL_CORES)  # off the clients' core
    for case in CASES:
        if case.name in cases:
            run(case, clients, results, rounds=given.rounds, window_s=given.window)
            page = _write(results, given, "partial")  # what is done is done, should the rest be broken off
    if (given.keep or set(cases) == set(names)) and set(chosen) == set(CLIENTS) and not any(results.failures.values()):
        page = _write(results, given, "latest")
    print(page)
    if any(results.failures.values()):
        return 1
    return 2 if f"**{Outcome.MISSED}**" in page else 0


if __name__ == "__main__":
    raise SystemExit(main())
