"""
Many simulations at once on the real API server: what an idle one costs, and that it costs that however many there are.

An idle one is suspended and has no runners. CPU is that of the operator's process, by the kernel's account; memory is
its PSS. What an idle one costs is the resync, so windows are whole resyncs.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.operator_process import IMAGE, Operator, Shop, a_shop, an_operator
from cluster.operator_stand import a_node, a_simulation, client, install_kind, until
from cluster.rollout_stand import RUNNER
from trafficsim_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    PODS,
    REPLICA_SETS,
    SIMULATIONS,
    KubeApi,
    Resource,
)
from trafficsim_operator.testing import ControlPlane

pytestmark = [pytest.mark.cluster]

POLICY: Final = {"targets": [{"cidr": "127.0.0.0/8"}], "maxUsers": 500, "maxRunners": 6}
_TICK: Final = os.sysconf("SC_CLK_TCK")
# Everything that the operator may write; its Lease is not among them.
WRITTEN: Final = (
    SIMULATIONS, DEPLOYMENTS, REPLICA_SETS, PODS, CONFIG_MAPS, EVENTS, Resource(plural="secrets", kind="Secret"),
)  # fmt: skip
_CALLS: Final = re.compile(
    r'^trafficsim_api_calls_total\{method="(\w+)",resource="(\w+)",status="\w+"\} (\S+)', re.MULTILINE
)
_LOOKS: Final = re.compile(r'^trafficsim_reconcile_seconds_bucket\{le="([^"]+)"\} (\S+)', re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane: ControlPlane) -> None:
    install_kind(control_plane)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the operator has spent and done until now."""

    at: float
    cpu_s: float
    pss_kib: int
    calls: Counter[tuple[str, str]]
    looks: Mapping[float, float]
    """How many looks took at most so many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What it cost between two readings."""

    seconds: float
    cpu_s: float
    pss_kib: int
    calls: Counter[tuple[str, str]]
    looks: Mapping[float, float]

    @property
    def cpu_ms_per_minute(self) -> float:
        return self.cpu_s * 1000 * 60 / self.seconds

    @property
    def writes(self) -> dict[tuple[str, str], int]:
        """Return the calls that change something, but for the Lease's."""
        return {key: n for key, n in self.calls.items() if key[0] != "GET" and key[1] != "leases"}

    def look_ms(self, quantile: float) -> float:
        """Return the upper edge of the bucket in which so many of the looks lie, ms."""
        wanted = quantile * self.looks[float("inf")]
        return 1000 * min(edge for edge, count in self.looks.items() if count >= wanted)


async def reading(operator: Operator) -> Reading:
    assert operator.process is not None
    proc = Path(f"/proc/{operator.process.pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    rollup = (proc / "smaps_rollup").read_text()
    page = await operator.text("/metrics")
    return Reading(
        at=time.monotonic(),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICK,
        pss_kib=int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0]),
        calls=_summed(_CALLS.findall(page)),
        looks={float(edge): float(count) for edge, count in _LOOKS.findall(page)},
    )


def _summed(rows: list[tuple[str, str, str]]) -> Counter[tuple[str, str]]:
    """Add up the calls of every status."""
    found: Counter[tuple[str, str]] = Counter()
    for method, resource, count in rows:
        found[method, resource] += int(float(count))
    return found


async def looks_of(operator: Operator) -> float:
    return (await reading(operator)).looks[float("inf")]


async def measured(operator: Operator, seconds: float) -> Interval:
    """Return what the operator costs in the next *seconds*: a window, not a condition."""
    before = await reading(operator)
    await asyncio.sleep(seconds)
    after = await reading(operator)
    return Interval(
        seconds=after.at - before.at,
        cpu_s=after.cpu_s - before.cpu_s,
        pss_kib=after.pss_kib,
        calls=after.calls - before.calls,
        looks={edge: count - before.looks.get(edge, 0) for edge, count in after.looks.items()},
    )


