"""Checks and saves: what an answer must be, and what is kept of it."""

from __future__ import annotations

import pytest

from trafficsim_api.resource import Expect, Step
from trafficsim_runner.checks import MISSING, checks_of, find, parsed, same, saves_of

HEADERS = ((b"content-type", b"application/json"), (b"set-cookie", b"sid=1; Path=/"), (b"x-n", b"2"))
BODY = b'{"items":[{"id":7,"on":true}],"total":1,"none":null,"name":"\xc3\xbc"}'


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("total", 1),
        ("items.0.id", 7),
        ("items.0.on", True),
        ("items.1.id", MISSING),
        ("items.x", MISSING),
        ("total.x", MISSING),
        ("none", None),
        ("items.-1", MISSING),
    ],
)
def test_find(path, value):
    """A path names object keys and list indices."""
    found = find(parsed(BODY), tuple(path.split(".")))
    assert found is value or found == value


def test_true_is_not_one():
    """JSON values are compared as JSON, at any depth."""
    assert not same(1, True)
    assert same([1, {"a": 2.0}], [1, {"a": 2}])
    assert not same({"a": [True]}, {"a": [1]})
    assert not same({"a": 1}, {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("expect", "count", "head", "body"),
    [
        (None, 1, 0, 0),
        ({"status": "200"}, 1, 0, 0),
        ({"status": "2xx,404"}, 1, 0, 0),
        ({"status": "201,4xx"}, 1, 1, 0),
        ({"header": {"X-N": "2", "x-m": "1"}}, 2, 1, 0),
        ({"json": {"items.0.id": 7, "items.0.on": 1, "no": None}}, 3, 0, 2),
        ({"body": "items", "status": "200"}, 2, 0, 0),
        ({"body": "nowhere", "status": "500"}, 2, 1, 1),
        ({}, 0, 0, 0),
    ],
)
def test_each_entry_is_one_check(expect, count, head, body):
    """What the head decides is told apart from what needs the body."""
    checks = checks_of(None if expect is None else Expect.model_validate(expect))
    assert count == checks.count
    assert head == checks.failed_by_head(200, HEADERS)
    assert body == checks.failed_by_body(BODY, parsed(BODY))
    assert checks.need_body == bool(expect and ("json" in expect or "body" in expect))


def test_without_expect_a_status_below_400_is_right():
    """The default check."""
    assert [0, 0, 1, 1] == [checks_of(None).failed_by_head(status, ()) for status in (200, 399, 400, 503)]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("json.items.0.id", "7"),
        ("json.items.0.on", "true"),
        ("json.items.0", '{"id":7,"on":true}'),
        ("json.name", "ü"),
        ("json.none", None),
        ("json.no", None),
        ("header.X-N", "2"),
        ("header.no", None),
        ("cookie.sid", "1"),
        ("cookie.no", None),
        ("status", "200"),
        ("body", BODY.decode()),
    ],
)
def test_saves(source, value):
    """Text as it is, other JSON values as JSON, null and what is not there as nothing."""
    (save,) = saves_of(Step.model_validate({"request": {"get": "/"}, "save": {"v": source}}))
    assert value == save.value(200, HEADERS, BODY, parsed(BODY))
    assert save.needs_body == source.startswith(("json", "body"))


@pytest.mark.parametrize("path", ["half", "deep"])
def test_what_no_request_could_carry_is_not_saved(path):
    """JSON can say half a surrogate pair, UTF-8 cannot: it counts as nothing."""
    (save,) = saves_of(Step.model_validate({"request": {"get": "/"}, "save": {"v": f"json.{path}"}}))
    body = b'{"half": "\\ud800", "deep": {"x": ["\\udfff"]}}'
    assert save.value(200, HEADERS, body, parsed(body)) is None


def test_what_is_no_json_is_missing():
    """A check of JSON on something else fails, it does not raise."""
    assert parsed(b"<html>") is MISSING
    assert parsed(b"\xff") is MISSING
    assert parsed(b"[" * 200_000) is MISSING
