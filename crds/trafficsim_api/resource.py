"""
The TrafficSimulation resource, group `trafficsim.io`, version `v1alpha1`: frozen models, the source of the CRD.

Defaults live here (in the CRD only those of `users` and `suspend`). Field docstrings are what `kubectl explain` prints.
A field whose system is not built yet is absent, never accepted and ignored.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from trafficsim_api.layout import MAX_ACTIONS
from trafficsim_api.rules import parse_rule
from trafficsim_api.units import CPU, FULL, Duration, Memory, Percentage

__all__ = [
    "ACTION_GROUPS",
    "Archetype",
    "CAFrom",
    "Expect",
    "Hold",
    "Model",
    "Profile",
    "Ramp",
    "Repeat",
    "Request",
    "Resources",
    "Runner",
    "Scaling",
    "Step",
    "TLS",
    "Target",
    "Think",
    "Threshold",
    "Timeouts",
    "TrafficSimulation",
    "TrafficSimulationSpec",
    "VERBS",
    "actions_of",
]

ACTION_GROUPS: Final = ("auth", "user", "bulk")
VERBS: Final = ("get", "head", "post", "put", "patch", "delete", "options")
MAX_DEPTH: Final = 4

PRESERVE: Final = {"x-kubernetes-preserve-unknown-fields": True}


class Model(BaseModel):
    """A frozen piece of the contract: camelCase outside, unknown fields refused, no silent conversions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        strict=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


def _scalar(value: object) -> object:
    """Take a whole number where a string is meant: `page: 2` is what people write."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, StringConstraints(max_length=2048)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:-]*$")]
Scalar = Annotated[
    str,
    BeforeValidator(_scalar),
    StringConstraints(max_length=2048),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 2048}),
]
StringMap = Annotated[dict[str, Scalar], Field(max_length=64)]
# A JSON value of the user's; the CRD keeps it as it stands, depth and size are bounded by the document.
Json = Annotated[Any, WithJsonSchema(PRESERVE)]


def _exactly_one(model: BaseModel, names: tuple[str, ...], what: str) -> None:
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        found = f", not {' and '.join(to_camel(g.rstrip('_')) for g in given)} together" if given else ""
        raise PydanticCustomError("exactly_one", "{what} is needed{found}", {"what": what, "found": found})


class Timeouts(Model):
    """How long each phase of a request may take."""

    connect: Duration = timedelta(seconds=1)
    """Until the connection stands, TLS handshake included."""
    request: Duration = timedelta(seconds=30)
    """From the first byte sent until the last byte of the answer."""

    @model_validator(mode="after")
    def _not_zero(self) -> Self:
        for name in ("connect", "request"):
            if not timedelta(milliseconds=10) <= getattr(self, name) <= timedelta(minutes=10):
                raise PydanticCustomError("range", "{name}: from 10ms to 10m is needed", {"name": name})
        return self


class CAFrom(Model):
    """Where the certificates come from that the target's certificate is verified with; exactly one way."""

    inline: Annotated[str, StringConstraints(max_length=65536)] | None = None
    """PEM text."""
    path: Text | None = None
    """A file on this machine; only with `trafficsim run`."""
    config_map: Name | None = None
    """A ConfigMap of the simulation's namespace, its key `ca.crt`."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        _exactly_one(self, ("inline", "path", "config_map"), "exactly one of inline, path, configMap")
        return self


class TLS(Model):
    """TLS towards the target; certificates are always verified."""

    ca_from: CAFrom | None = None
    """Certificates to trust instead of the runner image's."""
    server_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    """The name the certificate is verified against and sent as SNI; absent: the URL's host."""


