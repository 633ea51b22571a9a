"""Each way in which a generator can be at its end: Inconclusive, with the reason in status and summary, exit code 2."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from driven.run import a_document, a_run, supervisors, workers_of
from driven.scarcity import few_descriptors, few_ports, little_memory
from targets.scripted import Route, Scripted
from trafficsim_api.phases import Verdict

MiB = 1 << 20
BLOB = json.dumps({"text": "x" * MiB})
ROUTES = (Route(path="/healthz"), Route(path="/slow", delay_s=0.5), Route(path="/blob", body=BLOB))
SLOW = [{"action": "slow", "request": {"get": "/slow"}}]
KEEPS_A_MIB = [
    {"action": "blob", "request": {"get": "/blob"}, "save": {"blob": "json.text"}},
    {"think": {"constant": "1m"}},
]
# A window is enough in the open model, two in the closed one.
ONE_WINDOW, TWO_WINDOWS = "12s", "22s"


def a_load(url: str, *, flow: list[dict[str, Any]] | None = None, **spec: Any) -> dict[str, Any]:
    """Return a load for one process, with the arrivals of 100 users of half a second unless told otherwise."""
    return a_document(
        url, archetypes=[{"name": "only", "flow": flow or SLOW}], scaling={"maxProcesses": 1},
        thresholds=[{"rule": "error_rate < 1%"}], **spec,
    )  # fmt: skip


def arriving(rate: str) -> dict[str, Any]:
    return {"arrivals": {"rate": rate}, "profile": [{"hold": {"for": "1s"}}], "duration": ONE_WINDOW}


async def run_cli(
    directory: Path, document: Mapping[str, Any], before: Callable[[], None] | None = None
) -> tuple[int, dict[str, Any]]:
    """Return exit code and document of `trafficsim run --json`; *before* is done in the process before it begins."""
    file = directory / "load.yaml"
    file.write_text(yaml.safe_dump(dict(document)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trafficsim_operator.cli.main", "run", str(file), "--json", "--history", "none",
        stdout=asyncio.subprocess.PIPE, preexec_fn=before,
    )  # fmt: skip
    try:
        async with asyncio.timeout(50):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()  # its runners die with it
            await process.wait()
    assert process.returncode is not None
    return process.returncode, json.loads(out)


def check(code: int, printed: Mapping[str, Any], *names: str) -> None:
    """Inconclusive, exit code 2; the reason names each of *names*, in the summary and in the status."""
    print(printed["reason"])
    assert (2, "Inconclusive") == (code, printed["verdict"])
    conditions = {condition["type"]: condition for condition in printed["status"]["conditions"]}
    assert ("True", "GeneratorSaturated") == tuple(
        conditions["GeneratorSaturated"][key] for key in ("status", "reason")
    )
    assert "Inconclusive" == conditions["Finished"]["reason"]
    for name in names:
        assert name in printed["reason"]
        assert name in conditions["GeneratorSaturated"]["message"]


async def without_descriptors(directory: Path) -> None:
    """100 arrivals at a time, each on a connection, and 60 descriptors in all."""
    with Scripted(ROUTES) as server:
        document = a_load(server.url, users=150, **arriving("200/s"))
        code, printed = await run_cli(directory, document, few_descriptors(60))
    check(code, printed, "no descriptor was free", "arrivals started (99 %)")
    assert printed["errors"]["generator_no_fd"] > 100


async def without_users(directory: Path) -> None:
    """100 arrivals at a time, and 50 users."""
    with Scripted(ROUTES) as server:
        code, printed = await run_cli(directory, a_load(server.url, users=50, **arriving("200/s")))
        received = server.log.count(path="/slow")
    check(code, printed, "no slot was free", "arrivals started (99 %)")
    counters = printed["counters"]
    assert counters["arrivals_planned"] == counters["arrivals_started"] + printed["drops"]["no_slot"]
    assert received == counters["arrivals_started"] == printed["requests"]


async def without_memory(directory: Path) -> None:
    """100 users keep a MiB each, and 192 MiB are for the runner."""
    with Scripted(ROUTES) as server:
        document = a_load(
            server.url, flow=KEEPS_A_MIB, users=100, duration=TWO_WINDOWS,
            runner={"resources": {"limits": {"cpu": "1", "memory": "192Mi"}}},
        )  # fmt: skip
        code, printed = await run_cli(directory, document)
    check(code, printed, "memory at ", "(90 %)")


async def test_without_descriptors_users_or_memory(tmp_path):
    """Three runs side by side, each at its end in a way of its own."""
    ways = (without_descriptors, without_users, without_memory)
    async with asyncio.TaskGroup() as group:
        for number, way in enumerate(ways):
            (tmp_path / str(number)).mkdir()
            group.create_task(way(tmp_path / str(number)))


async def test_without_local_ports(tmp_path):
    """100 arrivals at a time, each on a connection of its own, and 60 ports."""
    with few_ports(60), Scripted(ROUTES) as server:
        code, printed = await run_cli(tmp_path, a_load(server.url, users=150, **arriving("200/s")))
    check(code, printed, "no local port was free", "arrivals started (99 %)")
    assert printed["errors"]["generator_no_port"] > 100


@pytest.mark.truth
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scarce", ["descriptors", "ports"])
async def test_users_without_connections(tmp_path, scarce):
    """The same in the closed model: users that cannot connect try again, and it takes two windows."""
    load = {"users": 120, "duration": TWO_WINDOWS, "warmUp": "1s"}
    if scarce == "descriptors":
        with Scripted(ROUTES) as server:
            code, printed = await run_cli(tmp_path, a_load(server.url, **load), few_descriptors(60))
        check(code, printed, "no descriptor was free")
    else:
        with few_ports(60), Scripted(ROUTES) as server:
            code, printed = await run_cli(tmp_path, a_load(server.url, **load))
        check(code, printed, "no local port was free")


@pytest.mark.truth
@pytest.mark.timeout(120)
async def test_a_worker_killed_for_want_of_memory(tmp_path):
    """One kill is enough, however good the windows are."""
    with Scripted(ROUTES) as server, little_memory(220 * MiB) as group:
        document = a_load(
            server.url, flow=KEEPS_A_MIB, users=300, duration="15s", profile=[{"ramp": {"to": "100%", "over": "12s"}}]
        )
        async with a_run(document, directory=tmp_path) as run:
            await run.begins()
            for pid in (supervisors()[0], *workers_of(supervisors()[0])):
                (group / "cgroup.procs").write_text(str(pid))
            status = await run.ends()
            account = run.account()
    print(status.verdict_reason)
    assert account.worker("oom_kills") >= 1
    assert Verdict.INCONCLUSIVE is status.verdict
    assert "killed for want of memory (runner.resources.limits.memory)" in status.verdict_reason
