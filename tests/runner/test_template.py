"""Templates: compiled once, they say the same as replacing text each time."""

from __future__ import annotations

import itertools
import json
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, lists, none, one_of, recursive, sampled_from, text

from trafficsim_runner import template
from trafficsim_runner.users import User

WORDS = template.Words("browser", {"HOST": "h1"})
PLAIN = text(max_size=8).filter(
    lambda t: "{{" not in t and "}}" not in t and not t.endswith("{") and not t.startswith("}")
)


def a_user(**saved):
    user = User()
    user.place, user.iteration, user.saved = 42, 7, saved
    return user


@pytest.mark.parametrize(
    ("written", "filled"),
    [
        ("", b""),
        ("plain", b"plain"),
        ("{{user.id}}", b"42"),
        ("{{ user.number }}x", b"42x"),
        ("{{user.archetype}}/{{user.iteration}}", b"browser/7"),
        ("{{env.HOST}}", b"h1"),
        ("a{{token}}b", "aübcb".encode()),
        ("{{env.NONE}}", None),
        ("{{missing}}", None),
    ],
)
def test_words(written, filled):
    """Each word stands for what the documentation says; a missing one makes the whole missing."""
    assert filled == template.render(WORDS.split(written, template.plain), a_user(token="übc"))


@pytest.mark.parametrize(
    "encode", [template.plain, template.in_path, template.in_query, template.in_header, template.in_json]
)
def test_half_a_surrogate_pair_is_missing(encode):
    """UTF-8 cannot say it, wherever it stands: the action is dropped rather than an error raised."""
    words = template.Words("browser", {"BAD": "\udcff"})
    assert template.render(words.split("a{{token}}", encode), a_user(token="\ud800")) is None
    assert template.render(words.split("a{{env.BAD}}", encode), a_user()) is None


@given(lists(one_of(PLAIN, sampled_from(["{{user.id}}", "{{token}}", "{{env.HOST}}"])), max_size=8), PLAIN)
def test_rendering_is_replacing(parts, token):
    """The compiled template gives what textual replacement gives, in as few parts as there are lookups allow."""
    written = "".join(parts)
    compiled = WORDS.split(written, template.plain)
    expected = written.replace("{{user.id}}", "42").replace("{{env.HOST}}", "h1").replace("{{token}}", token)
    assert expected.encode() == template.render(compiled, a_user(token=token))
    assert not any(isinstance(a, bytes) and isinstance(b, bytes) for a, b in itertools.pairwise(compiled))


@given(text(max_size=30))
def test_a_value_cannot_leave_its_place(value):
    """No value breaks out of a path, a query, a JSON string or a header."""
    user = a_user(v=value)
    path = template.render(WORDS.split("/a/{{v}}/b", template.in_path), user)
    assert not set(path) & set(b' \r\n\x00"<>\\^`{|}#')
    assert path.isascii()
    query = template.render((b"q=", *WORDS.split("{{v}}", template.in_query), b"&n=1"), user)
    assert {"q": value, "n": "1"} == dict(parse_qsl(urlsplit("/?" + query.decode()).query, keep_blank_values=True))
    assert {"k": value} == json.loads(template.render(WORDS.json({"k": "{{v}}"}), user))
    header = template.render(WORDS.split("{{v}}", template.in_header), user)
    assert (header is None) == any(c in value for c in "\r\n\x00")


JSON = recursive(
    one_of(none(), sampled_from([True, False, 0, -1, 10**15]), PLAIN),
    lambda inner: one_of(lists(inner, max_size=3), dictionaries(PLAIN, inner, max_size=3)),
    max_leaves=10,
)


@given(JSON)
def test_a_json_body_without_templates_is_that_document(value):
    """Compiled or not, it is the same document, and one literal."""
    compiled = WORDS.json(value)
    assert value == json.loads(template.render(compiled, a_user()))
    assert 1 == len(compiled)


def test_braces_of_the_document_are_no_template():
    """Braces that meet across JSON strings are not taken for a template."""
    value = {"a": {"b": "x{{"}, "c": "}}"}
    assert value == json.loads(template.render(WORDS.json(value), a_user()))


def test_a_line_break_in_a_literal_header_is_refused():
    """The document's own headers cannot hold one either."""
    with pytest.raises(ValueError, match="request"):
        WORDS.split("a\r\nb", template.in_header)
