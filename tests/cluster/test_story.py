"""
The whole story on a real API server: a user's kubectl, the operator as a process, runners as pods, a shop to go to.

Runner processes are small here (half a core), and users think long, so that two cores do for everything.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.operator_process import IMAGE, Operator, Shop, a_shop, an_operator
from cluster.operator_stand import a_node, client, install_kind, until
from trafficsim_api.layout import Layout
from trafficsim_api.protocol import PORT, Acknowledgement
from trafficsim_api.statistics import Answer, total
from trafficsim_operator.kube import CONFIG_MAPS, DEPLOYMENTS, PODS, SIMULATIONS, KubeApi
from trafficsim_operator.testing import Image, ProcessKubelet

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

POLICY = {"targets": [{"cidr": "127.0.0.0/8"}], "maxUsers": 5000, "maxRunners": 6}
RUNNER = Image(argv=(sys.executable, "-m", "trafficsim_runner"))
LABEL = "trafficsim.io/simulation"


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


@dataclass(kw_only=True)
class Stage:
    """Everybody in the story, and how to look at them."""

    api: KubeApi
    kube: Callable[..., Any]
    namespace: str
    operator: Operator
    kubelet: ProcessKubelet
    shop: Shop
    http: httpx.AsyncClient

    def a_file(self, **spec: Any) -> dict[str, Any]:
        """Return the user's file: everybody asks for the list, and thinks for ten seconds."""
        flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "10s"}}]
        return {
            "apiVersion": "trafficsim.io/v1alpha1",
            "kind": "TrafficSimulation",
            "metadata": {"name": "shop", "namespace": self.namespace},
            "spec": {
                "target": {"url": self.shop.url, "healthPath": "/healthz"},
                "profile": [{"ramp": {"to": "100%", "over": "5s"}}, {"hold": {"for": "1h"}}],
                "archetypes": [{"name": "visitor", "flow": flow}],
                "runner": {"resources": {"limits": {"cpu": "500m", "memory": "512Mi"}}},
                **spec,
            },
        }

    async def apply(self, **spec: Any) -> None:
        await self.kube("apply", "-f", "-", stdin=self.a_file(**spec))

    async def patch(self, **spec: Any) -> None:
        await self.kube("patch", "tsim", "shop", "--type=merge", "-p", json.dumps({"spec": spec}))

    async def status(self) -> dict[str, Any]:
        found = await self.api.get(SIMULATIONS, self.namespace, "shop")
        return (found or {}).get("status") or {}

    async def phase(self, phase: str, patience_s: float = 40) -> dict[str, Any]:
        return await until(self.status, lambda status: status.get("phase") == phase, patience_s, f"it is {phase}")

    async def pods(self) -> dict[str, dict[str, Any]]:
        """Return the runners' pods that are not leaving."""
        found = await self.api.list(PODS, self.namespace, {LABEL: "shop"})
        return {p["metadata"]["name"]: p for p in found if not p["metadata"].get("deletionTimestamp")}

    async def ready(self) -> dict[str, str]:
        """Return name → address of the runners that are ready."""
        return {
            name: pod["status"]["podIP"]
            for name, pod in (await self.pods()).items()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        }

    async def acknowledgements(self) -> dict[str, Acknowledgement]:
        """Ask every ready runner itself what it does; who does not answer is left out."""
        found = {}
        for name, address in (await self.ready()).items():
            try:
                answer = await self.http.get(f"http://{address}:{PORT}/v1/acknowledgement")
            except httpx.HTTPError:
                continue
            found[name] = Acknowledgement.model_validate_json(answer.content)
        return found

    async def counted(self) -> dict[str, tuple[str, int]]:
        """Return name → (boot, requests since the runner began), from the runners themselves."""
        found = {}
        for name, ack in (await self.acknowledgements()).items():
            address = (await self.ready())[name]
            url = f"http://{address}:{PORT}/v1/statistics"
            answer = Answer.decode((await self.http.get(url, params={"boot": ack.boot, "since": 0})).content)
            layout: Layout = answer.layout
            found[name] = (answer.boot, total(layout, answer.total, "done"))
        return found

    async def settled(self, users: int, runners: int, patience_s: float = 40) -> dict[str, Acknowledgement]:
        """Wait until *runners* have acknowledged *users* between them and all of these are at work."""

        def holds(acks: dict[str, Acknowledgement]) -> bool:
            return (
                len(acks) == runners
                and all(ack.users == users and ack.settled for ack in acks.values())
                and sum(ack.active for ack in acks.values()) == users
            )

        return await until(self.acknowledgements, holds, patience_s, f"{users} users at work on {runners} runners")


