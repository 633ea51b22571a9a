"""
Two operators of the same simulations: one works, the other takes over, and no user notices.

Whoever ends without a word is followed after the Lease's 15 s; whoever is stopped as it should be, at once.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.operator_process import IMAGE, Operator, Shop, a_shop, an_operator, another
from cluster.operator_stand import a_node, client, install_kind, until
from trafficsim_api.protocol import PORT, Acknowledgement
from trafficsim_operator.kube import LEASES, PODS, SIMULATIONS, KubeApi
from trafficsim_operator.testing import Image

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(180)]

POLICY = {"targets": [{"cidr": "127.0.0.0/8"}], "maxUsers": 500, "maxRunners": 6}
RUNNER = Image(argv=(sys.executable, "-m", "trafficsim_runner"))
LABEL = "trafficsim.io/simulation"
LEASE = "trafficsim-operator"
USERS = 60
# The Lease's duration, and what a busy machine takes on top.
TAKEOVER_S = 15 + 15


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


@dataclass(kw_only=True)
class Stage:
    """Two operators, a node, a shop, and how to look at them."""

    api: KubeApi
    kube: Callable[..., Any]
    namespace: str
    one: Operator
    two: Operator
    shop: Shop
    http: httpx.AsyncClient

    async def begin(self, **spec: Any) -> None:
        """Apply sixty users on two runners, and wait until all are at work."""
        flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "1s"}}]
        body = {
            "apiVersion": SIMULATIONS.api_version,
            "kind": SIMULATIONS.kind,
            "metadata": {"name": "shop", "namespace": self.namespace},
            "spec": {
                "target": {"url": self.shop.url, "healthPath": "/healthz"},
                "users": USERS,
                "warmUp": "1s",
                "profile": [{"ramp": {"to": "100%", "over": "1s"}}, {"hold": {"for": "1h"}}],
                "archetypes": [{"name": "visitor", "flow": flow}],
                "scaling": {"minRunners": 2, "maxRunners": 2},
                "runner": {"resources": {"limits": {"cpu": "500m", "memory": "512Mi"}}},
                **spec,
            },
        }
        await self.kube("apply", "-f", "-", stdin=body)
        await self.at_work(USERS)

    async def patch(self, **spec: Any) -> None:
        await self.kube("patch", "tsim", "shop", "--type=merge", "-p", json.dumps({"spec": spec}))

    async def status(self) -> dict[str, Any]:
        found = await self.api.get(SIMULATIONS, self.namespace, "shop")
        return (found or {}).get("status") or {}

    async def acknowledgements(self) -> dict[str, Acknowledgement]:
        """Ask every runner itself what it does; who does not answer is left out."""
        found = {}
        for pod in await self.api.list(PODS, self.namespace, {LABEL: "shop"}):
            if not pod["status"].get("podIP"):
                continue
            try:
                answer = await self.http.get(f"http://{pod['status']['podIP']}:{PORT}/v1/acknowledgement")
            except httpx.HTTPError:
                continue
            found[pod["metadata"]["name"]] = Acknowledgement.model_validate_json(answer.content)
        return found

    async def at_work(self, users: int) -> dict[str, Acknowledgement]:
        def holds(acks: dict[str, Acknowledgement]) -> bool:
            return (
                len(acks) == 2
                and all(ack.settled and ack.users == users for ack in acks.values())
                and sum(ack.active for ack in acks.values()) == users
            )

        return await until(self.acknowledgements, holds, 60, f"{users} users are at work")

    async def holder(self) -> str:
        lease = await self.api.get(LEASES, self.namespace, LEASE)
        return ((lease or {}).get("spec") or {}).get("holderIdentity") or ""

    async def works(self, operator: Operator, patience_s: float) -> float:
        """Wait until *operator* works; return after how many seconds."""
        began = time.monotonic()

        async def leads() -> bool:
            return await gauge(operator, "trafficsim_operator_leader") == 1

        await until(leads, bool, patience_s, f"{operator.environ['POD_NAME']} works")
        assert (await self.holder()).startswith(operator.environ["POD_NAME"] + "_")
        return time.monotonic() - began

    async def unnoticed(self, what: asyncio.Task[Any], before: dict[str, Acknowledgement]) -> None:
        """See to it, until *what* is done, that every user is at work on the runner that it was on."""
        while not what.done():
            acks = await self.acknowledgements()
            assert {name: ack.boot for name, ack in before.items()} == {name: ack.boot for name, ack in acks.items()}
            assert {name: ack.places for name, ack in before.items()} == {n: ack.places for n, ack in acks.items()}
            assert USERS == sum(ack.active for ack in acks.values())
            await asyncio.sleep(0.2)
        await what

    async def fenced(self, before: dict[str, Acknowledgement]) -> dict[str, Acknowledgement]:
        """Wait until every runner has heard the new holder, which told it to hold what it held."""
        acks = await until(
            self.acknowledgements,
            lambda acks: acks.keys() == before.keys() and all(a.epoch > before[n].epoch for n, a in acks.items()),
            20,
            "the runners have heard the new holder",
        )
        assert {name: ack.places for name, ack in before.items()} == {name: ack.places for name, ack in acks.items()}
        return acks


async def gauge(operator: Operator, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", await operator.text("/metrics"), re.MULTILINE)
    assert found, name
    return float(found[1])


async def writes(operator: Operator) -> dict[str, float]:
    """Return how often the operator wrote to the API server, by kind."""
    pattern = r'^trafficsim_api_calls_total\{method="(?:POST|PUT|PATCH|DELETE)",resource="(\w+)",status="2.."\} (\S+)$'
    page = await operator.text("/metrics")
    found: dict[str, float] = {}
    for kind, count in re.findall(pattern, page, re.MULTILINE):
        found[kind] = found.get(kind, 0) + float(count)
    return found


@pytest.fixture
async def stage(control_plane, namespace, kube, tmp_path: Path) -> AsyncIterator[Stage]:
    """The first operator works, the second stands by."""
    async with (
        a_node(control_plane, namespace, tmp_path / "node", {IMAGE: RUNNER}),
        client(control_plane) as api,
        a_shop(tmp_path) as shop,
        an_operator(control_plane, namespace, tmp_path, policy=POLICY, lease=LEASE) as one,
        another(one) as two,
        httpx.AsyncClient(trust_env=False, timeout=5) as http,
    ):
        one.environ["STOPS_AT"] = str(tmp_path / "stop")
        found = Stage(api=api, kube=kube, namespace=namespace, one=one, two=two, shop=shop, http=http)
        yield found
        # Shown when a test fails.
        for log in (one.log, two.log, *(tmp_path / "node" / "logs").iterdir()):
            print(f"--- {log.name}\n{log.read_text()[-4000:] if log.exists() else ''}")


async def both_started(stage: Stage) -> None:
    await stage.one.start()
    await stage.works(stage.one, 20)
    await stage.two.start()


async def test_only_the_holder_works_and_a_stop_hands_over_at_once(stage: Stage) -> None:
    """The standby is ready and writes nothing; told to stop, the holder lets it begin within seconds."""
    await both_started(stage)
    await stage.begin()
    assert 0 == await gauge(stage.two, "trafficsim_operator_leader")
    assert {} == await writes(stage.two)
    assert {"trafficsimulations", "deployments", "leases"} <= (await writes(stage.one)).keys()
    for path in ("/healthz", "/readyz"):
        assert (200, 200) == (await stage.one.status(path), await stage.two.status(path))
    told = json.loads(await stage.one.text("/simulations"))["simulations"]
    assert [("shop", "Running")] == [(entry["name"], entry["phase"]) for entry in told]
    assert told == json.loads(await stage.two.text("/simulations"))["simulations"], "the standby asks the holder"

    before = await stage.at_work(USERS)
    stopping = asyncio.create_task(asyncio.to_thread(stage.one.stop))
    takeover = asyncio.create_task(stage.works(stage.two, 20))
    await stage.unnoticed(takeover, before)
    assert 0 == await stopping
    assert takeover.result() < 8, "it need not wait for the Lease to run out"
    await stage.fenced(before)
    assert 1 == await gauge(stage.two, "trafficsim_lease_transitions")
    await stage.patch(users=50)
    await stage.at_work(50)
    assert [] == stage.one.errors() + stage.two.errors()


async def test_a_holder_that_is_killed_is_followed_and_nothing_is_lost(stage: Stage) -> None:
    """15 s and a little later the other works; nobody was off meanwhile, and the account is the shop's own."""
    await both_started(stage)
    await stage.begin(duration="45s")
    before = await stage.at_work(USERS)
    stage.one.kill()
    takeover = asyncio.create_task(stage.works(stage.two, TAKEOVER_S))
    await stage.unnoticed(takeover, before)
    await stage.fenced(before)
    status = await until(stage.status, lambda found: found.get("phase") == "Completed", 90, "it is over")
    assert () == tuple(status["accounts"].get("missing", ()))
    assert 0 == status["run"].get("lostRunners", 0)

    async def received() -> int:
        return await asyncio.to_thread(stage.shop.received, "/users")

    counted = status["accounts"]["requests"]
    assert counted == await until(received, lambda count: count >= counted, 10, "the shop has told of all")
    assert [] == stage.two.errors()


