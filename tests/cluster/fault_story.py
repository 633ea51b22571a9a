"""
One simulation's life in stages, told on a real API server with real runners, and what it looks like after each.

    boot · start · edit · more users · fewer users · drift · rollout · a second simulation · end · delete

A stage is over when the world is as it is to be. `tell` breaks one call in each stage that it is given a point for, and
asks for the very picture that the same stage leaves when nothing breaks.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from cluster.conftest import Kubectl, a_namespace
from cluster.faulty_server import FaultyServer, Point, a_faulty_server
from cluster.operator_process import Operator, Shop, a_shop, an_operator
from cluster.operator_stand import client, install_kind, until
from cluster.rollout_stand import IMAGES, LABEL, POLICY, Glance, Subject, a_runner
from levels import unavailable
from trafficsim_api.protocol import Acknowledgement
from trafficsim_operator.keys import SECRET
from trafficsim_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LEASES,
    PODS,
    SECRETS,
    SERVICES,
    SIMULATIONS,
    KubeApi,
)
from trafficsim_operator.settings import LEASE
from trafficsim_operator.testing import ControlPlane, ProcessKubelet, Unavailable

__all__ = [
    "FEW",
    "MANY",
    "STAGES",
    "Lane",
    "Picture",
    "Told",
    "Unreached",
    "a_plain_file",
    "lanes",
    "nothing_left",
    "places_of",
    "tell",
]

Picture = dict[str, Any]

FEW, MANY = 6, 12
_EACH: Final = 8
_PATIENCE_S: Final = 150.0
# How long a stage that is over otherwise is waited with for a call that comes now and then.
_LINGER_S: Final = 20.0
_EVERY_S: Final = 0.4
# An address for documentation, behind the Service of a simulation that never starts: a loopback one is not allowed.
_NOBODY: Final = "192.0.2.1"
_POLICY: Final = {**POLICY, "targets": [{"cidr": "127.0.0.0/8"}, {"cidr": f"{_NOBODY}/32"}]}
# What the machine's load decides.
_BY_LOAD: Final = frozenset({"GeneratorSaturated", "Passed", "Finished"})


class Unreached(AssertionError):
    """The call that was to break never came."""


@dataclass(kw_only=True)
class Lane:
    """One operator with its namespace, its way to the world, and a shop; stories are told in it one after the other."""

    control_plane: ControlPlane
    namespace: str
    api: KubeApi
    kubelet: ProcessKubelet
    operator: Operator
    server: FaultyServer
    shop: Shop
    http: httpx.AsyncClient
    ends: list[int] = field(default_factory=list)
    """How the operator's process ended, each time."""
    _keeper: asyncio.Task[None] | None = None

    def subject(self, name: str) -> Subject:
        return Subject(
            api=self.api,
            kubectl=Kubectl(self.control_plane, self.namespace),
            kubelet=self.kubelet,
            kubeconfig=self.control_plane.kubeconfig,
            operator=self.operator,
            http=self.http,
            shop=self.shop,
            name=name,
            namespace=self.namespace,
            users=FEW,
        )

    def boot(self) -> None:
        """Start the operator, and start it again whenever it ends, as a kubelet does."""
        self.operator.launch()
        self._keeper = asyncio.create_task(self._keep())

    async def halt(self) -> None:
        """End the operator for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        process = self.operator.process
        if process is not None and process.poll() is None:
            await asyncio.to_thread(self.operator.stop)

    async def clear(self) -> None:
        """Take away what a story that failed has left."""
        self.server.begin()
        for simulation in await self.api.list(SIMULATIONS, self.namespace):
            meta = simulation["metadata"]
            await self.api.delete(SIMULATIONS, self.namespace, meta["name"], meta["uid"])

        async def left() -> int:
            return len(await self.api.list(PODS, self.namespace))

        await until(left, lambda count: not count, 90, "the lane is clear")
        await _no_load(self)  # the shop tells of the last request a second later: it is not the next story's

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            process = self.operator.process
            assert process is not None
            if (code := process.poll()) is not None:
                self.ends.append(code)
                self.operator.launch()

    async def answers(self, path: str) -> int:
        """Return the status of one of the operator's pages, 0 for none; it may be starting again."""
        try:
            return (await self.http.get(f"http://{self.operator.address}{path}")).status_code
        except httpx.HTTPError:
            return 0

    async def serves(self) -> list[str]:
        """Return the lines of the operator's metrics that count simulations that exist."""
        try:
            page = (await self.http.get(f"http://{self.operator.address}/metrics")).text
        except httpx.HTTPError:
            return ["no answer"]
        lines = [line for line in page.splitlines() if line.startswith("trafficsim_simulations{")]
        return [line for line in lines if not line.endswith(" 0.0")]


