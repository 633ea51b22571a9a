"""What a user does: flows of steps, each a request, a pause, a repetition or a choice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from trafficsim_api.model import PRESERVE, Json, Model, Name, StringMap, Text, as_text, exactly_one, fault
from trafficsim_api.units import Duration

__all__ = [
    "ACTION_GROUPS",
    "VERBS",
    "Archetype",
    "Choice",
    "Examined",
    "Expect",
    "Once",
    "Repeat",
    "Request",
    "Step",
    "Think",
    "actions_in",
    "actions_of",
    "examined",
]

ACTION_GROUPS: Final = ("auth", "user", "bulk")
VERBS: Final = ("get", "head", "post", "put", "patch", "delete", "options")
MAX_DEPTH: Final = 4

URL_PATH: Final = r"^/"


UrlPath = Annotated[str, StringConstraints(max_length=2048, pattern=URL_PATH)]


class Request(Model):
    """One HTTP request: a verb with its path, and what is sent."""

    get: UrlPath | None = None
    """The path to GET; of the seven verbs exactly one is given."""
    head: UrlPath | None = None
    """The path to HEAD."""
    post: UrlPath | None = None
    """The path to POST to."""
    put: UrlPath | None = None
    """The path to PUT."""
    patch: UrlPath | None = None
    """The path to PATCH."""
    delete: UrlPath | None = None
    """The path to DELETE."""
    options: UrlPath | None = None
    """The path to ask OPTIONS of."""
    params: StringMap | None = None
    """Query parameters, encoded."""
    headers: StringMap | None = None
    """Request headers; Host, Connection and the lengths are set by the runner."""
    json_: Annotated[Json, Field(alias="json")] = None
    """A JSON body; templates work in its strings."""
    form: StringMap | None = None
    """A form body, url-encoded."""
    body: Annotated[str, StringConstraints(max_length=65536)] | None = None
    """A raw body."""
    redirects: Annotated[int, Field(ge=0, le=10)] = 0
    """How many redirects are followed; with 0 a redirect is the answer. One more than that is a failure."""

    @model_validator(mode="after")
    def _shape(self) -> Self:
        exactly_one(self, VERBS, "one of " + ", ".join(VERBS))
        if re.search(r"[\s\x00-\x1f\x7f]", re.sub(r"\{\{.*?\}\}", "", self.path)):
            raise fault(self.verb, "a path without spaces is needed")
        bodies = [
            name
            for name, value in (("json", self.json_), ("form", self.form), ("body", self.body))
            if value is not None
        ]
        if len(bodies) > 1:
            raise fault("", f"only one of json, form, body may be given, not {' and '.join(bodies)} together")
        for header, value in (self.headers or {}).items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", header):
                raise fault("headers", f"{header!r} is not a header name")
            if re.search(r"[\r\n\x00]", value):
                raise fault(f"headers.{header}", "no line breaks are allowed")
            if header.lower() in ("content-length", "transfer-encoding", "connection", "host"):
                raise fault(f"headers.{header}", "this header is set by the runner")
        return self

    @property
    def verb(self) -> str:
        """Return the verb in lower case."""
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def path(self) -> str:
        """Return the path, templates and all."""
        return str(getattr(self, self.verb))


STATUS: Final = r"^[1-5]([0-9][0-9]|xx)(,[1-5]([0-9][0-9]|xx))*$"


class Expect(Model):
    """What an answer must be; each entry is one check. Absent: status < 400."""

    status: (
        Annotated[
            str,
            BeforeValidator(as_text),
            StringConstraints(pattern=STATUS, max_length=64),
            WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": STATUS, "maxLength": 64}),
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
    """Always this long."""
    min: Duration | None = None
    """The shortest pause; all between min and max are as likely."""
    max: Duration | None = None
    """The longest pause."""
    median: Duration | None = None
    """Half of the pauses are shorter."""
    p95: Duration | None = None
    """95 of 100 pauses are shorter."""

    @model_validator(mode="after")
    def _form(self) -> Self:
        given = {name for name in ("constant", "min", "max", "median", "p95") if getattr(self, name) is not None}
        if given not in ({"constant"}, {"min", "max"}, {"median", "p95"}):
            raise fault("", "constant, or min and max, or median and p95 is needed")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fault("min", "must not be above max")
        if self.median is not None and self.p95 is not None and not timedelta(0) < self.median <= self.p95:
            raise fault("median", "above 0s and not above p95 is needed")
        return self


TIMES: Final = r"^[0-9]{1,5}(\.\.[0-9]{1,5})?$"


class Repeat(Model):
    """Do a flow several times."""

    times: Annotated[
        str,
        BeforeValidator(as_text),
        StringConstraints(pattern=TIMES),
        WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": TIMES, "maxLength": 16}),
    ]
    """How often: 3, or 3..10 drawn anew each time."""
    flow: Annotated[
        tuple[Step, ...],
        Field(min_length=1, max_length=128),
        WithJsonSchema({"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "object", **PRESERVE}}),
    ]
    """What is done."""

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the least and the largest number of repetitions."""
        low, _, high = self.times.partition("..")
        return int(low), int(high or low)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        low, high = self.bounds
        if not 0 <= low <= high <= 10_000 or high == 0:
            raise fault("times", "a number from 1 to 10000, or low..high such as 3..10, is needed")
        return self


