"""
The fleet in a cluster: one Deployment per runner revision, its pods the runners.

Children are listed by label and owner at every look: what a watch missed does not matter. A Deployment is applied once
by `trafficsim`; afterwards only its replicas are, with its uid, by `trafficsim-scale`. The same manager leaving
replicas out would set them to 1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from trafficsim_api import names
from trafficsim_api.errors import Unavailable
from trafficsim_api.policy import Policy
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.actions import EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.drift import (
    applied_template,
    fingerprint,
    has_additions,
    has_other_selector,
    is_drifted,
)
from trafficsim_operator.fleet.lookup import HostLookups, address_in, host_and_port
from trafficsim_operator.fleet.pods import end_unseen, is_lost, replica_failure, runner_of, state_of
from trafficsim_operator.fleet.rows import ConfigMapRows, inline_rows
from trafficsim_operator.fleet.scalers import foreign_scaler
from trafficsim_operator.fleet.services import own_service_name, service_facts, trusted_certificates
from trafficsim_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    Changed,
    Forbidden,
    KubeApi,
    Object,
    Unacceptable,
    owned_by,
)
from trafficsim_operator.manifests import deployment, keys_map
from trafficsim_operator.manifests.deployment import DEFAULT_GRACE_S, grace_after
from trafficsim_operator.observed import RevisionSeen, RowsSeen, RunnerState, TargetFacts

__all__ = ["KubernetesFleet"]

log = logging.getLogger(__name__)

_DNS_KEPT_MS: Final = 30_000
_SERVICE_KEPT_MS: Final = 10_000
# So often the same drift is repaired in vain before it is borne: an admission webhook puts it back.
_REPAIRS: Final = 2
# So often a scale is tried while only the Deployment's status changes.
_SCALES: Final = 5
_DATA: Final = ("data", "binaryData")


class KubernetesFleet:
    """Runners as pods; see fleet.Fleet for what each call promises."""

    cores: int | None = None

    def __init__(self, api: KubeApi, *, image: str, keys: Mapping[str, str], now_ms: Callable[[], int]) -> None:
        """Make runners of *image* where a spec names none, trusting *keys* (PEM by key id)."""
        self.image = image
        self._api = api
        self._keys = keys
        self._now_ms = now_ms
        self._foreign: set[tuple[str, str]] = set()
        """(simulation UID, revision) whose Deployment's name turned out to be taken by somebody else."""
        self._grace_s: dict[tuple[str, str], int] = {}
        """A runner's grace by simulation (namespace, name): it follows from the target's time-out, not the template."""
        self._rows = ConfigMapRows(api, now_ms)
        self._hosts = HostLookups()
        self._dns: dict[str, tuple[int, TargetFacts]] = {}
        self._services: dict[tuple[str, str, int], tuple[int, TargetFacts]] = {}
        """Own Services by (namespace, host, port), and until when that is believed: a look lists the target's pods."""
        self._repaired: dict[str, tuple[str, int]] = {}
        """By Deployment UID: the fingerprint that a repair left drifted, and how many repairs did."""

    async def observe(self, owner: Owner) -> Mapping[str, RevisionSeen]:
        """Return every revision that exists, with its runners."""
        labels = {names.Label.MANAGED_BY.value: names.MANAGED_BY, names.Label.SIMULATION_UID.value: owner.uid}
        deployments = await self._api.list(DEPLOYMENTS, owner.namespace, labels)
        own_ones = [item for item in deployments if owned_by(item, owner.uid) and not _is_leaving(item)]
        if not own_ones:  # most simulations of a cluster run nothing
            return await self._taken(owner)
        replica_sets, pods, keys = await asyncio.gather(
            self._api.list(REPLICA_SETS, owner.namespace, labels),
            self._api.list(PODS, owner.namespace, labels),
            self._keys_map(owner),
        )
        now = datetime.fromtimestamp(self._now_ms() / 1000, UTC)
        seen: dict[str, RevisionSeen] = {}
        keys_differ = _differ(keys, keys_map(owner, self._keys))
        for item in own_ones:
            revision = item["metadata"]["labels"].get(names.Label.REVISION, "")
            own = _pods_of(item, replica_sets, pods)
            runners = tuple(runner_of(pod) for pod in own if not is_lost(pod, now))
            seen[revision] = RevisionSeen(
                revision=revision,
                replicas=item["spec"].get("replicas", 1),
                runners=runners,
                unseen=tuple(runner_of(pod) for pod in own if is_lost(pod, now) and end_unseen(pod)),
                problem=replica_failure(item),
                drifted=keys_differ or self._is_drifted(item),
                scaler=foreign_scaler(item, "replicas"),
            )
        return seen | await self._taken(owner)

    async def apply(self, owner: Owner, action: EnsureRevision | Retire | RemoveRevision) -> None:
        """Carry out one action."""
        name = names.deployment_name(owner.name, owner.uid, action.revision)
        live = await self._api.get(DEPLOYMENTS, owner.namespace, name)
        if live is not None and not owned_by(live, owner.uid):
            self._foreign.add((owner.uid, action.revision))
            raise Unavailable(f"a Deployment {name} that is not ours is in the way")
        try:
            match action:
                case EnsureRevision():
                    await self._ensure(owner, action, live)
                case Retire():
                    await self._retire(owner, action, live)
                case RemoveRevision():
                    if live is not None:
                        meta = live["metadata"]
                        await self._api.delete(DEPLOYMENTS, owner.namespace, name, meta["uid"], meta["resourceVersion"])
                        self._repaired.pop(live["metadata"]["uid"], None)
                case _:
                    assert_never(action)
        except (Forbidden, Unacceptable) as error:
            raise Unavailable(f"the cluster says no: {str(error).partition(': ')[2]}") from error

    async def look_up(
        self, owner: Owner, spec: TrafficSimulationSpec, policy: Policy
    ) -> tuple[TargetFacts, str | None, str]:
        """Return what the target's URL means in the simulation's namespace, and the certificates to trust."""
        request_s = -(-spec.target.timeouts.request // timedelta(seconds=1))
        self._grace_s[owner.namespace, owner.name] = grace_after(request_s)
        host, port = host_and_port(spec)
        facts = await self._own_service(owner, host, port) or await self._resolve(owner, host, port)
        given = spec.target.tls.ca_from if spec.target.tls else None
        if given is None or given.inline is not None:
            return facts, given.inline if given else None, ""
        if given.config_map is None:
            return facts, None, "target.tls.caFrom.path: only `trafficsim run` reads files; give configMap or inline"
        return facts, *await trusted_certificates(self._api, owner.namespace, given.config_map)

    async def rows(self, owner: Owner, spec: TrafficSimulationSpec) -> Mapping[str, RowsSeen]:
        """Return the rows of each feeder; a path is the runners' to read."""
        found: dict[str, RowsSeen] = {}
        for feeder in spec.data:
            given = feeder.from_
            if given.config_map is not None:
                found[feeder.name] = await self._rows.read(owner.namespace, given.config_map)
            else:
                found[feeder.name] = inline_rows(feeder) if given.inline is not None else RowsSeen()
        return found

    async def _ensure(self, owner: Owner, action: EnsureRevision, live: Object | None) -> None:
        await self._ensure_keys(owner)
        if live is not None and has_other_selector(live) and not _lacks_labels(live, owner, action.revision):
            await self._api.delete(DEPLOYMENTS, owner.namespace, live["metadata"]["name"], live["metadata"]["uid"])
            live = None
        if live is None:
            await self._api.apply(DEPLOYMENTS, self._body(owner, action, None), names.FieldManager.OBJECTS)
        elif self._is_drifted(live) or _lacks_labels(live, owner, action.revision):
            await self._repair(owner, action, live)
        elif live["spec"].get("replicas") != action.replicas:
            await self._scale(owner, live, action.replicas)

    async def _repair(self, owner: Owner, action: EnsureRevision, live: Object) -> None:
        """
        Apply the whole Deployment again, its replicas too.

        Subtle: what others added is theirs under server-side apply and stays, so it is replaced first; applying
        afterwards takes the fields that they hold.
        """
        body = self._body(owner, action, live)
        if has_additions(live):
            await self._api.replace(DEPLOYMENTS, _instead(live, body), names.FieldManager.OBJECTS)
        now = await self._api.apply(DEPLOYMENTS, body, names.FieldManager.OBJECTS)
        told = {"deployment": live["metadata"]["name"], "namespace": owner.namespace}
        uid, mark = now["metadata"]["uid"], fingerprint(now)
        if not is_drifted(now):
            self._repaired.pop(uid, None)
            log.info("drift repaired", extra=told)
            return
        before, times = self._repaired.get(uid, ("", 0))
        self._repaired[uid] = (mark, times + 1 if before == mark else 1)
        log.warning("drift comes back at once: does an admission webhook change Deployments?", extra=told)

    def _is_drifted(self, live: Object) -> bool:
        """Say whether a repair would help."""
        mark, times = self._repaired.get(live["metadata"]["uid"], ("", 0))
        return is_drifted(live, borne=mark if times >= _REPAIRS else "")

    def _body(self, owner: Owner, action: EnsureRevision, live: Object | None) -> Object:
        """
        Return the whole Deployment, with its replicas.

        A repair applies the template as it was applied before: one built by another version of the operator might
        differ, and restart every runner.
        """
        grace_s = self._grace_s.get((owner.namespace, owner.name), DEFAULT_GRACE_S)
        body = deployment(owner, action.revision, action.template, action.replicas, grace_s)
        if live is None:
            return body
        if (template := applied_template(live)) is not None:
            body["spec"]["template"] = template
            text = live["metadata"]["annotations"][names.APPLIED_ANNOTATION]
            body["metadata"]["annotations"][names.APPLIED_ANNOTATION] = text
        body["metadata"]["uid"] = live["metadata"]["uid"]
        return body

    async def _keys_map(self, owner: Owner) -> Object | None:
        return await self._api.get(CONFIG_MAPS, owner.namespace, names.keys_name(owner.name, owner.uid))

    async def _ensure_keys(self, owner: Owner) -> None:
        """Have the runners trust our key, and nobody else's."""
        wanted = keys_map(owner, self._keys)
        if not _differ(await self._keys_map(owner), wanted):
            return
        now = await self._api.apply(CONFIG_MAPS, wanted, names.FieldManager.OBJECTS)
        # Entries that others made are theirs under server-side apply, and stay.
        foreign = {field: (now.get(field) or {}).keys() - wanted.get(field, {}).keys() for field in _DATA}
        if any(foreign.values()):
            patch = {field: dict.fromkeys(entries) for field, entries in foreign.items() if entries}
            meta = wanted["metadata"]
            await self._api.merge(CONFIG_MAPS, meta["namespace"], meta["name"], patch, names.FieldManager.OBJECTS)

    async def _retire(self, owner: Owner, action: Retire, live: Object | None) -> None:
        """Take replicas away once the named pods are unready: of ready and unready ones the unready go first."""
        if live is None or live["spec"].get("replicas", 1) == action.replicas:
            return
        for name in action.runners if action.replicas else ():
            pod = await self._api.get(PODS, owner.namespace, name)
            if pod is not None and state_of(pod) is RunnerState.READY:
                raise Unavailable(f"runner {name} is still ready: another one would go in its place")
        await self._scale(owner, live, action.replicas)

    async def _scale(self, owner: Owner, live: Object, replicas: int) -> None:
        """
        Set the replicas of *live* as it was read; raise Changed when somebody set them meanwhile.

        The Deployment's controller writes status in bursts, so a later version with the same replicas will do.
        """
        uid, was = live["metadata"]["uid"], live["spec"].get("replicas", 1)
        for attempt in range(1, _SCALES + 1):
            meta = {key: live["metadata"][key] for key in ("name", "uid", "resourceVersion")}
            body = {"metadata": meta | {"namespace": owner.namespace}, "spec": {"replicas": replicas}}
            try:
                await self._api.apply(DEPLOYMENTS, body, names.FieldManager.SCALE)
                return
            except Changed:
                now = await self._api.get(DEPLOYMENTS, owner.namespace, meta["name"])
                is_same = now is not None and (now["metadata"]["uid"], now["spec"].get("replicas", 1)) == (uid, was)
                if now is None or not is_same or attempt == _SCALES:
                    raise
                live = now

    async def _taken(self, owner: Owner) -> dict[str, RevisionSeen]:
        """Return the revisions whose name is still taken by somebody else."""
        taken: dict[str, RevisionSeen] = {}
        for uid, revision in [key for key in self._foreign if key[0] == owner.uid]:
            name = names.deployment_name(owner.name, owner.uid, revision)
            item = await self._api.get(DEPLOYMENTS, owner.namespace, name)
            if item is None or owned_by(item, owner.uid):
                self._foreign.discard((uid, revision))
            else:
                taken[revision] = RevisionSeen(revision=revision, replicas=0, foreign=True)
        return taken

    async def _own_service(self, owner: Owner, host: str, port: int) -> TargetFacts | None:
        """Return what service_facts finds; what is in order is believed for ten seconds."""
        now_ms, key = self._now_ms(), (owner.namespace, host, port)
        self._services = {place: known for place, known in self._services.items() if known[0] > now_ms}
        if key in self._services:
            return self._services[key][1]
        facts = await service_facts(self._api, owner, host, port)
        if facts is not None and facts.own_service and not facts.problem:
            self._services[key] = (now_ms + _SERVICE_KEPT_MS, facts)
        return facts

    async def _resolve(self, owner: Owner, host: str, port: int) -> TargetFacts:
        """Resolve a name that is no own Service; an answer is kept half a minute, in order, so that it doesn't flap."""
        if own_service_name(host, owner.namespace) == host and "." not in host:
            return TargetFacts(
                host=host, port=port, problem=f"there is no Service {host} in namespace {owner.namespace}"
            )  # fmt: skip
        known = self._dns.get(host)
        if known is None or known[0] < self._now_ms():
            facts = await self._hosts.resolve(host, port)
            if address_in(host) or facts.problem:
                return facts
            addresses, now_ms = tuple(sorted(facts.addresses)), self._now_ms()
            known = (now_ms + _DNS_KEPT_MS, TargetFacts(host=host, port=port, addresses=addresses))
            # What is over is forgotten: names come and go with simulations.
            self._dns = {name: found for name, found in self._dns.items() if found[0] > now_ms} | {host: known}
        return TargetFacts(host=host, port=port, addresses=known[1].addresses)


def _is_leaving(item: Object) -> bool:
    return bool(item["metadata"].get("deletionTimestamp"))


def _instead(live: Object, body: Object) -> Object:
    """
    Return *live* with our spec, labels and annotations; those of others stay.

    Its UID must still be the same, its version need not: the Deployment's controller writes status in bursts, and the
    spec is ours whatever it has become.
    """
    meta = {key: value for key, value in live["metadata"].items() if key not in ("managedFields", "resourceVersion")}
    for field in ("labels", "annotations"):
        meta[field] = (meta.get(field) or {}) | body["metadata"][field]
    return {"metadata": meta, "spec": body["spec"]}


def _lacks_labels(live: Object, owner: Owner, revision: str) -> bool:
    """Say whether labels by which *live* is found are gone or changed."""
    labels = live["metadata"].get("labels") or {}
    return any(labels.get(key) != value for key, value in names.labels(owner.name, revision, owner.uid).items())


def _differ(found: Object | None, wanted: Object) -> bool:
    """Say whether the ConfigMap *found* holds anything else than *wanted*."""
    return found is None or any((found.get(field) or {}) != wanted.get(field, {}) for field in _DATA)


def _pods_of(item: Object, replica_sets: tuple[Object, ...], pods: tuple[Object, ...]) -> list[Object]:
    """Return the pods of a Deployment: those of the ReplicaSets that it owns."""
    sets = [found["metadata"]["uid"] for found in replica_sets if owned_by(found, item["metadata"]["uid"])]
    return [pod for pod in pods if any(owned_by(pod, uid) for uid in sets)]