@asynccontextmanager
async def _a_lane(
    control_plane: ControlPlane, api: KubeApi, kubelet: ProcessKubelet, namespace: str, directory: Path, lease: str
) -> AsyncIterator[Lane]:
    """Yield a lane in *namespace*; its operator is not started yet."""
    directory.mkdir(exist_ok=True)
    async with an_operator(control_plane, namespace, directory, policy=_POLICY, lease=lease) as operator:

        def kill() -> None:
            if operator.process is not None and operator.process.poll() is None:
                operator.kill()

        operator.log.touch()
        operator.environ["TRAFFICSIM_RESYNC"] = "2"
        async with (
            a_faulty_server(Path(operator.environ["KUBECONFIG"]), directory, kill) as (server, kubeconfig),
            a_shop(directory) as shop,
            httpx.AsyncClient(trust_env=False, timeout=5) as http,
        ):
            operator.environ["KUBECONFIG"] = str(kubeconfig)
            lane = Lane(
                control_plane=control_plane, namespace=namespace, api=api, kubelet=kubelet, operator=operator,
                server=server, shop=shop, http=http,
            )  # fmt: skip
            try:
                yield lane
            finally:
                await lane.halt()


@asynccontextmanager
async def lanes(
    control_plane: ControlPlane, directory: Path, count: int, *, lease: str = "off"
) -> AsyncIterator[list[Lane]]:
    """
    Yield *count* lanes on one node.

    With a *lease* the operator works by it: one that was killed is followed after its 15 s.
    """
    await asyncio.to_thread(install_kind, control_plane)
    async with AsyncExitStack() as stack:
        namespaces = [stack.enter_context(a_namespace(control_plane)) for _ in range(count)]
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
        api = await stack.enter_async_context(client(control_plane))
        found = [
            await stack.enter_async_context(
                _a_lane(control_plane, api, kubelet, namespace, directory / namespace, lease)
            )
            for namespace in namespaces
        ]
        yield found
        for lane in found:
            assert [] == _unexpected_errors(lane)
            # -9: by us. 3: what it needs at its start was broken, which it said. 4: its Lease ran out.
            assert set(lane.ends) <= {-9, 3, 4}, lane.operator.log.read_text()[-3000:]


def _unexpected_errors(lane: Lane) -> list[str]:
    """Return what the operator logged as an error, but for a start that was broken and for what kopf tries again."""
    messages = [f"{entry['message']}: {entry.get('error', '')}" for entry in lane.operator.errors()]
    return [
        message for message in messages if not message.startswith(("the operator can't begin", "Request attempt #"))
    ]


