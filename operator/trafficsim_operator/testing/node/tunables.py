"""The machine's kernel parameters that a kubelet sets: noted before the first node, put back after the last."""

import json
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.node.place import Place

_NAMES: Final = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_PROC: Final = Path("/proc/sys")


def note(place: Place, proc: Path = _PROC) -> None:
    """Note them, unless a node that is still there did."""
    if place.tunables.exists():
        return
    values = {name: (proc / name).read_text().strip() for name in _NAMES if (proc / name).exists()}
    unfinished = place.tunables.with_suffix(".new")
    unfinished.write_text(json.dumps(values))
    unfinished.replace(place.tunables)


def put_back(place: Place, proc: Path = _PROC) -> None:
    """Write what was noted, unless another node is still there."""
    others = [entry for entry in place.parent.iterdir() if entry.is_dir() and entry != place.directory]
    if others or not place.tunables.exists():
        return
    for name, value in json.loads(place.tunables.read_text()).items():
        if (proc / name).read_text().strip() != value:
            (proc / name).write_text(value)
    place.tunables.unlink()
