"""
Container images from a few files, without a container engine: what `docker save` writes. Pure, but for the reading.

    archive("localhost/pause:1", {"pause": Path("/…/pause")}, entrypoint=["/pause"])
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link to *target*."""

    target: str


@dataclass(frozen=True, slots=True)
class Text:
    """A file with this content, to be read by everybody."""

    content: str


Content: TypeAlias = Path | Link | Text

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def archive(
    tag: str,
    files: Mapping[str, Content],
    *,
    entrypoint: Sequence[str],
    user: str = "65535:65535",
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """
    Return the archive of an image called *tag* with one layer.

    *files* is path in the image, without the leading slash, → a program on this machine, a `Link` or a `Text`. The
    same input gives the same bytes.
    """
    layer = _tar(files)
    digest = hashlib.sha256(layer).hexdigest()
    machine = platform.machine()
    configuration = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {
            "Entrypoint": list(entrypoint),
            "User": user,
            "Env": [f"{name}={value}" for name, value in (environment or {}).items()],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    described = json.dumps(configuration)
    name = hashlib.sha256(described.encode()).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as image:
        _add(image, f"{name}.json", described.encode())
        _add(image, "layer.tar", layer)
        _add(image, "manifest.json", json.dumps(manifest).encode())
    return whole.getvalue()


def _tar(files: Mapping[str, Content]) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        directories = {str(parent) for path in files for parent in Path(path).parents} - {"."}
        for directory in sorted(directories):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, content in files.items():
            match content:
                case Link(target):
                    entry = tarfile.TarInfo(path)
                    entry.type, entry.linkname = tarfile.SYMTYPE, target
                    tar.addfile(entry)
                case Text(text):
                    _add(tar, path, text.encode())
                case Path():
                    _add(tar, path, content.read_bytes(), mode=0o755)
    return layer.getvalue()


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
