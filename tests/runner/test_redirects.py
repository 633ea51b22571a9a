"""Where redirects lead, and what is sent there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.resource import Target
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.http.redirects import Goal, goal_of, verb_after, wire_for

HOME = endpoint_of(Target(url="http://shop:8080/api"))
WIRE = (
    b"POST /api/in?x=1 HTTP/1.1\r\nhost: shop:8080\r\naccept: */*\r\ncontent-type: text/plain\r\n"
    b"Authorization: Bearer t\r\nX-A: 1\r\ncookie: a=b\r\ncontent-length: 4\r\n\r\nbody"
)


@pytest.mark.parametrize(
    ("location", "goal"),
    [
        ("/b?y=2", (False, "shop", 8080, b"/b?y=2")),
        ("c", (False, "shop", 8080, b"/api/c")),
        ("../d", (False, "shop", 8080, b"/d")),
        ("?z", (False, "shop", 8080, b"/api/in?z")),
        ("#part", (False, "shop", 8080, b"/api/in?x=1")),
        ("//other/e#f", (False, "other", 80, b"/e")),
        ("https://Shop.example", (True, "shop.example", 443, b"/")),
        ("https://user:word@shop:8443/", (True, "shop", 8443, b"/")),
        ("http://[::1]:81/v6", (False, "::1", 81, b"/v6")),
        ("/ü a", (False, "shop", 8080, b"/%C3%BC%20a")),
        ("/a\r\nx-evil: 1", (False, "shop", 8080, b"/ax-evil:%201")),
    ],
)
def test_locations(location, goal):
    """Relative and absolute; what may not stand in a request line is encoded."""
    is_tls, host, port, path = goal
    found = goal_of(HOME, b"/api/in?x=1", location.encode())
    assert Goal(is_tls=is_tls, host=host, port=port, path=path) == found
    assert found.leads_to(HOME) == (goal[:3] == (False, "shop", 8080))


@pytest.mark.parametrize(
    "location",
    ["ftp://shop/", "javascript:alert(1)", "http://a b/", "http://shop:0/", "http://shop:99999/",
     "http://[::1/", "http://sh\xf6p/", "mailto:a@b", "http://fe80::1%25eth0/"],
)  # fmt: skip
def test_locations_that_lead_nowhere(location):
    """Anything but an http address with a host name or an address."""
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's own messages
        goal_of(HOME, b"/", location.encode())


@given(st.binary(max_size=300))
def test_any_location_is_a_goal_or_refused(location):
    """A hostile target may send any bytes; what comes out always fits into one request line."""
    try:
        goal = goal_of(HOME, b"/api/in", location)
    except ValueError:
        return
    assert goal.path.startswith(b"/")
    assert not set(goal.path) & set(range(33))
    assert goal.endpoint(HOME).authority.isascii()


@pytest.mark.parametrize(
    ("status", "verb", "after"),
    [(301, "post", "get"), (302, "put", "get"), (303, "delete", "get"), (302, "head", "head"), (303, "head", "head"),
     (307, "post", "post"), (308, "patch", "patch"), (301, "get", "get"), (307, "head", "head")],
)  # fmt: skip
def test_verbs(status, verb, after):
    """307 and 308 keep the verb; the others ask with GET, but HEAD stays HEAD."""
    assert after == verb_after(status, verb)


def sent(**changes):
    options = {"verb": "get", "endpoint": HOME, "path": b"/b", "has_body": False, "is_home": True} | changes
    return wire_for(WIRE, **options)


def test_a_request_without_its_body():
    """Everything that tells of the body goes with it; the user's other headers stay."""
    assert (
        b"GET /b HTTP/1.1\r\nhost: shop:8080\r\naccept: */*\r\nAuthorization: Bearer t\r\nX-A: 1\r\ncookie: a=b\r\n\r\n"
        == sent()
    )


def test_a_request_with_its_body():
    """But for its first lines it is the same request."""
    assert WIRE.replace(b"/api/in?x=1", b"/b") == sent(verb="post", has_body=True)


def test_another_host_gets_no_secrets():
    """Neither cookies nor Authorization; it is called by its own name."""
    other = Goal(is_tls=False, host="other", port=81, path=b"/").endpoint(HOME)
    assert b"GET /b HTTP/1.1\r\nhost: other:81\r\naccept: */*\r\nX-A: 1\r\n\r\n" == sent(endpoint=other, is_home=False)