@pytest.fixture
async def stage(control_plane, namespace, kube, tmp_path: Path) -> AsyncIterator[Stage]:
    """The operator is running; the node and the shop are there."""
    async with (
        a_node(control_plane, namespace, tmp_path / "node", {IMAGE: RUNNER}) as node,
        client(control_plane) as api,
        a_shop(tmp_path) as shop,
        an_operator(control_plane, namespace, tmp_path, policy=POLICY) as operator,
        httpx.AsyncClient(trust_env=False, timeout=5) as http,
    ):
        await operator.start()
        yield Stage(
            api=api, kube=kube, namespace=namespace, operator=operator, kubelet=node, shop=shop, http=http
        )  # fmt: skip
        # Shown when a test fails.
        for log in (operator.log, *(tmp_path / "node" / "logs").iterdir()):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")
        assert [] == operator.errors()


async def nothing_left(stage: Stage) -> list[str]:
    found = []
    for kind in (DEPLOYMENTS, PODS, CONFIG_MAPS):
        found += [item["metadata"]["name"] for item in await stage.api.list(kind, stage.namespace, {LABEL: "shop"})]
    return found


async def test_users_are_applied_edited_suspended_and_deleted(stage: Stage) -> None:
    """1200 users on 2 runners, 2001 on 3, 300 on 1, none, 300 again, gone; nobody who stays is disturbed."""
    await stage.apply(users=1200)
    await stage.phase("Running")
    await stage.settled(1200, 2)
    columns_are_filled(
        await until(
            lambda: stage.kube("get", "tsim", "shop"), lambda text: " 1200 " in text, 20, "kubectl shows the users"
        )
    )
    first = await stage.counted()

    await stage.kube("scale", "tsim/shop", "--replicas=2001")
    await until(stage.ready, lambda ready: len(ready) == 3, 30, "3 runners are ready")
    await acknowledged_within(stage, 2.0, users=2001, runners=3)
    await stage.settled(2001, 3)
    undisturbed(first, await stage.counted())

    second = await stage.counted()
    await stage.patch(users=300)
    await acknowledged_within(stage, 2.0, users=300, runners=None)
    await stage.settled(300, 1)
    third = await until(stage.counted, lambda found: len(found) == 1, 20, "one runner is left")
    undisturbed({name: second[name] for name in third}, third)

    await suspended_and_resumed(stage)

    await stage.kube("delete", "tsim", "shop", "--wait=false")
    await until(lambda: nothing_left(stage), lambda left: not left, 60, "nothing is left")
    await no_load(stage)


def columns_are_filled(text: str) -> None:
    """PHASE USERS RPS P95 ERR% TIER RUNNERS VERSION, and VERDICT while it runs empty."""
    head, row = (line.split() for line in text.strip().splitlines())
    assert ["NAME", "PHASE", "USERS", "RPS", "P95", "ERR%", "TIER", "RUNNERS", "VERSION"] == head[:9]
    assert ["shop", "Running", "1200"] == row[:3]
    assert float(row[3]) > 0
    assert row[4].endswith("s")
    assert ["0.00", "medium", "2", "test"] == row[5:9]


async def acknowledged_within(stage: Stage, seconds: float, *, users: int, runners: int | None) -> None:
    """Every ready runner knows of *users* within *seconds* from now."""

    def holds(acks: dict[str, Acknowledgement]) -> bool:
        return bool(acks) and len(acks) == (runners or len(acks)) and all(ack.users == users for ack in acks.values())

    began = time.monotonic()
    await until(stage.acknowledgements, holds, 20, f"{users} are acknowledged")
    assert time.monotonic() - began <= seconds


def undisturbed(before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]) -> None:
    """Whoever was there is still there, was not restarted, and has counted on."""
    assert before
    for name, (boot, requests) in before.items():
        assert after[name][0] == boot
        assert after[name][1] >= requests


