"""
Which modules of an installation are compiled.

The hot modules are plain Python; a wheel built with TRAFFICSIM_COMPILE=1 carries a C extension beside each, which is
what Python imports then. Told from the files, not from a note made at build time: what is said is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Final

__all__ = ["PACKAGES", "compiled_modules", "described"]

PACKAGES: Final = ("trafficsim_api", "trafficsim_runner")


def compiled_modules(packages: Sequence[str] = PACKAGES) -> list[str]:
    """Return the names of the compiled modules in *packages*, sorted; a package that is not installed has none."""
    found: list[str] = []
    for package in packages:
        spec = find_spec(package)
        for directory in (spec.submodule_search_locations or ()) if spec is not None else ():
            found += _below(Path(directory), package)
    return sorted(found)


def _below(directory: Path, package: str) -> list[str]:
    suffix = EXTENSION_SUFFIXES[0]  # of this very Python: what another left behind is not imported
    return [
        ".".join((package, *path.relative_to(directory).parent.parts, path.name.removesuffix(suffix)))
        for path in directory.rglob(f"*{suffix}")
    ]


def described(modules: Sequence[str]) -> str:
    """Return one line about *modules*: "pure Python", or "18 modules compiled: …"."""
    if not modules:
        return "pure Python"
    return f"{len(modules)} modules compiled: {', '.join(modules)}"
