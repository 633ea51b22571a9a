"""
The operator's signing key: an Ed25519 key in a Secret of its own namespace, made at the first start.

Runners get the public half in a ConfigMap, so that no Secret exists in a user's namespace.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from trafficsim_api.errors import Unavailable
from trafficsim_api.names import MANAGED_BY, Label
from trafficsim_operator.fleet.runners import Signer
from trafficsim_operator.kube import SECRETS, Changed, KubeApi

__all__ = ["SECRET", "Keys", "keys_of", "load_or_create"]

SECRET: Final = "trafficsim-signing-key"
_ENTRY: Final = "key.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The signer, and the public keys that runners are given (PEM by key id)."""

    signer: Signer
    public: dict[str, str]


def keys_of(key: Ed25519PrivateKey) -> Keys:
    """Return what follows from the private *key*; its id is made of the public half."""
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    kid = sha256(raw).hexdigest()[:16]
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return Keys(signer=Signer(kid=kid, key=key), public={kid: pem})


async def load_or_create(api: KubeApi, namespace: str) -> Keys:
    """Return the installation's key, made now if there is none; whoever comes second takes the first one's."""
    secret = await api.get(SECRETS, namespace, SECRET)
    if secret is None:
        try:
            secret = await api.create(SECRETS, _secret(namespace, Ed25519PrivateKey.generate()))
        except Changed:
            secret = await api.get(SECRETS, namespace, SECRET)
    return keys_of(_key(secret or {}, namespace))


def _secret(namespace: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "metadata": {"name": SECRET, "namespace": namespace, "labels": {Label.MANAGED_BY.value: MANAGED_BY}},
        "type": "Opaque",
        "data": {_ENTRY: base64.b64encode(pem).decode()},
    }


def _key(secret: dict[str, Any], namespace: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(base64.b64decode((secret.get("data") or {})[_ENTRY]), None)
    except (KeyError, ValueError, TypeError) as error:
        raise Unavailable(f"Secret {namespace}/{SECRET} holds no readable {_ENTRY}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Unavailable(f"Secret {namespace}/{SECRET} holds another kind of key than Ed25519")
    return key
