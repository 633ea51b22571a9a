"""The target's URL taken apart, and the policy's word on its addresses."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from trafficsim_api.layout import Error
from trafficsim_api.protocol import Allowed
from trafficsim_api.resource import Target
from trafficsim_runner.http.endpoint import endpoint_of, is_allowed, look_up
from trafficsim_runner.http.failures import kind_of, kind_of_errno


@pytest.mark.parametrize(
    ("url", "host", "port", "is_tls", "authority", "prefix"),
    [
        ("http://shop:8080", "shop", 8080, False, "shop:8080", ""),
        ("https://shop.example/api/", "shop.example", 443, True, "shop.example", "/api"),
        ("http://[::1]:81/a/b", "::1", 81, False, "[::1]:81", "/a/b"),
        ("http://10.0.0.1", "10.0.0.1", 80, False, "10.0.0.1", ""),
    ],
)
def test_endpoint_of(url, host, port, is_tls, authority, prefix):
    """Scheme, host, port and prefix; the Host header says what the URL said."""
    endpoint = endpoint_of(Target.model_validate({"url": url, "timeouts": {"connect": "250ms", "request": "2s"}}))
    assert (host, port, is_tls, authority, prefix, host) == (
        endpoint.host,
        endpoint.port,
        endpoint.is_tls,
        endpoint.authority,
        endpoint.prefix,
        endpoint.server_name,
    )
    assert (250_000_000, 2_000_000_000) == (endpoint.connect_ns, endpoint.request_ns)


def test_the_server_name_may_differ():
    """tls.serverName is what the certificate is verified against."""
    target = Target.model_validate({"url": "https://10.0.0.1", "tls": {"serverName": "shop.example"}})
    assert "shop.example" == endpoint_of(target).server_name


@pytest.mark.parametrize(
    ("address", "port", "allowed"),
    [
        ("127.0.0.1", 80, True),
        ("127.9.9.9", 80, True),
        ("128.0.0.1", 80, False),
        ("10.1.2.3", 8080, True),
        ("10.1.2.3", 80, False),
        ("::1", 80, False),
        ("fd00::1", 443, True),
        ("::ffff:127.0.0.1", 80, True),
        ("169.254.169.254", 80, False),
        ("fe80::1%eth0", 80, False),
    ],
)
def test_is_allowed(address, port, allowed):
    """Network and port must be named; an IPv4 address in IPv6 clothes is the IPv4 address."""
    rules = (
        Allowed(network="127.0.0.0/8"),
        Allowed(network="10.0.0.0/8", ports=(8080,)),
        Allowed(network="fd00::/8", ports=(443,)),
    )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = (address, port, 0, 0) if family == socket.AF_INET6 else (address, port)
    assert allowed == is_allowed((family, where), rules)
    assert not is_allowed((family, where), ())


def test_a_literal_address_is_looked_up_without_a_resolver():
    """An address is its own answer."""
    assert [(socket.AF_INET, ("127.0.0.1", 81))] == look_up("127.0.0.1", 81)


@pytest.mark.parametrize(
    ("number", "connected", "kind"),
    [
        (errno.ECONNREFUSED, False, Error.REFUSED),
        (errno.EADDRNOTAVAIL, False, Error.NO_PORT),
        (errno.EMFILE, False, Error.NO_FD),
        (errno.ENETUNREACH, False, Error.UNREACHABLE),
        (errno.EHOSTUNREACH, False, Error.UNREACHABLE),
        (errno.ETIMEDOUT, False, Error.CONNECT_TIMEOUT),
        (errno.ETIMEDOUT, True, Error.RESET),
        (errno.ECONNRESET, True, Error.RESET),
        (errno.EPIPE, True, Error.RESET),
        (12345, True, Error.RESET),
        (12345, False, Error.UNREACHABLE),
        (errno.EPERM, False, Error.FORBIDDEN),
    ],
)
def test_the_kind_says_whose_fault_it_is(number, connected, kind):
    """Generator, network or target, by the system's error."""
    assert kind == kind_of_errno(number, connected=connected)
    assert kind == kind_of(OSError(number, "x"), connected=connected)
    assert Error.TLS == kind_of(ssl.SSLCertVerificationError(1, "x"), connected=True)
