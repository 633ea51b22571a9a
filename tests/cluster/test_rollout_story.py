"""
Rollouts on a real API server: the operator as a process, runners of several versions as pods, a shop to go to.

The stories are told side by side, four at a time, each about a simulation of its own: a rollout is mostly waiting. Each
test awaits its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import httpx
import pytest
import pytest_asyncio

from cluster.conftest import Kubectl, a_namespace
from cluster.operator_process import IMAGE, Operator, Shop, a_shop, an_operator
from cluster.operator_stand import client, install_kind, until
from cluster.rollout_stand import (
    CRASHING,
    FEW,
    IMAGES,
    LABEL,
    MANY,
    PATIENCE_S,
    POLICY,
    TESTS,
    Subject,
    condition,
    never_too_many,
    nobody_was_lost,
    revision_in,
)
from levels import unavailable
from trafficsim_operator.kube import CONFIG_MAPS, DEPLOYMENTS, PODS, KubeApi
from trafficsim_operator.testing import ControlPlane, ProcessKubelet, Unavailable

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]
_AT_ONCE: Final = 4


@dataclass(kw_only=True)
class Stand:
    """Everybody in the stories. The operator of one namespace lives, that of the other is killed again and again."""

    control_plane: ControlPlane
    api: KubeApi
    http: httpx.AsyncClient
    kubelet: ProcessKubelet
    shop: Shop
    operators: dict[str, Operator]

    def simulation(self, name: str, users: int = FEW, *, mortal: bool = False) -> Subject:
        namespace = list(self.operators)[mortal]
        return Subject(
            api=self.api,
            kubectl=Kubectl(self.control_plane, namespace),
            kubelet=self.kubelet,
            kubeconfig=self.control_plane.kubeconfig,
            operator=self.operators[namespace],
            http=self.http,
            shop=self.shop,
            name=name,
            namespace=namespace,
            users=users,
        )


Story = Callable[[Stand], Awaitable[None]]
STORIES: dict[str, Story] = {}


def story(tell: Story) -> Story:
    """Have *tell* told beside the others."""
    STORIES[tell.__name__] = tell
    return tell


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    directory = tmp_path_factory.mktemp("rollouts")
    install_kind(control_plane)
    async with AsyncExitStack() as stack:
        namespaces = [stack.enter_context(a_namespace(control_plane)) for _ in range(2)]
        kubelet = ProcessKubelet(
            control_plane.kubeconfig,
            images=IMAGES,
            namespaces=namespaces,
            node=f"process-node-{namespaces[0]}",
            directory=directory / "node",
        )
        try:
            await stack.enter_async_context(kubelet)
        except Unavailable as error:
            unavailable("control-plane", error)
        operators = {}
        for namespace in namespaces:
            place = directory / namespace
            place.mkdir()
            operators[namespace] = await stack.enter_async_context(
                an_operator(control_plane, namespace, place, policy=POLICY)
            )
        living, mortal = operators.values()
        mortal.module, mortal.environ["PYTHONPATH"] = "cluster.dying_operator", str(TESTS)
        mortal.log.touch()
        await living.start()
        yield Stand(
            control_plane=control_plane,
            api=await stack.enter_async_context(client(control_plane)),
            http=await stack.enter_async_context(httpx.AsyncClient(trust_env=False)),
            kubelet=kubelet,
            shop=await stack.enter_async_context(a_shop(directory)),
            operators=operators,
        )
        for log in (living.log, mortal.log, *(directory / "node" / "logs").iterdir()):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")
        assert [] == living.errors() + mortal.errors()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(stand: Stand, request: pytest.FixtureRequest) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Begin every story that is asked for."""
    chosen = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if item.path == request.path and isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    room = asyncio.Semaphore(_AT_ONCE)

    async def tell(name: str) -> None:
        async with room:
            await STORIES[name](stand)

    tasks = {name: asyncio.create_task(tell(name), name=name) for name in chosen}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@story
