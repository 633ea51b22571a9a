"""
The operator's process: kopf watches, the queue decides the order, reconcile does the work.

kopf is embedded for watching only. It writes nothing: no annotations, no finalizers, no peering. When kopf ends, or any
other part does, the process ends and is started again: a half-dead operator is worse than a dead one.

Of several operators all watch, and the one that holds the Lease works; so the others know everything when they take
over.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random  # noqa: TID251 - jitter of the queue
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import httpx
import kopf
import prometheus_client
from aiohttp import web

from trafficsim_api import __version__, names
from trafficsim_api.errors import SpecError, Unavailable
from trafficsim_operator.elector import Elector, LeaseLost, Mandate, address_of, identity_of
from trafficsim_operator.fleet.kubernetes import KubernetesFleet
from trafficsim_operator.handlers import Key, Watched, is_waited_for, register
from trafficsim_operator.installed import problem
from trafficsim_operator.keys import load_or_create
from trafficsim_operator.kube import SIMULATIONS, KubeApi, allow_deep_json, load_configuration
from trafficsim_operator.ledger import Ledgers
from trafficsim_operator.observability import Health, Metrics, ObservedRunners, Office, serve
from trafficsim_operator.policy_file import PolicyFile
from trafficsim_operator.queue import KeyedQueue
from trafficsim_operator.reconcile import World, reconcile
from trafficsim_operator.settings import ENVIRONMENT, Settings, SettingsError
from trafficsim_operator.standby import Standby
from trafficsim_operator.store.kubernetes import KubernetesRecord

__all__ = ["main", "run"]

log = logging.getLogger(__name__)

# A look has a limit of 60 s of its own; what is twice as old hangs for good.
_STUCK_S: Final = 120.0
# Runners are asked every few seconds while they exist.
_IDLE_S: Final = 60.0
# Over so much of a resync its looks are spread; the next list comes after nine tenths of it at the earliest.
_SPREAD: Final = 0.9
# For so much of a resync a look that nobody waits for gives way to those that somebody waits for.
_PATIENCE: Final = 0.5
# What of a status says whether somebody waits.
_WAITING: Final = ("phase", "observedGeneration", "run", "runners", "lastCommand")
_NEVER_STANDS: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_EXITS: Final = """exit codes:
  0  it was stopped
  1  a part of it died
  3  settings or cluster don't allow it to begin
  4  the Lease was lost: start it again, and it stands by"""
_OURS: Final = f"{names.Label.MANAGED_BY.value}={names.MANAGED_BY}"


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What the tasks of the process share."""

    settings: Settings
    api: KubeApi
    world: World
    runners: ObservedRunners
    queue: KeyedQueue[Key]
    watched: Watched
    metrics: Metrics
    mandate: Mandate = field(default_factory=Mandate.without_end)
    elector: Elector | None = None
    """None: this operator is alone."""
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this operator is to work from now on."""
    listed: bool = False


async def run(settings: Settings) -> None:
    """Serve until told to stop; raise Unavailable or SpecError when it can't begin."""
    allow_deep_json()
    metrics = Metrics()
    policy = PolicyFile(settings.policy)
    configuration = await load_configuration(settings.kubeconfig, settings.context)
    async with KubeApi(configuration, metrics.called) as api:
        if not await api.served(SIMULATIONS):
            raise Unavailable(
                f"the cluster knows no {names.PLURAL}.{names.GROUP}/{names.VERSION}: "
                "install the CustomResourceDefinition first"
            )
        keys = await load_or_create(api, settings.own_namespace)
        mandate, elector = _candidate(settings, api, metrics)
        own = api.guarded(mandate.holds)
        runners = ObservedRunners(signer=keys.signer, may_assign=mandate.holds)
        world = World(
            record=KubernetesRecord(
                own, identity=settings.identity, now_ms=_now_ms, told=metrics.told, wrote=metrics.wrote
            ),
            fleet=KubernetesFleet(own, image=settings.image, keys=keys.public, now_ms=_now_ms),
            runners=runners,
            ledgers=Ledgers(),
            policy=policy,
            now_ms=_now_ms,
        )  # fmt: skip
        queue = KeyedQueue[Key](work=lambda key: _look(key, world), draw=random.random, done=metrics.looked)
        parts = _Parts(
            settings=settings, api=api, world=world, runners=runners, queue=queue, watched=Watched(), metrics=metrics,
            mandate=mandate, elector=elector,
        )  # fmt: skip
        health = Health(
            queue=queue, watched=parts.watched, stuck_s=_STUCK_S, behind_s=2.5 * settings.resync_s,
            listed=lambda: parts.listed,
        )  # fmt: skip
        standby = Standby(lambda: address_of(elector.holder) if elector else "", settings.address)
        office = Office(
            leads=mandate.holds, transitions=lambda: elector.transitions if elector else 0,
            refused=lambda: elector.refused if elector else "", standby=standby,
        )  # fmt: skip
        server = await serve(metrics, health, runners, settings.host, settings.port, office)
        try:
            await _operate(parts, server)
        finally:
            await runners.aclose()
            await standby.aclose()