class Target(Model):
    """What the load goes to."""

    url: Annotated[
        str,
        StringConstraints(
            max_length=2048, pattern=r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^\s?#]*)?$"
        ),
    ]
    """Scheme, host, port and an optional path that every request's path is appended to."""
    health_path: Annotated[str, StringConstraints(max_length=2048, pattern=r"^/\S*$")] = "/"
    """What the pre-flight asks before any load, with GET; an answer below 500 is health."""
    timeouts: Timeouts = Timeouts()
    tls: TLS | None = None

    @field_validator("url")
    @classmethod
    def _port(cls, url: str) -> str:
        match = re.match(r"^https?://(?:\[[^\]]+\]|[^:/]+)(?::([0-9]+))?", url)
        if match and match[1] and not 1 <= int(match[1]) <= 65535:
            raise PydanticCustomError("port", "a port from 1 to 65535 is needed")
        return url


class Ramp(Model):
    """Change the users evenly."""

    to: Percentage
    """The share of `users` at the end of the segment."""
    over: Duration


class Hold(Model):
    """Keep the users as they are."""

    for_: Annotated[Duration, Field(alias="for")]


class Profile(Model):
    """One segment of the profile: exactly one of ramp and hold."""

    ramp: Ramp | None = None
    hold: Hold | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        _exactly_one(self, ("ramp", "hold"), "exactly one of ramp, hold")
        if self.ramp and self.ramp.to > FULL:
            raise PydanticCustomError("range", "ramp.to: at most 100% is needed")
        return self


class Request(Model):
    """One HTTP request: a verb with its path, and what is sent."""

    get: Text | None = None
    head: Text | None = None
    post: Text | None = None
    put: Text | None = None
    patch: Text | None = None
    delete: Text | None = None
    options: Text | None = None
    params: StringMap | None = None
    """Query parameters, encoded."""
    headers: StringMap | None = None
    json_: Annotated[Json, Field(alias="json")] = None
    """A JSON body; templates work in its strings."""
    form: StringMap | None = None
    """A form body, url-encoded."""
    body: Annotated[str, StringConstraints(max_length=65536)] | None = None
    """A raw body."""

    @model_validator(mode="after")
    def _shape(self) -> Self:
        _exactly_one(self, VERBS, "one of " + ", ".join(VERBS))
        if not self.path.startswith("/"):
            raise PydanticCustomError("path", "{verb}: a path that starts with / is needed", {"verb": self.verb})
        if re.search(r"[\s\x00-\x1f\x7f]", re.sub(r"\{\{.*?\}\}", "", self.path)):
            raise PydanticCustomError("path", "{verb}: a path without spaces is needed", {"verb": self.verb})
        bodies = [
            name
            for name, value in (("json", self.json_), ("form", self.form), ("body", self.body))
            if value is not None
        ]
        if len(bodies) > 1:
            raise PydanticCustomError(
                "bodies", "only one of json, form, body may be given, not {found}", {"found": ", ".join(bodies)}
            )
        for header, value in (self.headers or {}).items():
            if not re.match(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", header):
                raise PydanticCustomError("header", "headers: {name} is not a header name", {"name": repr(header)})
            if re.search(r"[\r\n\x00]", value):
                raise PydanticCustomError("header", "headers.{name}: no line breaks are allowed", {"name": header})
            if header.lower() in ("content-length", "transfer-encoding", "connection", "host"):
                raise PydanticCustomError(
                    "header", "headers.{name}: this header is set by the runner", {"name": header}
                )
        return self

    @property
    def verb(self) -> str:
        """Return the verb in lower case."""
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def path(self) -> str:
        """Return the path, templates and all."""
        return str(getattr(self, self.verb))


_STATUS: Final = r"^[1-5]([0-9][0-9]|xx)(,[1-5]([0-9][0-9]|xx))*$"


class Expect(Model):
    """What an answer must be; each entry is one check. Absent: status < 400."""

    status: (
        Annotated[
            str,
            BeforeValidator(_scalar),
            StringConstraints(pattern=_STATUS, max_length=64),
            WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _STATUS, "maxLength": 64}),
        ]
        | None
    ) = None
    """A status (200), a class (2xx), or several (200,201,404)."""
    header: StringMap | None = None
    """Header name to the exact value it must have."""
    json_: Annotated[
        dict[str, Any] | None, Field(alias="json", max_length=32), WithJsonSchema({"type": "object", **PRESERVE})
    ] = None
    """JSON path (`items.0.id`) to the value that must stand there."""
    body: Text | None = None
    """Text that the body must contain."""


