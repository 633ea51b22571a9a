"""
A node that is not ready any more, on a real API server and its node controller: nobody there hears what is deleted.

Three nodes with room for one runner each: two are in use, the third is for the replacement.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.operator_process import IMAGE, a_shop, an_operator
from cluster.operator_stand import client, install_kind, until
from cluster.test_story import POLICY, RUNNER, Stage
from levels import unavailable
from trafficsim_api.protocol import PORT, Acknowledgement
from trafficsim_api.units import parse_instant
from trafficsim_operator.kube import PODS
from trafficsim_operator.testing import ProcessKubelet, Unavailable

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(180)]

USERS = 200


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


@dataclass(kw_only=True)
class Nodes:
    """The stage, its nodes by name, and the runner whose node goes away."""

    stage: Stage
    by_name: dict[str, ProcessKubelet]

    async def begin(self) -> dict[str, Acknowledgement]:
        """Let two runners have all users."""
        await self.stage.apply(users=USERS, warmUp="1s", scaling={"minRunners": 2, "maxRunners": 2})
        await self.stage.phase("Running")
        return await self.stage.settled(USERS, 2)

    async def lose_the_node_of(self, pod: str) -> ProcessKubelet:
        """Disconnect the node of *pod* and return it; its pods are marked as the node controller would."""
        found = (await self.stage.pods())[pod]
        node = self.by_name[found["spec"]["nodeName"]]
        await node.disconnect()

        seen = (await self.stage.pods())[pod]["status"]["conditions"]
        conditions = {condition["type"]: condition["status"] for condition in seen}
        assert ("False", "True") == (conditions["Ready"], conditions["ContainersReady"])
        return node

    async def delete(self, pod: str, grace_s: int) -> str:
        """Delete *pod*, which nobody on its node hears; return when its grace ends."""
        await self.stage.kube("delete", "pod", pod, f"--grace-period={grace_s}", "--wait=false")
        found = await self.stage.api.get(PODS, self.stage.namespace, pod)
        assert found is not None
        end: str = found["metadata"]["deletionTimestamp"]
        return end

    async def run(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.stage.status())["run"]
        return found

    async def events(self, reason: str) -> list[str]:
        found = await self.stage.kube("get", "events", "-o", "json", "--field-selector", f"reason={reason}")
        return [event["message"] for event in found["items"]]


@pytest.fixture
async def nodes(control_plane, namespace, kube, tmp_path: Path) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        kubelets = []
        for number in range(3):
            kubelet = ProcessKubelet(
                control_plane.kubeconfig,
                images={IMAGE: RUNNER},
                namespaces=[namespace],
                node=f"node-{number}-{namespace}",
                capacity={"cpu": "8", "memory": "8Gi", "ephemeral-storage": "1Ti", "pods": "1"},
                directory=tmp_path / f"node-{number}",
            )
            try:
                await kubelet.start()
            except Unavailable as error:
                unavailable("control-plane", error)
            stack.push_async_callback(kubelet.stop)
            kubelets.append(kubelet)
        api = await stack.enter_async_context(client(control_plane))
        shop = await stack.enter_async_context(a_shop(tmp_path))
        operator = await stack.enter_async_context(an_operator(control_plane, namespace, tmp_path, policy=POLICY))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=5))
        await operator.start()
        stage = Stage(
            api=api, kube=kube, namespace=namespace, operator=operator, kubelet=kubelets[0], shop=shop, http=http
        )
        yield Nodes(stage=stage, by_name={kubelet.node: kubelet for kubelet in kubelets})
        print(f"--- {operator.log.name}\n{operator.log.read_text()[-5000:]}")
        assert [] == operator.errors()


async def test_a_silent_runner_there_keeps_its_users_until_its_grace_is_over(nodes: Nodes) -> None:
    """Nobody takes its users before; then it counts as lost, double load is possible, and the run Inconclusive."""
    held = await nodes.begin()
    victim, other = held
    node = await nodes.lose_the_node_of(victim)
    node.stop_answering(victim, everything=True)
    grace_ends = await nodes.delete(victim, grace_s=1)

    async def others() -> tuple[int, int]:
        """Return the users of the others, and the losses on record; in this order, since the record comes first."""
        acks = await nodes.stage.acknowledgements()
        users = sum(len(ack.held) for name, ack in acks.items() if name != victim)
        return users, (await nodes.run()).get("lostRunners", 0)

    def is_over(seen: tuple[int, int]) -> bool:
        users, lost = seen
        assert lost or users <= len(held[other].held), "somebody took users that may still be at work"
        return users == USERS

    await until(others, is_over, 60, "others have its users")
    (lost,) = (await nodes.run())["lost"]
    assert (victim, len(held[victim].held), True) == (lost["name"], lost["users"], lost["endUnseen"])
    assert parse_instant(lost["at"]) >= parse_instant(grace_ends) + 10_000
    (said,) = await nodes.events("PossibleDoubleLoad")
    assert victim in said
    command = json.dumps({"id": "1", "action": "stop"})
    await nodes.stage.kube("annotate", "tsim", "shop", f"trafficsim.io/command={command}")
    status = await nodes.stage.phase("Completed")
    assert "Inconclusive" == status["verdict"], status["verdictReason"]
    assert "PossibleDoubleLoad" == next(c["reason"] for c in status["conditions"] if c["type"] == "Passed")
    assert victim in status["verdictReason"]


async def test_a_runner_there_that_answers_gives_its_users_away(nodes: Nodes) -> None:
    """Its node does not hear that it is to end, so the operator tells it; nobody is lost, nor at work twice."""
    victim, _ = await nodes.begin()
    address = (await nodes.stage.ready())[victim]
    node = await nodes.lose_the_node_of(victim)
    await nodes.delete(victim, grace_s=120)

    async def told() -> Acknowledgement:
        answer = await nodes.stage.http.get(f"http://{address}:{PORT}/v1/acknowledgement")
        return Acknowledgement.model_validate_json(answer.content)

    ack = await until(told, lambda ack: ack.retire and ack.drained, 60, "it is told to drain")
    assert 0 == len(ack.held) + ack.active
    await nodes.stage.settled(USERS, 2)
    await node.connect()

    async def is_there() -> bool:
        return await nodes.stage.api.get(PODS, nodes.stage.namespace, victim) is not None

    await until(is_there, lambda there: not there, 40, "its node ends it")
    await nodes.stage.settled(USERS, 2)
    run = await nodes.run()
    assert (0, []) == (run.get("lostRunners", 0), run.get("lost", []))
