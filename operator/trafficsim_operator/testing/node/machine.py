"""
What nodes change of the machine: noted before the first, put back after the last.

The kubelet sets kernel parameters; directories that are missing are made for `mounts` to mount on.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.node.mounts import PRIVATE
from trafficsim_operator.testing.node.place import Place

PARAMETERS: Final = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_PROC: Final = Path("/proc/sys")


def prepare(place: Place, proc: Path = _PROC, directories: Iterable[str] = PRIVATE) -> None:
    """Note how it is, unless a node that is still there did; then make the *directories* that are missing."""
    paths = [Path(directory) for directory in directories]
    if not place.machine.exists():
        parameters = {name: (proc / name).read_text().strip() for name in PARAMETERS if (proc / name).exists()}
        missing = [str(path) for path in paths if not path.exists()]
        unfinished = place.machine.with_suffix(".new")
        unfinished.write_text(json.dumps({"parameters": parameters, "missing": missing}))
        unfinished.replace(place.machine)
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)


def put_back(place: Place, proc: Path = _PROC) -> None:
    """Make it as it was noted, unless another node is still there; a directory that has got a user stays."""
    others = [entry for entry in place.parent.iterdir() if entry.is_dir() and entry != place.directory]
    if others or not place.machine.exists():
        return
    noted = json.loads(place.machine.read_text())
    for name, value in noted["parameters"].items():
        if (proc / name).read_text().strip() != value:
            (proc / name).write_text(value)
    for path in noted["missing"]:
        with suppress(OSError):
            Path(path).rmdir()
    place.machine.unlink()