async def the_operator_is_killed_in_every_phase(stand: Stand) -> None:
    """Each time right after the phase is on record, before anything is done by it; the next one takes it to its end."""
    shop = stand.simulation("mortal", mortal=True)
    operator = shop.operator
    await operator.start()
    rollout = {"steps": [{"percent": 50}, {"percent": 100}], "dwell": "3s"}
    first = await shop.begin(rollout)
    operator.kill()

    async def dies_in(phase: str) -> None:
        operator.environ["DIES_IN"] = phase
        operator.launch()
        process = operator.process
        assert process is not None
        await until(
            lambda: asyncio.to_thread(process.poll), lambda code: code is not None, PATIENCE_S, f"it dies in {phase}"
        )
        assert phase == (await shop.rollout())["phase"]

    async with shop.watched() as seen:
        await shop.ask_for("2")
        for phase in ("Preparing", "Shifting", "Analyzing", "Promoting", "Retiring"):
            await dies_in(phase)
        operator.environ["DIES_IN"] = ""
        await operator.start()
        second = revision_in(await shop.promoted(1), "stable")
        assert first != second
        await shop.all_on(second)
        operator.kill()

        await shop.ask_for("3", fault="checks")
        for phase in ("Aborting", "Rejected"):
            await dies_in(phase)
        operator.environ["DIES_IN"] = ""
        await operator.start()
        assert "success" in await shop.rejected(2)
        await shop.all_on(second)

        await shop.ask_for("4")
        await shop.until_in("Analyzing", step=0)
        operator.kill()
        await shop.ask_for("5")
        await dies_in("Superseding")
        operator.environ["DIES_IN"] = ""
        await operator.start()
        fifth = revision_in(await shop.promoted(4), "stable")
        await shop.all_on(fifth)
    nobody_was_lost(seen, shop.users)


@story
async def a_good_version_is_promoted(stand: Stand) -> None:
    """Through all steps, with every user at work at every look, and at most the tenth more that changes hands."""
    shop = stand.simulation("good", MANY)
    blue = await shop.begin()
    async with shop.watched() as seen:
        await shop.ask_for("2")
        status = await shop.promoted(1)
    green = revision_in(status, "stable")
    assert green not in ("", blue)
    assert [10, 25, 50, 75, 100] == sorted({look.percent for look in seen if look.phase == "Analyzing"})
    nobody_was_lost(seen, shop.users)
    never_too_many(seen, shop.users)
    assert {"RolloutStarted", "RolloutStep", "StepPassed", "Promoted"} <= await shop.events()
    await shop.all_on(green)
    await until(shop.deployments, lambda found: found == {green}, PATIENCE_S, "the old version's Deployment is gone")
    assert "True" == condition(await shop.status(), "Ready")["status"]


@story
async def one_check_in_five_fails(stand: Stand) -> None:
    """Rolled back at the first step with the numbers, not tried again by itself, and again when somebody asks."""
    shop = stand.simulation("failing", MANY)
    blue = await shop.begin()
    async with shop.watched() as seen:
        await shop.ask_for("2", fault="checks")
        message = await shop.rejected(1)
        await shop.all_on(blue)
    for part in ("rejected at 10%", "success", "blue 100.0%", "n="):
        assert part in message
    assert {0, 10} == {look.percent for look in seen if look.phase != "Rejected"}
    nobody_was_lost(seen, shop.users)
    # Whatever else is edited, it stays rejected.
    shop.users += 1
    await shop.patch(users=shop.users)
    await shop.all_on(blue)
    assert message == await shop.rejected(1)
    assert {"result": "Done"}.items() <= (await shop.command("retry", attempt=1)).items()
    await shop.rejected(2)
    await shop.all_on(blue)


@story
async def a_version_crashes_at_start(stand: Stand) -> None:
    """Rejected with what the pod says, before any user went to it."""
    shop = stand.simulation("crashing")
    blue = await shop.begin()
    async with shop.watched() as seen:
        await shop.ask_for("2", image=CRASHING)
        message = await shop.rejected(1)
    assert "exit code 7" in message
    assert "CandidateFailing" == (await shop.rollout())["reason"]
    nobody_was_lost(seen, shop.users)
    await shop.all_on(blue)


@story
async def a_version_goes_silent(stand: Stand) -> None:
    """After half of the users went to it: they come back without its word, and it is written off."""
    shop = stand.simulation("silent")
    blue = await shop.begin({"steps": [{"percent": 50}, {"percent": 100}]})
    await shop.ask_for("2")
    await shop.until_in("Analyzing", step=0)
    [green] = await shop.pods(revision_in(await shop.status(), "candidate"))
    stand.kubelet.stop_answering(green, shop.namespace, everything=True)
    await shop.rejected(1)
    assert "CandidateSilent" == (await shop.rollout())["reason"]
    await shop.all_on(blue)


