"""
Documents in: YAML or JSON text to plain values, and plain values to the resource.

Whatever is handed in, the outcome is a value or a SpecError that says where and what in the user's words. Bounds come
before work: at most 1 MiB, UTF-8, one document, 48 levels, 100 000 values and 4 MiB of text with every alias written
out. Scalars mean what they mean to kubectl (YAML 1.1 booleans and octals, timestamps are text).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.problems import read, spelled
from trafficsim_api.resource import TrafficSimulation

__all__ = ["MAX_BYTES", "MAX_DEPTH", "load", "load_spec", "parse"]

MAX_BYTES: Final = 2**20
MAX_DEPTH: Final = 48
MAX_VALUES: Final = 100_000
MAX_TEXT: Final = 4 * 2**20

Path = tuple[str | int, ...]


def load(data: bytes, source: str) -> TrafficSimulation:
    """Return the simulation written in *data*; *source* is what the user calls it: a file's name."""
    return _simulation(parse(data, source), source)


def load_spec(obj: Mapping[str, Any]) -> TrafficSimulation:
    """Return the simulation in *obj*, an object as the API server gives it."""
    return _simulation(_Build("the object").root(obj), "the object")


def parse(data: bytes, source: str = "the document") -> Any:
    """Return the value of the one document in *data*: mappings, lists, text, numbers, booleans and None."""
    if len(data) > MAX_BYTES:
        raise _at(source, f"at most 1 MiB is allowed, not {len(data)} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _at(source, f"UTF-8 text is needed: byte {error.start} is not", data[: error.start]) from None
    tree = _json(text, source) if text.lstrip()[:1] in ("{", "[") else None
    return _Build(source).root(_yaml(text, source) if tree is None else tree)


def _simulation(value: Any, source: str) -> TrafficSimulation:
    if not isinstance(value, dict):
        raise _at(source, "a TrafficSimulation is needed: apiVersion, kind, metadata, spec")
    wrong = [
        Problem(field=name, reason=f"{wanted} is needed")
        for name, wanted in (("apiVersion", "trafficsim.io/v1alpha1"), ("kind", "TrafficSimulation"))
        if value.get(name) != wanted
    ]
    if wrong:  # Another kind of object: what its other fields are called says nothing.
        raise SpecError(*wrong)
    return read(TrafficSimulation, value)


def _at(source: str, reason: str, before: bytes | None = None) -> SpecError:
    line = f":{before.count(10) + 1}" if before is not None else ""
    return SpecError(Problem(field=f"{source}{line}", reason=reason))


@dataclass(slots=True)
class _Scalar:
    """A scalar as written; *tag* is None when its meaning follows from its text."""

    text: str
    tag: str | None
    line: int


@dataclass(slots=True)
class _Mapping:
    """Keys and values in turn, as written."""

    items: list[Any] = field(default_factory=list)
    line: int = 0


_INT: Final = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)")
_FLOAT: Final = re.compile(
    r"[-+]?((\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN"
)
_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = {f"{_TAG}{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")}


