"""Cookies: set, replaced and removed by Set-Cookie."""

from __future__ import annotations

import pytest

from trafficsim_runner.http.cookies import changes_in, cookie_in, cookies_in, line_of

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (b"a=b", ("a", "b")),
        (b"a=b; Path=/; HttpOnly; Secure", ("a", "b")),
        (b" a = b=c ; x", ("a", "b=c")),
        (b"a=", ("a", "")),
        (b"a=b; Max-Age=0", ("a", None)),
        (b"a=b; max-age=-5", ("a", None)),
        (b"a=b; Max-Age=60", ("a", "b")),
        (b"a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ("a", None)),
        (b"a=b; Expires=Wed, 01 Jan 2098 00:00:00 GMT", ("a", "b")),
        (b"a=b; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ("a", "b")),
        (b"a=b; Expires=never", ("a", "b")),
        (b"a=b; Max-Age=x", ("a", "b")),
    ],
)
def test_one_header(value, change):
    """The last word of Max-Age and Expires is Max-Age's; what cannot be read does not count."""
    assert (change,) == changes_in([(b"x", b"y"), (b"set-cookie", value)], NOW)


@pytest.mark.parametrize("value", [b"", b"novalue", b"=x", b";"])
def test_what_names_no_cookie_is_left_out(value):
    """A cookie needs a name and an equals sign."""
    assert () == changes_in([(b"set-cookie", value)], NOW)


def test_the_line_holds_them_all():
    """The Cookie header, or none."""
    assert b"cookie: a=b; c=d\r\n" == line_of({"a": "b", "c": "d"})
    assert line_of({}) is None
    assert "2" == cookie_in([(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], "b")
    assert cookie_in([], "b") is None


def test_the_line_is_all_that_is_kept():
    """The cookies of a user are read back from its line, whatever their values hold."""
    for _, value in (("plain", b"a=b"), ("equals signs", b" a = b=c "), ("empty", b"a="), ("Latin-1", b"a=\xe9 x")):
        jar = {name: text or "" for name, text in changes_in([(b"set-cookie", value)], NOW)} | {"z": "1"}
        assert jar == cookies_in(line_of(jar))
    assert {} == cookies_in(None)
