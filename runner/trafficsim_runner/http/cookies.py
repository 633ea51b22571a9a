"""
A user's cookies: name and value by Set-Cookie.

There is one target, so domain and path are not looked at; Max-Age ≤ 0 or an Expires in the past removes a cookie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime

__all__ = ["Change", "changes_in", "cookie_in", "cookies_in", "line_of"]

Change = tuple[str, str | None]
"""A cookie's name and its new value; None removes it."""


def changes_in(headers: Iterable[tuple[bytes, bytes]], now_s: float) -> tuple[Change, ...]:
    """Return what the Set-Cookie headers among *headers* change, in order; *now_s* is the wall clock (s since 1970)."""
    changes = []
    for key, value in headers:
        if key == b"set-cookie":
            pair, *attributes = value.decode("latin-1").split(";")
            name, equals, text = pair.partition("=")
            if equals and name.strip():
                changes.append((name.strip(), None if _is_over(attributes, now_s) else text.strip()))
    return tuple(changes)


def _is_over(attributes: Sequence[str], now_s: float) -> bool:
    """Say whether the attributes remove the cookie; Max-Age goes before Expires."""
    given = {name.strip().lower(): value.strip() for name, _, value in (part.partition("=") for part in attributes)}
    try:
        if "max-age" in given:
            return int(given["max-age"]) <= 0
        if "expires" in given:
            return parsedate_to_datetime(given["expires"]).timestamp() <= now_s
    except (ValueError, TypeError, OverflowError):
        pass  # an attribute nobody can read does not count
    return False


def cookie_in(headers: Iterable[tuple[bytes, bytes]], name: str) -> str | None:
    """Return the value a Set-Cookie among *headers* gives to cookie *name*, None when none does."""
    return next((value for key, value in changes_in(headers, 0.0) if key == name), None)


def line_of(cookies: dict[str, str]) -> bytes | None:
    """Return the request's Cookie header line, None without cookies."""
    if not cookies:
        return None
    return b"cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items()).encode("latin-1") + b"\r\n"


def cookies_in(line: bytes | None) -> dict[str, str]:
    """Return the cookies of a header line made by `line_of`; None has none."""
    if line is None:
        return {}
    pairs = line[len(b"cookie: ") : -len(b"\r\n")].decode("latin-1").split("; ")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
