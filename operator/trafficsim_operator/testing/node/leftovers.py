"""What a killed node leaves outside its processes: mounts, sockets, links. Found by its directory and names."""

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.node.place import Place

_RESULTS: Final = Path("/var/lib/cni/results")  # of the network plugins, which have no setting for it
_LOG_LINKS: Final = Path("/var/log/containers")  # the kubelet's, which has none either
_DEVICES: Final = Path("/var/lib/kubelet/device-plugins/kubelet.sock")  # nor for this
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


def outside(place: Place) -> list[Path]:
    """Return the links to the pods' logs, and what the network plugins remember: it names the pods' namespaces."""
    logs = _LOG_LINKS.glob("*.log")
    ours = [link for link in logs if link.is_symlink() and link.readlink().is_relative_to(place.directory)]
    return [*ours, *(result for result in _RESULTS.glob("*") if f"{place.directory}/" in _text(result))]


def remove(place: Place) -> None:
    """Remove all of it, and the directory; the node's processes are gone."""
    for path in (*sockets(place), *outside(place)):
        path.unlink(missing_ok=True)
    for point in mounts(place):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    if left := mounts(place):
        raise OSError(f"{left[0]} could not be unmounted")
    if _DEVICES.exists() and not _listens(_DEVICES):
        _DEVICES.unlink()
    if place.directory.exists():
        shutil.rmtree(place.directory)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # another network's, and gone
        return ""


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
