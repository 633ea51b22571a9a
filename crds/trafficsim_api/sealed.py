"""
What only the operator may read of what a runner says: sealed to a key that follows from the operator's signing key.

    reader = X25519 key from HKDF-SHA256(Ed25519 private key)
    sealed = ephemeral public key (32 bytes) ‖ ChaCha20-Poly1305(HKDF-SHA256(ephemeral · reader), values, context)

Whoever can reach a runner can read its acknowledgement, and whoever may read ConfigMaps what the operator keeps there:
both see the sealed form alone. An operator that starts anew has the same signing key, so it can open what an earlier
one kept. *context* names what it is about: values of one run never pass for another's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["MAX_VALUES", "public_of", "reader_of", "seal", "unseal"]

MAX_VALUES: Final = 64 * 1024
"""Bytes of all values together at most, as JSON."""
_KEY: Final = 32
# Every box has an ephemeral key of its own, so its nonce never meets another message.
_NONCE: Final = bytes(12)


def reader_of(signing: Ed25519PrivateKey) -> X25519PrivateKey:
    """Return the key that opens what was sealed for the owner of *signing*."""
    return X25519PrivateKey.from_private_bytes(_derived(signing.private_bytes_raw(), b"trafficsim reader"))


def public_of(reader: X25519PrivateKey) -> str:
    """Return the public half of *reader* in base64, for `seal`."""
    return base64.b64encode(reader.public_key().public_bytes_raw()).decode()


def seal(values: Mapping[str, str], reader: str, context: str) -> str:
    """Return *values* in base64, readable by the holder of *reader* alone; raise ValueError when that is no key."""
    public = base64.b64decode(reader, validate=True)
    ephemeral = X25519PrivateKey.generate()
    own = ephemeral.public_key().public_bytes_raw()
    box = _box(ephemeral, X25519PublicKey.from_public_bytes(public), own + public)
    plain = json.dumps(values, separators=(",", ":")).encode()
    return base64.b64encode(own + box.encrypt(_NONCE, plain, context.encode())).decode()


def unseal(sealed: str, reader: X25519PrivateKey, context: str) -> dict[str, str]:
    """Return the values in *sealed*; raise ValueError when they were sealed for somebody or something else."""
    raw = base64.b64decode(sealed, validate=True)
    own = raw[:_KEY]
    public = reader.public_key().public_bytes_raw()
    try:
        box = _box(reader, X25519PublicKey.from_public_bytes(own), own + public)
        found = json.loads(box.decrypt(_NONCE, raw[_KEY:], context.encode()))
    except InvalidTag as error:
        raise ValueError("it was sealed for another key, or for something else") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no values")
    return {str(name): str(value) for name, value in found.items()}


def _box(private: X25519PrivateKey, public: X25519PublicKey, keys: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_derived(private.exchange(public), b"trafficsim values" + keys))


def _derived(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=_KEY, salt=None, info=info).derive(secret)
