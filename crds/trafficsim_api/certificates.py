"""Whether a text holds certificates."""

from __future__ import annotations

__all__ = ["holds_certificates"]


def holds_certificates(pem: str) -> bool:
    """Say whether *pem* holds certificates in PEM form, at least one, and none that cannot be read."""
    # Workers load the contract and never ask this: half of OpenSSL's bindings would be theirs for nothing.
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return bool(load_pem_x509_certificates(pem.encode("ascii")))
    except ValueError:
        return False