@dataclass(kw_only=True)
class _Story:
    """One simulation in its lane."""

    lane: Lane
    subject: Subject
    received: int
    """What the shop had received before it began."""
    revisions: list[str] = field(default_factory=list)
    """The versions in the order they were asked for."""

    async def asks(self, users: int, runners: int, **spec: Any) -> None:
        """Patch the spec: so many users, which need so many runners."""
        await self.subject.patch(users=users, scaling=_scaling(runners), **spec)

    async def picture(self) -> Picture:
        """Return what there is, without what differs from one telling to the next."""
        subject = self.subject
        found = await self.lane.api.get(SIMULATIONS, subject.namespace, subject.name)
        answers = [answer for answer in await subject.answers() if answer is not None]
        second = await self.lane.api.get(SIMULATIONS, subject.namespace, f"{subject.name}-second")
        beside = {"second": _of_status(second)} if second is not None else {}
        return _of_status(found or {}) | _of_runners(answers) | await self._of_objects() | beside

    async def _of_objects(self) -> Picture:
        api, subject = self.lane.api, self.subject
        mine = _mine(self)
        deployments, pods, maps = await asyncio.gather(
            *(api.list(kind, subject.namespace, mine) for kind in (DEPLOYMENTS, PODS, CONFIG_MAPS))
        )
        revision = "trafficsim.io/revision"
        return {
            "deployments": {
                d["metadata"]["labels"][revision]: (d["spec"]["replicas"], bool(d["spec"].get("paused")))
                for d in deployments
            },
            "pods": dict(Counter(p["metadata"]["labels"][revision] for p in pods)),
            "maps": sorted(m["metadata"]["name"].rpartition("-")[2] for m in maps),
        }


def a_plain_file(subject: Subject) -> dict[str, Any]:
    """Return the user's file: six users on one runner, who ask for the list five times a second."""
    return subject.a_file(
        {"steps": [{"percent": 50}, {"percent": 100}], "dwell": "2s", "minSamples": 10, "scaleDownDelay": "1s"},
        archetypes=[_visitor("200ms")],
        scaling=_scaling(1),
    )


def places_of(answers: list[Acknowledgement | None]) -> list[int]:
    """Return every place that runners hold, as often as it is held."""
    return sorted(
        place for answer in answers if answer for first, last in answer.places for place in range(first, last)
    )


async def nothing_left(subject: Subject) -> bool:
    """Say whether no object of the simulation is there any more."""
    mine = {LABEL: subject.name}
    kinds = (DEPLOYMENTS, PODS, CONFIG_MAPS)
    found = await asyncio.gather(*(subject.api.list(kind, subject.namespace, mine) for kind in kinds))
    return not any(found)


def _scaling(runners: int) -> dict[str, int]:
    return {"usersPerProcess": _EACH, "minRunners": runners, "maxRunners": runners}


