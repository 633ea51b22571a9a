"""Compressed bodies: what checks and saved values see of them, and how much at most."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_runner.http.coding import UNPACKED_LIMIT, decoded

TEXT = b'{"ok": true}' * 100


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def said(coding):
    return [(b"content-type", b"text/plain"), (b"content-encoding", coding)]


@pytest.mark.parametrize(
    ("body", "coding", "expected"),
    [
        pytest.param(gzip.compress(TEXT), b"gzip", TEXT, id="gzip"),
        pytest.param(gzip.compress(TEXT), b" GZIP", TEXT, id="in capitals"),
        pytest.param(gzip.compress(TEXT) + gzip.compress(b"more"), b"x-gzip", TEXT + b"more", id="two members"),
        pytest.param(zlib.compress(TEXT), b"deflate", TEXT, id="deflate with its head"),
        pytest.param(raw_deflate(TEXT), b"deflate", TEXT, id="deflate without"),
        pytest.param(TEXT, b"br", TEXT, id="a coding we do not know"),
        pytest.param(TEXT, b"identity", TEXT, id="no coding"),
        pytest.param(gzip.compress(TEXT), b"gzip, gzip", gzip.compress(TEXT), id="two codings"),
        pytest.param(TEXT, b"gzip", b"", id="a lie"),
        pytest.param(b"", b"gzip", b"", id="nothing"),
    ],
)
def test_bodies(body, coding, expected):
    """gzip and deflate are unpacked, everything else stays, and a broken body is empty."""
    assert expected == decoded(body, said(coding))


def test_without_the_header_nothing_is_unpacked():
    """A file that is downloaded compressed is its own content."""
    assert gzip.compress(TEXT) == decoded(gzip.compress(TEXT), [])


def test_a_body_cut_short_yields_what_came():
    """Bodies are kept up to 8 MiB, so a large compressed one is cut."""
    assert TEXT.startswith(decoded(gzip.compress(TEXT)[:-12], said(b"gzip")))


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_bomb_is_unpacked_to_its_limit(coding):
    """A gigabyte of zeros in a megabyte: 8 MiB of it are looked at."""
    pack = zlib.compressobj(wbits=16 + zlib.MAX_WBITS if coding == b"gzip" else zlib.MAX_WBITS)
    bomb = b"".join(pack.compress(bytes(2**20)) for _ in range(256)) + pack.flush()
    began = time.monotonic()
    assert UNPACKED_LIMIT == len(decoded(bomb, said(coding)))
    assert time.monotonic() - began < 2


def test_many_tiny_members_cost_no_more_than_their_bytes():
    """Each member copies what stands behind it; only the first 64 are looked at."""
    assert b"x" * 64 == decoded(gzip.compress(b"x") * 200_000, said(b"gzip"))


@given(st.binary(max_size=2000), st.sampled_from([b"gzip", b"deflate", b"x-gzip", b"br", b""]))
def test_any_bytes_are_taken(body, coding):
    """A target may send what it wants."""
    assert len(decoded(body, said(coding))) <= UNPACKED_LIMIT
