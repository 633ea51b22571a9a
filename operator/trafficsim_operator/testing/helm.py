"""
Find helm, or build it: `python -m trafficsim_operator.testing.helm`.

Order: `TRAFFICSIM_HELM`, a path; the cache; a build from the Go module in tools/helm of a checkout (about a minute on
two cores, once per version). A helm on PATH is not taken: another version may render otherwise, and what is generated
is compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import go_modules
from trafficsim_operator.testing.go_modules import Module
from trafficsim_operator.testing.unavailable import Unavailable

__all__ = ["HELM", "find", "run"]

HELM: Final = Module(
    called="helm",
    directory=Path(__file__).parents[3] / "tools" / "helm",
    requires="helm.sh/helm/v3",
    package="helm.sh/helm/v3/cmd/{name}",
    stamps="-X helm.sh/helm/v3/internal/version.version=v{version}",
)


def find(environ: Mapping[str, str] = os.environ, *, build: bool = True) -> Path:
    """Return helm, built if need be and *build*; raise `Unavailable` where it cannot be had."""
    if named := environ.get("TRAFFICSIM_HELM"):
        if not os.access(named, os.X_OK):
            raise Unavailable(f"TRAFFICSIM_HELM: {named} is no program")
        return Path(named)
    if not build and not (go_modules.cache(HELM, environ) / "helm").exists():
        raise Unavailable("helm is not built yet: python -m trafficsim_operator.testing.helm")
    return dict(go_modules.build(HELM, ["helm"], environ))["helm"]


def run(helm: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Return what *helm* says to *arguments*, with no configuration of the user's; *environ* is all it is told else."""
    with tempfile.TemporaryDirectory(prefix="trafficsim-helm-") as home:
        own = {"PATH": os.defpath, "HOME": home} | dict(environ or {})
        command: Sequence[str] = [str(helm), *arguments]
        return subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=120)


def main() -> int:
    """Build helm if need be, and print where it is."""
    try:
        print(find())
    except Unavailable as error:
        print(f"unavailable: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
