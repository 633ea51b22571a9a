"""
What the stories of rollouts share: one node for several simulations side by side, and how to look at each of them.

Users visit five times a second (`scenarios/versions.py`), and the rollout's times are short, so that a step has the
numbers that it is judged by within seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from cluster.conftest import Kubectl
from cluster.operator_process import IMAGE, Operator, Shop
from cluster.operator_stand import until
from trafficsim_api.protocol import PORT, Acknowledgement
from trafficsim_operator.kube import DEPLOYMENTS, EVENTS, PODS, SIMULATIONS, KubeApi
from trafficsim_operator.testing import Image, ProcessKubelet

TESTS: Final = Path(__file__).parent.parent
RUNNER: Final = Image(
    argv=(sys.executable, "-m", "trafficsim_runner"), env={"PYTHONPATH": str(TESTS / "scenarios")}
)  # fmt: skip
CRASHING: Final = "trafficsim/runner:crashing"
IMAGES: Final = {IMAGE: RUNNER, CRASHING: Image(argv=(sys.executable, "-c", "raise SystemExit(7)"))}
POLICY: Final = {"targets": [{"cidr": "127.0.0.0/8"}], "maxUsers": 500, "maxRunners": 6}
LABEL: Final = "trafficsim.io/simulation"
MANY: Final = 20
FEW: Final = 4
ROLLOUT: Final = {
    "warmUp": "1s", "window": "1s", "dwell": "4s", "maxDwell": "60s", "minSamples": 30,
    "scaleDownDelay": "4s", "abortScaleDownDelay": "4s", "deadline": "60s",
}  # fmt: skip
# Told side by side, on a machine that has other things to do, the stories take their time.
PATIENCE_S: Final = 180.0
EVERY_S: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """
    What all runners said within one moment, every one of them asked twice.

    *least* adds the larger, *most* the smaller of a runner's two answers: of users who change hands between two
    questions nobody is missed, and nobody is counted twice.
    """

    phase: str
    step: int
    percent: int
    pause: str
    least: int
    most: int
    whole: bool
    """Every runner answered both times."""


@dataclass(kw_only=True)
class Subject:
    """One simulation of the stand."""

    api: KubeApi
    kubectl: Kubectl
    kubelet: ProcessKubelet
    kubeconfig: Path
    operator: Operator
    http: httpx.AsyncClient
    shop: Shop
    name: str
    namespace: str
    users: int

    async def kube(self, *arguments: str, **options: Any) -> Any:
        return await asyncio.to_thread(self.kubectl, *arguments, **options)

    def a_file(self, rollout: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": SIMULATIONS.api_version,
            "kind": SIMULATIONS.kind,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "users": self.users,
                "target": {"url": self.shop.url, "healthPath": "/healthz"},
                "warmUp": "1s",
                "profile": [{"ramp": {"to": "100%", "over": "1s"}}, {"hold": {"for": "1h"}}],
                "archetypes": [{"name": "visitor", "scenario": "versions:Visitor"}],
                "runner": a_runner("1"),
                "rollout": ROLLOUT | dict(rollout),
                **spec,
            },
        }

    async def begin(self, rollout: Mapping[str, Any] | None = None, **spec: Any) -> str:
        """Apply it, wait until every user is at work, and return the version."""
        await self.kube("apply", "-f", "-", stdin=self.a_file(rollout or {}, **spec))
        await self.at_work()
        return await self.stable()

    async def patch(self, **spec: Any) -> None:
        await self.kube("patch", "tsim", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    async def ask_for(self, version: str, *, fault: str = "", image: str | None = None) -> None:
        """Write another version into the spec; *fault*: what its users do wrong."""
        # A merge takes away what is null.
        await self.patch(runner={"image": None} | a_runner(version, fault=fault, image=image))

    async def status(self) -> dict[str, Any]:
        found = await self.api.get(SIMULATIONS, self.namespace, self.name)
        return (found or {}).get("status") or {}

    async def rollout(self) -> dict[str, Any]:
        return (await self.status()).get("rollout") or {}

    async def stable(self) -> str:
        return revision_in(await self.status(), "stable")

    async def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Await the status in which *holds*."""
        return await until(self.status, holds, PATIENCE_S, f"{self.name}: {what}", EVERY_S)

    async def until_in(self, phase: str, *, step: int | None = None) -> dict[str, Any]:
        """Await the rollout's *phase*, at *step* if one is given; return the rollout."""

        def holds(status: dict[str, Any]) -> bool:
            rollout = status.get("rollout") or {}
            return rollout.get("phase") == phase and step in (None, rollout.get("step"))

        found = await self.until(holds, f"the rollout is {phase}" + (f" at step {step}" if step else ""))
        return dict(found["rollout"])

    async def promoted(self, attempt: int) -> dict[str, Any]:
        """Await the end of a rollout that came through; return the status."""

        def holds(status: dict[str, Any]) -> bool:
            rollout = status.get("rollout") or {}
            return (rollout.get("phase"), rollout.get("attempt")) == ("Stable", attempt) and not status.get("candidate")

        found = await self.until(holds, f"attempt {attempt} is over")
        assert "Promoted" == found["rollout"]["reason"], found["rollout"]
        return found

    async def rejected(self, attempt: int) -> str:
        """Await that the newest version is rejected; return the sentence that says so."""
        found = await self.until(
            lambda status: (
                (status.get("rollout") or {}).get("phase") == "Rejected" and status["rollout"]["attempt"] == attempt
            ),
            f"attempt {attempt} is rejected",
        )
        ready, stalled = condition(found, "Ready"), condition(found, "Stalled")
        assert ("False", "RevisionRejected", "True") == (ready["status"], ready["reason"], stalled["status"])
        assert found["rollout"]["rejected"] == revision_in(found, "candidate")
        return str(ready["message"])

    async def command(self, action: str, attempt: int | None = None) -> dict[str, Any]:
        """Write the annotation and await the answer."""
        given: dict[str, Any] = {"id": uuid.uuid4().hex[:16], "action": action}
        given |= {} if attempt is None else {"attempt": attempt}
        text = f"trafficsim.io/command={json.dumps(given)}"
        await self.kube("annotate", "--overwrite", "tsim", self.name, text)
        found = await self.until(
            lambda status: (status.get("lastCommand") or {}).get("id") == given["id"], f"{action} is answered"
        )
        return dict(found["lastCommand"])

    async def order(self, action: str) -> None:
        """Give a command on the command line; it is done."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trafficsim_operator.cli.main", action, self.name, "--json",
            "--kubeconfig", str(self.kubeconfig), "-n", self.namespace,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        answer = json.loads(out) if out else {"error": err.decode()}
        assert (0, "Done") == (process.returncode, answer.get("result")), answer

    async def events(self) -> set[str]:
        """Return the reasons of the events about it."""
        found = await self.api.list(EVENTS, self.namespace)
        return {event["reason"] for event in found if (event.get("regarding") or {}).get("name") == self.name}

    async def deployments(self) -> set[str]:
        """Return the versions that a Deployment exists of."""
        found = await self.api.list(DEPLOYMENTS, self.namespace, {LABEL: self.name})
        return {d["metadata"]["labels"]["trafficsim.io/revision"] for d in found}

    async def pods(self, revision: str) -> list[str]:
        """Return the names of a version's pods that are not leaving."""
        found = await self.api.list(PODS, self.namespace, {LABEL: self.name, "trafficsim.io/revision": revision})
        return [p["metadata"]["name"] for p in found if not p["metadata"].get("deletionTimestamp")]

    async def answers(self) -> list[Acknowledgement | None]:
        """Ask every runner that is here what it does; None for one that says nothing. Where none listens, none is."""
        names = [pod for pod in self.kubelet.pods() if pod.startswith(f"{self.name}-")]
        addresses = [address for pod in names if (address := self.kubelet.address(pod))]
        answers = await asyncio.gather(*(self._ask(address) for address in addresses), return_exceptions=True)
        found: list[Acknowledgement | None] = []
        for answer in answers:
            if isinstance(answer, httpx.ConnectError):
                continue
            if isinstance(answer, BaseException) and not isinstance(answer, httpx.HTTPError):
                raise answer
            found.append(None if isinstance(answer, BaseException) else answer)
        return found

    async def _ask(self, address: str) -> Acknowledgement:
        answer = await self.http.get(f"http://{address}:{PORT}/v1/acknowledgement", timeout=1)
        return Acknowledgement.model_validate_json(answer.content)

    async def by_version(self) -> dict[str, int]:
        """Return how many users each version has at work, by its runners' own words."""
        found: dict[str, int] = {}
        for answer in await self.answers():
            if answer is not None:
                found[answer.revision] = found.get(answer.revision, 0) + answer.active
        return {revision: users for revision, users in found.items() if users}

    async def until_they_are(self, holds: Callable[[dict[str, int]], bool], what: str) -> None:
        """Await that *holds* of the users at work by version."""
        await until(self.by_version, holds, PATIENCE_S, f"{self.name}: {what}", EVERY_S)

    async def at_work(self) -> None:
        await self.until_they_are(lambda found: sum(found.values()) == self.users, f"{self.users} are at work")

    async def all_on(self, revision: str) -> None:
        """Await that *revision* has all users and nobody else has any."""
        await self.until_they_are(lambda found: found == {revision: self.users}, f"all are on {revision}")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[list[Glance]]:
        """Look at users and rollout three times a second while inside; every user is at work before and after."""
        seen: list[Glance] = []
        task = asyncio.create_task(self._watch(seen))
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, seen: list[Glance]) -> None:
        while True:
            first, rollout = await self.answers(), await self.rollout()
            second = await self.answers()
            seen.append(glance(rollout, first, second))
            await asyncio.sleep(EVERY_S)


