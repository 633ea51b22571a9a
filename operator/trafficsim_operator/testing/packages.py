"""Programs of the distribution: found on PATH, or installed by root on Debian, which is said."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.go_modules import last_line, progress
from trafficsim_operator.testing.unavailable import Unavailable

_SYSTEM: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # which a user's PATH on Debian leaves out
_WAIT: Final = "-oDPkg::Lock::Timeout=300"  # seconds, for somebody else who installs


def path(environ: Mapping[str, str] = os.environ) -> str:
    """Return PATH with the directories of the system's programs, for ours and for what they call."""
    return os.pathsep.join([environ.get("PATH", os.defpath), *_SYSTEM])


def find(name: str) -> str | None:
    """Return where a program is."""
    return shutil.which(name, path=path())


def programs(
    packages: Mapping[str, str], find: Callable[[str], str | None] = find, *, install: bool = True
) -> dict[str, Path]:
    """
    Return where each program is, given as program → Debian package, or several.

    What *find* misses is installed if *install*, or else named in `Unavailable` with the packages that have it.
    """
    found = {program: find(program) for program in packages}
    missing = {program: packages[program] for program, path in found.items() if path is None}
    if missing:
        if not install:
            raise Unavailable(_said(missing))
        _install(missing)
        found |= {program: find(program) for program in missing}
    still = {program: package for program, package in missing.items() if found[program] is None}
    if still:
        raise Unavailable(_said(still))
    return {program: Path(path) for program, path in found.items() if path is not None}


def _install(missing: Mapping[str, str]) -> None:
    packages = sorted({word for words in missing.values() for word in words.split()})
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(_said(missing))
    progress(f"installing {', '.join(packages)}")
    install = ["install", "--yes", "--no-install-recommends", *packages]
    if _apt_get(install) is None:  # an old index may do
        return
    _apt_get(["update"])
    if (message := _apt_get(install)) is not None:
        raise Unavailable(f"{', '.join(packages)} could not be installed: {message}")


def _apt_get(arguments: list[str]) -> str | None:
    """Return the last thing apt-get said if it failed."""
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", _WAIT, *arguments], env=environ, capture_output=True, text=True, check=False)
    return last_line(done.stderr) if done.returncode else None


def _said(missing: Mapping[str, str]) -> str:
    packages = " ".join(sorted(set(missing.values())))
    return f"{', '.join(missing)} not on PATH (Debian: apt-get install {packages})"
