"""
The TrafficSimulation resource, group `trafficsim.io`, version `v1alpha1`: frozen models, the source of the CRD.

Defaults live here (in the CRD only those of `users` and `suspend`). Field docstrings are what `kubectl explain` prints.
A field whose system is not built yet is absent, never accepted and ignored.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.alias_generators import to_camel

from trafficsim_api.arrivals import Arrivals
from trafficsim_api.connections import BUILT_IN, Connections
from trafficsim_api.data import MAX_FEEDERS, ConfigMapKey, DataFrom, Feeder, check_data
from trafficsim_api.flow import (
    ACTION_GROUPS,
    VERBS,
    Archetype,
    Choice,
    Expect,
    Once,
    Repeat,
    Request,
    Step,
    Think,
    actions_in,
    actions_of,
    examined,
)
from trafficsim_api.layout import MAX_ACTIONS
from trafficsim_api.model import PRESERVE, Model, fault
from trafficsim_api.rollout import Rollout
from trafficsim_api.rules import parse_rule
from trafficsim_api.scaling import Scaling
from trafficsim_api.segments import Curve, CurvePoint, Hold, Profile, Ramp, Sine, Spike, Steps
from trafficsim_api.target import TLS, CAFrom, Target, Timeouts
from trafficsim_api.template import EnvVar, ImagePullSecret, Quantities, Resources, Runner, Toleration
from trafficsim_api.units import Duration

__all__ = [
    "ACTION_GROUPS",
    "PRESERVE",
    "TLS",
    "VERBS",
    "Archetype",
    "Arrivals",
    "CAFrom",
    "ConfigMapKey",
    "Choice",
    "Connections",
    "Curve",
    "CurvePoint",
    "EnvVar",
    "DataFrom",
    "Expect",
    "Feeder",
    "Hold",
    "ImagePullSecret",
    "Metadata",
    "Model",
    "Once",
    "Profile",
    "Quantities",
    "Ramp",
    "Repeat",
    "Request",
    "Resources",
    "Runner",
    "Scaling",
    "Sine",
    "Spike",
    "Step",
    "Steps",
    "Target",
    "Think",
    "Threshold",
    "Timeouts",
    "Toleration",
    "TrafficSimulation",
    "TrafficSimulationSpec",
    "actions_in",
    "actions_of",
    "examined",
]

OBJECT_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class Threshold(Model):
    """A rule the run is judged by."""

    rule: Annotated[str, StringConstraints(min_length=3, max_length=256)]
    """`p95 < 250ms`, `p99(login) < 1s over 30s`, `error_rate < 1%`, `success > 99%`, `rps > 100`."""
    abort: bool = False
    """End the run at once when the rule is broken."""

    @field_validator("rule")
    @classmethod
    def _parses(cls, rule: str) -> str:
        parse_rule(rule)
        return rule


class TrafficSimulationSpec(Model):
    """Virtual users at work against a target."""

    target: Target
    users: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """Virtual users; tier and runner count follow. `kubectl scale` changes it."""
    duration: Duration | None = None
    """Absent: until suspended or deleted. Suspended time does not count."""
    suspend: bool = False
    """Drain to zero users, keep everything else."""
    profile: Annotated[tuple[Profile, ...], Field(min_length=1, max_length=64)] | None = None
    """Absent: ramp to 100% over 30s, then hold. After the last segment its level is held."""
    arrivals: Arrivals | None = None
    """Absent: closed model, a user begins anew when it is done. Else the open one, `users` at work at most."""
    archetypes: Annotated[tuple[Archetype, ...], Field(min_length=1, max_length=32)]
    """The kinds of users."""
    setup: Once | None = None
    """Done before the first user comes; every user may look up what it saves. If it fails no load is started."""
    teardown: Once | None = None
    """Done after the last user left, unless setup failed; it may look up what setup saved."""
    data: Annotated[tuple[Feeder, ...], Field(max_length=MAX_FEEDERS)] = ()
    """Rows of test data for `{{data.FEEDER.COLUMN}}`."""
    thresholds: Annotated[tuple[Threshold, ...], Field(max_length=32)] = ()
    """The rules the run is judged by."""
    runner: Runner = Runner()
    rollout: Rollout = Rollout()
    scaling: Scaling = Scaling()
    connections: Connections = Connections()
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    """What every draw comes from: same seed, same archetype and data for each user."""
    warm_up: Duration = timedelta(seconds=10)
    """From the run's start; its numbers are left out of the verdict."""
    run_request: Annotated[str, StringConstraints(max_length=128)] | None = None
    """Any new string starts the next run after a finished one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.duration is not None and self.duration < timedelta(seconds=1):
            raise fault("duration", "at least 1s is needed")
        if self.duration is not None and self.warm_up >= self.duration:
            raise fault("warmUp", "must be shorter than duration")
        self._check_lookups()
        check_data(self.data, self.archetypes, self.users)
        names: set[str] = set()
        for index, name in enumerate(archetype.name for archetype in self.archetypes):
            if name in names:
                raise fault(f"archetypes[{index}].name", f"{name} is given twice")
            names.add(name)
        if not sum(archetype.weight for archetype in self.archetypes):
            raise fault("archetypes", "at least one weight above 0 is needed")
        actions = actions_of(self.archetypes)
        if len(actions) > MAX_ACTIONS:
            raise fault("archetypes", f"at most {MAX_ACTIONS} actions in all are possible, not {len(actions)}")
        groups = {group for _, group in actions} | BUILT_IN.keys()
        for group in self.connections.groups or {}:
            if group not in groups and not self.has_scenario:
                raise fault(f"connections.groups.{group}", "no request is of this group")
        self._check_names({name for name, _ in actions})
        return self

    @property
    def has_scenario(self) -> bool:
        """Say whether some archetype is written in Python: its actions and metrics are known only to the runner."""
        return any(archetype.scenario for archetype in self.archetypes)

    def _check_names(self, actions: set[str]) -> None:
        """Refuse a rule that names nothing; what is no flow's may be a scenario's."""
        for index, threshold in enumerate(self.thresholds):
            field, rule = f"thresholds[{index}].rule", parse_rule(threshold.rule)
            if rule.action in actions and rule.plain:
                raise fault(field, f"{rule.metric} is a time: its limit needs ms or s")
            if rule.action in actions and rule.needs_metric:
                raise fault(field, f"{rule.action} is an action: {rule.metric} is of a scenario's metric")
            if rule.action is not None and rule.action not in actions and not self.has_scenario:
                raise fault(field, f"there is no {'metric' if rule.needs_metric else 'action'} {rule.action}")

    def _check_lookups(self) -> None:
        """Refuse a template that nothing before it saves: neither an earlier step of its flow nor setup."""
        flows = [(f"archetypes[{index}]", archetype.steps) for index, archetype in enumerate(self.archetypes)]
        known = examined(self.setup.flow).saved if self.setup else frozenset()
        for where, flow, saved in (
            *(("setup", once.flow, frozenset[str]()) for once in (self.setup,) if once),
            *((where, flow, known) for where, flow in flows),
            *(("teardown", once.flow, known) for once in (self.teardown,) if once),
        ):
            for field, name in examined(flow, f"{where}.flow").missing:
                if name not in saved:
                    before = "an earlier step or setup" if self.setup and where != "setup" else "an earlier step"
                    raise fault(field, f"{{{{{name}}}}} is not saved by {before}")


class Metadata(Model):
    """Name and namespace; the rest of the object's metadata is the API server's."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=OBJECT_NAME)]
    namespace: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = None
    uid: str | None = None
    generation: int = 0


class TrafficSimulation(Model):
    """Load as a resource."""

    api_version: Literal["trafficsim.io/v1alpha1"]
    kind: Literal["TrafficSimulation"]
    metadata: Metadata
    spec: TrafficSimulationSpec
    status: Annotated[dict[str, Any] | None, Field(exclude=True)] = None
