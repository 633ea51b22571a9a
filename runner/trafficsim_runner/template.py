"""
Templates, split once into literal bytes and lookups.

`{{user.id}}` and `{{user.number}}` are the user's number, `{{user.archetype}}`, `{{user.iteration}}`, `{{env.X}}` (from
the runner's environment, read when the load is compiled), `{{data.X.Y}}` (column Y of the user's row of feeder X) and
`{{name}}`, saved by an earlier step. A value is encoded for where it stands: percent-encoded in paths, query and form,
escaped in JSON, refused in a header when it holds a line break. What UTF-8 cannot say (half a surrogate pair, which
JSON can) counts as missing everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from trafficsim_runner.feeding import Rows
    from trafficsim_runner.users import User

__all__ = [
    "Filling", "Lookup", "Template", "Words", "in_header", "in_json", "in_path", "in_query", "joined", "plain",
    "render",
]  # fmt: skip

Lookup: TypeAlias = "Callable[[User], bytes | None]"
Template: TypeAlias = "tuple[bytes | Lookup, ...]"
Encoder: TypeAlias = Callable[[str], bytes | None]

_NOTHING: Final[Mapping[str, str]] = {}
_NO_ROWS: Final[Mapping[str, Rows]] = {}
_TEMPLATE: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_LINE_BREAKS: Final = re.compile(r"[\r\n\x00]")
# Whatever may stand in a path and query as written; a saved link keeps its slashes and its query.
_PATH_SAFE: Final = "/?&=:@!$'()*+,;~%-._[]"


def in_path(text: str) -> bytes:
    """Percent-encode what may not stand in a path or query."""
    return quote(text, safe=_PATH_SAFE).encode()


def in_query(text: str) -> bytes:
    """Encode a query or form value: everything but letters and digits, spaces as +."""
    return quote_plus(text).encode()


def in_header(text: str) -> bytes | None:
    """Encode a header's value; None when it holds a line break: it would become another header."""
    return None if _LINE_BREAKS.search(text) else text.encode()


def in_json(text: str) -> bytes:
    """Escape for the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def plain(text: str) -> bytes:
    """Encode as UTF-8."""
    return text.encode()


class Words:
    """
    What templates of one archetype may look up: its name, the environment, rows of data, and what setup saved.

    *given* is what setup saved, *own* the names that the archetype's own flow saves: those change from user to user.
    """

    __slots__ = ("_archetype", "_environ", "_given", "_own", "_rows")

    def __init__(
        self, archetype: str, environ: Mapping[str, str], rows: Mapping[str, Rows] = _NO_ROWS,
        given: Mapping[str, str] = _NOTHING, own: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._archetype = archetype
        self._environ = environ
        self._rows = rows
        self._given = given
        self._own = own

    def split(self, text: str, encode: Encoder) -> Template:
        """Return *text* as literal parts and lookups, all encoded by *encode*; no two literals stand side by side."""
        parts: list[bytes | Lookup] = []
        at = 0
        for match in _TEMPLATE.finditer(text):
            parts.append(_literal(text[at : match.start()], encode))
            parts.append(self._word(match[1], encode))
            at = match.end()
        parts.append(_literal(text[at:], encode))
        return joined(parts)

    def json(self, value: Any) -> Template:
        """Return a JSON document with the templates of its strings split."""
        return joined(self._json(value))

    def _json(self, value: Any) -> Iterable[bytes | Lookup]:
        match value:
            case str():
                yield b'"'
                yield from self.split(value, in_json)
                yield b'"'
            case dict():
                for number, (key, item) in enumerate(value.items()):
                    yield b"," if number else b"{"
                    yield from self._json(str(key))
                    yield b":"
                    yield from self._json(item)
                yield b"}" if value else b"{}"
            case list() | tuple():
                for number, item in enumerate(value):
                    yield b"," if number else b"["
                    yield from self._json(item)
                yield b"]" if value else b"[]"
            case _:
                yield json.dumps(value).encode()

    def _word(self, name: str, encode: Encoder) -> bytes | Lookup:
        if name in ("user.id", "user.number"):
            return lambda user: b"%d" % user.place
        if name == "user.iteration":
            return lambda user: b"%d" % user.iteration
        fixed = self._archetype if name == "user.archetype" else None
        if name.startswith("env."):
            fixed = self._environ.get(name[4:])
        elif name.startswith("data."):
            _, feeder, column = name.split(".")
            return _cell(self._rows[feeder], column, encode)
        elif fixed is None and name in self._given and name not in self._own:
            fixed = self._given[name]
        elif fixed is None:
            return _saved(name, encode, self._given.get(name))
        encoded = None if fixed is None else _encoded(fixed, encode)
        # A variable the environment lacks drops the action, as a value that was not saved does.
        return (lambda user: None) if encoded is None else encoded


def _literal(text: str, encode: Encoder) -> bytes:
    encoded = _encoded(text, encode)
    if encoded is None:
        raise ValueError(f"{text!r} cannot stand in a request")
    return encoded


def _encoded(text: str, encode: Encoder) -> bytes | None:
    """Return *text* encoded, None when it cannot be."""
    try:
        return encode(text)
    except UnicodeEncodeError:
        return None


def _cell(rows: Rows, column: str, encode: Encoder) -> Lookup:
    if column not in rows.columns:
        raise ValueError(f"there is no column {column}, only {', '.join(rows.columns)}")
    number = rows.columns.index(column)

    def look_up(user: User) -> bytes | None:
        row = rows.of(user)
        return None if row is None else _encoded(row[number], encode)

    return look_up


def _saved(name: str, encode: Encoder, given: str | None) -> Lookup:
    """Return the lookup of what a user saved, *given* until it did."""

    def look_up(user: User) -> bytes | None:
        value = user.saved.get(name, given) if user.saved is not None else given
        return None if value is None else _encoded(value, encode)

    return look_up


def joined(parts: Iterable[bytes | Lookup]) -> Template:
    """Return *parts* with neighbouring literals made one and empty ones left out."""
    whole: list[bytes | Lookup] = []
    for part in parts:
        if isinstance(part, bytes) and whole and isinstance(whole[-1], bytes):
            whole[-1] += part
        elif part != b"":
            whole.append(part)
    return tuple(whole)


class Filling:
    """A template to be filled in often: its literals stand in a list that is copied, its lookups know their places."""

    __slots__ = ("gaps", "parts")

    def __init__(self, template: Template) -> None:
        self.parts = [part if isinstance(part, bytes) else b"" for part in template]
        self.gaps = tuple((at, part) for at, part in enumerate(template) if not isinstance(part, bytes))

    @property
    def literal(self) -> bytes | None:
        """Return the whole when nothing is looked up."""
        return None if self.gaps else b"".join(self.parts)

    def of(self, user: User) -> list[bytes] | None:
        """Return the parts filled in for *user*, None when a value is missing; the list is the caller's."""
        filled = self.parts.copy()
        for at, look_up in self.gaps:
            value = look_up(user)
            if value is None:
                return None
            filled[at] = value
        return filled


def render(template: Template, user: User) -> bytes | None:
    """Return the template filled in for *user*, None when a value is missing."""
    filled = Filling(template).of(user)
    return None if filled is None else b"".join(filled)