def _of_status(found: Mapping[str, Any]) -> Picture:
    if not found:
        return {}
    status, generation = found.get("status") or {}, found["metadata"]["generation"]
    conditions = {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", ())}
    rollout = status.get("rollout") or {}
    run = status.get("run") or {}
    return {
        "seen": status.get("observedGeneration") == generation,
        "phase": status.get("phase"),
        "conditions": {kind: value for kind, value in conditions.items() if kind not in _BY_LOAD},
        "target": (status.get("users") or {}).get("target"),
        "placed": (status.get("users") or {}).get("placed"),
        "runners": status.get("runners"),
        "lost": run.get("lostRunners", 0),
        "missing": tuple((status.get("accounts") or {}).get("missing", ())),
        "versions": {name: (status.get(name) or {}).get("revision") for name in ("stable", "candidate", "previous")},
        "rollout": [rollout.get(name) for name in ("phase", "attempt", "reason", "pause")],
        "command": (status.get("lastCommand") or {}).get("result"),
    } | _judged(status)


def _judged(status: Mapping[str, Any]) -> Picture:
    """Return the verdict and its reason; where the machine's load alone spoilt it, as if it had not."""
    passed = next((c["reason"] for c in status.get("conditions", ()) if c["type"] == "Passed"), None)
    if passed == "GeneratorSaturated" or status.get("verdict") == "Passed":
        return {"verdict": "Passed", "why": ""}
    return {"verdict": status.get("verdict"), "why": status.get("verdictReason")}


def _of_runners(answers: list[Acknowledgement]) -> Picture:
    """Return which places are held, how often, and how many users are at work, by version."""
    held = Counter(places_of([*answers]))
    active: Counter[str] = Counter()
    for answer in answers:
        active[answer.revision] += answer.active
    return {
        "held once": sorted(place for place, times in held.items() if times == 1),
        "held twice": sorted(place for place, times in held.items() if times > 1),
        "active": {revision: users for revision, users in active.items() if users},
        "settled": all(answer.settled for answer in answers),
    }


async def _boot(story: _Story) -> None:
    """The operator makes its key and its Lease, and says that it is ready."""
    lane = story.lane
    await lane.halt()
    for kind, name in ((SECRETS, SECRET), (LEASES, LEASE)):
        kept = await lane.api.get(kind, lane.namespace, name)
        if kept is not None:
            await lane.api.delete(kind, lane.namespace, name, kept["metadata"]["uid"])
    lane.boot()


async def _start(story: _Story) -> None:
    """Six users on one runner."""
    await story.subject.kube("apply", "-f", "-", stdin=a_plain_file(story.subject))


async def _edit(story: _Story) -> None:
    """They think a little longer: the users who are there go on."""
    await story.subject.patch(archetypes=[_visitor("250ms")])


async def _more(story: _Story) -> None:
    """Twelve users on two runners."""
    await story.asks(MANY, 2)


async def _fewer(story: _Story) -> None:
    """Six on one: the other's users go, it is retired, and its numbers are kept."""
    await story.asks(FEW, 1)


async def _drift(story: _Story) -> None:
    """Somebody pauses the Deployment, which applying our part again would leave so."""
    [name] = [
        d["metadata"]["name"] for d in await story.lane.api.list(DEPLOYMENTS, story.subject.namespace, _mine(story))
    ]
    await story.subject.kube("rollout", "pause", f"deployment/{name}")


async def _rollout(story: _Story) -> None:
    """Another version, in two steps, promoted; the one before goes."""
    await story.subject.patch(runner={"image": None} | a_runner("2"))


async def _second(story: _Story) -> None:
    """A simulation beside it, suspended, whose target is a Service: only looked up."""
    subject, api = story.subject, story.lane.api
    name = f"{subject.name}-second"
    meta = {"namespace": subject.namespace, "name": name}
    port = int(story.lane.shop.url.rpartition(":")[2])
    ports = [{"name": "http", "port": port, "protocol": "TCP"}]
    await api.create(SERVICES, {"metadata": meta, "spec": {"clusterIP": "None", "ports": ports}})
    labels = {"kubernetes.io/service-name": name}
    endpoints = [{"addresses": [_NOBODY], "conditions": {"ready": True}}]
    await api.create(
        ENDPOINT_SLICES,
        {"metadata": meta | {"labels": labels}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports},
    )
    file = subject.a_file({}, archetypes=[_visitor("1s")], suspend=True, target={"url": f"http://{name}:{port}"})
    await subject.kube("apply", "-f", "-", stdin=file | {"metadata": meta})


async def _end(story: _Story) -> None:
    """The run is stopped and judged."""
    given = json.dumps({"id": "stop", "action": "stop"})
    await story.subject.kube("annotate", "tsim", story.subject.name, f"trafficsim.io/command={given}")


async def _delete(story: _Story) -> None:
    name = story.subject.name
    await story.subject.kube("delete", "tsim", name, f"{name}-second", "--wait=false", "--ignore-not-found")


def _visitor(think: str) -> dict[str, Any]:
    return {
        "name": "visitor",
        "flow": [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": think}}],
    }


def _mine(story: _Story) -> dict[str, str]:
    return {LABEL: story.subject.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """
    What is done, and what has to be true afterwards.

    *users*: at work from then on; *before*: those who were at work until then. *versions*: how many were asked for.
    """

    do: Callable[[_Story], Awaitable[None]]
    before: int
    users: int
    runners: int
    versions: int = 1


STAGES: Final[Mapping[str, Stage]] = {
    "boot": Stage(do=_boot, before=0, users=0, runners=0, versions=0),
    "start": Stage(do=_start, before=0, users=FEW, runners=1),
    "edit": Stage(do=_edit, before=FEW, users=FEW, runners=1),
    "more users": Stage(do=_more, before=FEW, users=MANY, runners=2),
    "fewer users": Stage(do=_fewer, before=MANY, users=FEW, runners=1),
    "drift": Stage(do=_drift, before=FEW, users=FEW, runners=1),
    "rollout": Stage(do=_rollout, before=FEW, users=FEW, runners=1, versions=2),
    "a second simulation": Stage(do=_second, before=FEW, users=FEW, runners=1, versions=2),
    "end": Stage(do=_end, before=FEW, users=0, runners=0, versions=2),
    "delete": Stage(do=_delete, before=MANY, users=0, runners=0, versions=0),
}


@dataclass(kw_only=True)
class Told:
    """A story that has been told: the picture after each stage, and the calls of each by kind."""

    pictures: dict[str, Picture] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    unreached: dict[str, Point] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


async def tell(
    lane: Lane,
    name: str,
    points: Mapping[str, Point],
    like: Told | None = None,
    reached: list[str] | None = None,
    kinds: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Told:
    """
    Tell the story of simulation *name*, with a fault at each of *points* (by stage).

    With *like* every stage has to leave the picture that it left there, and what follows the last point is left out.
    But every run is judged, and its account held to the shop's. *reached* is told of every stage that begins. *kinds*:
    the calls that each stage is waited with for, a while.
    """
    subject = lane.subject(name)
    story = _Story(lane=lane, subject=subject, received=await asyncio.to_thread(lane.shop.received, "/users"))
    told = Told()
    titles = list(STAGES)
    if like is not None:
        titles = _told(max(titles.index(title) for title in points))
    for title in titles:
        stage, point = STAGES[title], points.get(title)
        began = asyncio.get_running_loop().time()
        if reached is not None:
            reached.append(title)
        lane.server.begin(point)
        seen: list[Glance] = []
        try:
            async with subject.watched() as seen:
                await stage.do(story)
                told.pictures[title] = await _settled(story, title, point, like, told, kinds.get(title, ()))
        except Unreached:
            assert point is not None
            told.unreached[title] = point
            told.pictures[title] = like.pictures[title] if like is not None else {}
        told.counts[title] = Counter(lane.server.counts)
        lane.server.begin()
        told.seconds[title] = asyncio.get_running_loop().time() - began
        before = STAGES[titles[titles.index(title) - 1]].users if title == "end" else stage.before
        _nobody_lost_or_doubled(title, before, stage.users, seen)
        if title == "end":
            await _every_request_is_told(story)
    if titles[-1] == "delete":
        await _no_load(lane)
    return told


def _told(last: int) -> list[str]:
    """Return the stages up to number *last*; where there was a run it is ended, and goes."""
    titles = list(STAGES)
    return titles[: last + 1] if not last else [*titles[: min(last + 1, titles.index("end"))], "end", "delete"]


async def _settled(
    story: _Story, title: str, point: Point | None, like: Told | None, told: Told, kinds: Collection[str]
) -> Picture:
    """Return the picture once the stage is over, two looks in a row, and its fault or calls of *kinds* have been."""
    loop = asyncio.get_running_loop()
    deadline, over_since, good = loop.time() + _PATIENCE_S, 0.0, 0
    picture: Picture = {}
    while loop.time() < deadline:
        await asyncio.sleep(_EVERY_S)
        picture = await story.picture()
        over = _is_like(title, picture, like, told)
        over = over and await _operator_is_there(story.lane, title)
        fired = point.fired.is_set() if point is not None else story.lane.server.counts.keys() >= set(kinds)
        over_since = (over_since or loop.time()) if over else 0.0
        if over and not fired and loop.time() - over_since > _LINGER_S:
            if point is None:
                return picture
            raise Unreached(f"{title}: {point} never came")
        good = good + 1 if over and fired else 0
        if good >= 2:
            return picture
    wanted = f"\nwanted: {like.pictures[title]}" if like is not None else ""
    raise AssertionError(f"{story.subject.name}, {title}, {point or 'no fault'}: not over; seen: {picture}{wanted}")


def _is_like(title: str, picture: Picture, like: Told | None, told: Told) -> bool:
    """Say whether a stage has come to what it came to in *like*; an end that came sooner there, to one by itself."""
    if like is None:
        return _is_over(title, picture)
    if title != "end" or len(told.pictures) == len(STAGES) - 2:
        return picture == like.pictures[title]
    return _has_ended(picture) and all(picture[key] == like.pictures["end"][key] for key in ("missing", "lost"))


def _has_ended(picture: Picture) -> bool:
    """Say whether the run is judged, and its runners are gone."""
    return bool(
        picture["seen"]
        and picture["phase"] == "Completed"
        and picture["verdict"] is not None
        and picture["runners"] == {"wanted": 0, "ready": 0}
        and not picture["pods"]
        and not any(replicas for replicas, _ in picture["deployments"].values())
    )


async def _operator_is_there(lane: Lane, title: str) -> bool:
    if await lane.answers("/readyz") != 200:
        return False
    return title != "delete" or not await lane.serves()


def _is_over(title: str, picture: Picture) -> bool:
    """Say whether an undisturbed *stage* has come to what it is about."""
    stage = STAGES[title]
    if not stage.versions:
        return not any(picture[name] for name in ("deployments", "pods", "maps")) and "phase" not in picture
    stable = picture["versions"]["stable"]
    phase = "Running" if stage.users else "Completed"
    if picture.get("second", {}).get("phase", "Suspended") != "Suspended":
        return False
    return bool(
        picture["seen"]
        and picture["phase"] == phase
        and picture["deployments"] == {stable: (stage.runners, False)}
        and sum(picture["pods"].values()) == stage.runners
        and picture["runners"] == {"wanted": stage.runners, "ready": stage.runners}
        and picture["held once"] == list(range(stage.users))
        and picture["held twice"] == []
        and picture["active"] == ({stable: stage.users} if stage.users else {})
        and picture["settled"]
        and picture["versions"] == {"stable": stable, "candidate": None, "previous": None}
        and picture["rollout"][1:3] == ([None, None] if stage.versions == 1 else [1, "Promoted"])
    )


def _nobody_lost_or_doubled(title: str, before: int, after: int, seen: list[Glance]) -> None:
    """At every look that reached every runner nobody was missing, and no more were twice than change hands: a tenth."""
    whole = [look for look in seen if look.whole]
    least, most = min(before, after), max(before, after)
    assert [] == [look for look in whole if look.least < least], title
    assert [] == [look for look in seen if look.most > most + max(1, most // 10)], title


async def _every_request_is_told(story: _Story) -> None:
    """The account has what the shop received, to the last request."""
    accounts = (await story.subject.status())["accounts"]
    shop = story.lane.shop

    async def received() -> int:
        return await asyncio.to_thread(shop.received, "/users") - story.received

    await until(
        received,
        lambda count: count == accounts["requests"],
        10,
        f"{story.subject.name}: the shop has received {accounts['requests']} requests",
    )


async def _no_load(lane: Lane) -> None:
    """The shop, which writes its account every second, receives nothing for two."""
    await asyncio.sleep(1.5)
    before = lane.shop.received("/users")
    await asyncio.sleep(2)
    assert before == lane.shop.received("/users")
