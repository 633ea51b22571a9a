"""
What an answer must be, and what is kept of it: `expect` and `save`, compiled once.

Each entry of `expect` is one check; without `expect` there is one: status < 400. Each entry of `save` is one more: an
answer that lacks what the following steps need is not what was expected. Checks of status and headers depend on
the head alone, so their result is kept with a memoised head; only JSON and text checks look at the body.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from trafficsim_api.resource import Expect
from trafficsim_api.resource import Step as StepSpec
from trafficsim_runner.http.cookies import cookie_in

__all__ = ["MISSING", "Checks", "Headers", "Save", "checks_of", "find", "saves_of", "same"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names in lower case with their values, in order."""

MISSING: Final = object()
_scan: Final[Callable[[str, int], tuple[Any, int]]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def find(document: Any, path: tuple[str, ...]) -> Any:
    """Return what stands at *path* of a JSON document, MISSING when nothing does: `items.0.id`."""
    for key in path:
        if isinstance(document, dict):
            document = document.get(key, MISSING)
        elif isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            return MISSING
    return document


def same(left: Any, right: Any) -> bool:
    """Say whether two JSON values are equal; unlike Python, true is not 1."""
    if isinstance(left, str):
        return bool(left == right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first header called *name* (lower case)."""
    return next((value for key, value in headers if key == name), None)


def parsed(body: bytes) -> Any:
    """Return the JSON document in *body*, MISSING when it is none."""
    try:
        # What nearly every body is: UTF-8 with nothing around the document. It takes half the time of json.loads.
        text = body.decode()
        document, end = _scan(text, 0)
        if end == len(text):
            return document
    except (ValueError, StopIteration, RecursionError):
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The checks of one request: *count* in all; *accepted* says by status, None: any."""

    count: int
    accepted: Callable[[int], bool] | None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    paths: tuple[tuple[tuple[str, ...], Any], ...] = ()
    text: bytes | None = None

    @property
    def need_body(self) -> bool:
        """Say whether the answer's body must be kept."""
        return bool(self.paths) or self.text is not None

    def failed_by_head(self, status: int, headers: Headers) -> int:
        """Return how many of the checks of status and headers are missed."""
        missed = 0 if self.accepted is None or self.accepted(status) else 1
        return missed + sum(header(headers, name) != value for name, value in self.headers)

    def failed_by_body(self, body: bytes, document: Any) -> int:
        """Return how many of the checks of the body are missed."""
        missed = 0 if self.text is None or self.text in body else 1
        for path, value in self.paths:
            if not same(find(document, path), value):
                missed += 1
        return missed


def checks_of(expect: Expect | None, saves: int = 0) -> Checks:
    """Return the checks that *expect* asks for, with one for each of *saves*: what is to be saved must be there."""
    if expect is None:
        return Checks(count=1 + saves, accepted=lambda status: status < 400)
    headers = tuple((name.lower().encode(), value.encode()) for name, value in (expect.header or {}).items())
    paths = tuple((tuple(path.split(".")), value) for path, value in (expect.json_ or {}).items())
    text = expect.body.encode() if expect.body is not None else None
    count = (expect.status is not None) + len(headers) + len(paths) + (text is not None)
    return Checks(count=count + saves, accepted=_accepted(expect.status), headers=headers, paths=paths, text=text)


def _accepted(statuses: str | None) -> Callable[[int], bool] | None:
    if statuses is None:
        return None
    words = statuses.split(",")
    exact = frozenset(int(word) for word in words if not word.endswith("xx"))
    classes = frozenset(int(word[0]) for word in words if word.endswith("xx"))
    return lambda status: status in exact or status // 100 in classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Keep something of an answer as *variable*; *kind* is json, header, cookie, status or body, *what* names it."""

    variable: str
    kind: str
    what: str
    path: tuple[str, ...] = ()

    @property
    def needs_body(self) -> bool:
        """Say whether the answer's body must be kept."""
        return self.kind in ("json", "body")

    def value(self, status: int, headers: Headers, body: bytes, document: Any) -> str | None:
        """Return the value found; None when the answer has none (JSON's null is none)."""
        match self.kind:
            case "json":
                return _text_of(find(document, self.path))
            case "status":
                return str(status)
            case "header":
                found = header(headers, self.what.lower().encode())
                return None if found is None else found.decode("utf-8", "replace")
            case "cookie":
                return cookie_in(headers, self.what)
            case _:
                return body.decode("utf-8", "replace")


def _text_of(value: Any) -> str | None:
    """Return *value* as text; None for null, and for what no request could carry (half a surrogate pair)."""
    if value is MISSING or value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def saves_of(step: StepSpec) -> tuple[Save, ...]:
    """Return what *step* keeps of its answer."""
    return tuple(_save(variable, source) for variable, source in _items(step.save))


def _items(save: Mapping[str, str] | None) -> Sequence[tuple[str, str]]:
    return tuple((save or {}).items())


def _save(variable: str, source: str) -> Save:
    kind, _, what = source.partition(".")
    return Save(variable=variable, kind=kind, what=what, path=tuple(what.split(".")) if kind == "json" else ())