def _candidate(settings: Settings, api: KubeApi, metrics: Metrics) -> tuple[Mandate, Elector | None]:
    """Return the mandate to act, and who gets it by the Lease; without a Lease it is there from the beginning."""
    if not settings.lease:
        return Mandate.without_end(), None
    mandate = Mandate(_passed_s)
    elector = Elector(
        api,
        namespace=settings.own_namespace,
        name=settings.lease,
        identity=identity_of(settings.identity, uuid4().hex[:8], settings.address),
        mandate=mandate,
        wall=lambda: datetime.fromtimestamp(_now_ms() / 1000, UTC),
        draw=random.random,
        renewed=metrics.renewed,
    )
    return mandate, elector


async def _look(key: Key, world: World) -> float | None:
    wish = await reconcile(key.namespace, key.name, world)
    return None if wish is None else wish / 1000


async def _operate(parts: _Parts, server: web.AppRunner) -> None:
    """Run kopf, the workers and the resync as root tasks: any end of one is the end of all."""
    settings = parts.settings
    registry = kopf.OperatorRegistry()
    register(registry, parts.queue, parts.watched, parts.mandate.holds)

    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await _login(settings)

    before = asyncio.all_tasks()
    tasks = await _watching(registry, settings)
    tasks.append(asyncio.create_task(_govern(parts), name="work"))
    tasks.append(asyncio.create_task(_resync(parts), name="resync"))
    tasks.append(asyncio.create_task(_hold(server), name="pages"))
    log.info(
        "operator started",
        extra={"version": __version__, "namespaces": settings.namespaces or "all", "image": settings.image},
    )
    await kopf.run_tasks(tasks, ignored=before)
    log.info("operator stopped")


async def _watching(registry: kopf.OperatorRegistry, settings: Settings) -> list[asyncio.Task[None]]:
    """Return kopf's tasks; its own choice of an identity would ask for the user's name, and a pod's user has none."""
    chosen: dict[str, Any] = {"identity": settings.identity}
    chosen |= {"namespaces": settings.namespaces} if settings.namespaces else {"clusterwide": True}
    return list(await kopf.spawn_tasks(registry=registry, settings=_kopf_settings(), standalone=True, **chosen))


async def _govern(parts: _Parts) -> None:
    """Work for as long as this operator is the one to; raise LeaseLost when it is no more."""
    if parts.elector is None:
        await parts.queue.serve(parts.settings.workers)
    else:
        await parts.elector.run(lambda: _work(parts))


async def _work(parts: _Parts) -> None:
    """Work from now on, and begin with what somebody waits for; the list that follows at once spreads the rest."""
    for key in parts.watched.awaited():
        parts.queue.add(key)
    parts.turn.set()
    await parts.queue.serve(parts.settings.workers)


async def _hold(server: web.AppRunner) -> None:
    """Serve until cancelled, and close what is open then: kopf waits five seconds for every task that goes on."""
    try:
        await asyncio.Event().wait()
    finally:
        await server.cleanup()


