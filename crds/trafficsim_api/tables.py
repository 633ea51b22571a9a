"""
Tables: the rows of test data, read from CSV or JSON lines, and the text in which they travel to the runners.

    content   [["user","pass"],["ann","a1"],…]      compact JSON, the columns first
    digest    the first 32 hex digits of the content's SHA-256: equal rows are sent once
    packed    the content, zlib, base64

Bounds: 1 to 100 000 rows, 1 to 32 columns, 8 MiB of content.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

__all__ = ["COLUMN", "CONTENT_BYTES", "MAX_ROWS", "Table", "of_rows", "parsed", "unpacked"]

MAX_ROWS: Final = 100_000
MAX_COLUMNS: Final = 32
CONTENT_BYTES: Final = 8 * 2**20
COLUMN: Final = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"


@dataclass(frozen=True)
class Table:
    """*columns*, and *rows* with a cell for each of them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @cached_property
    def content(self) -> str:
        """Return columns and rows as the text they travel in."""
        return json.dumps([self.columns, *self.rows], ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """Return the name of these rows: equal content, equal name."""
        return sha256(self.content.encode()).hexdigest()[:32]

    @cached_property
    def packed(self) -> str:
        """Return the content as it is sent."""
        return base64.b64encode(zlib.compress(self.content.encode(), 6)).decode()

    @classmethod
    def read(cls, content: str | bytes) -> Table:
        """Return the table of *content*; raise ValueError when it is none."""
        columns, *rows = json.loads(content)
        return cls(tuple(columns), tuple(map(tuple, rows)))


def parsed(data: bytes, name: str) -> Table:
    """
    Return the table in *data*: CSV with a header line, or JSON lines, by the suffix of *name*.

    Raises ValueError that says where and what is wrong, in the user's words.
    """
    if len(data) > CONTENT_BYTES:
        raise ValueError(f"at most {CONTENT_BYTES // 2**20} MiB are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"UTF-8 text is needed: byte {error.start} is not") from None
    return _csv(text) if name.endswith(".csv") else _json_lines(text)


def of_rows(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
    """Return the table of *rows*, each with what it is called; the columns are those of the first one."""
    columns: tuple[str, ...] = ()
    found: list[tuple[str, ...]] = []
    for where, row in rows:
        if not found:
            columns = _columns(tuple(row), where)
        if row.keys() != set(columns):
            raise ValueError(f"{where}{_difference(columns, tuple(row))}")
        found.append(tuple(_cell(row[column], column, where) for column in columns))
        _few(found)
    return _table(columns, found)


def unpacked(packed: str, digest: str) -> str:
    """Return the content of *packed*; raise ValueError when it is too long, or not what *digest* names."""
    try:
        unzip = zlib.decompressobj()
        content = unzip.decompress(base64.b64decode(packed, validate=True), CONTENT_BYTES + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"rows {digest} cannot be read: {error}") from None
    if len(content) > CONTENT_BYTES:
        raise ValueError(f"rows {digest} are more than {CONTENT_BYTES} bytes")
    if sha256(content).hexdigest()[:32] != digest:
        raise ValueError(f"rows {digest} are others than their name says")
    return content.decode()


def _csv(text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: tuple[str, ...] = ()
    found: list[tuple[str, ...]] = []
    try:
        for cells in reader:
            where = f"line {reader.line_num}: "
            if not cells:
                continue
            if not columns:
                columns = _columns(tuple(cell.strip() for cell in cells), where)
            elif len(cells) != len(columns):
                raise ValueError(f"{where}{len(columns)} cells are needed, not {len(cells)}")
            else:
                found.append(tuple(cells))
                _few(found)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: not CSV: {error}") from None
    return _table(columns, found)


def _json_lines(text: str) -> Table:
    def rows() -> Iterable[tuple[str, Mapping[str, Any]]]:
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            where = f"line {number}: "
            try:
                # Numbers stay as they are written: 1.50 is no 1.5 in an amount.
                row = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}not JSON: {getattr(error, 'msg', error)}") from None
            if not isinstance(row, dict):
                raise ValueError(f'{where}an object is needed, such as {{"user": "ann"}}')
            yield where, row

    return of_rows(rows())


def _columns(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise ValueError(f"{where}1 to {MAX_COLUMNS} columns are possible, not {len(names)}")
    for number, name in enumerate(names):
        if not re.fullmatch(COLUMN, name):
            raise ValueError(f"{where}{name[:80]!r} is no column's name: letters, digits, _ and - are needed")
        if name in names[:number]:
            raise ValueError(f"{where}the column {name} is given twice")
    return names


def _difference(columns: Sequence[str], given: Sequence[str]) -> str:
    missing = [name for name in columns if name not in given]
    if missing:
        return f"the column {missing[0]} is missing"
    return f"{next(name for name in given if name not in columns)[:80]!r} is no column of the first row"


def _cell(value: Any, column: str, where: str) -> str:
    match value:
        case bool():
            value = "true" if value else "false"
        case str():
            pass
        case _:
            raise ValueError(f"{where}{column}: text, a number, true or false is needed")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}{column}: holds half a surrogate pair, which is no character") from None
    return str(value)


def _few(rows: Sequence[object]) -> None:
    if len(rows) > MAX_ROWS:
        raise ValueError(f"at most {MAX_ROWS} rows are possible")


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    if not rows:
        raise ValueError("there are no rows")
    table = Table(columns, tuple(rows))
    if len(table.content.encode()) > CONTENT_BYTES:
        raise ValueError(f"at most {CONTENT_BYTES // 2**20} MiB are allowed")
    return table
