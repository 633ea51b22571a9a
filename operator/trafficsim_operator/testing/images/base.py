"""A base image of Debian packages, for where the public one cannot be pulled."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import packages
from trafficsim_operator.testing.images.engine import Request
from trafficsim_operator.testing.processes import run
from trafficsim_operator.testing.unavailable import Unavailable

__all__ = ["NAME", "write_context"]

_SUITE: Final = "bookworm"  # its python3 is 3.11
_OPTIONS: Final = (
    "--variant=minbase",
    "--include=python3,ca-certificates",
    # As in Debian's own slim images: without manuals and translations.
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
_DOCKERFILE: Final = 'FROM scratch\nADD root.tar /\nCMD ["python3"]\n'
NAME: Final = (
    f"localhost/trafficsim/base:{_SUITE}-{hashlib.sha256(repr((_OPTIONS, _DOCKERFILE)).encode()).hexdigest()[:12]}"
)


def write_context(directory: Path) -> Request:
    """Write into *directory* what the base is built from, half a minute, and return how; raise Unavailable."""
    program = packages.programs({"mmdebstrap": "mmdebstrap"})["mmdebstrap"]
    (directory / "Dockerfile").write_text(_DOCKERFILE)
    with tempfile.TemporaryFile() as said:
        command = ["env", f"TMPDIR={directory}", str(program), *_OPTIONS, _SUITE, str(directory / "root.tar")]
        code = run(command, said)
        said.seek(0)
        if code:
            last = [line for line in said.read().decode(errors="replace").splitlines() if line.startswith("E:")] or [
                "no message"
            ]
            raise Unavailable(f"no base image of Debian packages: {'; '.join(last)}")
    return Request(context=directory, name=NAME)
