"""
Redirects: where an answer leads, and the request that follows.

    301, 302, 303   GET without a body (HEAD stays HEAD)
    307, 308        the same verb and body

Another host gets neither cookies nor Authorization, and its cookies are not kept. Fragments and user names in a
Location are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urljoin, urlsplit

from trafficsim_runner.http.endpoint import Endpoint
from trafficsim_runner.template import in_path

__all__ = ["REDIRECTS", "Goal", "goal_of", "verb_after", "wire_for"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9.])?")
_PORTS: Final = {"http": 80, "https": 443}
_SECRETS: Final = (b"authorization:", b"cookie:", b"proxy-authorization:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Where a redirect leads: *path* is as it stands in a request line, query and all."""

    is_tls: bool
    host: str
    port: int
    path: bytes

    def leads_to(self, endpoint: Endpoint) -> bool:
        """Say whether this is a place at *endpoint*."""
        return (self.is_tls, self.host, self.port) == (endpoint.is_tls, endpoint.host.lower(), endpoint.port)

    def endpoint(self, like: Endpoint) -> Endpoint:
        """Return the endpoint to connect to, with the time-outs of *like*."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.is_tls else 80)
        return Endpoint(
            host=self.host, port=self.port, is_tls=self.is_tls, authority=host if usual else f"{host}:{self.port}",
            prefix="", server_name=self.host, connect_ns=like.connect_ns, request_ns=like.request_ns,
        )  # fmt: skip


def goal_of(endpoint: Endpoint, path: bytes, location: bytes) -> Goal:
    """Return where *location* leads from *path* at *endpoint*; raise ValueError when it is no http address."""
    base = f"{'https' if endpoint.is_tls else 'http'}://{endpoint.authority}{path.decode()}"
    url = urlsplit(urljoin(base, location.decode("utf-8", "replace")))
    host = url.hostname or ""
    if url.scheme not in _PORTS or not (_HOST.fullmatch(host) or _is_address(host)):
        raise ValueError("no http address")
    port = _PORTS[url.scheme] if url.port is None else url.port
    if not port:
        raise ValueError("port 0")
    target = in_path(url.path + (f"?{url.query}" if url.query else ""))
    return Goal(is_tls=url.scheme == "https", host=host, port=port,
                path=target if target.startswith(b"/") else b"/" + target)  # fmt: skip


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def verb_after(status: int, verb: str) -> str:
    """Return the verb of the request that follows an answer of *status* to *verb* (both in lower case)."""
    return verb if status in (307, 308) or verb == "head" else "get"


def wire_for(wire: bytes, *, verb: str, endpoint: Endpoint, path: bytes, has_body: bool, is_home: bool) -> bytes:
    """Return the request *wire* made one for *path* at *endpoint*; *is_home*: that is the target's own host."""
    head, _, body = wire.partition(b"\r\n\r\n")
    _, *lines = head.split(b"\r\n")
    kept = [b"%b %b HTTP/1.1" % (verb.upper().encode(), path), b"host: " + endpoint.authority.encode()]
    for line in lines:
        name = line[: line.find(b":") + 1].lower()
        if name == b"host:" or (not has_body and name.startswith(b"content-")) or (not is_home and name in _SECRETS):
            continue
        kept.append(line)
    return b"\r\n".join(kept) + b"\r\n\r\n" + (body if has_body else b"")
