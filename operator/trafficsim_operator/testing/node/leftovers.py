"""What a killed node leaves outside its processes: mounts, sockets, links. Found by its directory and names."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.node.place import Place

_RESULTS: Final = Path("/var/lib/cni/results")  # of the network plugins, which have no setting for it
_LOG_LINKS: Final = Path("/var/log/containers")  # the kubelet's, which has none either
_TASKS: Final = "state/io.containerd.runtime.v2.task"


def mounts(place: Place, table: str | None = None) -> list[Path]:
    """Return what is mounted below the node's directory, the last mounted first."""
    lines = (Path("/proc/self/mountinfo").read_text() if table is None else table).splitlines()
    # The kernel writes a space in a path as \\040; our own paths have none.
    points = [Path(line.split()[4]) for line in lines]
    return [point for point in reversed(points) if point.is_relative_to(place.directory)]


def sockets(place: Place) -> list[Path]:
    """Return where the shims of containerd listen; they lie in a directory of the machine's."""
    files = (place.containerd / _TASKS).glob("*/*/address")
    found = [Path(file.read_text().strip().removeprefix("unix://")) for file in files]
    return [path for path in found if path.exists()]


def links(place: Place) -> list[Path]:
    """Return the links to the pods' logs, and what the network plugins remember."""
    logs = _LOG_LINKS.glob("*.log")
    ours = [link for link in logs if link.is_symlink() and link.readlink().is_relative_to(place.directory)]
    return [*ours, *_RESULTS.glob(f"{place.network}-*")]


def remove(place: Place) -> None:
    """Remove all of it, and the directory; the node's processes are gone."""
    for path in (*sockets(place), *links(place)):
        path.unlink(missing_ok=True)
    for point in mounts(place):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    if left := mounts(place):
        raise OSError(f"{left[0]} could not be unmounted")
    if place.directory.exists():
        shutil.rmtree(place.directory)