class Choice(Model):
    """One of several flows."""

    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """How often it is chosen, relative to the other weights."""
    flow: Annotated[
        tuple[Step, ...],
        Field(min_length=1, max_length=128),
        WithJsonSchema({"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "object", **PRESERVE}}),
    ]
    """What is done when it is chosen."""


_SAVE: Final = re.compile(r"(json\.[^\s]{1,200}|header\.[A-Za-z0-9-]{1,100}|cookie\.[^\s;=]{1,100}|status|body)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_TEMPLATE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LOOKUP: Final = re.compile(
    r"\s*(user\.(id|number|archetype|iteration)|env\.[A-Za-z_][A-Za-z0-9_]*|"
    r"data\.[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_-]*|[A-Za-z_][A-Za-z0-9_]*)\s*"
)


class Step(Model):
    """One step of a flow: exactly one of request, think, repeat and choose."""

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
    choose: Annotated[tuple[Choice, ...], Field(min_length=1, max_length=16)] | None = None
    """One of these flows, drawn anew each time; the draws are the same for the same seed, user and iteration."""

    @model_validator(mode="after")
    def _shape(self) -> Self:
        exactly_one(self, ("request", "think", "repeat", "choose"), "exactly one of request, think, repeat, choose")
        if self.choose and not sum(choice.weight for choice in self.choose):
            raise fault("choose", "at least one weight above 0 is needed")
        if self.request is None:
            for name in ("action", "group", "expect", "save"):
                if getattr(self, name) is not None:
                    raise fault(name, "belongs to a request")
        for variable, source in (self.save or {}).items():
            if not _VARIABLE.fullmatch(variable) or variable in ("user", "env", "data"):
                raise fault("save", f"{variable!r} is not a variable name")
            if not _SAVE.fullmatch(source):
                raise fault(f"save.{variable}", "one of json.PATH, header.NAME, cookie.NAME, status, body is needed")
        return self

    @property
    def name(self) -> str:
        """Return the action's name: given, or made of verb and path template."""
        assert self.request is not None
        return self.action or f"{self.request.verb.upper()} {self.request.path.partition('?')[0]}"

    @property
    def nested(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        """Return the flows within this step, each with the field it stands in."""
        if self.repeat:
            return (("repeat.flow", self.repeat.flow),)
        return tuple((f"choose[{number}].flow", choice.flow) for number, choice in enumerate(self.choose or ()))


# Their steps are only known now.
Repeat.model_rebuild()
Choice.model_rebuild()


def _templates(value: Any) -> list[str]:
    match value:
        case str():
            return list(_TEMPLATE.findall(value))
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


SCENARIO: Final = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"


class Archetype(Model):
    """A kind of user: its share of the users and what such a user does, over and over, by a flow or in Python."""

    name: Name
    """What this kind of user is called."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """The share of the users, relative to the other archetypes' weights."""
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    """Who begins first where a busy runner lets flows wait: lower first, one level a second. Absent: 5."""
    flow: Annotated[tuple[Step, ...], Field(min_length=1, max_length=128)] | None = None
    """The steps, from top to bottom, again and again."""
    scenario: Annotated[str, StringConstraints(max_length=256, pattern=SCENARIO)] | None = None
    """In place of a flow: a Python class as `module:Class`, which the runner's image can import."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        exactly_one(self, ("flow", "scenario"), "exactly one of flow, scenario")
        if self.flow is not None and not examined(self.flow).requests:
            raise fault("flow", "at least one request is needed")
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps of the flow; a scenario has none that anybody could read."""
        return self.flow or ()


class Once(Model):
    """What is done once per run, by one runner, with no user at work."""

    flow: Annotated[tuple[Step, ...], Field(min_length=1, max_length=128)]
    """The steps, from top to bottom, once. The first that fails or misses a check ends it."""
    timeout: Duration = timedelta(minutes=5)
    """How long it may take in all, from 1s to 1h."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        found = examined(self.flow)
        if not found.requests:
            raise fault("flow", "at least one request is needed")
        for field, name in found.looked_up:
            kind, dot, _ = name.partition(".")
            if dot and kind != "env":
                raise fault(field, f"{{{{{name}}}}} belongs to a user: none is at work here")
        if not timedelta(seconds=1) <= self.timeout <= timedelta(hours=1):
            raise fault("timeout", "from 1s to 1h is needed")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """
    What a flow holds: how many *requests*, the variables *saved*, and (field, name) of every template *looked_up*.

    *missing* are those of them that no earlier step of the flow saved.
    """

    requests: int
    saved: frozenset[str]
    looked_up: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]


def examined(flow: tuple[Step, ...], where: str = "flow") -> Examined:
    """Return what *flow*, which stands in the field *where*, holds; raise a fault for what cannot be."""
    saved: set[str] = set()
    looked_up: list[tuple[str, str]] = []
    missing: list[tuple[str, str]] = []

    def walk(steps: tuple[Step, ...], where: str, depth: int, saved: set[str]) -> int:
        if depth > MAX_DEPTH:
            raise fault(where, "flows may nest at most 4 deep")
        requests = 0
        for index, step in enumerate(steps):
            here = f"{where}[{index}]"
            # What one choice saves is no earlier step of the others, but may be there for what follows.
            before = set(saved)
            for field, inner in step.nested:
                known = set(before)
                requests += walk(inner, f"{here}.{field}", depth + 1, known)
                saved |= known
            if step.request:
                requests += 1
                for field, name in _lookups(step, here):
                    looked_up.append((field, name))
                    if "." not in name and name not in saved:
                        missing.append((field, name))
                saved.update(step.save or ())
        return requests

    requests = walk(flow, where, 1, saved)
    return Examined(requests=requests, saved=frozenset(saved), looked_up=tuple(looked_up), missing=tuple(missing))


def _lookups(step: Step, where: str) -> Iterator[tuple[str, str]]:
    """Yield field and name of every template in the request of *step*; raise a fault for what is none."""
    request, expect = step.request, step.expect
    assert request is not None
    if depth_of(request.json_) > 16:
        raise fault(f"{where}.request.json", "at most 16 levels are allowed")
    sent: dict[str, Any] = {request.verb: request.path, "params": request.params, "headers": request.headers}
    sent |= {"json": request.json_, "form": request.form, "body": request.body}
    for field, value in sent.items():
        for part in _templates(value):
            match = _LOOKUP.fullmatch(part)
            if match is None:
                raise fault(f"{where}.request.{field}", f"{{{{{part}}}}} is not a template")
            yield f"{where}.request.{field}", match[1]
    if expect and any(_templates(value) for value in (expect.header, expect.json_, expect.body)):
        raise fault(f"{where}.expect", "templates do not work here, only in requests")


def actions_of(archetypes: tuple[Archetype, ...]) -> tuple[tuple[str, str], ...]:
    """
    Return the (action, group) pairs of the flows of *archetypes* in the order of their first appearance.

    An action that appears twice with the same group is one action: its numbers are added.
    """
    return tuple(dict.fromkeys(action for archetype in archetypes for action in actions_in(archetype.steps)))


def actions_in(flow: tuple[Step, ...]) -> tuple[tuple[str, str], ...]:
    """Return the (action, group) pairs of *flow*, nested flows included, in the order of their first appearance."""
    found: dict[tuple[str, str], None] = {}
    for step in flow:
        for _, inner in step.nested:
            found |= dict.fromkeys(actions_in(inner))
        if step.request:
            found[step.name, step.group or "user"] = None
    return tuple(found)
