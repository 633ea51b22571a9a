"""`trafficsim plan`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from trafficsim_api.arrivals import UNIT, Course
from trafficsim_api.connections import pools_for
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.policy import DEFAULT, Policy
from trafficsim_api.profile import DEFAULT as RAMP_AND_HOLD
from trafficsim_api.profile import Shape, shape
from trafficsim_api.resource import TrafficSimulation, TrafficSimulationSpec
from trafficsim_api.segments import Curve, Profile, Ramp, Sine, Spike, Steps
from trafficsim_api.units import FULL, format_duration, format_rate, milliseconds
from trafficsim_operator.cli import once
from trafficsim_operator.cli.data import planned_data, planned_lines, rows_beside
from trafficsim_operator.cli.faults import FAULT, as_json, policy_from, simulation_from, tell, tells_faults
from trafficsim_operator.cli.figures import bytes_of, clock, count, counted, spark
from trafficsim_operator.cli.rollout_plan import RolloutCourse, rollout_document, rollout_lines
from trafficsim_operator.cli.scaling_plan import planned_scaling_lines, scaling_document
from trafficsim_operator.cli.scenarios import unknown_of
from trafficsim_operator.fleet.local import IMAGE
from trafficsim_operator.fleet.lookup import HostLookups, host_and_port
from trafficsim_operator.observed import RowsSeen, TargetFacts
from trafficsim_operator.plan.barrier import lead_ms
from trafficsim_operator.plan.data import fed
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
    rows = rows_beside(simulation.spec, Path() if file == "-" else Path(file).absolute().parent)
    if problems := fed(simulation.spec, rows).problems:
        raise SpecError(*problems)
    sizing, is_within = _sized(simulation.spec, rules)
    facts = asyncio.run(HostLookups().resolve(*host_and_port(simulation.spec)))
    ruling = _ruling(simulation.spec, rules, sizing, facts)
    if not is_within:
        return _tell_refusal(simulation, ruling, file, as_json_)
    here = size(simulation.spec, connections=rules.max_connections, cores=_cores())
    both = () if ruling.refusals else _ruling(simulation.spec, rules, sizing, facts, more=sizing.runners).refusals
    course = RolloutCourse.of(simulation.spec, sizing.runners, both)
    if as_json_:
        document = {**_document(simulation, sizing, here, ruling), "rollout": rollout_document(course)}
        document["scaling"] = scaling_document(simulation.spec, sizing)
        click.echo(as_json({**document, "data": planned_data(simulation.spec, rows)}))
    else:
        for line in _lines(simulation, sizing, here, rows):
            click.echo(line)
        for name, lines in (
            ("scaling", planned_scaling_lines(simulation.spec, sizing)), ("rollout", rollout_lines(course)),
        ):  # fmt: skip
            for number, line in enumerate(lines):
                click.echo(f"{'' if number else name:<11} {line}")
        click.echo("")
        if unknown := unknown_of(simulation.spec):
            click.echo(f"not checked {unknown}\n")
        _tell_ruling(ruling, file)
    return FAULT if ruling.refusals else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sized(spec: TrafficSimulationSpec, policy: Policy) -> tuple[Sizing, bool]:
    """Return the sizing, and whether *policy* has runners enough for it; raise SpecError for all but that."""
    try:
        return size(spec, connections=policy.max_connections, policy_max_runners=policy.max_runners), True
    except SpecError as error:
        try:
            return size(spec, connections=policy.max_connections), False
        except SpecError:
            raise error from None


def _ruling(
    spec: TrafficSimulationSpec, policy: Policy, sizing: Sizing, facts: TargetFacts, *, more: int = 0
) -> Ruling:
    ruling = judge(spec, spec.runner.image or IMAGE, facts, policy, sizing.runners, more=more)
    if not facts.problem:
        return ruling
    unknown = Problem(field="target.url", reason=f"{facts.problem}; whether policy allows it is known only then")
    return Ruling(refusals=(*ruling.refusals, unknown), snippet=ruling.snippet, limits=ruling.limits)


def _tell_refusal(simulation: TrafficSimulation, ruling: Ruling, file: str, is_json: bool) -> int:
    """Say what *ruling* refuses, and nothing else: what needs more runners than the policy has gets no size."""
    if is_json:
        click.echo(as_json({"name": simulation.metadata.name, "policy": _policy_document(ruling)}))
    else:
        _tell_ruling(ruling, file)
    return FAULT


def _tell_ruling(ruling: Ruling, file: str) -> None:
    if not ruling.refusals:
        click.echo("policy      allows it")
        return
    click.echo("policy      refuses it:", err=True)
    tell(ruling.refusals, file)
    if ruling.snippet:
        click.echo(f"A policy with this would allow it:\n{ruling.snippet}", err=True)


def _lines(simulation: TrafficSimulation, sizing: Sizing, here: Sizing, rows: Mapping[str, RowsSeen]) -> Sequence[str]:
    spec, tier, scaling = simulation.spec, sizing.tier, simulation.spec.scaling
    cores, most = sizing.cpu_millicores / 1000, sizing.most_processes
    all_cores, all_memory = sizing.runners * cores, bytes_of(sizing.runners * sizing.memory)
    per_process = f"min({count(scaling.users_per_process)}, {_memory_term(spec, sizing)})"
    capacity = f"{most} × {count(sizing.per_process)}"
    if sizing.pooled is None:
        capacity = f"min({capacity}, {count(sizing.connections)} connections)"
    on_this_machine = f"(on this machine with {counted(_cores(), 'core')}: {here.processes})"
    each = f"{counted(sizing.users_per_runner, 'user')} in {counted(sizing.processes, 'process', 'processes')}"
    terms = (
        ("tier", f"{tier.name}: {tier.strategy}, at least {counted(tier.least_runners, 'runner')}" if tier else "none"),
        ("runner", f"{cores:g} cores, {bytes_of(sizing.memory)}"),
        ("processes", f"at most {most} = min(⌊2 × {cores:g} cores⌋, {scaling.max_processes})"),
        ("per process", f"{count(sizing.per_process)} users = {per_process}"),
        ("capacity", f"{count(sizing.capacity)} users a runner = {capacity}"),
        *(("" if number else "connections", text) for number, text in enumerate(_pool_lines(spec, sizing))),
        ("runners", f"{sizing.runners}: {sizing.reason}"),
        ("each", f"{each} {on_this_machine}"),
        ("in all", f"{all_cores:g} cores, {all_memory}"),
        *((("start", _start(sizing)),) if tier and tier.barrier else ()),
        *once.planned_lines(spec),
    )
    head = f"{simulation.metadata.name}: {counted(spec.users, 'user')} against {spec.target.url}"
    return [head, "", *(f"{name:<11} {term}" for name, term in terms), "", *_profile_lines(spec, rows), ""]


def _start(sizing: Sizing) -> str:
    """Say how all runners begin at once."""
    ahead = f"{lead_ms(sizing.runners) / 1000:g} s = 3 s + 10 ms × {sizing.runners}"
    return f"all runners at one instant, told {ahead} ahead; moved on once if one has not acknowledged it"


def _memory_term(spec: TrafficSimulationSpec, sizing: Sizing) -> str:
    is_tls = spec.target.url.startswith("https")
    user = "2 KiB + 36 KiB of TLS" if is_tls and sizing.pooled is None else "2 KiB"
    processes = sizing.most_processes
    pools = f" - {sizing.pooled} × 36 KiB of TLS" if is_tls and sizing.pooled is not None else ""
    memory = f"({sizing.memory // MIB} - 64 × {processes + 1}) MiB"
    return f"⌊{f'({memory}{pools})' if pools else memory} ÷ {processes} ÷ {user}⌋"


def _pool_lines(spec: TrafficSimulationSpec, sizing: Sizing) -> Iterator[str]:
    """Say what each group's pool of a runner holds; nothing when each user has its own connection."""
    if sizing.pooled is None:
        return
    yield f"pooled: at most {count(sizing.pooled)} of a runner's {count(sizing.connections)}"
    for pool in pools_for(spec.connections, spec.archetypes).values():
        idle, wait = (format_duration(timedelta(milliseconds=ms)) for ms in (pool.idle_ms, pool.wait_ms))
        kept = f"idle for {idle} at most" if pool.keep_alive else "closed after each answer"
        yield f"{pool.group}: {pool.least} to {pool.most}, {kept}, priority {pool.priority}, waits {wait} at most"


