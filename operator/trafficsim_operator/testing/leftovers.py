"""What killed processes leave in a directory: files, and what is mounted there."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def mounts(directory: Path, table: str | None = None) -> list[Path]:
    """Return what is mounted on or below *directory*, the last mounted first; *table* is as in /proc/self/mountinfo."""
    lines = (Path("/proc/self/mountinfo").read_text() if table is None else table).splitlines()
    # The kernel writes a space in a path as \\040; our own paths have none.
    points = [Path(line.split()[4]) for line in lines]
    return [point for point in reversed(points) if point.is_relative_to(directory)]


def remove(directory: Path) -> None:
    """Remove *directory* if it is there; what is mounted is unmounted before, or else a file elsewhere would go."""
    for point in mounts(directory):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    if left := mounts(directory):
        raise OSError(f"{left[0]} could not be unmounted")
    if directory.exists():
        shutil.rmtree(directory)


def unfinished(path: Path) -> Path:
    """Return where this process writes what becomes *path* when it is whole."""
    return path.with_name(f"{path.name}.{os.getpid()}.new")


def forget_unfinished(directory: Path) -> None:
    """Remove what processes that are gone have not finished in *directory*."""
    for path in directory.glob("*.new"):
        pid = path.name.split(".")[-2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):  # another user's
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