async def no_load(stage: Stage) -> None:
    """The shop, which writes its account every second, receives nothing for two seconds."""
    await asyncio.sleep(1.5)
    before = stage.shop.received("/users")
    await asyncio.sleep(2)
    assert before == stage.shop.received("/users")


async def suspended_and_resumed(stage: Stage) -> None:
    """No user is active while suspended, the runner stays, and counts on afterwards."""
    before = await stage.counted()
    await stage.patch(suspend=True)
    await stage.phase("Suspended")
    await until(
        stage.acknowledgements,
        lambda acks: bool(acks) and all(ack.active == 0 and ack.suspended for ack in acks.values()),
        30,
        "nobody is active",
    )
    await no_load(stage)
    await stage.patch(suspend=False)
    await stage.phase("Running")
    await stage.settled(300, 1)
    undisturbed(before, await stage.counted())


async def test_an_operator_that_is_killed_is_not_missed(stage: Stage) -> None:
    """A minute without it: the users go on as before, and afterwards the numbers are whole."""
    await stage.apply(users=300, duration="100s", warmUp="5s", profile=[{"ramp": {"to": "100%", "over": "2s"}}])
    await stage.phase("Running")
    before = await stage.settled(300, 1)
    stage.operator.kill()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        acks = await stage.acknowledgements()
        assert {name: ack.boot for name, ack in before.items()} == {name: ack.boot for name, ack in acks.items()}
        assert 300 == sum(ack.active for ack in acks.values())
        await asyncio.sleep(1)
    await stage.operator.start()
    # The boots are compared while the users are still on: at the end the runner goes.
    after = await stage.settled(300, 1)
    assert {name: ack.boot for name, ack in before.items()} == {name: ack.boot for name, ack in after.items()}
    status = await stage.phase("Completed", 90)
    assert () == tuple(status["accounts"].get("missing", ()))
    received = await until(
        lambda: asyncio.to_thread(stage.shop.received, "/users"),
        lambda n: n >= status["accounts"]["requests"],
        5,
        "all",
    )
    assert received == status["accounts"]["requests"]


async def test_what_others_change_is_put_right(stage: Stage) -> None:
    """Replicas, the image, the Deployment itself: it is as it was, and told; the runner that was there stays."""
    await stage.apply(users=100)
    await stage.phase("Running")
    before = await stage.counted() if await stage.settled(100, 1) else {}
    [deployment] = [d["metadata"]["name"] for d in await stage.api.list(DEPLOYMENTS, stage.namespace, {LABEL: "shop"})]

    async def shape() -> tuple[int, str]:
        found = await stage.api.get(DEPLOYMENTS, stage.namespace, deployment)
        if found is None:
            return 0, ""
        return found["spec"]["replicas"], found["spec"]["template"]["spec"]["containers"][0]["image"]

    await stage.kube("scale", "deployment", deployment, "--replicas=3")
    await until(shape, lambda found: found == (1, IMAGE), 15, "the replicas are put right")
    await stage.kube("set", "image", f"deployment/{deployment}", "runner=evil:1")
    await until(shape, lambda found: found == (1, IMAGE), 15, "the image is put right")
    await stage.settled(100, 1)
    undisturbed(before, await stage.counted())

    await stage.kube("delete", "deployment", deployment)
    await until(shape, lambda found: found == (1, IMAGE), 20, "the Deployment is there again")
    await stage.settled(100, 1, 60)


async def test_runners_that_die_are_replaced(stage: Stage) -> None:
    """A container that is killed goes on with its places; a pod that is gone is replaced, and the loss is told."""
    await stage.apply(users=600)
    await stage.phase("Running")
    before = await stage.settled(600, 2)
    first, second = before
    stage.kubelet.kill(first)
    acks = await until(
        stage.acknowledgements,
        lambda acks: first in acks and acks[first].boot != before[first].boot,
        30,
        "the container is there again",
    )
    assert acks[second].boot == before[second].boot
    assert set(before) == set(await stage.settled(600, 2))

    await stage.kube("delete", "pod", second, "--grace-period=0", "--force")
    await until(stage.ready, lambda ready: len(ready) == 2 and second not in ready, 60, "another runner is ready")
    await stage.settled(600, 2, 60)
    lost = await until(stage.status, lambda status: status["run"].get("lostRunners", 0) > 0, 20, "the loss is told")
    assert "Running" == lost["phase"]
    events = await stage.kube("get", "events", "-o", "json", "--field-selector", "reason=RunnerLost")
    assert events["items"]


