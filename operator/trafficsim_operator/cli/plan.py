"""`trafficsim plan`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from trafficsim_api.errors import Problem
from trafficsim_api.policy import DEFAULT, Policy
from trafficsim_api.profile import DEFAULT as RAMP_AND_HOLD
from trafficsim_api.profile import shape
from trafficsim_api.resource import TrafficSimulation, TrafficSimulationSpec
from trafficsim_api.units import format_duration, milliseconds
from trafficsim_operator.cli.faults import FAULT, as_json, policy_from, simulation_from, tell, tells_faults
from trafficsim_operator.cli.figures import bytes_of, clock, count, spark
from trafficsim_operator.fleet.local import IMAGE
from trafficsim_operator.fleet.lookup import host_and_port, resolve
from trafficsim_operator.plan.policy import Ruling, judge
from trafficsim_operator.plan.sizing import MIB, Sizing, size

__all__ = ["plan"]

EPILOG: Final = """\b
Examples:
  trafficsim plan examples/shop.yaml
  trafficsim plan shop.yaml --policy team.yaml
  trafficsim plan shop.yaml --shipped-policy     what a cluster with the shipped policy would say
  trafficsim plan shop.yaml --json
"""


@click.command(epilog=EPILOG, short_help="Say what would be run and why: tier, runners, memory.")
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json_", is_flag=True, help="One JSON document.")
@click.option("--policy", metavar="FILE", help="The policy to plan under (default: loopback and private addresses).")
@click.option("--shipped-policy", is_flag=True, help="Plan under the policy that a cluster has unless told otherwise.")
@click.option("--allow-target", "allowed", metavar="HOST:PORT", multiple=True, help="Allow one more target.")
@tells_faults
def plan(file: str, as_json_: bool, policy: str | None, shipped_policy: bool, allowed: tuple[str, ...]) -> int:
    """
    Say what FILE would need and why, from the very code that decides it; nothing is started.

    Exit code 3 when it would be refused, with the policy that would allow it.
    """
    _, simulation = simulation_from(file)
    rules = DEFAULT if shipped_policy else policy_from(policy, allowed)
    sizing = size(simulation.spec, connections=rules.max_connections, policy_max_runners=rules.max_runners)
    here = size(simulation.spec, connections=rules.max_connections, cores=_cores())
    ruling = _ruling(simulation.spec, rules, sizing)
    if as_json_:
        click.echo(as_json(_document(simulation, sizing, here, ruling)))
    else:
        for line in _lines(simulation, sizing, here):
            click.echo(line)
        _tell_ruling(ruling, file)
    return FAULT if ruling.refusals else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ruling(spec: TrafficSimulationSpec, policy: Policy, sizing: Sizing) -> Ruling:
    facts = asyncio.run(resolve(*host_and_port(spec)))
    ruling = judge(spec, spec.runner.image or IMAGE, facts, policy, sizing.runners)
    if not facts.problem:
        return ruling
    unknown = Problem(field="target.url", reason=f"{facts.problem}; whether policy allows it is known only then")
    return Ruling(refusals=(*ruling.refusals, unknown), snippet=ruling.snippet, limits=ruling.limits)


def _tell_ruling(ruling: Ruling, file: str) -> None:
    if not ruling.refusals:
        click.echo("policy      allows it")
        return
    click.echo("policy      refuses it:", err=True)
    tell(ruling.refusals, file)
    if ruling.snippet:
        click.echo(f"A policy with this would allow it:\n{ruling.snippet}", err=True)


def _lines(simulation: TrafficSimulation, sizing: Sizing, here: Sizing) -> Sequence[str]:
    spec = simulation.spec
    tier = sizing.tier
    lines = [
        f"{simulation.metadata.name}: {count(spec.users)} users against {spec.target.url}",
        "",
        f"tier        {tier.name}: {tier.strategy}, at least {tier.least_runners} runners"
        if tier
        else "tier        none",
        f"runner      {sizing.cpu_millicores / 1000:g} cores, {bytes_of(sizing.memory)}",
        f"processes   at most {sizing.most_processes} = min(⌊2 × {sizing.cpu_millicores / 1000:g} cores⌋, {spec.scaling.max_processes})",
        f"per process {count(sizing.per_process)} users = min({count(spec.scaling.users_per_process)}, {_memory_term(spec, sizing)})",
        f"capacity    {count(sizing.capacity)} users a runner = min({sizing.most_processes} × {count(sizing.per_process)}, "
        f"{count(sizing.connections)} connections)",
        f"runners     {sizing.runners}: {sizing.reason}",
        f"each        {count(sizing.users_per_runner)} users in {sizing.processes} processes "
        f"(on this machine with {_cores()} cores: {here.processes})",
        f"in all      {sizing.runners * sizing.cpu_millicores / 1000:g} cores, {bytes_of(sizing.runners * sizing.memory)}",
        "",
        *_profile_lines(spec),
        "",
    ]
    return lines


def _memory_term(spec: TrafficSimulationSpec, sizing: Sizing) -> str:
    user = "2 KiB + 36 KiB of TLS" if spec.target.url.startswith("https") else "2 KiB"
    processes = sizing.most_processes
    return f"⌊({sizing.memory // MIB} - 64 × {processes + 1}) MiB ÷ {processes} ÷ {user}⌋"


def _profile_lines(spec: TrafficSimulationSpec) -> list[str]:
    profile = shape(spec.profile)
    end = milliseconds(spec.duration) if spec.duration else max(profile.length_ms * 5 // 4, 1000)
    curve = spark([profile.users_at(spec.users, end * step // 59) for step in range(60)])
    lines = [f"profile     {curve}  {'over ' + format_duration(spec.duration) if spec.duration else 'until stopped'}"]
    for segment, piece in zip(profile.segments, spec.profile or RAMP_AND_HOLD, strict=True):
        at, after = segment.begin_ms, segment.begin_ms + segment.length_ms
        users = profile.users_at(spec.users, after)
        doing = f"ramp to {count(users)}" if piece.ramp else f"hold {count(users)}"
        lines.append(f"            {clock(at)} – {clock(after)}  {doing} users")
    planned = profile.user_ms(spec.users, 0, end) / 3_600_000
    lines.append(
        f"            at most {count(profile.peak(spec.users, 0, end))} users, {planned:.2f} user-hours; warm-up {format_duration(spec.warm_up)}"
    )
    return lines


def _document(simulation: TrafficSimulation, sizing: Sizing, here: Sizing, ruling: Ruling) -> Mapping[str, Any]:
    spec = simulation.spec
    profile = shape(spec.profile)
    terms = {key: value for key, value in asdict(sizing).items() if key != "tier"}
    return {
        "name": simulation.metadata.name,
        "users": spec.users,
        "tier": sizing.tier.name if sizing.tier else None,
        "strategy": sizing.tier.strategy if sizing.tier else None,
        "runners": sizing.runners,
        "processes": sizing.processes,
        "processesHere": here.processes,
        "reason": sizing.reason,
        "terms": terms,
        "profile": [
            {
                "fromMs": segment.begin_ms, "toMs": segment.begin_ms + segment.length_ms,
                "users": profile.users_at(spec.users, segment.begin_ms + segment.length_ms),
            }
            for segment in profile.segments
        ],
        "policy": {
            "allowed": not ruling.refusals,
            "refusals": [{"field": problem.field, "reason": problem.reason} for problem in ruling.refusals],
            "snippet": ruling.snippet,
        },
    }  # fmt: skip
