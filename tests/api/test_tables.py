"""Tables: CSV and JSON lines, what is wrong with them in the user's words, and the text they travel in."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.tables import MAX_ROWS, Table, of_rows, parsed, unpacked

ACCOUNTS = Table(("user", "pass"), (("ann", "a1"), ("bob", "b, 2")))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("a.csv", b'user,pass\nann,a1\nbob,"b, 2"\n', id="csv"),
        pytest.param("a.csv", b'\xef\xbb\xbfuser, pass\r\nann,a1\r\n\r\nbob,"b, 2"', id="csv-of-a-spreadsheet"),
        pytest.param("a.jsonl", b'{"user":"ann","pass":"a1"}\n\n{"pass":"b, 2","user":"bob"}', id="json-lines"),
    ],
)
def test_formats(name: str, data: bytes) -> None:
    """The suffix says the format; the columns are the header's, or those of the first object."""
    assert ACCOUNTS == parsed(data, name)


def test_a_line_break_within_quotes_is_part_of_the_cell() -> None:
    """CSV as in RFC 4180."""
    assert (("a\nb",),) == parsed(b'text\n"a\nb"\n', "a.csv").rows


def test_numbers_stay_as_they_are_written() -> None:
    """1.50 is no 1.5, and no number is too large."""
    line = b'{"price":1.50,"id":123456789012345678901234567890,"paid":true}'
    assert (("1.50", "123456789012345678901234567890", "true"),) == parsed(line, "a.ndjson").rows


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        pytest.param("a.csv", b"", "there are no rows", id="empty"),
        pytest.param("a.csv", b"user,pass\n", "there are no rows", id="header-only"),
        pytest.param("a.csv", b"user,pass\nann\n", "line 2: 2 cells are needed, not 1", id="short-line"),
        pytest.param("a.csv", b"user,user\na,b\n", "line 1: the column user is given twice", id="column-twice"),
        pytest.param("a.csv", b"first name\na\n", "'first name' is no column's name", id="column-with-a-space"),
        pytest.param("a.csv", b'user\n"a\n', "not CSV: unexpected end of data", id="open-quote"),
        pytest.param("a.csv", b"user\n\xff\n", "UTF-8 text is needed: byte 5 is not", id="not-utf-8"),
        pytest.param("a.csv", ",".join(f"c{n}" for n in range(33)).encode(), "1 to 32 columns", id="many-columns"),
        pytest.param("a.csv", b"u\n" + b"x\n" * (MAX_ROWS + 1), "at most 100000 rows", id="many-rows"),
        pytest.param("a.csv", b"u\n" + b"x" * 9 * 2**20, "at most 8 MiB", id="large"),
        pytest.param("a.jsonl", b'{"a":1}\n{"a":', "line 2: not JSON", id="not-json"),
        pytest.param("a.jsonl", b"[1]", "line 1: an object is needed", id="no-object"),
        pytest.param("a.jsonl", b'{"a":"x"}\n{"b":"x"}', "line 2: the column a is missing", id="missing-column"),
        pytest.param("a.jsonl", b'{"a":1}\n{"a":1,"b":2}', "line 2: 'b' is no column of the first row", id="more"),
        pytest.param("a.jsonl", b'{"a":{"b":1}}', "line 1: a: text, a number, true or false", id="nested"),
        pytest.param("a.jsonl", b'{"a":null}', "line 1: a: text, a number, true or false", id="null"),
        pytest.param("a.jsonl", b'{"a":"\\ud800"}', "half a surrogate pair", id="surrogate"),
        pytest.param("a.jsonl", b'{"a":' + b"[" * 100_000, "line 1: not JSON", id="deep"),
    ],
)
def test_what_is_wrong_is_said(name: str, data: bytes, reason: str) -> None:
    """Where and what, in the user's words."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        parsed(data, name)


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=20))
def test_rows_travel_unchanged(rows: list[tuple[str, str]]) -> None:
    """Packed and unpacked, the rows are what they were; equal rows have equal names."""
    table = of_rows((f"row {n}", {"a": a, "b": b}) for n, (a, b) in enumerate(rows))
    assert table == Table.read(unpacked(table.packed, table.digest))
    assert table.digest == Table(table.columns, table.rows).digest


def test_rows_that_are_others_than_their_name_says_are_refused() -> None:
    """The digest is what was signed."""
    with pytest.raises(ValueError, match="others than their name says"):
        unpacked(Table(("a",), (("x",),)).packed, ACCOUNTS.digest)
    with pytest.raises(ValueError, match="cannot be read"):
        unpacked("nonsense", ACCOUNTS.digest)


def test_the_largest_content_is_bounded_before_it_is_unpacked() -> None:
    """A small text that unpacks to gigabytes costs 8 MiB, no more."""
    bomb = Table(("a",), (("x" * 9 * 2**20,),))
    with pytest.raises(ValueError, match="more than"):
        unpacked(bomb.packed, bomb.digest)


def test_content_is_compact_json() -> None:
    """Columns first."""
    assert [["user", "pass"], ["ann", "a1"], ["bob", "b, 2"]] == json.loads(ACCOUNTS.content)
