"""JSON bodies: the short way reads what json.loads reads, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis.strategies import binary, booleans, dictionaries, floats, integers, lists, none, recursive, text

from trafficsim_runner.checks import MISSING, parsed

DOCUMENTS = recursive(
    none() | booleans() | integers() | floats(allow_nan=False) | text(),
    lambda inner: lists(inner, max_size=4) | dictionaries(text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def slowly(body):
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return MISSING


@given(DOCUMENTS, booleans())
def test_what_was_written_is_read(document, is_ascii):
    """Whatever JSON can say comes back."""
    assert document == parsed(json.dumps(document, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"))


@given(binary(max_size=30))
def test_any_bytes_are_read_as_by_json(body):
    """What is no document is none either way."""
    assert repr(slowly(body)) == repr(parsed(body))


@pytest.mark.parametrize(
    ("body", "document"),
    [
        pytest.param(b' {"a": 1}\r\n', {"a": 1}, id="space around it"),
        pytest.param(b"\xef\xbb\xbf[1]", [1], id="byte order mark"),
        pytest.param('{"a": "ü"}'.encode("utf-16"), {"a": "ü"}, id="UTF-16"),
        pytest.param(b"1 2", MISSING, id="two documents"),
        pytest.param(b"", MISSING, id="nothing"),
        pytest.param(b'{"a": ', MISSING, id="cut"),
        pytest.param(b'"\xff"', MISSING, id="not UTF-8"),
        pytest.param(b"[" * 200_000, MISSING, id="too deep"),
    ],
)
def test_what_is_unusual_is_read_too(body, document):
    """Encodings and space around a document are json.loads' business."""
    assert document == parsed(body)
