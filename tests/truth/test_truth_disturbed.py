"""What goes on around a run changes none of its counts: slow readers, a full disk, a clock that is set."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from driven.disturbances import HOUR_S, SteppedClock, fill, slow_readers, small_disk
from driven.everything import ROUTES, check, everything
from driven.run import Run, a_document, a_run, supervisors, workers_of
from targets.scripted import Route, Scripted
from trafficsim_api.phases import Verdict

Meanwhile = Callable[[Run], Awaitable[None]]
MiB = 1 << 20


async def disturbed(
    directory: Path, meanwhile: Meanwhile, *, users: int, runners: int = 1, environ: Mapping[str, str] | None = None,
    **spec: Any,
) -> None:  # fmt: skip
    """
    Run with every kind of request while *meanwhile* goes on; what was counted is what the target received.

    No share of the numbers is missing, and no worker had to be started again.
    """
    with Scripted(ROUTES) as server:
        document = everything(server.url, users=users, scaling={"minRunners": runners}, **spec)
        async with a_run(document, directory=directory, environ=environ) as run:
            await run.begins()
            await run.until(lambda run: sum(run.looks[-1].active.values()) == users)
            await meanwhile(run)
            status = await run.ends(within_s=200)
            assert () == run.evidence().missing
            assert 0 == run.evidence().unseen_windows
            account = run.account()
    assert [] == run.fleet.losses
    assert 0 == account.worker("worker_restarts")
    assert status.verdict in (Verdict.PASSED, Verdict.INCONCLUSIVE)
    check(account, server.log)


async def read_slowly(tmp_path: Path, *, readers: int, for_s: float, **load: object) -> None:
    async def meanwhile(run: Run) -> None:
        before = len(run.looks)
        async with slow_readers(run.addresses, each=readers) as got:
            await asyncio.sleep(for_s)
            assert readers * len(run.addresses) == len(got)
            assert all(0 < count <= for_s + 2 for count in got)
        # The operator was answered all the while.
        assert len(run.looks) - before >= for_s / 2

    await disturbed(tmp_path, meanwhile, **load)


async def test_slow_control_readers_change_no_count(tmp_path):
    """50 readers of one byte a second."""
    await read_slowly(tmp_path, readers=50, for_s=3, users=20, duration="7s")


@pytest.mark.truth
@pytest.mark.timeout(240)
async def test_many_slow_control_readers_change_no_count(tmp_path):
    """200 of them on each of two runners, for half a minute."""
    await read_slowly(tmp_path, readers=200, for_s=30, users=60, duration="36s", runners=2)


async def on_a_full_disk(tmp_path: Path, **load: object) -> None:
    """
    The disk with state and logs of the runners has not a byte left, from shortly after the start to the end.

    It is full before the warm-up is over: what is written then was never written before.
    """
    with small_disk(tmp_path / "run" / "runners", size=32 * MiB) as disk:

        async def meanwhile(run: Run) -> None:
            assert fill(disk) > MiB
            with pytest.raises(OSError, match="No space left"):
                (disk / "more").write_bytes(b"x" * 8192)

        await disturbed(tmp_path / "run", meanwhile, **load)


async def test_a_full_disk_changes_no_count(tmp_path):
    """Counters have had their room from the start."""
    await on_a_full_disk(tmp_path, users=20, duration="8s", warmUp="5s")


@pytest.mark.truth
@pytest.mark.timeout(240)
async def test_a_full_disk_changes_no_count_of_two_runners(tmp_path):
    """The same for half a minute."""
    await on_a_full_disk(tmp_path, users=60, duration="30s", warmUp="6s", runners=2)


@pytest.mark.truth
@pytest.mark.timeout(120)
async def test_a_worker_killed_on_a_full_disk_keeps_its_counts(tmp_path):
    """What it had counted stays; it is back when there is room again; until then its users are counted as lost."""
    flow = [{"action": "get", "request": {"get": "/get"}}, {"think": {"constant": "10ms"}}]
    users = 40
    with small_disk(tmp_path / "run" / "runners", size=32 * MiB) as disk, \
         Scripted([Route(path="/healthz"), Route(path="/get", delay_s=0.005)]) as server:  # fmt: skip
        document = a_document(server.url, archetypes=[{"name": "a", "flow": flow}], users=users, duration="20s")
        async with a_run(document, directory=tmp_path / "run") as run:
            await run.begins()
            await run.until(lambda run: sum(run.looks[-1].active.values()) == users)
            fill(disk)
            before = run.account().count("done")
            os.kill(workers_of(supervisors()[0])[0], signal.SIGKILL)
            await run.until(lambda run: run.account().worker("worker_lost_users") > 0)
            assert run.account().count("done") >= before
            (disk / "filler").unlink()
            await run.until(lambda run: sum(run.looks[-1].active.values()) == users)
            await run.ends()
            account = run.account()
    assert 0 <= server.log.count(path="/get") - account.count("done") <= users
    assert account.worker("worker_restarts") >= 1


@pytest.mark.truth
@pytest.mark.timeout(120)
async def test_a_full_disk_under_the_history_changes_no_count(tmp_path):
    """`trafficsim run` goes on without its history, says so, and counts what the target received."""
    flow = [{"action": "get", "request": {"get": "/get"}}, {"think": {"constant": "10ms"}}]
    with small_disk(tmp_path / "state", size=MiB) as disk, \
         Scripted([Route(path="/healthz"), Route(path="/get", delay_s=0.005)]) as server:  # fmt: skip
        file = tmp_path / "load.yaml"
        document = a_document(server.url, archetypes=[{"name": "a", "flow": flow}], users=20, duration="8s")
        file.write_text(yaml.safe_dump(document))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trafficsim_operator.cli.main", "run", str(file), "--history", str(disk / "history"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(50):
            while not server.log.count(path="/get"):
                await asyncio.sleep(0.1)
            fill(disk)
            out, said = await process.communicate()
    assert 0 == process.returncode
    assert b"the history is kept no longer" in said
    received = server.log.count(path="/get")
    assert received > 1000
    (counted,) = re.findall(r"^run +(\S+(?: \d{3})*) requests", out.decode().replace("\u202f", " "), re.MULTILINE)
    assert received == int(counted.replace(" ", ""))


def wall_of(address: str) -> int:
    """Return what a runner's clock shows, in ms."""
    with urllib.request.urlopen(f"http://{address}/v1/acknowledgement", timeout=5) as answer:
        return int(json.load(answer)["clockMs"])


async def with_steps(tmp_path: Path, *steps: int, **load: object) -> None:
    """The runners' wall clock is set to each of *steps* (s ahead) for two seconds."""
    clock = SteppedClock(tmp_path / "clock")

    async def meanwhile(run: Run) -> None:
        for step in steps:
            clock.set(step)
            seen = await asyncio.to_thread(wall_of, run.addresses[0])
            assert abs(seen - run.world.now_ms() - 1000 * step) < 1000
            await asyncio.sleep(2)

    await disturbed(tmp_path / "run", meanwhile, environ=clock.environ, **load)


async def test_a_clock_step_changes_no_count(tmp_path):
    """An hour ahead, and an hour behind: the run ends when its time is over."""
    await with_steps(tmp_path, HOUR_S, -HOUR_S, users=20, duration="7s")


@pytest.mark.truth
@pytest.mark.timeout(240)
async def test_clock_steps_change_no_count_of_two_runners(tmp_path):
    """Many of them, of seconds to a day."""
    steps = (1, -1, 10, 0, 60, -60, HOUR_S, 0, -24 * HOUR_S, 24 * HOUR_S)
    await with_steps(tmp_path, *steps, users=60, duration="28s", runners=2)
