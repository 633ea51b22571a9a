"""
Acceptance: may this document be acted on, and with which image, size and limits.

A document is accepted when it can be read, policy allows it, and its size can be had. While a run is on, its image is
the one pinned in status.stable, whatever the installation's is by now, and so is the rest of the template: a changed
`spec.runner` takes effect with the next run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.names import revision_of
from trafficsim_api.protocol import Limits, Load
from trafficsim_api.resource import Runner, TrafficSimulationSpec
from trafficsim_api.status import Revision
from trafficsim_operator.observed import Desired, Observed
from trafficsim_operator.plan.data import fed
from trafficsim_operator.plan.once import unsaved
from trafficsim_operator.plan.policy import judge
from trafficsim_operator.plan.sizing import Sizing, size

__all__ = ["Accepted", "Refused", "accept", "template_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What may be done: *waiting* says what it has to wait for in the world (""; else e.g. an unresolved name)."""

    spec: TrafficSimulationSpec
    sizing: Sizing
    revision: Revision
    load: Load
    limits: Limits
    waiting: str = ""
    missing: str = ""
    """What of its data is not there, or not as it must be, while the run goes on by what the runners have."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """The rows of load.data, packed, by digest."""
    later: str = ""
    """What of the spec takes effect with the next run only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why nothing may be done: *problems* in the user's words, and the policy *snippet* that would allow it."""

    problems: tuple[Problem, ...]
    snippet: str = ""
    invalid: bool = False

    @property
    def message(self) -> str:
        """Return the problems in one line, then the snippet."""
        text = "; ".join(str(problem) for problem in self.problems)
        return f"{text}\nA policy with this would allow it:\n{self.snippet}" if self.snippet else text


def template_of(runner: Runner, image: str) -> dict[str, Any]:
    """Return the normalised `spec.runner` with the *image* resolved: what a revision is the hash of."""
    return runner.model_copy(update={"image": image}).model_dump(mode="json", by_alias=True, exclude_none=True)


def accept(desired: Desired, observed: Observed, pinned: Revision | None) -> Accepted | Refused:
    """Return what may be done about *desired*; *pinned* is the revision of the run that is on, if one is."""
    spec = desired.spec
    if spec is None:
        return Refused(problems=desired.problems, invalid=True)
    if observed.ca_problem and pinned is None:
        return Refused(problems=(Problem(field="target.tls.caFrom", reason=observed.ca_problem),), invalid=True)
    data = fed(spec, observed.data)
    if _is_edit(desired, pinned):
        missing = unsaved(spec, desired.status.run, observed.accepted, observed.saved) if pinned is not None else ()
        if problems := (*data.problems, *missing):
            return Refused(problems=problems, invalid=True)
    revision, later = _revision_of(spec.runner, observed.image, pinned)
    if pinned is not None:
        spec = spec.model_copy(update={"runner": _runner_of(pinned)})
    try:
        sizing = size(
            spec,
            connections=observed.policy.max_connections,
            policy_max_runners=observed.policy.max_runners,
            cores=observed.cores,
            processes_held=_processes_held(desired, observed) if pinned is not None else 0,
        )
    except SpecError as error:
        return Refused(problems=error.problems)
    ruling = judge(spec, revision.image, observed.target, observed.policy, sizing.runners)
    if ruling.refusals:
        return Refused(problems=ruling.refusals, snippet=ruling.snippet)
    return Accepted(
        spec=spec,
        sizing=sizing,
        revision=revision,
        limits=ruling.limits,
        waiting=observed.target.problem or observed.ca_problem,
        missing=data.missing or "; ".join(map(str, data.problems)),
        rows=data.packed,
        later=later,
        load=Load(
            target=spec.target,
            profile=spec.profile,
            arrivals=spec.arrivals,
            archetypes=spec.archetypes,
            seed=spec.seed,
            connections=spec.connections,
            data=data.feeds,
            ca=observed.ca,
        ),
    )


def _revision_of(runner: Runner, default: str, pinned: Revision | None) -> tuple[Revision, str]:
    """Return the revision that runners are of now, and what of *runner* has to wait for the next run."""
    if pinned is not None:
        return pinned, "runner: the change takes effect with the next run" if _changed(runner, pinned) else ""
    image = runner.image or default
    template = template_of(runner, image)
    return Revision(revision=revision_of(template), image=image, runner=template), ""


def _is_edit(desired: Desired, pinned: Revision | None) -> bool:
    """Say whether the document is newer than what the run goes by; a ConfigMap may change under one that is not."""
    run = desired.status.run
    return pinned is None or run is None or run.generation != desired.generation


def _processes_held(desired: Desired, observed: Observed) -> int:
    """Return the most worker processes of a runner of the run that is on: within a run they become no fewer."""
    run = desired.status.run.id if desired.status.run is not None else 0
    acks = [runner.acknowledgement for runner in observed.runners]
    return max((ack.processes for ack in acks if ack is not None and ack.run == run), default=0)


def _changed(runner: Runner, pinned: Revision) -> bool:
    return template_of(runner, runner.image or pinned.image) != template_of(_runner_of(pinned), pinned.image)


def _runner_of(revision: Revision) -> Runner:
    return Runner.model_validate_json(json.dumps(revision.runner))