def _json(text: str, source: str) -> Any:
    """Return the tree of JSON *text*; None when it is not JSON, for it may be YAML in flow style."""

    def mapping(pairs: list[tuple[str, Any]]) -> _Mapping:
        return _Mapping([part for pair in pairs for part in pair])

    def number(text: str) -> _Scalar:
        return _Scalar(text, "int" if text.lstrip("-").isdigit() else "float", 0)

    try:
        return json.loads(
            text, object_pairs_hook=mapping, parse_int=number, parse_float=number, parse_constant=number
        )  # fmt: skip
    except RecursionError:
        raise _at(source, f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        if source.endswith(".json") and isinstance(error, json.JSONDecodeError):
            raise _at(f"{source}:{error.lineno}", f"not JSON: {error.msg.lower()}") from None
        return None


def _yaml(text: str, source: str) -> Any:
    """Return the tree of the one YAML document in *text*."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events: Iterable[Any] = yaml.parse(text, Loader=loader)
        roots = _compose(events, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = text.splitlines()
        line = lines[mark.line] if mark and mark.line < len(lines) else ""
        where = f"{source}:{mark.line + 1}" if mark else source
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise _at(where, "indent with spaces, not with tabs") from None
        raise _at(where, f"not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise _at(source, f"not YAML: {getattr(error, 'reason', None) or error}") from None
    given = [root for root in roots if not (isinstance(root, _Scalar) and not root.text)]
    if not given:
        raise _at(source, "is empty")
    if len(given) > 1:
        second: Any = given[1]
        where = f"{source}:{second.line}" if isinstance(second, (_Scalar, _Mapping)) else source
        raise _at(where, f"one document is needed, not {len(given)}: the second begins here")
    return given[0]


def _compose(events: Iterable[Any], source: str) -> list[Any]:
    """Return the trees of all documents in *events*, without recursion; an alias is its anchor's very node."""
    roots: list[Any] = []
    open_nodes: list[Any] = []
    anchors: dict[str, Any] = {}
    count = 0
    for event in events:
        match event:
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                open_nodes.pop()
                continue
            case yaml.DocumentStartEvent():
                anchors.clear()
                continue
            case yaml.NodeEvent():
                node = _node(event, anchors, open_nodes, source)
            case _:
                continue
        count += 1
        if count > MAX_VALUES:
            raise _at(source, f"at most {MAX_VALUES} values are allowed")
        if open_nodes:
            parent = open_nodes[-1]
            (parent.items if isinstance(parent, _Mapping) else parent).append(node)
        else:
            roots.append(node)
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(node)
            if len(open_nodes) > MAX_DEPTH:
                raise _at(source, f"nested more than {MAX_DEPTH} levels deep")
    return roots


def _node(event: Any, anchors: dict[str, Any], open_nodes: list[Any], source: str) -> Any:
    """Return the node that *event* begins, under its anchor if it has one."""
    line: int = event.start_mark.line + 1
    where = f"{source}:{line}"
    if isinstance(event, yaml.AliasEvent):
        node = anchors.get(str(event.anchor))
        if node is None:
            raise _at(where, f"there is no anchor &{event.anchor} before *{event.anchor}")
        if any(node is one for one in open_nodes):
            raise _at(where, f"*{event.anchor} contains itself")
        return node
    written: str | None = event.tag if event.tag != "!" else None
    if written is not None and written not in _TAGS:
        raise _at(where, f"the tag {written[:80].replace(_TAG, '!!')} is not allowed")
    match event:
        case yaml.ScalarEvent():
            plain = event.implicit[0] and event.tag is None
            node = _Scalar(event.value, _TAGS[written] if written else None if plain else "str", line)
        case yaml.MappingStartEvent():
            node = _Mapping(line=line)
        case _:
            node = []
    if event.anchor is not None:
        anchors[event.anchor] = node
    return node


def _wrong(path: Path, reason: str) -> SpecError:
    return SpecError(Problem(field=spelled(path), reason=reason))


class _Build:
    """Trees to plain values, within the bounds; every alias is written out and counts again."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._values = MAX_VALUES
        self._text = MAX_TEXT

    def root(self, node: Any) -> Any:
        """Return the plain value of the whole tree *node*."""
        try:
            return self.value(node, ())
        except SpecError as error:  # What is wrong with the document as a whole is wrong with the source.
            raise SpecError(
                *(Problem(field=p.field or self._source, reason=p.reason) for p in error.problems)
            ) from None

    def value(self, node: Any, path: Path) -> Any:
        """Return the plain value of *node*, which stands at *path*."""
        if len(path) > MAX_DEPTH:
            raise _wrong(path[:8], f"nested more than {MAX_DEPTH} levels deep")
        self._values -= 1
        if self._values < 0:
            raise _wrong(path[:2], f"at most {MAX_VALUES} values are allowed, with every alias written out")
        match node:
            case _Mapping():
                return self._mapping(list(zip(node.items[::2], node.items[1::2], strict=True)), path)
            case Mapping():
                return self._mapping(list(node.items()), path)
            case list() | tuple():
                return [self.value(item, (*path, index)) for index, item in enumerate(node)]
            case _Scalar():
                return self._scalar(_meaning(node, path), path)
            case _:
                return self._scalar(node, path)

    def _scalar(self, value: Any, path: Path) -> Any:
        match value:
            case None | bool():
                return value
            case str():
                return self._checked(value, path)
            case int() if -(2**63) <= value < 2**63:
                return value
            case int():
                raise _wrong(path, "a number that fits 64 bits is needed")
            case float() if math.isfinite(value):
                return value
            case float():
                raise _wrong(path, "a finite number is needed")
            case _:
                raise _wrong(path, f"{type(value).__name__} is no value of a document")

    def _checked(self, text: str, path: Path) -> str:
        self._text -= len(text)
        if self._text < 0:
            raise _wrong(path[:2], "at most 4 MiB of text are allowed, with every alias written out")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _wrong(path, "holds half a surrogate pair, which is no character") from None
        return text

    def _mapping(self, pairs: list[tuple[Any, Any]], path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, node in pairs:
            if isinstance(key_node, _Scalar) and key_node.tag is None and key_node.text == "<<":
                for part in self._merged(node, path):
                    merged |= {key: value for key, value in part.items() if key not in merged}
                continue
            key = self._checked(_key(key_node, path), path)
            line = getattr(key_node, "line", 0)
            if key in own:
                lines_of_both = f" (lines {lines[key]} and {line})" if line else ""
                raise _wrong((*path, key), f"is given twice{lines_of_both}")
            lines[key] = line
            own[key] = self.value(node, (*path, key))
        return merged | own

    def _merged(self, node: Any, path: Path) -> list[dict[str, Any]]:
        """Return the mappings that `<<` takes in; the first one that has a key wins."""
        parts = [self.value(item, (*path, "<<")) for item in (node if isinstance(node, list) else [node])]
        if not all(isinstance(part, dict) for part in parts):
            raise _wrong((*path, "<<"), "a mapping, or a list of mappings, is needed")
        return parts


def _key(node: Any, path: Path) -> str:
    """Return *node* as a key: text, or a whole number taken as text (`0: x`), as kubectl does."""
    if isinstance(node, str):
        return node
    if isinstance(node, _Scalar):
        if isinstance(_meaning(node, path), (str, int)) and not isinstance(_meaning(node, path), bool):
            return node.text
        raise _wrong(path, f"the key {node.text or 'null'} (line {node.line}) must be put in quotes")
    raise _wrong(path, "a key is needed that is text, not a list or a mapping")


def _meaning(node: _Scalar, path: Path) -> Any:
    """Return what a scalar means: by its tag, else by its text."""
    text = node.text
    if node.tag == "str":
        return text
    if node.tag in (None, "null", "bool") and text in _WORDS:
        return _WORDS[text]
    if node.tag in (None, "int") and _INT.fullmatch(text):
        # 64 bits are 64 binary digits and a prefix; more would only be work to refuse.
        return _int(text.replace("_", "")) if len(text) <= 80 else 2**64
    if node.tag in (None, "int", "float") and _FLOAT.fullmatch(text):
        return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    if node.tag is None:
        return text
    if node.tag == "float":  # NaN and Infinity as JavaScript writes them
        return math.nan
    raise _wrong(path, f"{text!r} is not of the type !!{node.tag}")


def _int(text: str) -> int:
    digits = text.lstrip("+-")
    if digits.isdigit() and len(digits) > 1 and digits[0] == "0":
        return int(text, 8)
    return int(text, 0)