@pytest.mark.parametrize("mandate", ["asked", "ignored"], ids=["it asks whether it may", "only the fence holds it"])
async def test_a_holder_that_was_stopped_does_no_harm_when_it_goes_on(stage: Stage, mandate: str) -> None:
    """
    It has put it on record that there are 90 users, and is stopped before it tells a runner; the other one takes over.

    Continued, it sends what it meant to: under an epoch that all runners are past. Then it ends itself.
    """
    stage.one.module, stage.one.environ["MANDATE"] = "cluster.stopping_operator", mandate
    stage.one.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    await both_started(stage)
    await stage.begin()
    before = await stage.at_work(USERS)
    Path(stage.one.environ["STOPS_AT"]).touch()
    await stage.patch(users=90)
    assert stage.one.process is not None
    state = Path(f"/proc/{stage.one.process.pid}/stat")

    async def stopped() -> str:
        return (await asyncio.to_thread(state.read_text)).rpartition(")")[2].split()[0]

    await until(stopped, lambda letter: letter == "T", 20, "the holder is stopped")
    on_record = (await stage.status())["epoch"]
    assert all(ack.epoch < on_record for ack in before.values())
    await stage.works(stage.two, TAKEOVER_S)
    await stage.at_work(90)
    await stage.patch(users=80)
    after = await stage.at_work(80)
    assert all(ack.epoch > on_record for ack in after.values())

    stage.one.process.send_signal(signal.SIGCONT)
    assert 4 == await asyncio.to_thread(stage.one.process.wait, 20), "it says by its code that the Lease was lost"
    again = await stage.at_work(80)
    assert {name: (ack.epoch, ack.places) for name, ack in after.items()} == {
        name: (ack.epoch, ack.places) for name, ack in again.items()
    }
    assert (await stage.holder()).startswith("operator-1_")
    told = [json.loads(line) for line in stage.one.log.read_text().splitlines() if line.startswith("{")]
    assert "the Lease was lost: the process ends" in [entry["message"] for entry in told]
    tried = [entry["error"] for entry in told if entry.get("action") == "Assign"]
    assert [True, True] == [("409: " if mandate == "ignored" else "not hold the Lease") in error for error in tried]
    assert [] == stage.two.errors()
