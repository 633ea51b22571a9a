"""A generator that is asked for more than it can give says so, and one well within its means does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driven.machine import FOREIGN_CORE, Neighbours, served_first
from driven.run import Run, a_document, a_run, supervisors, workers_of
from targets.scripted import Route, Scripted
from trafficsim_api.names import Condition
from trafficsim_api.phases import Phase, Verdict

# An answer that costs the generator more than the target: it writes it ready made, the generator reads and checks it.
LARGE = json.dumps({"items": [{"id": number, "name": f"item {number}"} for number in range(1000)], "last": "end"})
ROUTES = (Route(path="/healthz"), Route(path="/large", body=LARGE), Route(path="/small"))


async def ask(tmp_path: Path, *, users: int, flow: list[dict], duration: str) -> tuple[Run, float]:
    """Run it with this machine to itself as far as it can be had; return the run, and the cores that others had."""
    with Scripted(ROUTES) as server:
        document = a_document(
            server.url, archetypes=[{"name": "only", "flow": flow}], users=users, duration=duration, warmUp="2s",
            scaling={"maxProcesses": 1}, thresholds=[{"rule": "error_rate < 1%"}],
            runner={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
        )  # fmt: skip
        async with a_run(document, directory=tmp_path) as run:
            await run.begins()
            ours = [server.pid, *supervisors(), *(pid for runner in supervisors() for pid in workers_of(runner))]
            with served_first(*ours):
                neighbours = Neighbours(ours)
                await run.until(lambda run: run.status.phase is Phase.DRAINING, within_s=120)
                others = neighbours.cores()
            await run.ends()
            assert 1 == run.status.sizing.processes
            return run, others


def condition(run: Run, kind: Condition) -> tuple[str, str]:
    found = next(c for c in run.status.conditions if c.type == kind)
    return found.status, found.reason


async def asked_too_much(tmp_path: Path, *, think: str | None, duration: str) -> None:
    """500 users want a page of 50 KB (every 20 ms, say) and have it checked: several cores' work for one process."""
    flow: list[dict] = [{"action": "large", "request": {"get": "/large"}, "expect": {"json": {"last": "end"}}}]
    if think:
        flow.append({"think": {"constant": think}})
    run, others = await ask(tmp_path, users=500, flow=flow, duration=duration)
    evidence = run.evidence()
    print(f"{evidence.bad_windows} of {evidence.windows} windows bad, others kept {others:.1f} cores busy")
    print(run.status.verdict_reason)
    assert Verdict.INCONCLUSIVE is run.status.verdict, run.status.verdict_reason
    assert evidence.saturated == run.status.verdict_reason
    assert evidence.bad_windows >= 2
    assert ("True", "GeneratorSaturated") == condition(run, Condition.GENERATOR_SATURATED)
    assert ("True", "Inconclusive") == condition(run, Condition.FINISHED)


async def asked_little(tmp_path: Path, *, duration: str) -> None:
    """20 users with pauses of 100 ms are a fraction of a core."""
    flow = [{"action": "small", "request": {"get": "/small"}}, {"think": {"constant": "100ms"}}]
    run, others = await ask(tmp_path, users=20, flow=flow, duration=duration)
    evidence = run.evidence()
    print(f"{evidence.bad_windows} of {evidence.windows} windows bad; {run.status.verdict_reason}")
    if evidence.bad_windows and others > FOREIGN_CORE:
        # Neighbours starved it, and it says so: that is as true.
        print(f"others kept {others:.1f} cores busy")
        saturated = evidence.bad_windows >= 2 and evidence.bad_windows * 20 > evidence.windows
        assert saturated == (run.status.verdict is Verdict.INCONCLUSIVE)
        return
    assert 0 == evidence.bad_windows
    assert Verdict.PASSED is run.status.verdict, run.status.verdict_reason
    assert evidence.windows >= 1
    assert "False" == condition(run, Condition.GENERATOR_SATURATED)[0]
    assert ("True", "Passed") == condition(run, Condition.FINISHED)


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_more_than_a_core_can_give_is_inconclusive(tmp_path):
    """Two bad windows of 10 s: Inconclusive, GeneratorSaturated."""
    await asked_too_much(tmp_path, think="20ms", duration="23s")


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_well_within_a_core_passes(tmp_path):
    """No bad window: Passed."""
    await asked_little(tmp_path, duration="13s")


@pytest.mark.truth
@pytest.mark.timeout(180)
@pytest.mark.parametrize("think", ["20ms", None], ids=["paced", "without-think-time"])
async def test_more_than_a_core_can_give_for_longer_is_inconclusive(tmp_path, think):
    """The same over four windows; without think time nobody is late, it is the CPU that tells."""
    await asked_too_much(tmp_path, think=think, duration="43s")


@pytest.mark.truth
@pytest.mark.timeout(180)
async def test_well_within_a_core_for_a_minute_passes(tmp_path):
    """The same over six windows."""
    await asked_little(tmp_path, duration="63s")
