"""
Policy: what a simulation may do, and the snippet that would allow what was refused.

A target is allowed when its host stands in `targets`, when it is a Service with a selector of the own namespace and
`service: own` stands there, or when *every* address it resolves to lies in an allowed `cidr`. Link-local and metadata
addresses (169.254.0.0/16, fe80::/10, fd00:ec2::254) count only under a `cidr` that lies wholly within them. An IPv4
address written in IPv6 (::ffff:169.254.169.254) is the IPv4 address; behind NAT64 (64:ff9b::/96) it is guarded as well.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from trafficsim_api.errors import Problem
from trafficsim_api.policy import Policy, PolicyTarget
from trafficsim_api.protocol import Allowed, Limits, bare
from trafficsim_api.resource import Step, TrafficSimulationSpec
from trafficsim_api.units import format_duration
from trafficsim_operator.observed import TargetFacts

__all__ = ["Ruling", "judge", "repository_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_GUARDED: Final = tuple(
    ipaddress.ip_network(text) for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "64:ff9b::a9fe:0/112")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """
    What policy says: *refusals*, the *snippet* that would allow it all, the *limits* for the runners.

    The snippet is YAML, a line for each field of the policy document that it takes the place of: its lists have what is
    allowed already, too.
    """

    refusals: tuple[Problem, ...]
    snippet: str
    limits: Limits


def judge(
    spec: TrafficSimulationSpec, image: str, facts: TargetFacts, policy: Policy, max_runners: int, *, more: int = 0
) -> Ruling:
    """
    Return the ruling on *spec* with resolved *image*, *facts* of its target and the *max_runners* it needs.

    *more* are the runners of a new version: those of both stand until its promotion.
    """
    refused: list[tuple[Problem, str]] = [
        *_users(spec, policy, max_runners, more),
        *_image(image, policy),
        *_verbs(spec, policy),
    ]
    if not facts.problem:
        refused += _target(facts, policy)
    return Ruling(
        refusals=tuple(problem for problem, _ in refused),
        snippet="\n".join(dict.fromkeys(line for _, line in refused)),
        limits=Limits(
            targets=tuple(Allowed(network=str(bare(address)), ports=(facts.port,)) for address in facts.addresses),
            verbs=tuple(policy.verbs or ()),
            connections=policy.max_connections,
            concurrency=policy.max_concurrency,
        ),
    )


def repository_of(image: str) -> str:
    """Return the repository of *image*: without digest and tag; a port in a registry's host is no tag."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def _users(spec: TrafficSimulationSpec, policy: Policy, runners: int, more: int) -> Iterator[tuple[Problem, str]]:
    if policy.max_users is not None and spec.users > policy.max_users:
        yield (
            Problem(field="users", reason=f"{spec.users} are more than the policy's {policy.max_users}"),
            f"maxUsers: {spec.users}",
        )
    if policy.max_runners is not None and runners + more > policy.max_runners:
        beside = f"a rollout of {more} runners beside {runners}: " if more else ""
        reason = f"{beside}{runners + more} runners are more than the policy's {policy.max_runners}"
        yield Problem(field="runner" if more else "users", reason=reason), f"maxRunners: {runners + more}"
    if policy.max_duration is not None and (spec.duration is None or spec.duration > policy.max_duration):
        most = format_duration(policy.max_duration)
        if spec.duration is None:
            yield (
                Problem(field="duration", reason=f"the policy needs one, of at most {most}"),
                f"maxDuration: null  # or in the simulation: duration: {most}",
            )
        else:
            wanted = format_duration(spec.duration)
            yield (
                Problem(field="duration", reason=f"{wanted} are more than the policy's {most}"),
                f"maxDuration: {wanted}",
            )


def _image(image: str, policy: Policy) -> Iterator[tuple[Problem, str]]:
    repository = repository_of(image)
    if policy.images is not None and repository not in policy.images:
        yield (
            Problem(field="runner.image", reason=f"the repository {repository} is not one of the policy's images"),
            f"images: [{', '.join(json.dumps(name) for name in (*policy.images, repository))}]",
        )


