"""What is in a docker-archive: how the image is started, and its root."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

__all__ = ["Config", "config_of", "gone", "unpack", "unpacked_size"]

_GONE: Final = ".wh."
_ALL_GONE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How an image wants to be started; *user* as "uid:gid"."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    user: str
    labels: Mapping[str, str]
    ports: frozenset[str]


def config_of(archive: Path) -> Config:
    """Return the configuration of the one image in *archive*."""
    with tarfile.open(archive) as whole:
        found = _read(whole, _manifest(whole)["Config"])["config"]
    return Config(
        entrypoint=tuple(found.get("Entrypoint") or ()),
        command=tuple(found.get("Cmd") or ()),
        environment=dict(variable.split("=", 1) for variable in found.get("Env") or ()),
        user=found.get("User") or "",
        labels=found.get("Labels") or {},
        ports=frozenset(found.get("ExposedPorts") or ()),
    )


def unpack(archive: Path, root: Path) -> None:
    """
    Write the image in *archive* as the new directory *root*: layer over layer, owners and modes as in the image.

    Needs root, and an archive of ours: an entry could lead out of *root* by a symbolic link of a layer below.
    """
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as directory:
        _tar("--extract", "--file", str(archive), "--directory", directory)
        with tarfile.open(archive) as whole:
            layers = [Path(directory, name).resolve() for name in _manifest(whole)["Layers"]]
        for layer in layers:
            names = _tar("--list", "--file", str(layer)).splitlines()
            for path, keeps_itself in gone(names):
                _remove(root / path, keeps_itself)
            _tar("--extract", "--file", str(layer), "--directory", str(root), "--numeric-owner",
                 "--preserve-permissions", f"--exclude={_GONE}*")  # fmt: skip


def unpacked_size(archive: Path) -> int:
    """Return the bytes of all layers in *archive*, as tar files."""
    with tarfile.open(archive) as whole:
        layers = {whole.getmember(name).linkname or name for name in _manifest(whole)["Layers"]}
        sizes = {PurePosixPath(member.name).name: member.size for member in whole.getmembers()}
    return sum(sizes[PurePosixPath(name).name] for name in layers)


def gone(names: Iterable[str]) -> list[tuple[str, bool]]:
    """
    Return which paths a layer with these *names* takes out of the layers below it.

    `a/.wh.b` is a/b, and `a/.wh..wh..opq` all that is in a: then the second value is True, and the directory stays.
    """
    found = []
    for name in names:
        path = PurePosixPath(name)
        if path.name == _ALL_GONE:
            found.append((str(path.parent), True))
        elif path.name.startswith(_GONE):
            found.append((str(path.with_name(path.name.removeprefix(_GONE))), False))
    return found


def _remove(path: Path, keeps_itself: bool) -> None:
    for one in path.iterdir() if keeps_itself and path.is_dir() else (path,):
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink(missing_ok=True)


def _manifest(whole: tarfile.TarFile) -> dict[str, Any]:
    (manifest,) = _read(whole, "manifest.json")
    return dict(manifest)


def _read(whole: tarfile.TarFile, name: str) -> Any:
    file = whole.extractfile(name)
    assert file is not None, f"{name} is no file"
    with file:
        return json.load(file)


def _tar(*arguments: str) -> str:
    return subprocess.run(["tar", *arguments], capture_output=True, text=True, check=True).stdout