async def test_a_rejected_file_names_its_field(stage: Stage) -> None:
    """What the schema can say, kubectl says; what it cannot, and what the policy forbids, stands in Accepted."""
    said = await stage.kube("apply", "-f", "-", stdin=stage.a_file(users=-1), check=False)
    assert "spec.users" in said
    said = await stage.kube("apply", "-f", "-", stdin=stage.a_file(usrs=5), check=False)
    assert "spec.usrs" in said

    async def refusal() -> str:
        found = [c for c in (await stage.status()).get("conditions", ()) if c["type"] == "Accepted"]
        return found[0]["message"] if found and found[0]["status"] == "False" else ""

    repeat = {"repeat": {"times": "5..2", "flow": [{"request": {"get": "/"}}]}}
    await stage.apply(archetypes=[{"name": "visitor", "flow": [repeat]}])
    message = await until(refusal, bool, 20, "it is refused")
    assert "archetypes[0].flow[0].repeat.times" in message
    await stage.apply(users=5001)
    message = await until(refusal, lambda text: "5001" in text, 20, "the policy refuses it")
    assert "users" in message
    await stage.apply(users=20)
    await stage.phase("Running")


async def test_the_command_line_waits_stops_and_runs_again(stage: Stage, control_plane) -> None:
    """`wait` ends with the verdict's code, `stop` ends a run early, `rerun` begins the next one."""

    async def trafficsim(*arguments: str) -> tuple[int, dict[str, Any]]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trafficsim_operator.cli.main", *arguments, "--json",
            "--kubeconfig", str(control_plane.kubeconfig), "-n", stage.namespace,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, json.loads(out) if out else {"error": err.decode()}

    quick = [{"ramp": {"to": "100%", "over": "1s"}}]
    flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "1s"}}]
    spec = {
        "users": 30, "duration": "20s", "warmUp": "3s", "profile": quick, "thresholds": [{"rule": "error_rate < 1%"}],
        "archetypes": [{"name": "visitor", "flow": flow}],
    }  # fmt: skip
    await stage.apply(**spec)
    code, answer = await trafficsim("wait", "shop", "--timeout", "90s")
    assert (0, "Passed") == (code, answer["verdict"]), answer
    code, answer = await trafficsim("stop", "shop")
    assert (3, "Refused") == (code, answer["result"]), answer
    code, answer = await trafficsim("rerun", "shop")
    assert (0, "Done") == (code, answer["result"]), answer
    await stage.phase("Running")
    code, answer = await trafficsim("get", "shop")
    assert 2 == answer["status"]["run"]["id"]
    code, answer = await trafficsim("stop", "shop")
    assert (0, "Done") == (code, answer["result"]), answer
    code, answer = await trafficsim("wait", "shop", "--timeout", "60s")
    assert (2, "Inconclusive") == (code, answer["verdict"]), answer
    code, answer = await trafficsim("wait", "nobody")
    assert 3 == code


