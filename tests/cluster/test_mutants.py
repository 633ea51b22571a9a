"""
Mutated resources on the real API server: each is refused there by the name of a field, or answered in `Accepted`.

None ends the operator, and none starts what the policy forbids.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.mutants import POLICY, Mutant, mutants, samples
from cluster.operator_process import IMAGE, Operator, an_operator
from cluster.operator_stand import client, install_kind, until
from trafficsim_api.document import load_spec
from trafficsim_api.errors import SpecError
from trafficsim_api.names import Label
from trafficsim_api.policy import Policy
from trafficsim_operator.fleet.lookup import HostLookups, host_and_port
from trafficsim_operator.kube import DEPLOYMENTS, SIMULATIONS, KubeApi, Object, allow_deep_json
from trafficsim_operator.plan.policy import judge
from trafficsim_operator.testing import ControlPlane

pytestmark = [pytest.mark.cluster]

WAVE = 100
# Of a whole wave, sent at once, on a machine that has other things to do; a second is usual.
ANSWER_S = 60.0
RULES = Policy.model_validate_json(json.dumps(POLICY))
HOSTS = HostLookups()


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane: ControlPlane) -> None:
    install_kind(control_plane)


@pytest.fixture(scope="module", autouse=True)
def deep_json() -> Iterator[None]:
    """These tests read what the operator reads, however deep."""
    before = sys.getrecursionlimit()
    allow_deep_json()
    yield
    sys.setrecursionlimit(before)


@dataclass(kw_only=True)
class Stand:
    """The API server as a client sees it that sends text, and the operator."""

    api: KubeApi
    http: httpx.AsyncClient
    operator: Operator
    namespace: str
    refused: Counter[int] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    started: int = 0

    @property
    def path(self) -> str:
        return SIMULATIONS.path(self.namespace)

    async def send(self, mutant: Mutant) -> httpx.Response:
        """Post the text, as `kubectl apply` (strict) or as a client does that asks for nothing."""
        query = {"fieldManager": "mutants", "fieldValidation": "Strict" if mutant.strict else "Ignore"}
        return await self.http.post(
            self.path, params=query, content=mutant.text.encode(), headers={"Content-Type": "application/json"}
        )

    async def listed(self) -> dict[str, Object]:
        return {item["metadata"]["name"]: item for item in await self.api.list(SIMULATIONS, self.namespace)}

    async def emptied(self) -> None:
        """Delete every simulation of the namespace, also one that somebody's finalizer holds."""
        await self.http.delete(self.path)
        for item in (await self.listed()).values():
            if item["metadata"].get("finalizers"):
                url = f"{self.path}/{item['metadata']['name']}"
                headers = {"Content-Type": "application/merge-patch+json"}
                await self.http.patch(url, content='{"metadata":{"finalizers":null}}', headers=headers)
        await until(self.listed, lambda found: not found, 60, "the simulations are gone")


@asynccontextmanager
async def a_stand(control_plane: ControlPlane, namespace: str, directory: Path) -> AsyncIterator[Stand]:
    admin = json.loads(control_plane.kubeconfig.read_text())
    cluster = admin["clusters"][0]["cluster"]
    async with (
        client(control_plane) as api,
        httpx.AsyncClient(
            base_url=cluster["server"],
            verify=ssl.create_default_context(cafile=cluster["certificate-authority"]),
            headers={"Authorization": f"Bearer {admin['users'][0]['user']['token']}"},
            trust_env=False,
            timeout=30,
            limits=httpx.Limits(max_connections=8),
        ) as http,
        an_operator(control_plane, namespace, directory, policy=POLICY) as operator,
    ):
        yield Stand(api=api, http=http, operator=operator, namespace=namespace)


def answer(item: Object | None) -> dict[str, Any] | None:
    """Return the condition Accepted of this generation, None while there is none; a deleted one needs no answer."""
    if item is None or item["metadata"].get("deletionTimestamp"):
        return {"status": "Gone", "message": ""}
    generation = item["metadata"]["generation"]
    conditions = (item.get("status") or {}).get("conditions") or ()
    found = [c for c in conditions if c["type"] == "Accepted" and c.get("observedGeneration") == generation]
    return dict(found[0]) if found else None


async def forbidden(item: Object) -> str:
    """Return why *item* may not run, by the models and the policy alone; "" if it may."""
    try:
        spec = load_spec({key: value for key, value in item.items() if key != "status"}).spec
    except SpecError as error:
        return str(error)
    facts = await HOSTS.resolve(*host_and_port(spec))
    # One runner is enough for the users that the policy allows; how many there are is counted, not asked for.
    return "; ".join(map(str, judge(spec, spec.runner.image or IMAGE, facts, RULES, 1).refusals))