def _profile_lines(spec: TrafficSimulationSpec, rows: Mapping[str, RowsSeen]) -> list[str]:
    profile = shape(spec.profile)
    end = milliseconds(spec.duration) if spec.duration else max(profile.length_ms * 5 // 4, 1000)
    curve = spark([profile.users_at(spec.users, end * step // 59) for step in range(60)])
    lines = [f"profile     {curve}  {'over ' + format_duration(spec.duration) if spec.duration else 'until stopped'}"]
    at = 0
    for number, piece in enumerate(spec.profile or RAMP_AND_HOLD):
        after = shape((spec.profile or RAMP_AND_HOLD)[: number + 1]).length_ms
        doing = _doing(piece, spec.users, count(profile.users_at(spec.users, after)))
        lines.append(f"            {clock(at)} – {clock(after)}  {doing}")
        at = after
    if spec.arrivals is not None:
        lines.append(f"            {_arrivals(spec, profile, end)}")
    # A run without end has no sum.
    planned = f", {profile.user_ms(spec.users, 0, end) / 3_600_000:.2f} user-hours" if spec.duration else ""
    peak, warm_up = profile.peak(spec.users, 0, end), format_duration(spec.warm_up)
    lines.append(f"            at most {counted(peak, 'user')}{planned}; warm-up {warm_up}")
    lines += [f"{'' if number else 'note':<11} {text}" for number, text in enumerate(_notes(spec))]
    for number, text in enumerate(planned_lines(spec, rows, profile, end)):
        lines.append(f"{'' if number else 'data':<11} {text}")
    return lines


def _notes(spec: TrafficSimulationSpec) -> Sequence[str]:
    """Say what is likely not what was meant, though it can be run."""
    length_ms = shape(spec.profile).length_ms
    if spec.duration is None or length_ms <= milliseconds(spec.duration):
        return ()
    length, duration = format_duration(timedelta(milliseconds=length_ms)), format_duration(spec.duration)
    return (
        f"the profile takes {length}, the run ends after {duration}: what the profile has from there on is not run",
    )


def _arrivals(spec: TrafficSimulationSpec, profile: Shape, end_ms: int) -> str:
    """Say at what rate iterations arrive and how many there will be, if it ends; the users are the most at a time."""
    assert spec.arrivals is not None
    due = Course(shape=profile, rate=spec.arrivals.rate).due(end_ms) // UNIT
    planned = f": {count(due)} in all" if spec.duration else ""
    how = "at random" if spec.arrivals.process == "poisson" else "evenly"
    rate = format_rate(spec.arrivals.rate)
    return f"{rate} arrivals at 100%, {how}{planned}, by at most {count(spec.users)} users at a time"


def _doing(piece: Profile, users: int, afterwards: str) -> str:
    """Say what a segment does, in users."""

    def at(level: int) -> str:
        return count((2 * users * level + FULL) // (2 * FULL))

    match piece.ramp or piece.hold or piece.steps or piece.spike or piece.sine or piece.curve:
        case Ramp(to=to):
            return f"ramp to {at(to)} users"
        case Steps(to=to, count=steps, every=every):
            return f"{steps} steps to {at(to)} users, {format_duration(every)} each"
        case Spike(to=to, hold=hold):
            return f"spike to {at(to)} users for {format_duration(hold)}, and back"
        case Sine(low=low, high=high, period=period):
            return f"waves between {at(low)} and {at(high)} users, one in {format_duration(period)}"
        case Curve(points=points):
            return f"curve through {', '.join(at(point.to) for point in points)} users"
        case _:
            return f"hold {afterwards} users"


def _document(simulation: TrafficSimulation, sizing: Sizing, here: Sizing, ruling: Ruling) -> Mapping[str, Any]:
    spec = simulation.spec
    profile = shape(spec.profile)
    terms = {key: value for key, value in asdict(sizing).items() if key not in ("tier", "scaled")}
    return {
        **once.planned(spec),
        "name": simulation.metadata.name,
        "users": spec.users,
        "tier": sizing.tier.name if sizing.tier else None,
        "strategy": sizing.tier.strategy if sizing.tier else None,
        "runners": sizing.runners,
        "processes": sizing.processes,
        "processesHere": here.processes,
        "reason": sizing.reason,
        "terms": terms,
        "startAheadMs": lead_ms(sizing.runners) if sizing.tier and sizing.tier.barrier else None,
        "arrivals": None if spec.arrivals is None else spec.arrivals.model_dump(mode="json"),
        "profile": [
            {
                "fromMs": segment.begin_ms, "toMs": segment.begin_ms + segment.length_ms,
                "users": profile.users_at(spec.users, segment.begin_ms + segment.length_ms),
            }
            for segment in profile.segments
        ],
        "notes": list(_notes(spec)),
        "notChecked": unknown_of(spec),
        "policy": _policy_document(ruling),
    }  # fmt: skip


def _policy_document(ruling: Ruling) -> Mapping[str, Any]:
    return {
        "allowed": not ruling.refusals,
        "refusals": [{"field": problem.field, "reason": problem.reason} for problem in ruling.refusals],
        "snippet": ruling.snippet,
    }