async def test_setup_and_teardown_are_done_once(stage: Stage) -> None:
    """The operator is killed in the midst of setup, a runner and the operator after it: each request comes once."""
    order = {"request": {"post": "/orders", "json": {"item": "umbrella", "count": 1}}, "save": {"order": "json.id"}}
    login = {"request": {"post": "/auth/login", "json": {"user": "admin"}}, "save": {"token": "json.token"}}
    profile = {"request": {"get": "/users/{{user.id}}", "headers": {"authorization": "Bearer {{token}}"}}}
    await stage.apply(
        users=40,
        warmUp="2s",
        profile=[{"ramp": {"to": "100%", "over": "1s"}}],
        scaling={"minRunners": 2},
        setup={"flow": [login, {"think": {"constant": "6s"}}, order]},
        archetypes=[{"name": "visitor", "flow": [profile, {"think": {"constant": "1s"}}]}],
        teardown={"flow": [{"request": {"delete": "/orders/{{order}}"}, "expect": {"status": 204}}]},
    )

    async def setup() -> dict[str, Any]:
        found: dict[str, Any] = ((await stage.status()).get("run") or {}).get("setup") or {}
        return found

    ordered = await until(setup, bool, 60, "setup is ordered")
    await until(lambda: asyncio.to_thread(stage.shop.received, "/auth/login"), bool, 10, "setup has begun")
    stage.operator.kill()
    await stage.operator.start()
    done = await until(setup, lambda found: found.get("state") == "Done", 30, "setup is done")
    assert (ordered["uid"], 2, 2) == (done["uid"], done["requests"], done["saved"])
    await stage.settled(40, 2)
    stage.operator.kill()
    await stage.kube("delete", "pod", done["runner"], "--wait=false")
    await stage.operator.start()

    async def others() -> dict[str, Acknowledgement]:
        return {name: ack for name, ack in (await stage.acknowledgements()).items() if name != done["runner"]}

    await until(others, lambda acks: len(acks) == 2 and all(ack.active for ack in acks.values()), 60, "it is replaced")
    await stage.patch(suspend=True)
    await stage.phase("Suspended")
    await stage.patch(suspend=False)
    await stage.phase("Running")
    await stage.kube("annotate", "tsim", "shop", 'trafficsim.io/command={"id": "1", "action": "stop"}')
    status = await stage.phase("Completed", 90)
    assert "Done" == status["run"]["teardown"]["state"], status["run"]["teardown"]

    async def by_the_shop() -> dict[str, int]:
        found: dict[str, int] = json.loads(await asyncio.to_thread(stage.shop.log.read_text))["counts"]
        return found

    # Its log is written now and then.
    counts = await until(by_the_shop, lambda found: "DELETE /orders/{id} 204" in found, 10, "the order is gone")
    assert (1, 1, 1) == tuple(
        counts[key] for key in ("POST /auth/login 200", "POST /orders 201", "DELETE /orders/{id} 204")
    )
    assert not [key for key in counts if key.endswith(" 401")], "every user begins with what setup saved"
    assert counts["GET /users/{id} 200"] > 40
    [kept] = [
        item["data"]["1-setup"]
        for item in await stage.api.list(CONFIG_MAPS, stage.namespace, {LABEL: "shop"})
        if item["metadata"]["name"].endswith("-saved")
    ]
    assert "token" not in kept + json.dumps(status["run"])


async def test_rows_come_from_a_config_map(stage: Stage) -> None:
    """Awaited with the cause named, then each user has its own row; a change of the ConfigMap reaches users at work."""
    await stage.apply(
        users=2,
        warmUp="1s",
        profile=[{"ramp": {"to": "100%", "over": "1s"}}],
        data=[{"name": "pages", "mode": "unique", "from": {"configMap": {"name": "pages", "key": "pages.csv"}}}],
        archetypes=[
            {"name": "reader", "flow": [{"request": {"get": "/{{data.pages.path}}"}}, {"think": {"constant": "1s"}}]}
        ],
    )
    cause = f"data[0].from.configMap: there is no ConfigMap pages in namespace {stage.namespace}"
    await until(stage.status, lambda status: status.get("message") == cause, 30, "the cause is named")
    assert "Pending" == (await stage.status())["phase"]
    await stage.kube("create", "configmap", "pages", "--from-literal=pages.csv=path\nusers\nhealthz\n")
    await stage.settled(2, 1)

    def asked(endpoint: str) -> Callable[[], Any]:
        return lambda: asyncio.to_thread(stage.shop.received, endpoint)

    await until(asked("/users"), lambda count: count > 2, 20, "user 0 has row 0")
    assert 0 == await asked("/orders")()
    patch = json.dumps({"data": {"pages.csv": "path\norders\nhealthz\n"}})
    await stage.kube("patch", "configmap", "pages", "-p", patch)
    await until(asked("/orders"), lambda count: count > 2, 40, "user 0 has the new row 0")
    await stage.patch(users=3)
    refused = "data[0]: unique needs a row for each user: 2 rows are too few for 3 users"

    async def accepted() -> str:
        conditions = (await stage.status()).get("conditions", ())
        return next((c["message"] for c in conditions if c["type"] == "Accepted"), "")

    await until(accepted, lambda message: message == refused, 20, "the edit is refused")
    await stage.settled(2, 1)