async def _resync(parts: _Parts) -> None:
    """List every simulation now and then: looks nobody asked for, deletions nobody saw, and whether the watch lives."""
    while True:
        try:
            await _take_stock(parts)
        except Unavailable as error:
            log.warning("no list of simulations", extra={"error": str(error)})
            parts.watched.unlisted()
        await parts.runners.forget_idle(_IDLE_S)
        await _rest(parts, parts.settings.resync_s * (0.9 + 0.2 * random.random()))


async def _take_stock(parts: _Parts) -> None:
    """Compare what there is with what the watch has shown, and have it looked at."""
    listed = await _list(parts)
    parts.watched.compare(listed, asyncio.get_running_loop().time())
    # The sums are told by who works, so that they may be added over all replicas.
    parts.metrics.listed(listed if parts.mandate.holds() else {})
    if parts.mandate.holds():
        _look_at_all(parts, listed)
    parts.listed = True


async def _rest(parts: _Parts, seconds: float) -> None:
    """Wait for so long, or until this operator is to work."""
    try:
        async with asyncio.timeout(seconds):
            await parts.turn.wait()
    except TimeoutError:
        pass
    parts.turn.clear()


def _look_at_all(parts: _Parts, listed: Mapping[Key, Mapping[str, Any]]) -> None:
    """
    Have every simulation looked at: soon what the watch missed, the others evenly until the next list.

    All of a thousand at once would hold up the looks of those that run; those that nobody waits for also give way.
    """
    behind, resync_s = parts.watched.behind_since, parts.settings.resync_s
    for key in {*listed, *behind}:
        is_waited = key not in listed or is_waited_for(listed[key])
        within_s = min(5.0, resync_s / 4) if is_waited and key in behind else resync_s * _SPREAD
        parts.queue.add_after(key, random.random() * within_s, 0.0 if is_waited else resync_s * _PATIENCE)


async def _list(parts: _Parts) -> dict[Key, dict[str, Any]]:
    places: tuple[str | None, ...] = parts.settings.namespaces or (None,)
    found: dict[Key, dict[str, Any]] = {}
    for namespace in places:
        for item in await parts.api.list(SIMULATIONS, namespace, None, lambda item: _brief(item, parts.metrics)):
            found[_key(item)] = item
    return found


def _key(item: Mapping[str, Any]) -> Key:
    return Key(item["metadata"]["namespace"], item["metadata"]["name"])


def _brief(item: Mapping[str, Any], metrics: Metrics) -> dict[str, Any]:
    """
    Return of a simulation what a resync goes by: identity, generation, command, and the status where it is news.

    Of one that is known, that is what says whether somebody waits for it.

    Whole ones, a thousand at once, took more memory than everything that is kept of them.
    """
    meta = {field: value for field, value in item["metadata"].items() if field not in ("annotations", "managedFields")}
    command = (item["metadata"].get("annotations") or {}).get(names.COMMAND_ANNOTATION)
    if command is not None:
        meta["annotations"] = {names.COMMAND_ANNOTATION: command}
    status = item.get("status") or {}
    if metrics.knows(_key(item)):
        status = {field: status[field] for field in _WAITING if field in status}
    return {"metadata": meta, "status": status}


async def _login(settings: Settings) -> kopf.ConnectionInfo:
    """Return for kopf what our own client uses, read again: a service account's token changes every hour."""
    found = await load_configuration(settings.kubeconfig, settings.context)
    header = await found.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
    scheme, _, token = header.rpartition(" ")
    return kopf.ConnectionInfo(
        server=found.host,
        ca_path=found.ssl_ca_cert,
        ca_data=found.ca_cert_data,
        insecure=not found.verify_ssl,
        scheme=(scheme or "Bearer") if token else None,
        token=token or None,
        certificate_path=found.cert_file,
        private_key_path=found.key_file,
        proxy_url=found.proxy,
    )


class _NothingCompared(kopf.DiffBaseStorage):
    """
    What kopf compares an object with that it saw before: nothing, since no handler asks for changes.

    kopf's own ones copy each object twice for every event, level by level: one that is nested deeply would fail there,
    and an annotation of theirs that somebody else wrote as well.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return the part of an object that is compared."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Return the part as it was."""

    def store(self, **_: Any) -> None:
        """Keep the part."""


