"""The public keys that assignments may be signed with: a directory of PEM files, read again when a key is unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

__all__ = ["Keys"]

# Anybody can name an unknown key: the directory is read at most this often.
READ_EVERY_S: Final = 0.5


class Keys(Mapping[str, Ed25519PublicKey]):
    """The Ed25519 public keys in *directory*: file `<kid>.pem` is key `kid`; other files are not keys."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._read_at = -READ_EVERY_S

    def __getitem__(self, kid: str) -> Ed25519PublicKey:
        if kid not in self._keys and self._clock() - self._read_at >= READ_EVERY_S:
            self._read_at = self._clock()
            self._keys = _read(self._directory)
        return self._keys[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _read(directory: Path) -> dict[str, Ed25519PublicKey]:
    keys = {}
    for path in sorted(directory.glob("*.pem")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, Ed25519PublicKey):
            keys[path.stem] = key
    return keys