def _verbs(spec: TrafficSimulationSpec, policy: Policy) -> Iterator[tuple[Problem, str]]:
    if policy.verbs is None:
        return
    allowed = set(policy.verbs)
    denied: dict[str, str] = {}
    flows = [(archetype.steps, f"archetypes[{number}].flow") for number, archetype in enumerate(spec.archetypes)]
    flows += [(once.flow, f"{kind}.flow") for kind in ("setup", "teardown") if (once := getattr(spec, kind))]
    for flow, place in flows:
        for where, step in walk(flow, place):
            if step.request and step.request.verb not in allowed:
                denied.setdefault(step.request.verb, f"{where}.request")
    for verb, where in denied.items():
        verbs = sorted(allowed | denied.keys())
        yield Problem(field=where, reason=f"the policy does not allow {verb}"), f"verbs: [{', '.join(verbs)}]"


def walk(flow: tuple[Step, ...], where: str) -> Iterator[tuple[str, Step]]:
    """Yield every step of *flow*, nested ones too, with the field it stands in."""
    for number, step in enumerate(flow):
        yield f"{where}[{number}]", step
        for field, inner in step.nested:
            yield from walk(inner, f"{where}[{number}].{field}")


def _target(facts: TargetFacts, policy: Policy) -> Iterator[tuple[Problem, str]]:
    addresses = [bare(address) for address in facts.addresses]
    guarded = [address for address in addresses if any(address in network for network in _GUARDED)]
    if not guarded and any(_names(entry, facts) for entry in policy.targets):
        return
    networks = [
        ipaddress.ip_network(entry.cidr)
        for entry in policy.targets
        if entry.cidr is not None and (not entry.ports or facts.port in entry.ports)
    ]
    refused = [address for address in addresses if not _inside(address, networks, is_guarded=address in guarded)]
    if not refused:
        return
    address = refused[0]
    what = facts.host if facts.host == str(address) else f"{facts.host} ({address})"
    why = f": {facts.not_own}" if facts.not_own else ""
    # Subtle: an entry by name allows no target that has a guarded address.
    is_by_address = bool(guarded) or facts.host in facts.addresses
    wanted = [{"cidr": f"{address}/{address.max_prefixlen}"} for address in dict.fromkeys(refused)]
    more = [{**entry, "ports": [facts.port]} for entry in (wanted if is_by_address else [{"host": facts.host}])]
    allowed = [entry.model_dump(mode="json", exclude_defaults=True) for entry in policy.targets]
    yield (
        Problem(field="target.url", reason=f"the policy does not allow {what} port {facts.port}{why}"),
        f"targets: [{', '.join(_flow_mapping(entry) for entry in (*allowed, *more))}]",
    )


def _flow_mapping(entry: Mapping[str, object]) -> str:
    """Return *entry* as YAML in one line."""
    return f"{{{', '.join(f'{key}: {json.dumps(value)}' for key, value in entry.items())}}}"


def _inside(address: Address, networks: Iterable[Network], *, is_guarded: bool) -> bool:
    """Say whether one of *networks* has *address*; a wide network never opens a guarded one by accident."""
    return any(
        address.version == network.version
        and address in network
        and (not is_guarded or any(_within(network, guard) for guard in _GUARDED))
        for network in networks
    )


def _names(entry: PolicyTarget, facts: TargetFacts) -> bool:
    if entry.ports and facts.port not in entry.ports:
        return False
    return (entry.service == "own" and facts.own_service) or (
        entry.host is not None and entry.host == facts.host.lower()
    )


def _within(inner: Network, outer: Network) -> bool:
    match inner, outer:
        case (ipaddress.IPv4Network(), ipaddress.IPv4Network()):
            return inner.subnet_of(outer)
        case (ipaddress.IPv6Network(), ipaddress.IPv6Network()):
            return inner.subnet_of(outer)
        case _:
            return False