@story
async def it_is_aborted_while_the_new_version_is_dead(stand: Stand) -> None:
    """Nothing of it runs any more, nor comes again: whoever was there is back on the old one."""
    shop = stand.simulation("dead")
    blue = await shop.begin({"steps": [{"percent": 50}, {"percent": 100}], "dwell": "50s"})
    image = "trafficsim/runner:vanishing"
    stand.kubelet.images[image] = IMAGES[IMAGE]
    await shop.ask_for("2", image=image)
    await shop.until_in("Analyzing", step=0)
    [green] = await shop.pods(revision_in(await shop.status(), "candidate"))
    del stand.kubelet.images[image]
    stand.kubelet.kill(green, shop.namespace)
    assert "Done" == (await shop.command("abort"))["result"]
    await shop.rejected(1)
    assert "Aborted" == (await shop.rollout())["reason"]
    await shop.all_on(blue)


@story
async def limits_are_broken(stand: Stand) -> None:
    """One request in five fails, though 5 % may; or takes 0.4 s where 0.2 s are allowed. None of the old one's does."""
    shop = stand.simulation("limited", MANY)
    target = {"url": stand.shop.url, "healthPath": "/healthz", "timeouts": {"request": "1s"}}
    blue = await shop.begin({"maxP95": "200ms"}, target=target)
    for attempt, fault, figure in ((1, "errors", "error_rate"), (2, "slow", "p95")):
        await shop.ask_for(fault, fault=fault)
        message = await shop.rejected(attempt)
        assert f"rejected at 10%: {figure} " in message
        await shop.all_on(blue)


@story
async def commands_are_answered(stand: Stand) -> None:
    """By annotation and on the command line; one for another attempt is refused, and so is what git has a say in."""
    shop = stand.simulation("commanded")
    rollout = {"steps": [{"percent": 10}, {"percent": 50}, {"percent": 100}], "dwell": "50s"}
    blue = await shop.begin(rollout)
    assert "Refused" == (await shop.command("promote"))["result"]
    await shop.ask_for("2")
    await shop.until_in("Analyzing", step=0)
    stale = await shop.command("abort", attempt=7)
    assert ("Refused", True) == (stale["result"], "rollout 7" in stale["reason"])

    await shop.order("pause")
    paused = await shop.until(lambda s: s["rollout"].get("pause") == "PausedByCommand", "it is paused")
    assert "True" == condition(paused, "RolloutPaused")["status"]
    assert "Done" == (await shop.command("resume", attempt=1))["result"]
    await shop.until(lambda s: not s["rollout"].get("pause"), "it goes on")

    await shop.patch(rollout=rollout | {"paused": True})
    await shop.until(lambda s: s["rollout"].get("pause") == "PausedBySpec", "the spec pauses it")
    refused = await shop.command("resume")
    assert ("Refused", True) == (refused["result"], "spec.rollout.paused" in refused["reason"])
    await shop.patch(rollout=rollout | {"paused": None})

    await shop.order("skip-step")
    await shop.until_in("Analyzing", step=1)
    await shop.order("abort")
    assert "abort" in (await shop.rejected(1)).lower()
    await shop.all_on(blue)

    await shop.order("retry")
    await shop.until_in("Analyzing", step=0)
    assert "Done" == (await shop.command("promote-full", attempt=2))["result"]
    await shop.all_on(revision_in(await shop.promoted(2), "stable"))


@story
async def it_waits_to_be_promoted_and_goes_back(stand: Stand) -> None:
    """After a step that says so, and after the last when autoPromote is false. The way back is one step, not held."""
    shop = stand.simulation("awaiting")
    steps = [{"percent": 50, "pause": True}, {"percent": 100}]
    blue = await shop.begin({"steps": steps, "autoPromote": False, "scaleDownDelay": "10m"})
    await shop.ask_for("2")
    await shop.until(lambda s: (s.get("rollout") or {}).get("pause") == "PausedAfterStep", "it waits after the step")
    assert "Done" == (await shop.command("promote"))["result"]
    await shop.until(lambda s: s["rollout"].get("pause") == "AwaitingPromotion", "it waits after the last step")
    await shop.order("promote")
    await shop.until_in("Retiring")
    green = await shop.stable()
    assert blue != green
    await shop.all_on(green)
    async with shop.watched() as seen:
        await shop.ask_for("1")
        await shop.until(lambda s: (s["rollout"]["phase"], s["rollout"]["attempt"]) == ("Retiring", 2), "it is back")
        await shop.all_on(blue)
    assert blue == await shop.stable()
    assert {look.percent for look in seen if look.phase != "Retiring"} <= {0, 100}
    nobody_was_lost(seen, shop.users)


