"""What an image is built from, and the digest of it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["context_files", "digest"]

_ALSO: Final = ("Dockerfile", ".dockerignore")
_NEVER: Final = ("__pycache__",)
_NEVER_ENDING: Final = (".so", ".pyc")
_LENGTH: Final = 16  # hexadecimal digits: enough to tell builds apart


def context_files(root: Path) -> list[Path]:
    """
    Return the files below *root* that reach a build, relative to it and sorted.

    They are what `.dockerignore` lets in (it leaves everything out but the names after a `!`), it and the Dockerfile.
    """
    lines = (root / ".dockerignore").read_text().splitlines()
    names = [*(line[1:].strip() for line in lines if line.startswith("!")), *_ALSO]
    return sorted(path.relative_to(root) for name in names for path in _below(root / name))


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for directory, directories, files in os.walk(path):
        directories[:] = [name for name in directories if name not in _NEVER]
        yield from (Path(directory, name) for name in files if not name.endswith(_NEVER_ENDING))


def digest(root: Path, files: Iterable[Path], *words: str) -> str:
    """Return a digest of *files* below *root* (names, contents, whether they may be executed) and of *words*."""
    whole = hashlib.sha256(repr(words).encode())
    for file in files:
        may_run = bool((root / file).stat().st_mode & stat.S_IXUSR)
        content = hashlib.sha256((root / file).read_bytes()).hexdigest()
        whole.update(repr((file.as_posix(), may_run, content)).encode())
    return whole.hexdigest()[:_LENGTH]
