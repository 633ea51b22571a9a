"""Containers of an unpacked image, run by runc: to the end, or as servers."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import packages
from trafficsim_operator.testing.images.archive import Config, config_of, unpack
from trafficsim_operator.testing.images.bundle import Launch, runtime_config
from trafficsim_operator.testing.processes import Guard, start
from trafficsim_operator.testing.unavailable import Unavailable

__all__ = ["Root", "unpacked"]

_LIMIT_S: Final = 60.0
_numbers = itertools.count()


class Root:
    """The root of an image, as a place for containers."""

    def __init__(self, directory: Path, config: Config, runc: Path, cgroup: str) -> None:
        self.config = config
        self.path = directory / "root"
        self._directory = directory
        self._runc = [str(runc), "--root", str(directory / "runc")]
        self._cgroup = cgroup

    def run(self, launch: Launch) -> subprocess.CompletedProcess[str]:
        """Run a container to its end, a minute at most, and return what it said."""
        name, bundle = self._bundle(launch)
        command = [*self._runc, "run", "--bundle", str(bundle), name]
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_LIMIT_S
            )
        finally:
            self._delete(name)

    @contextmanager
    def serving(self, launch: Launch) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """Have a container run meanwhile; yield runc's process and the file with what the container says."""
        name, bundle = self._bundle(launch)
        log = bundle / "log"
        with log.open("wb") as file:
            process = start([*self._runc, "run", "--bundle", str(bundle), name], file)
        try:
            yield process, log
        finally:
            self._delete(name)
            process.wait(timeout=_LIMIT_S)

    def _bundle(self, launch: Launch) -> tuple[str, Path]:
        name = f"container-{next(_numbers)}"
        bundle = self._directory / name
        bundle.mkdir()
        config = runtime_config(self.config, launch, root=self.path, cgroup=f"/{self._cgroup}/{name}")
        (bundle / "config.json").write_text(json.dumps(config))
        return name, bundle

    def _delete(self, name: str) -> None:
        subprocess.run([*self._runc, "delete", "--force", name], capture_output=True, check=False, timeout=_LIMIT_S)


@contextmanager
def unpacked(archive: Path) -> Iterator[Root]:
    """
    Unpack the image in *archive*, and remove it and what runs in it afterwards, also if this process is killed.

    Raises Unavailable where there is no root or no runc.
    """
    if os.geteuid() != 0:
        raise Unavailable("an image is run as root only")
    runc = packages.programs({"runc": "runc"})["runc"]
    cgroup = f"trafficsim-image-{os.getpid()}-{next(_numbers)}"
    directory = Path(tempfile.mkdtemp(prefix="trafficsim-image-", dir="/var/tmp"))  # not in memory: it may be large
    guard = Guard(cgroups=_everywhere(cgroup), directories=[directory])
    try:
        directory.chmod(0o755)  # the container's user looks up its root by this path
        unpack(archive, directory / "root")
        yield Root(directory, config_of(archive), runc, cgroup)
    finally:
        shutil.rmtree(directory)  # by ourselves: so many files may take longer than a guard is waited for
        guard.close()


def _everywhere(cgroup: str) -> list[Path]:
    """Return the directories of *cgroup*: one in version 2, in version 1 one in each hierarchy."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(directory) / cgroup for _, directory, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]
