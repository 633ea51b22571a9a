"""
More versions of the runner's image, as somebody makes them who adds scenarios of his own: one layer more.

They share one archive, so that a node is given the layers below only once.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["Variant", "write"]

_SCENARIOS: Final = "opt/scenarios"
_LAYER: Final = "scenarios.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An image called *name*, with its tag: the runner's with more *environment*, and a label that tells it apart."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


def write(runner: Path, modules: Sequence[Path], variants: Sequence[Variant], archive: Path) -> Path:
    """Write *variants* of the image in the archive *runner*, each with the Python *modules*, as *archive*."""
    layer = _layer(modules)
    with tarfile.open(runner) as given, tarfile.open(archive, "w") as whole:
        [manifest] = json.loads(_read(given, "manifest.json"))
        configuration = json.loads(_read(given, manifest["Config"]))
        for name in manifest["Layers"]:
            _copy(given, whole, name)
        _add(whole, _LAYER, layer)
        images = []
        for variant in variants:
            described = json.dumps(_configured(configuration, variant, layer)).encode()
            config = f"{hashlib.sha256(described).hexdigest()}.json"
            _add(whole, config, described)
            images.append({"Config": config, "RepoTags": [variant.name], "Layers": [*manifest["Layers"], _LAYER]})
        _add(whole, "manifest.json", json.dumps(images).encode())
    return archive


def _configured(configuration: Mapping[str, Any], variant: Variant, layer: bytes) -> dict[str, Any]:
    found = copy.deepcopy(dict(configuration))
    found["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
    found.setdefault("history", []).append({"created_by": f"COPY . /{_SCENARIOS}"})
    settings = found["config"]
    settings["Env"] = [*settings.get("Env", ()), *(f"{name}={value}" for name, value in variant.environment.items())]
    settings["Labels"] = {**(settings.get("Labels") or {}), "org.opencontainers.image.ref.name": variant.name}
    return found


def _layer(modules: Sequence[Path]) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for module in modules:
            _add(tar, f"{_SCENARIOS}/{module.name}", module.read_bytes())
    return layer.getvalue()


def _read(whole: tarfile.TarFile, name: str) -> bytes:
    file = whole.extractfile(name)
    assert file is not None, f"{name} is no file"
    with file:
        return file.read()


def _copy(given: tarfile.TarFile, whole: tarfile.TarFile, name: str) -> None:
    """Copy a layer, which may be a link to its bytes."""
    file = given.extractfile(name)
    assert file is not None, f"{name} is no file"
    with file:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = file.seek(0, io.SEEK_END), 0o644
        file.seek(0)
        whole.addfile(entry, file)


def _add(whole: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    whole.addfile(entry, io.BytesIO(content))