class Think(Model):
    """A pause; exactly one form: constant, min and max (uniform), median and p95 (log-normal)."""

    constant: Duration | None = None
    min: Duration | None = None
    max: Duration | None = None
    median: Duration | None = None
    p95: Duration | None = None

    @model_validator(mode="after")
    def _form(self) -> Self:
        given = {name for name in ("constant", "min", "max", "median", "p95") if getattr(self, name) is not None}
        if given not in ({"constant"}, {"min", "max"}, {"median", "p95"}):
            raise PydanticCustomError("think", "constant, or min and max, or median and p95 is needed")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise PydanticCustomError("think", "min must not be above max")
        if self.median is not None and self.p95 is not None and not timedelta(0) < self.median <= self.p95:
            raise PydanticCustomError("think", "0 < median <= p95 is needed")
        return self


_TIMES: Final = r"^[0-9]{1,5}(\.\.[0-9]{1,5})?$"


class Repeat(Model):
    """Do a flow several times."""

    times: Annotated[
        str,
        BeforeValidator(_scalar),
        StringConstraints(pattern=_TIMES),
        WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _TIMES, "maxLength": 16}),
    ]
    """How often: 3, or 3..10 drawn anew each time."""
    flow: Annotated[
        tuple[Step, ...],
        Field(min_length=1, max_length=128),
        WithJsonSchema({"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "object", **PRESERVE}}),
    ]

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the least and the largest number of repetitions."""
        low, _, high = self.times.partition("..")
        return int(low), int(high or low)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        low, high = self.bounds
        if not 0 <= low <= high <= 10_000 or high == 0:
            raise PydanticCustomError("times", "times: a number from 1 to 10000, or low..high, is needed")
        return self


_SAVE: Final = re.compile(r"^(json\.[^\s]{1,200}|header\.[A-Za-z0-9-]{1,100}|cookie\.[^\s;=]{1,100}|status|body)$")
_VARIABLE: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
_TEMPLATE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LOOKUP: Final = re.compile(
    r"^\s*(user\.(id|number|archetype|iteration)|env\.[A-Za-z_][A-Za-z0-9_]*|[A-Za-z_][A-Za-z0-9_]*)\s*$"
)


class Step(Model):
    """One step of a flow: exactly one of request, think and repeat."""

    action: Name | None = None
    """The name the numbers of this request are kept under; absent: VERB path-template."""
    group: Name | None = None
    """Endpoint group: auth, user, bulk or a name of yours; absent: user."""
    request: Request | None = None
    expect: Expect | None = None
    save: Annotated[dict[str, Text], Field(max_length=32)] | None = None
    """Variable to what it takes from the answer: json.PATH, header.NAME, cookie.NAME, status or body."""
    think: Think | None = None
    repeat: Repeat | None = None

    @model_validator(mode="after")
    def _shape(self) -> Self:
        _exactly_one(self, ("request", "think", "repeat"), "exactly one of request, think, repeat")
        if self.request is None:
            for name in ("action", "group", "expect", "save"):
                if getattr(self, name) is not None:
                    raise PydanticCustomError("alone", "{name} belongs to a request", {"name": name})
        for variable, source in (self.save or {}).items():
            if not _VARIABLE.match(variable) or variable in ("user", "env", "data"):
                raise PydanticCustomError("save", "save: {name} is not a variable name", {"name": repr(variable)})
            if not _SAVE.match(source):
                raise PydanticCustomError(
                    "save",
                    "save.{name}: one of json.PATH, header.NAME, cookie.NAME, status, body is needed",
                    {"name": variable},
                )
        return self

    @property
    def name(self) -> str:
        """Return the action's name: given, or made of verb and path template."""
        assert self.request is not None
        return self.action or f"{self.request.verb.upper()} {self.request.path.partition('?')[0]}"


def _templates(value: Any) -> list[str]:
    match value:
        case str():
            return [part for part in _TEMPLATE.findall(value)]
        case dict():
            return [part for pair in value.items() for item in pair for part in _templates(item)]
        case list() | tuple():
            return [part for item in value for part in _templates(item)]
        case _:
            return []


def depth_of(value: object, limit: int = 40) -> int:
    """Return how deep lists and mappings are nested in *value*, counted up to *limit*."""
    if limit <= 0 or not isinstance(value, (dict, list, tuple)):
        return 0
    items = value.values() if isinstance(value, dict) else value
    return 1 + max((depth_of(item, limit - 1) for item in items), default=0)


class Archetype(Model):
    """A kind of user: its share of the users and what such a user does, over and over."""

    name: Name
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """The share of the users, relative to the other archetypes' weights."""
    flow: Annotated[tuple[Step, ...], Field(min_length=1, max_length=128)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        saved: set[str] = set()
        requests = self._walk(self.flow, "flow", 1, saved)
        if not requests:
            raise PydanticCustomError("flow", "flow: at least one request is needed")
        return self

    def _walk(self, flow: tuple[Step, ...], where: str, depth: int, saved: set[str]) -> int:
        """Check templates against what earlier steps saved; return the number of requests."""
        if depth > MAX_DEPTH:
            raise PydanticCustomError("depth", "{where}: flows may nest at most 4 deep", {"where": where})
        requests = 0
        for index, step in enumerate(flow):
            here = f"{where}[{index}]"
            if step.repeat:
                requests += self._walk(step.repeat.flow, f"{here}.repeat.flow", depth + 1, saved)
            elif step.request:
                requests += 1
                _check_lookups(step.request, f"{here}.request", saved)
                saved.update(step.save or ())
        return requests


def _check_lookups(request: Request, where: str, saved: set[str]) -> None:
    if depth_of(request.json_) > 16:
        raise PydanticCustomError("depth", "{where}.json: at most 16 levels are allowed", {"where": where})
    values = (request.path, request.params, request.headers, request.json_, request.form, request.body)
    for part in (part for value in values for part in _templates(value)):
        match = _LOOKUP.match(part)
        if match is None:
            raise PydanticCustomError(
                "template", "{where}: {{{{{part}}}}} is not a template", {"where": where, "part": part}
            )
        name = match[1]
        if "." not in name and name not in saved:
            raise PydanticCustomError(
                "template",
                "{where}: {name} is not saved by an earlier step",
                {"where": where, "name": "{{" + name + "}}"},
            )


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


class Quantities(Model):
    """CPU and memory."""

    cpu: CPU | None = None
    memory: Memory | None = None


class Resources(Model):
    """CPU and memory of a runner; requests and limits are made equal."""

    requests: Quantities | None = None
    limits: Quantities | None = None

    @model_validator(mode="after")
    def _equal(self) -> Self:
        for name in ("cpu", "memory"):
            request = getattr(self.requests, name, None)
            limit = getattr(self.limits, name, None)
            if request is not None and limit is not None and request != limit:
                raise PydanticCustomError("equal", "requests.{name} and limits.{name} must be equal", {"name": name})
        if not 50 <= self.cpu <= 64_000:
            raise PydanticCustomError("range", "limits.cpu: from 50m to 64 is needed")
        if not 64 * 2**20 <= self.memory <= 256 * 2**30:
            raise PydanticCustomError("range", "limits.memory: from 64Mi to 256Gi is needed")
        return self

    @property
    def cpu(self) -> int:
        """Return the CPU of a runner in millicores; default 2 cores."""
        return next((q.cpu for q in (self.limits, self.requests) if q and q.cpu is not None), 2000)

    @property
    def memory(self) -> int:
        """Return the memory of a runner in bytes; default 1Gi."""
        return next((q.memory for q in (self.limits, self.requests) if q and q.memory is not None), 2**30)


class EnvVar(Model):
    """A literal environment variable of the runners."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    value: Scalar = ""


class ImagePullSecret(Model):
    """The name of a pull secret in the simulation's namespace."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Toleration(Model):
    """A toleration, as in a pod."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


class Runner(Model):
    """The runners' template. Any change of it is a new revision."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\s]+$")] | None = None
    """Absent: the installation's, pinned when the run starts."""
    resources: Resources = Resources()
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=8)] = ()
    service_account_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    """Its token is not mounted."""
    node_selector: StringMap | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    priority_class_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    labels: StringMap | None = None
    annotations: StringMap | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [variable.name for variable in self.env]
        for name in names:
            if name.startswith("TRAFFICSIM_") or name in ("POD_IP", "POD_NAME"):
                raise PydanticCustomError("env", "env: {name} is set by trafficsim", {"name": name})
            if names.count(name) > 1:
                raise PydanticCustomError("env", "env: {name} is given twice", {"name": name})
        return self


class Scaling(Model):
    """How users become runners and processes."""

    min_runners: Annotated[int, Field(ge=1, le=1000)] = 1
    max_runners: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Absent: the policy's."""
    users_per_process: Annotated[int, Field(ge=1, le=50_000)] = 1000
    max_processes: Annotated[int, Field(ge=1, le=64)] = 16

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_runners is not None and self.min_runners > self.max_runners:
            raise PydanticCustomError("order", "minRunners must not be above maxRunners")
        return self


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
    archetypes: Annotated[tuple[Archetype, ...], Field(min_length=1, max_length=32)]
    thresholds: Annotated[tuple[Threshold, ...], Field(max_length=64)] = ()
    runner: Runner = Runner()
    scaling: Scaling = Scaling()
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    warm_up: Duration = timedelta(seconds=10)
    """From the run's start; its numbers are left out of the verdict."""
    run_request: Annotated[str, StringConstraints(max_length=128)] | None = None
    """Any new string starts the next run after a finished one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.duration is not None and self.duration < timedelta(seconds=1):
            raise PydanticCustomError("range", "duration: at least 1s is needed")
        if self.duration is not None and self.warm_up >= self.duration:
            raise PydanticCustomError("order", "warmUp: must be shorter than duration")
        names = [archetype.name for archetype in self.archetypes]
        for name in names:
            if names.count(name) > 1:
                raise PydanticCustomError("names", "archetypes: the name {name} is given twice", {"name": name})
        if not sum(archetype.weight for archetype in self.archetypes):
            raise PydanticCustomError("weights", "archetypes: at least one weight above 0 is needed")
        actions = actions_of(self.archetypes)
        if len(actions) > MAX_ACTIONS:
            raise PydanticCustomError(
                "actions", "archetypes: {n} actions in all, at most 256 are possible", {"n": len(actions)}
            )
        known = {name for name, _ in actions}
        for index, threshold in enumerate(self.thresholds):
            action = parse_rule(threshold.rule).action
            if action is not None and action not in known:
                raise PydanticCustomError(
                    "rule", "thresholds[{index}].rule: there is no action {action}", {"index": index, "action": action}
                )
        return self


class Metadata(Model):
    """Name and namespace; the rest of the object's metadata is the API server's."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
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


def actions_of(archetypes: tuple[Archetype, ...]) -> tuple[tuple[str, str], ...]:
    """
    Return the (action, group) pairs of *archetypes* in the order of their first appearance.

    An action that appears twice with the same group is one action: its numbers are added.
    """
    found: dict[tuple[str, str], None] = {}

    def walk(flow: tuple[Step, ...]) -> None:
        for step in flow:
            if step.repeat:
                walk(step.repeat.flow)
            elif step.request:
                found[step.name, step.group or "user"] = None

    for archetype in archetypes:
        walk(archetype.flow)
    return tuple(found)