@story
async def users_change_and_a_third_version_comes(stand: Stand) -> None:
    """Half of the new number goes to green in the same attempt; then the third takes the second's part."""
    shop = stand.simulation("edited")
    blue = await shop.begin({"steps": [{"percent": 50}, {"percent": 100}]})
    await shop.ask_for("2")
    await shop.until_in("Analyzing", step=0)
    second = revision_in(await shop.status(), "candidate")
    async with shop.watched() as seen:
        await shop.command("pause")
        before, shop.users = shop.users, 6
        await shop.patch(users=6)
        await shop.until_they_are(lambda found: found == {blue: 3, second: 3}, "half of 6 users are there")
        assert 1 == (await shop.rollout())["attempt"]
        await shop.ask_for("3")
        await shop.until(lambda s: revision_in(s, "candidate") not in ("", second), "the third is rolled out")
        status = await shop.promoted(2)
    nobody_was_lost(seen, before)
    third = revision_in(status, "stable")
    assert third not in (blue, second)
    await shop.all_on(third)
    await until(shop.deployments, lambda found: found == {third}, PATIENCE_S, "the others' Deployments are gone")


@story
async def it_is_suspended_resumed_and_deleted(stand: Stand) -> None:
    """Nobody is at work while it is suspended; the same attempt goes on afterwards. Deleted, nothing is left."""
    shop = stand.simulation("suspended")
    await shop.begin({"steps": [{"percent": 50}, {"percent": 100}]})
    await shop.ask_for("2")
    await shop.until_in("Analyzing", step=0)
    await shop.patch(suspend=True)
    await shop.until(lambda s: s["phase"] == "Suspended", "it is suspended")
    await shop.until_they_are(lambda found: not found, "nobody is at work")
    await shop.patch(suspend=False)
    status = await shop.promoted(1)
    await shop.all_on(revision_in(status, "stable"))

    await shop.ask_for("3")
    await shop.until_in("Shifting")
    await shop.kube("delete", "tsim", shop.name, "--wait=false")

    async def left() -> list[str]:
        kinds = (DEPLOYMENTS, PODS, CONFIG_MAPS)
        found = [await stand.api.list(kind, shop.namespace, {LABEL: shop.name}) for kind in kinds]
        return [item["metadata"]["name"] for items in found for item in items]

    await until(left, lambda names: not names, PATIENCE_S, "nothing is left")


@story
async def its_time_is_over(stand: Stand) -> None:
    """Its duration turns out to be over within a step: the run ends as ever, the old version is the one that counts."""
    shop = stand.simulation("ending")
    blue = await shop.begin({"steps": [{"percent": 50}, {"percent": 100}], "dwell": "50s"})
    await shop.ask_for("2")
    await shop.until_in("Analyzing", step=0)
    await shop.patch(duration="5s")
    status = await shop.until(lambda s: s["phase"] == "Completed", "it is over")
    assert (blue, "Stable", "SimulationEnded") == (
        revision_in(status, "stable"), status["rollout"]["phase"], status["rollout"]["reason"]
    )  # fmt: skip
    await shop.until_they_are(lambda found: not found, "nobody is at work")


@story
async def the_old_version_is_lost_and_the_new_one_changed(stand: Stand) -> None:
    """Blue is built again as the status has it, though the spec says green; what others changed in green is undone."""
    shop = stand.simulation("lost")
    blue = await shop.begin({"steps": [{"percent": 50}, {"percent": 100}], "dwell": "20s"})
    await shop.ask_for("2")
    await shop.until_in("Analyzing", step=0)
    green = revision_in(await shop.status(), "candidate")

    async def version_of(revision: str) -> tuple[str, str, str]:
        labels = {LABEL: shop.name, "trafficsim.io/revision": revision}
        for found in await stand.api.list(DEPLOYMENTS, shop.namespace, labels):
            container = found["spec"]["template"]["spec"]["containers"][0]
            env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
            return found["metadata"]["name"], container["image"], env["VERSION"]
        return "", "", ""

    name, _, _ = await version_of(green)
    await shop.kube("set", "image", f"deployment/{name}", "runner=evil:1")
    await until(lambda: version_of(green), lambda found: found[1:] == (IMAGE, "2"), PATIENCE_S, "green is put right")
    name, _, _ = await version_of(blue)
    await shop.kube("delete", "deployment", name)
    await until(lambda: version_of(blue), lambda found: found[1:] == (IMAGE, "1"), PATIENCE_S, "blue is there again")
    half = shop.users // 2
    await shop.until_they_are(lambda found: found == {blue: half, green: half}, "both have their half again")
    await shop.all_on(revision_in(await shop.promoted(1), "stable"))


@pytest.mark.parametrize("name", STORIES)
async def test_rollouts(told: dict[str, asyncio.Task[None]], name: str) -> None:
    await told[name]
