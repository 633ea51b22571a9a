"""
Acceptance: may this document be acted on, and with which image, size and limits.

A document is accepted when it can be read, policy allows it, and its size can be had. While a run is on, its runners
are of the version in status.stable, with the image that was pinned, whatever the installation's is by now; a changed
`spec.runner` is the version that is wanted: users move to it in a rollout. Policy and size are judged for both, and the
policy's maxRunners counts the runners of both, since all stand until the promotion.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.names import revision_of
from trafficsim_api.protocol import Limits, Load
from trafficsim_api.resource import Runner, TrafficSimulationSpec
from trafficsim_api.status import Revision
from trafficsim_operator.observed import Desired, Observed
from trafficsim_operator.plan.data import Fed, fed
from trafficsim_operator.plan.once import unsaved
from trafficsim_operator.plan.policy import judge
from trafficsim_operator.plan.sizing import Sizing, size

__all__ = ["Accepted", "Refused", "accept", "template_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What may be done: *waiting* says what it has to wait for in the world (""; else e.g. an unresolved name)."""

    spec: TrafficSimulationSpec
    sizing: Sizing
    """Of all users on the runners of *revision*."""
    revision: Revision
    """The version that runs: stable."""
    wanted: Revision
    """The version that the spec asks for."""
    sizings: Mapping[str, Sizing]
    """Of all users on the runners of each version that may have some, by revision."""
    load: Load
    limits: Limits
    forbidden: str = ""
    """Why *wanted*, which was rejected, can't be tried again: policy or size."""
    waiting: str = ""
    missing: str = ""
    """What of its data is not there, or not as it must be, while the run goes on by what the runners have."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """The rows of load.data, packed, by digest."""

    def with_stable(self, revision: Revision) -> Accepted:
        """Return the same with *revision* as the version that runs."""
        if revision.revision == self.revision.revision:
            return self
        return replace(self, revision=revision, sizing=self.sizings.get(revision.revision, self.sizing))


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
    revision, wanted = _revisions(desired, observed, spec.runner, pinned)
    asked = spec
    if revision is not wanted:
        spec = spec.model_copy(update={"runner": _runner_of(revision)})
    held = _processes_held(desired, observed) if pinned is not None else {}
    try:
        sizing = _sized(spec, observed, held.get(revision.revision, 0))
    except SpecError as error:
        return _unsized(error, spec, revision, observed, held.get(revision.revision, 0))
    ruling = judge(spec, revision.image, observed.target, observed.policy, sizing.runners)
    if ruling.refusals:
        return Refused(problems=ruling.refusals, snippet=ruling.snippet)
    sizings, forbidden = {revision.revision: sizing}, ""
    if wanted.revision != revision.revision:
        beside = _beside(asked, wanted, observed, held.get(wanted.revision, 0), _standing(desired, sizing, wanted))
        if isinstance(beside, Sizing):
            sizings[wanted.revision] = beside
        elif wanted.revision != _rejected(desired):
            return beside
        else:
            forbidden = "; ".join(map(str, beside.problems))
    return Accepted(
        spec=spec,
        sizing=sizing,
        revision=revision,
        wanted=wanted,
        sizings=sizings | _of_others(desired, spec, observed, held, sizings),
        limits=ruling.limits,
        forbidden=forbidden,
        waiting=observed.target.problem or observed.ca_problem,
        missing=data.missing or "; ".join(map(str, data.problems)),
        rows=data.packed,
        load=_load(spec, observed, data),
    )


def _load(spec: TrafficSimulationSpec, observed: Observed, data: Fed) -> Load:
    return Load(
        target=spec.target,
        profile=spec.profile,
        arrivals=spec.arrivals,
        archetypes=spec.archetypes,
        seed=spec.seed,
        connections=spec.connections,
        data=data.feeds,
        ca=observed.ca,
    )


def _revisions(
    desired: Desired, observed: Observed, runner: Runner, pinned: Revision | None
) -> tuple[Revision, Revision]:
    """
    Return the version that runners are of, and the one that *runner* asks for.

    A run begins with what is asked for, but for a version that was rejected: it is not started before it changes. Until
    its setup or its first user a change takes the place of what was asked for: there is nothing to roll over from.
    """
    before = desired.status
    if pinned is None:
        image = runner.image or observed.image
        wanted = _revision(template_of(runner, image), image, named=runner.image is not None)
        is_rejected = before.stable is not None and wanted.revision == _rejected(desired)
        return (before.stable if is_rejected and before.stable is not None else wanted), wanted
    image = runner.image or _default_image((pinned, before.previous, before.candidate), observed.image)
    template = template_of(runner, image)
    if template == template_of(_runner_of(pinned), pinned.image):
        return pinned, pinned
    wanted = _revision(template, image, named=runner.image is not None)
    if _is_before_setup(desired) and wanted.revision != _rejected(desired):
        return wanted, wanted
    known = (before.candidate, before.previous)
    same = next((r for r in known if r is not None and r.revision == wanted.revision), wanted)
    return pinned, same.model_copy(update={"places": 0})


def _revision(template: dict[str, Any], image: str, *, named: bool) -> Revision:
    return Revision(revision=revision_of(template), image=image, runner=template, named=named)


def _default_image(known: Iterable[Revision | None], installation: str) -> str:
    """
    Return the image of a spec that names none: as it was resolved when the run began, else the installation's.

    So taking a named image out of the spec again leads back to the version before, and an upgrade of the operator to
    nothing new.
    """
    resolved = next((revision.image for revision in known if revision is not None and not revision.named), None)
    return resolved or installation


def _beside(
    asked: TrafficSimulationSpec, wanted: Revision, observed: Observed, held: int, runners: int
) -> Sizing | Refused:
    """Return the size of the version *wanted* beside the *runners* that there are, or why there can be no rollout."""
    try:
        sizing = _sized(asked, observed, held)
    except SpecError as error:
        return _unsized(error, asked, wanted, observed, held, beside=runners)
    ruling = judge(asked, wanted.image, observed.target, observed.policy, runners, more=sizing.runners)
    return Refused(problems=ruling.refusals, snippet=ruling.snippet) if ruling.refusals else sizing


def _standing(desired: Desired, sizing: Sizing, wanted: Revision) -> int:
    """Return the runners that a new version would stand beside: those that load asks for, too, until it is begun."""
    before = desired.status
    is_begun = before.candidate is not None and before.candidate.revision == wanted.revision
    if is_begun or before.scaling is None or before.stable is None:
        return sizing.runners
    counts = (v.wanted for v in before.scaling.versions if v.revision == before.stable.revision)
    return max(sizing.runners, next(counts, 0))


def _is_before_setup(desired: Desired) -> bool:
    run = desired.status.run
    return run is not None and not run.origin and run.setup is None


def _rejected(desired: Desired) -> str:
    rollout = desired.status.rollout
    return rollout.rejected if rollout is not None else ""


def _unsized(
    error: SpecError, spec: TrafficSimulationSpec, revision: Revision, observed: Observed, held: int, *, beside: int = 0
) -> Refused:
    """
    Return why *spec* has no size: the *error*, or all that policy says when only its maxRunners is too small.

    *revision* is the version that runs, or with *beside* the one that would stand beside so many runners.
    """
    try:
        needed = _sized(spec, observed, held, is_bounded=False).runners
    except SpecError:
        return Refused(problems=error.problems)
    runners, more = (beside, needed) if beside else (needed, 0)
    ruling = judge(spec, revision.image, observed.target, observed.policy, runners, more=more)
    return Refused(problems=ruling.refusals, snippet=ruling.snippet)


def _sized(spec: TrafficSimulationSpec, observed: Observed, processes_held: int, *, is_bounded: bool = True) -> Sizing:
    return size(
        spec,
        connections=observed.policy.max_connections,
        policy_max_runners=observed.policy.max_runners if is_bounded else None,
        cores=observed.cores,
        processes_held=processes_held,
    )


def _of_others(
    desired: Desired,
    spec: TrafficSimulationSpec,
    observed: Observed,
    held: Mapping[str, int],
    known: Mapping[str, Sizing],
) -> dict[str, Sizing]:
    """Return the sizings of versions that nobody asks for any more; one that could not hold the users gets no more."""
    found = {}
    for revision in (desired.status.candidate, desired.status.previous):
        if revision is not None and revision.revision not in known:
            with contextlib.suppress(SpecError):
                as_it_was = spec.model_copy(update={"runner": _runner_of(revision)})
                found[revision.revision] = _sized(as_it_was, observed, held.get(revision.revision, 0))
    return found


def _is_edit(desired: Desired, pinned: Revision | None) -> bool:
    """Say whether the document is newer than what the run goes by; a ConfigMap may change under one that is not."""
    run = desired.status.run
    return pinned is None or run is None or run.generation != desired.generation


def _processes_held(desired: Desired, observed: Observed) -> Mapping[str, int]:
    """Return by revision the most worker processes of a runner of the run: within a run they become no fewer."""
    run = desired.status.run.id if desired.status.run is not None else 0
    found: dict[str, int] = {}
    for runner in observed.runners:
        ack = runner.acknowledgement
        if ack is not None and ack.run == run:
            found[runner.revision] = max(found.get(runner.revision, 0), ack.processes)
    return found


def _runner_of(revision: Revision) -> Runner:
    return Runner.model_validate_json(json.dumps(revision.runner))