async def versions(api: KubeApi, namespace: str) -> dict[str, str]:
    """Return the version of every object there that the operator may write."""
    found = {}
    for resource in WRITTEN:
        for item in await api.list(resource, namespace):
            found[f"{resource.plural}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found


@dataclass(kw_only=True)
class Crowd:
    """The suspended simulations of a namespace, and the operator that serves them."""

    api: KubeApi
    operator: Operator
    namespace: str
    size: int = 0

    async def grown_to(self, size: int) -> None:
        """Make suspended simulations until there are *size*, all of them answered."""
        slots = asyncio.Semaphore(8)

        async def make(number: int) -> None:
            async with slots:
                await self.api.create(
                    SIMULATIONS, a_simulation(self.namespace, f"idle-{number}", suspend=True, users=300)
                )

        await asyncio.gather(*(make(number) for number in range(self.size, size)))
        self.size = size
        await until(self.phases, lambda seen: seen == {"Suspended": size}, 60 + size / 5, f"{size} are suspended")
        # Each is looked at once more, to tell what is known now; then there are only the looks of the resync.
        once_more = await looks_of(self.operator) + size
        await until(lambda: looks_of(self.operator), lambda looks: looks >= once_more, 120, "each was looked at twice")

    async def phases(self) -> dict[str, int]:
        """Return how many of the idle ones are in each phase."""
        listed = await self.api.list(SIMULATIONS, self.namespace)
        idle = [item for item in listed if item["metadata"]["name"].startswith("idle-")]
        return dict(Counter((item.get("status") or {}).get("phase", "") for item in idle))

    async def idle(self, seconds: float, windows: int) -> list[Interval]:
        """Return what the next *windows* cost, in which nothing at all is written."""
        before = await versions(self.api, self.namespace)
        found = [await measured(self.operator, seconds) for _ in range(windows)]
        assert before == await versions(self.api, self.namespace)
        assert [{}] * windows == [interval.writes for interval in found]
        return found

    async def answered_ms(self, times: int) -> list[float]:
        """Return how long the operator took to answer an edit, as its user sees it."""
        found = []
        for number in range(times):
            name = f"idle-{number * (self.size // times)}"
            began = time.monotonic()
            patch = {"spec": {"seed": number + 1}}
            edited = await self.api.merge(SIMULATIONS, self.namespace, name, patch, "user")
            generation = edited["metadata"]["generation"]

            async def answer(name: str = name) -> int:
                item = await self.api.get(SIMULATIONS, self.namespace, name)
                return int(((item or {}).get("status") or {}).get("observedGeneration") or 0)

            await until(
                answer, lambda seen, g=generation: seen >= g, 30, f"the edit of {name} is answered", every_s=0.01
            )
            found.append((time.monotonic() - began) * 1000)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the operator costs with *idle* suspended simulations, and *running* ones beside them."""

    idle: int
    windows: list[Interval]
    answers_ms: list[float]
    running: int = 0

    @property
    def cpu(self) -> float:
        """The least of the windows, ms a minute: what other processes cost it, by caches and clock, comes on top."""
        return min(w.cpu_ms_per_minute for w in self.windows)

    @property
    def spread(self) -> float:
        """How far equal windows lie apart, ms a minute: nothing is known better than that."""
        return max(w.cpu_ms_per_minute for w in self.windows) - min(w.cpu_ms_per_minute for w in self.windows)

    @property
    def pss_kib(self) -> int:
        return self.windows[-1].pss_kib

    def of_each(self, base: Row) -> tuple[float, float]:
        """Return the CPU (ms a minute) and the memory (KiB) of each idle simulation more than *base* has."""
        more = self.idle - base.idle
        return (self.cpu - base.cpu) / more, (self.pss_kib - base.pss_kib) / more


def table(rows: list[Row]) -> str:
    """Return the figures, a line for each size."""
    lines = [
        "  idle  running  CPU ms/min      ±  of each  PSS MiB  KiB each  looks/min  look p50, p99  answer p50, max"
    ]
    for row in rows:
        last = row.windows[-1]
        is_one_of_many = row.idle > rows[0].idle and not row.running
        cpu, kib = (f"{figure:.2f}" for figure in row.of_each(rows[0])) if is_one_of_many else ("", "")
        looks = last.looks[float("inf")] * 60 / last.seconds
        looked = f"{last.look_ms(0.5):.0f}, {last.look_ms(0.99):.0f} ms" if looks else ""
        answered = f"{statistics.median(row.answers_ms):.0f}, {max(row.answers_ms):.0f} ms"
        lines.append(
            f"{row.idle:>6} {row.running:>8} {row.cpu:>11.0f} {row.spread:>6.0f} {cpu:>8} {row.pss_kib / 1024:>8.1f}"
            f" {kib:>9} {looks:>10.0f} {looked:>14} {answered:>16}"
        )
    return "\n".join(lines)


def cost_is_flat(base: Row, few: Row, many: Row) -> None:
    """
    Each of *many* costs at most 1.3 times what each of *few* does, beyond what *base* costs.

    CPU: and what equal windows lie apart, divided by as many as it is the noise of. Memory: and 1 MiB, divided by the
    few: CPython takes memory from the kernel in arenas of that size, and a figure may be one off.
    """
    (cpu, kib), (cpu_of_many, kib_of_many) = few.of_each(base), many.of_each(base)
    noise = (few.spread + base.spread) / (few.idle - base.idle) + (many.spread + base.spread) / (many.idle - base.idle)
    assert cpu_of_many <= 1.3 * cpu + noise
    assert kib_of_many <= 1.3 * kib + 1024 / (few.idle - base.idle)


async def costs(crowd: Crowd, sizes: tuple[int, ...], seconds: float, windows: int) -> list[Row]:
    """Return what the operator costs with so many idle simulations; the first few have it load what it needs once."""
    rows = []
    for size in sizes:
        await crowd.grown_to(size)
        intervals = await crowd.idle(seconds, windows)
        rows.append(Row(idle=size, windows=intervals, answers_ms=await crowd.answered_ms(10)))
    return rows


@pytest.mark.timeout(300)
async def test_an_idle_simulation_costs_the_same_among_few_and_among_many(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """A hundred and three hundred; looked at every five seconds, so that a window of seconds has enough to measure."""
    async with client(control_plane) as api, an_operator(control_plane, namespace, tmp_path, policy=POLICY) as operator:
        operator.environ["TRAFFICSIM_RESYNC"] = "5"
        await operator.start()
        rows = await costs(Crowd(api=api, operator=operator, namespace=namespace), (10, 100, 300), 5, 2)
        print(table(rows))
        cost_is_flat(*rows)
        assert [] == operator.errors()


@pytest.mark.truth
@pytest.mark.timeout(4800)
async def test_a_thousand_idle_ones_and_fifty_that_run(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """The long form, `make many`: with the operator's settings as they are shipped."""
    async with (
        a_node(control_plane, namespace, tmp_path / "node", {IMAGE: RUNNER}),
        client(control_plane) as api,
        a_shop(tmp_path) as shop,
        an_operator(control_plane, namespace, tmp_path, policy=POLICY) as operator,
    ):
        await operator.start()
        crowd = Crowd(api=api, operator=operator, namespace=namespace)
        rows = await costs(crowd, (10, 100, 1000), 60, 2)
        print(table(rows))
        cost_is_flat(*rows)
        rows.append(await with_running(crowd, shop, 50))
        print(table(rows))
        await let_go(crowd, 50)
        assert [] == operator.errors()


def a_runner(namespace: str, number: int, shop: Shop) -> dict[str, Any]:
    """Return a simulation of two users who think for ten seconds, on a runner of a fifth of a core."""
    flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "10s"}}]
    return a_simulation(
        namespace,
        f"run-{number}",
        users=2,
        target={"url": shop.url, "healthPath": "/healthz"},
        archetypes=[{"name": "visitor", "flow": flow}],
        runner={"resources": {"limits": {"cpu": "200m", "memory": "256Mi"}}},
    )


