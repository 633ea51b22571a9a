"""
The field reference in docs/resource.md, written from the models: `python -m trafficsim_api.reference [--check]`.

Each table is one model; what a field means is its docstring, the same text that `kubectl explain` prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trafficsim_api.crd import AsWritten, written_default
from trafficsim_api.model import Model
from trafficsim_api.policy import Policy
from trafficsim_api.resource import TrafficSimulationSpec

__all__ = ["main", "reference"]

TARGET: Final = Path(__file__).parents[2] / "docs" / "resource.md"
_HEAD: Final = """\
<!-- Written by `python -m trafficsim_api.reference` from the models in crds/trafficsim_api; edit those. -->
# The fields

Group `trafficsim.io`, version `v1alpha1`, kind `TrafficSimulation`, short name `tsim`. A name has at most 40
characters. A field that is not in these tables does not exist: it is refused, never accepted and ignored.
"""
_UNITS: Final = """\
## Units

| of | is written | and not |
|---|---|---|
| a duration | hours `h`, minutes `m`, seconds `s`, milliseconds `ms`: whole numbers, each unit at most once, \
in this order: `1h30m`, `250ms`, `1s500ms`; at most 366 days | `1d`, `1.5s`, `500us`, `30m1h`, `30` |
| a percentage | at most two digits after the point: `5%`, `0.25%` | `0.05` |
| a rate | a second, minute or hour: `50/s`, `0.5/s`, `90/m`, `10/h` | `50` |

The limit of a time in a rule is one number, with a fraction if need be, in `ms`, `s` or `m`: `p95 < 1.5s`. What stands
after `over` is a duration.

## Tiers and runners

The tier follows from `users`. `plan`, status and summary tell it with its strategy, which is a name and nothing to set:

| tier | users | strategy | runners, at least | they begin |
|---|---|---|---|---|
| micro | 1–50 | `single_process` | 1 | each when it is told |
| small | 51–500 | `process_pool` | 1 | each when it is told |
| medium | 501–2000 | `worker_distribution` | 2 | each when it is told |
| large | 2001–5000 | `cluster_coordination` | 3 | [at one instant](operator.md#a-start-at-one-instant) |
| xlarge | 5001 and more | `distributed_mesh` | 4 | [at one instant](operator.md#a-start-at-one-instant) |

A runner has 2 cores and 1 GiB of memory unless `runner.resources` says otherwise. It has as many worker
processes as its users need, but at least one in tier micro, two in small (one, if it has no more than one core), one a
core above; and at most two a core, `scaling.maxProcesses`, and one a user. `plan` prints each term, and
[ARCHITECTURE.md](../ARCHITECTURE.md#sizing) has the formula.
"""
_TEMPLATES: Final = """\
## Templates

In paths, parameters, headers and bodies of a request:

| template | is |
|---|---|
| `{{user.id}}`, `{{user.number}}` | the user's number, 0 … users-1 |
| `{{user.archetype}}` | the name of the user's archetype |
| `{{user.iteration}}` | how often this user has begun its flow, from 0 |
| `{{env.NAME}}` | an environment variable of the runner |
| `{{data.FEEDER.COLUMN}}` | a cell of the user's row of `data`: [test data](data.md) |
| `{{name}}` | what an earlier step of the flow saved under this name, else what [setup](once.md) did |

A template that cannot be filled when its turn comes drops the action; drops are counted by reason.

## Redirects

With `redirects: N` up to N redirects are followed. 301, 302 and 303 ask with GET and without a body (HEAD stays HEAD),
307 and 308 repeat verb and body. The whole way is one request: sent and counted once, checked and saved from its last
answer, its service time and time-out from the first send to the last answer; bytes of all hops are counted. Another
redirect after N, or one to what is no http address, fails the request as `target_protocol`; one without a Location is
the answer.

What policy allows holds for every hop: its address and port must be among those of the run (the target's own) and its
verb must be allowed, else the request fails as `generator_forbidden`. Another host than the target's gets neither
cookies nor Authorization, and its cookies are not kept. A user has one connection, or one place in a pool: a redirect
elsewhere opens it anew.

## Compressed bodies

`Accept-Encoding` is sent when the request's `headers` say so, not by itself. A body that comes as gzip or deflate is
unpacked, at most to 8 MiB, where `expect` or `save` look at it; bytes are counted as they came.

## Choices

Which flow of `choose` comes next is drawn from the seed, the user, its iteration, the choice's place in the flow and
the round of each loop around it: the same on any runner, and whatever was drawn or failed before.

## Names

The target's name is looked up again at each connect; connects within a second of a look-up share it. The look-up
counts towards `timeouts.connect`, or the `connect` of the pool. When it fails or takes longer, the addresses known so
far are used; without any the request fails as `network_dns`.
"""

Schema = Mapping[str, Any]


def reference() -> str:
    """Return the text of docs/resource.md."""
    parts = [_HEAD, "## spec", *_tables(TrafficSimulationSpec, "spec"), _UNITS, _TEMPLATES]
    parts += ["## The policy document", "`--policy FILE` and the operator's default.", *_tables(Policy, "policy")]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _tables(model: type[Model], root: str) -> Iterator[str]:
    schema = model.model_json_schema(by_alias=True, schema_generator=AsWritten)
    definitions: dict[str, Schema] = schema.get("$defs", {})
    places: dict[str, str] = {}
    waiting: list[tuple[str, Schema]] = [(root, schema)]
    while waiting:
        place, table = waiting.pop(0)
        inner: list[tuple[str, Schema]] = []
        rows = [
            _row(name, field, name in table.get("required", ()), definitions)
            for name, field in table["properties"].items()
        ]
        for name, field in table["properties"].items():
            for reference, suffix in _references(field, name):
                if reference not in places:
                    below = suffix if place == root else f"{place}.{suffix}"
                    places[reference] = below
                    inner.append((below, definitions[reference]))
        if place != root:
            yield f"### {place}"
        yield _prose(table.get("description", ""))
        yield "\n".join(["| field | value | default | meaning |", "|---|---|---|---|", *rows])
        waiting = inner + waiting


def _references(field: Schema, name: str) -> Iterator[tuple[str, str]]:
    """Return the models that *field* holds, with the path they are found under."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2], name
    for form in field.get("anyOf", ()):
        yield from _references(form, name)
    if isinstance(field.get("items"), Mapping):
        yield from _references(field["items"], f"{name}[]")
    if isinstance(field.get("additionalProperties"), Mapping):
        yield from _references(field["additionalProperties"], f"{name}.NAME")


def _row(name: str, field: Schema, required: bool, definitions: Mapping[str, Schema]) -> str:
    written = written_default(field)
    shown = "needed" if required else f"`{written}`" if written else ""
    meaning = field.get("description") or _meaning_of(field, definitions)
    cells = (f"`{name}`", _value(field), shown, _prose(meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning_of(field: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return the first sentence of the model that *field* holds."""
    names = [reference for reference, _ in _references(field, "")]
    return definitions[names[0]].get("description", "").split("\n\n")[0] if names else ""


def _value(field: Schema) -> str:
    """Return what may be written for *field*, in words."""
    if "$ref" in field:
        return "object"
    forms = [form for form in field.get("anyOf", ()) if form.get("type") != "null"]
    if forms:
        return _value(forms[0])
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "example" in field:
        return f"such as `{field['example']}`"
    kind = field.get("type")
    if kind == "array":
        return f"list of {_plural(_value(field['items']))}{_bounds(field, 'minItems', 'maxItems')}"
    if kind == "integer":
        return f"whole number{_bounds(field, 'minimum', 'maximum')}"
    if kind == "object":
        return "mapping"
    words = {"string": "text", "boolean": "`true`, `false`"}
    return words.get(str(kind), "number or text" if field.get("x-kubernetes-int-or-string") else "any value")


def _plural(value: str) -> str:
    """Return several of *value*: object → objects, "whole number, 1 to 9" → "whole numbers, 1 to 9"."""
    head, comma, rest = value.partition(",")
    if head.startswith("`"):
        return value
    return "objects" if head in ("object", "mapping") else f"{head}s{comma}{rest}"


def _bounds(field: Schema, low: str, high: str) -> str:
    at_least, at_most = field.get(low), field.get(high)
    if at_least is not None and at_most is not None:
        return f", {at_least} to {at_most}"
    return f", at most {at_most}" if at_most is not None else f", at least {at_least}" if at_least is not None else ""


def _prose(text: str) -> str:
    return " ".join(text.split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the reference, or with --check say whether it is as the models are."""
    text = reference()
    if "--check" in (sys.argv[1:] if arguments is None else arguments):
        if not TARGET.exists() or TARGET.read_text() != text:
            print(f"{TARGET.name} is not as the models are; run `python -m trafficsim_api.reference`", file=sys.stderr)
            return 1
        return 0
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
