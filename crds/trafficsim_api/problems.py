"""What is wrong with a document, in the user's words: pydantic's findings, translated once, here."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from trafficsim_api.data import FILE
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.flow import SCENARIO, STATUS, TIMES, URL_PATH
from trafficsim_api.model import NAME
from trafficsim_api.resource import OBJECT_NAME
from trafficsim_api.target import HEALTH_PATH, URL
from trafficsim_api.template import ENV_NAME, IMAGE

__all__ = ["MAX_PROBLEMS", "read", "spelled"]

MAX_PROBLEMS: Final = 25

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]

_PATTERNS: Final[Mapping[str, str]] = {
    URL: "a URL such as http://shop:8080 is needed (http or https, no user, query or fragment)",
    URL_PATH: "a path that starts with / is needed",
    HEALTH_PATH: "a path that starts with / is needed",
    NAME: "a name of letters, digits and _ . / : - is needed",
    FILE: "a name that ends in .csv, .jsonl or .ndjson is needed",
    OBJECT_NAME: "a name of lower case letters, digits and - is needed, with a letter or digit at both ends",
    ENV_NAME: "a name of letters, digits and _ is needed, without a digit in front",
    IMAGE: "an image reference without spaces is needed",
    STATUS: "a status (200), a class (2xx) or several (200,404) is needed",
    SCENARIO: "a Python class such as shop.flows:Exporter is needed",
    TIMES: "a number (3) or a range (3..10) is needed",
}


def read(model: type[M], value: object) -> M:
    """Return *value*, plain values as they stand in a document, as *model*; raise SpecError with every problem."""
    try:
        # Through JSON: the models are strict, and only there a list may become a tuple and text a duration.
        return model.model_validate_json(json.dumps(value), by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(*_problems(model, error)) from None


def spelled(path: Iterable[str | int]) -> str:
    """
    Return *path* as the user would write it, relative to `spec`.

    ("spec", "archetypes", 0, "flow", 2, "request") → `archetypes[0].flow[2].request`
    """
    parts, text = tuple(path), ""
    if len(parts) > 1 and parts[0] == "spec" and isinstance(parts[1], str):
        parts = parts[1:]
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_$<-]{1,80}", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part[:80], ensure_ascii=False)}]"
    return text


def _problems(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    found = error.errors(include_url=False)
    locations = [tuple(one["loc"]) for one in found]
    problems: list[Problem] = []
    for one, location in zip(found, locations, strict=True):
        # A list whose items failed is also reported as too short: that is noise.
        if one["type"] == "too_short" and any(other[: len(location)] == location != other for other in locations):
            continue
        problems.append(_problem(model, location, one))
    problems = list(dict.fromkeys(problems))
    if len(problems) > MAX_PROBLEMS:
        rest = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [Problem(field="", reason=f"and {rest} more problems")]
    return problems


def _problem(model: type[BaseModel], location: Path, error: Any) -> Problem:
    where = tuple(part for part in location if part != "[key]")
    if error["type"] == "fault":
        field, inner = "" if where == ("spec",) else spelled(where), error["ctx"]["field"]
        return Problem(
            field=f"{field}.{inner}" if field and inner else field or inner, reason=_cut(error["ctx"]["reason"])
        )
    if error["type"] == "extra_forbidden":
        return Problem(field=spelled(where), reason=_unknown(model, where))
    return Problem(field=spelled(where), reason=_cut(_reason(error)))


def _cut(reason: str) -> str:
    """Keep a reason readable when it repeats what the user wrote."""
    return reason if len(reason) <= 400 else f"{reason[:397]}…"


def _reason(error: Any) -> str:
    """Return what is wrong, said as what is needed."""
    kind, context = str(error["type"]), error.get("ctx", {})
    match kind:
        case "missing":
            return "is needed"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            words = re.findall(r"'([^']*)'", context["expected"])
            return f"{words[0]} is needed" if len(words) == 1 else f"one of {', '.join(words)} is needed"
        case "string_pattern_mismatch":
            return _PATTERNS.get(context["pattern"], "is not written as it should be")
        case "string_too_long":
            return f"at most {context['max_length']} characters are allowed"
        case "string_too_short":
            return (
                "must not be empty"
                if context["min_length"] == 1
                else f"at least {context['min_length']} characters are needed"
            )
        case "greater_than_equal":
            return f"at least {context['ge']} is needed"
        case "less_than_equal":
            return f"at most {context['le']} is allowed"
        case "too_short":
            least = context["min_length"]
            return f"at least {least} {'entry is' if least == 1 else 'entries are'} needed"
        case "too_long":
            return f"at most {context['max_length']} entries are allowed"
    wanted = next((words for prefix, words in _TYPES.items() if kind.startswith(prefix)), None)
    if wanted is None:
        return str(error["msg"])[:1].lower() + str(error["msg"])[1:]
    hint = ": put it in quotes" if wanted == "text" and isinstance(error["input"], (bool, int, float)) else ""
    return f"{wanted} is needed, not {_kind(error['input'])}{hint}"


_TYPES: Final[Mapping[str, str]] = {
    "string": "text",
    "int": "a whole number",
    "bool": "true or false",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "tuple": "a list",
    "list": "a list",
}


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


def _unknown(model: type[BaseModel], path: Path) -> str:
    """Return that the last part of *path* is no field, with the nearest one that is."""
    holder: Any = model
    for part in path[:-1]:
        holder = _inside(holder, part)
    names = _names(holder) if holder is not None else {}
    written = str(path[-1])
    near = difflib.get_close_matches(written.replace("_", "").lower(), [name.lower() for name in names], n=1)
    guess = next((name for name in names if near and name.lower() == near[0]), None)
    return f"unknown field (did you mean {guess}?)" if guess else "unknown field"


def _names(model: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _inside(holder: Any, part: str | int) -> Any:
    """Return the model that stands at *part* of *holder* (a model), None when it is none."""
    if holder is None:
        return None
    if isinstance(part, int):
        return holder
    names = _names(holder)
    # What is no field is a key of the mapping that holds this model.
    return _model_in(names[part]) if part in names else holder


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is None:
        return None
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)