def _kopf_settings() -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    # Nothing is ever written under these names; the default finalizer is shared by all kopf operators, and an
    # operator of events only would strip another's.
    chosen.persistence.finalizer = f"{names.GROUP}/operator"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP, v1=False)
    chosen.persistence.diffbase_storage = _NothingCompared()
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    # About three minutes of refusals, then the process ends; an API server that is away is waited for without end.
    chosen.networking.error_backoffs = (1, 1, 2, 3, 5, 8, 13, 21, 30, 30, 30, 30)
    chosen.watching.server_timeout = 300
    chosen.watching.connect_timeout = 5
    chosen.watching.chunk_size = 500
    chosen.watching.label_selectors["apps", "v1", "deployments"] = _OURS
    chosen.watching.label_selectors["v1", "pods"] = _OURS
    chosen.posting.enabled = False
    chosen.posting.loggers = False
    chosen.process.ultimate_exiting_timeout = 60
    return chosen


async def _check(settings: Settings, url: str) -> int:
    """Say whether the operator at *url* works; return the exit code."""
    configuration = await load_configuration(settings.kubeconfig, settings.context)
    async with KubeApi(configuration) as api, httpx.AsyncClient(trust_env=False, timeout=10) as http:
        if found := await problem(api, http, url):
            raise Unavailable(found)
    print(f"the kind is served, and the operator at {url} works")
    return 0


def _passed_s() -> float:
    """Return the seconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(_NEVER_STANDS)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000  # noqa: TID251 - the shell's clock, handed down


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the operator; return its exit code, as `--help` tells them.

        0 after a stop · 1 a part of it died · 3 settings or cluster don't allow it · 4 the Lease was lost
    """
    options = _options(arguments)
    try:
        settings = _settings(options)
    except SettingsError as error:
        print(f"trafficsim-operator: {error}", file=sys.stderr)
        return 3
    _configure_logs(settings)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        import uvloop

        factory: Any = uvloop.new_event_loop
    except ImportError:  # the standard loop does as well, with more CPU
        factory = None
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            if options.check:
                return runner.run(_check(settings, options.check))
            runner.run(run(settings))
    except (Unavailable, SpecError, OSError) as error:
        log.error("the operator can't begin", extra={"error": str(error)})
        print(f"trafficsim-operator: {error}", file=sys.stderr)
        return 3
    except LeaseLost as lost:
        log.error("the Lease was lost: the process ends", extra={"error": str(lost), "exit": 4})
        return 4
    except asyncio.CancelledError:
        return 0
    except Exception:
        log.exception("a part of the operator died")
        return 1
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    settings = Settings.from_env(os.environ)  # noqa: TID251 - parsed once, here
    if options.namespace:
        settings = replace(settings, namespaces=tuple(options.namespace))
    return replace(settings, kubeconfig=options.kubeconfig or settings.kubeconfig, context=options.context)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    text = "\n".join(f"  {name:24} {what}" for name, what in ENVIRONMENT.items())
    parser = argparse.ArgumentParser(
        prog="trafficsim-operator",
        description="Serve TrafficSimulations in a Kubernetes cluster.",
        epilog=f"environment:\n{text}\n\n{_EXITS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--namespace", action="append", metavar="NAME",
        help="serve this namespace only, may be repeated; then a Role is enough (default: the whole cluster)",
    )  # fmt: skip
    parser.add_argument("--kubeconfig", metavar="FILE", help="how to reach the API server from outside the cluster")
    parser.add_argument("--context", metavar="NAME", help="the kubeconfig's context to use")
    parser.add_argument(
        "--check", metavar="URL", help="say whether the operator whose pages are at URL works, and end: 0, or 3 if not"
    )
    parser.add_argument("--version", action="version", version=f"trafficsim {__version__}")
    return parser.parse_args(arguments)


def _configure_logs(settings: Settings) -> None:
    kopf.configure(
        verbose=settings.log_level == "debug",
        quiet=settings.log_level in ("warning", "error"),
        log_format=kopf.LogFormat.JSON if settings.log_json else kopf.LogFormat.PLAIN,
        log_refkey="k8s",
    )
    # One line per watched event would drown everything else.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
