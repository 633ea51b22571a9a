"""Volumes as directories: files appear all at once, as a kubelet does it, and change while the process runs."""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """
    Make *directory* hold exactly *files*.

    The files are symbolic links through `..data`, which one rename moves to the new content: a reader sees all of the
    old or all of the new.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f"..{uuid.uuid4().hex}"
    for path, content in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    fresh.mkdir(exist_ok=True)
    data = directory / "..data"
    old = data.resolve() if data.is_symlink() else None
    link = directory / "..data_tmp"
    link.symlink_to(fresh.name)
    link.replace(data)
    for top in {Path(path).parts[0] for path in files}:
        if not os.path.lexists(directory / top):
            (directory / top).symlink_to(Path("..data") / top)
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and not (fresh / entry.name).exists():
            entry.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def holds(directory: Path, files: Mapping[str, bytes]) -> bool:
    """Say whether *directory* already has exactly *files*, so that nothing needs to change."""
    data = directory / "..data"
    if not data.is_symlink():
        return False
    present = {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file()}
    return present == dict(files)