async def a_wave(stand: Stand, wave: list[Mutant]) -> None:
    """Send a wave, have each answered, see what it started, and take it away."""
    began = time.monotonic()
    responses = await asyncio.gather(*(stand.send(mutant) for mutant in wave))
    kept: dict[str, Mutant] = {}
    unnamed = []
    for mutant, response in zip(wave, responses, strict=True):
        if response.status_code == 201:
            kept[response.json()["metadata"]["name"]] = mutant
            continue
        stand.refused[response.status_code] += 1
        if not mutant.is_named(response.text):
            unnamed.append(f"{mutant}: {response.status_code} {response.text[:1000]}")
    assert [] == unnamed

    async def open_ones() -> list[str]:
        assert 200 == await stand.operator.status("/healthz")
        listed = await stand.listed()
        return [name for name in kept if answer(listed.get(name)) is None]

    await until(open_ones, lambda names: not names, ANSWER_S, "every mutant is answered", every_s=0.2)
    stand.slowest_s = max(stand.slowest_s, time.monotonic() - began)
    # Whoever comes last has its runners: so those before it had their time to start what they may not.
    last = samples()["minimal"]
    last["metadata"] = {"name": "last", "namespace": stand.namespace}
    await stand.api.create(SIMULATIONS, last)

    async def begun() -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for item in await stand.api.list(DEPLOYMENTS, stand.namespace):
            found.setdefault(item["metadata"]["labels"][Label.SIMULATION_UID.value], []).append(item)
        return found

    last_uid = (await stand.listed())["last"]["metadata"]["uid"]
    deployments = await until(begun, lambda found: last_uid in found, ANSWER_S, "the last one's runners are asked for")
    listed = await stand.listed()
    for name, mutant in kept.items():
        item = listed.get(name)
        said = answer(item)
        assert said is not None
        told = f"{mutant}: {said}"
        stand.answered[said["status"]] += 1
        if item is None or said["status"] == "Gone":
            continue
        own = deployments.get(item["metadata"]["uid"], [])
        if said["status"] == "False":
            assert re.match(r"[a-z][\w.\[\]]*: ", said["message"], re.IGNORECASE), told
            assert [] == own, told
        elif own:
            assert "" == await forbidden(item), told
            assert sum(deployment["spec"]["replicas"] for deployment in own) <= RULES.max_runners, told
        else:
            # Suspended, for nobody, or it waits for its target: of a name nobody knows what it means here.
            status, is_for_nobody = item["status"], item["spec"].get("users") == 0
            assert is_for_nobody or status["phase"] == "Suspended" or status["message"], told
        stand.started += bool(own)
    await stand.emptied()


async def all_answered(control_plane: ControlPlane, namespace: str, directory: Path, count: int, seed: int) -> None:
    """Send *count* mutants; print the seed, what became of them, and how long an answer took."""
    seed = int(os.environ.get("TRAFFICSIM_SEED", seed))
    print(f"TRAFFICSIM_SEED={seed} sends the same mutants")
    async with a_stand(control_plane, namespace, directory) as stand:
        await stand.operator.start()
        began = stand.operator.process
        drawn = list(mutants(namespace, seed, count))
        for first in range(0, count, WAVE):
            await a_wave(stand, drawn[first : first + WAVE])
        assert 200 == await stand.operator.status("/healthz")
        assert stand.operator.process is began
        assert 0 == stand.operator.stop()
        log = stand.operator.log.read_text()
    print(
        f"{count} mutants: {stand.refused.total()} refused by the API server {dict(stand.refused)}, "
        f"answered in Accepted {dict(stand.answered)}, {stand.started} got runners; "
        f"a wave of {WAVE} was answered within {stand.slowest_s:.1f} s"
    )
    assert [] == stand.operator.errors()
    assert "Traceback" not in log
    # None of the ways is without effect, and none of the outcomes was only imagined.
    assert stand.refused.total() > count // 10
    assert min(stand.answered["True"], stand.answered["False"], stand.started) > count // 50


@pytest.mark.timeout(120)
async def test_the_samples_are_good(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """Unmutated, each is accepted and gets its runners: what is refused of the mutants is refused for the mutation."""
    async with a_stand(control_plane, namespace, tmp_path) as stand:
        await stand.operator.start()
        for name, document in samples().items():
            document["metadata"] = {"name": name, "namespace": namespace}
            await stand.api.create(SIMULATIONS, document)

        async def answers() -> dict[str, Any]:
            return {name: answer(item) for name, item in (await stand.listed()).items()}

        found = await until(answers, lambda found: all(found.values()), ANSWER_S, "every sample is answered")
        assert dict.fromkeys(samples(), "True") == {name: said["status"] for name, said in found.items()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("levels", [60, 900, 1100, 9000])
async def test_what_is_nested_deeply_is_answered_and_holds_nobody_up(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, levels: int
) -> None:
    """By the watch, and by the first list of an operator that is started later."""
    document = samples()["minimal"]
    document["metadata"] = {"name": "deep", "namespace": namespace}
    document["spec"]["archetypes"][0]["flow"] = [{"request": {"post": "/", "json": "@@"}}]
    text = json.dumps(document).replace('"@@"', '{"a":' * levels + "1" + "}" * levels)
    deep = Mutant(name="deep", sample="minimal", text=text, strict=True, places=[], how=[])
    async with a_stand(control_plane, namespace, tmp_path) as stand:

        async def answers() -> dict[str, Any]:
            return {name: (answer(item) or {}).get("status") for name, item in (await stand.listed()).items()}

        await stand.operator.start()
        assert 201 == (await stand.send(deep)).status_code
        await until(answers, lambda found: found == {"deep": "False"}, ANSWER_S, "it is refused")
        said = answer((await stand.listed())["deep"])
        assert said is not None
        assert re.match(r"(spec\.)?archetypes\[0\]\.flow\[0\]\.request.*: nested more than 48 levels", said["message"])
        assert 0 == stand.operator.stop()
        await stand.operator.start()
        other = samples()["minimal"]
        other["metadata"] = {"name": "other", "namespace": namespace}
        await stand.api.create(SIMULATIONS, other)
        await until(
            answers, lambda found: found == {"deep": "False", "other": "True"}, ANSWER_S, "the other one is answered"
        )
        assert [] == stand.operator.errors()


@pytest.mark.timeout(180)
async def test_mutants_are_answered(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """Two hundred, the same ones at each run."""
    await all_answered(control_plane, namespace, tmp_path, 200, 1)


@pytest.mark.truth
@pytest.mark.timeout(1200)
async def test_two_thousand_mutants_are_answered(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """The long form, `make many`: others at each run."""
    await all_answered(control_plane, namespace, tmp_path, 2000, random.randrange(10**6))