def glance(
    rollout: Mapping[str, Any], first: list[Acknowledgement | None], second: list[Acknowledgement | None]
) -> Glance:
    before, after = ({a.runner: a.active for a in answers if a is not None} for answers in (first, second))
    runners = before.keys() | after.keys()
    return Glance(
        phase=rollout.get("phase", ""),
        step=rollout.get("step", 0),
        percent=rollout.get("percent", 0),
        pause=rollout.get("pause") or "",
        least=sum(max(before.get(r, 0), after.get(r, 0)) for r in runners),
        most=sum(min(before.get(r, 0), after.get(r, 0)) for r in runners),
        whole=None not in first and None not in second,
    )


def a_runner(version: str, *, fault: str = "", image: str | None = None) -> dict[str, Any]:
    """Return `spec.runner` of a version; half a core is enough."""
    env = [{"name": "VERSION", "value": version}, {"name": "FAULT", "value": fault}]
    found = {"resources": {"limits": {"cpu": "500m", "memory": "512Mi"}}, "env": env}
    return found | ({"image": image} if image else {})


def revision_in(status: Mapping[str, Any], pointer: str) -> str:
    return str((status.get(pointer) or {}).get("revision", ""))


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {"status": "", "reason": ""})


def nobody_was_lost(seen: list[Glance], users: int) -> None:
    """At every look that reached every runner, at least *users* were at work."""
    whole = [look for look in seen if look.whole]
    assert len(whole) >= 10
    assert [] == [look for look in whole if look.least < users]


def never_too_many(seen: list[Glance], users: int) -> None:
    """At no look were more than *users* and those who change hands, a tenth, at work."""
    assert [] == [look for look in seen if look.most > users + max(1, users // 10)]