async def with_running(crowd: Crowd, shop: Shop, count: int) -> Row:
    """Return what the operator costs while *count* simulations run; the idle ones are still not written to."""

    async def running() -> Counter[str]:
        listed = await crowd.api.list(SIMULATIONS, crowd.namespace)
        ours = [item for item in listed if item["metadata"]["name"].startswith("run-")]
        return Counter((item.get("status") or {}).get("phase", "") for item in ours)

    # Ten at a time: a hundred processes that all import at once would keep two cores busy past any deadline.
    for first in range(0, count, 10):
        for number in range(first, first + 10):
            await crowd.api.create(SIMULATIONS, a_runner(crowd.namespace, number, shop))
        await until(running, lambda seen, n=first + 10: seen == {"Running": n}, 600, f"{first + 10} run", every_s=1)
    before = await versions_of_idle(crowd)
    windows = [await measured(crowd.operator, 60) for _ in range(2)]
    assert before == await versions_of_idle(crowd)
    assert {"Running": count} == await running()
    assert shop.received("/users") > 0
    return Row(idle=crowd.size, running=count, windows=windows, answers_ms=await crowd.answered_ms(20))


async def versions_of_idle(crowd: Crowd) -> dict[str, str]:
    found = await versions(crowd.api, crowd.namespace)
    return {name: version for name, version in found.items() if name.startswith(f"{SIMULATIONS.plural}/idle-")}


async def let_go(crowd: Crowd, count: int) -> None:
    """Suspend those that ran: once their runners are gone, they are as idle as any, and nothing is written any more."""
    for number in range(count):
        patch = {"spec": {"suspend": True}}
        await crowd.api.merge(SIMULATIONS, crowd.namespace, f"run-{number}", patch, "user")

    async def pods() -> int:
        return len(await crowd.api.list(PODS, crowd.namespace))

    await until(pods, lambda seen: seen == 0, 240, "the runners of suspended ones are let go", every_s=1)

    async def quiet() -> bool:
        before = await versions(crowd.api, crowd.namespace)
        await asyncio.sleep(2)
        return before == await versions(crowd.api, crowd.namespace)

    await until(quiet, bool, 60, "their last figures are written")
    await crowd.idle(60, 1)
