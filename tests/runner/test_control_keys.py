"""The public keys of a runner."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trafficsim_runner.control.keys import Keys


def put(directory, name, key):
    (directory / name).write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_a_key_is_known_by_its_files_name(tmp_path):
    """Other files, other kinds of key and garbage are no keys, and keep nobody from being found."""
    put(tmp_path, "k1.pem", Ed25519PrivateKey.generate())
    put(tmp_path, "other.pem", X25519PrivateKey.generate())
    (tmp_path / "broken.pem").write_text("no key")
    (tmp_path / "k3.txt").write_text("no key")
    keys = Keys(tmp_path, lambda: 0.0)
    assert keys.get("k1") is not None
    assert ["k1"] == list(keys)


def test_unknown_keys_do_not_make_it_read_all_the_time(tmp_path):
    """A key that came is found at the next reading, half a second later."""
    now = 10.0
    keys = Keys(tmp_path, lambda: now)
    assert keys.get("k1") is None
    put(tmp_path, "k1.pem", Ed25519PrivateKey.generate())
    now = 10.4
    assert keys.get("k1") is None
    now = 10.5
    assert keys["k1"]
    (tmp_path / "k1.pem").unlink()
    now = 20.0
    with pytest.raises(KeyError):
        keys["k2"]
    assert keys.get("k1") is None
