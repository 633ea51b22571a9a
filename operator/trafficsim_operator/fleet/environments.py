"""
What an image is on this machine: a Python and the packages it sees.

    --runner registry.example.com/shop:2=/srv/venvs/shop-2      a virtual environment
    --runner registry.example.com/shop:2=./checkout             a directory with a trafficsim_runner package, or runner/
    --runner registry.example.com/shop:2=./shop-2               a directory with the Python modules of scenarios

An image that is not mapped is the current environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trafficsim_api.errors import Problem, SpecError

__all__ = ["Environment", "environment_of", "mapping_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The *python* that runs a runner, and the directories it looks for packages in first."""

    python: str
    path: tuple[Path, ...] = ()
    mapped: bool = False

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """
        Return PYTHONPATH as it has to be, nothing when it may stay.

        The directory that the command was started in comes last: `python -m` would look there first of all, and with a
        module of the same name in it two versions would be one.
        """
        if not self.path:
            return {}
        parts = [*map(str, self.path), *filter(None, [inherited.get("PYTHONPATH", "")]), str(Path.cwd())]
        return {"PYTHONPATH": os.pathsep.join(parts), "PYTHONSAFEPATH": "1"}


def mapping_of(texts: tuple[str, ...]) -> dict[str, Path]:
    """Return the mapping written as IMAGE=DIRECTORY; raise SpecError for one that names nothing usable."""
    found: dict[str, Path] = {}
    for text in texts:
        image, equals, where = text.partition("=")
        if not (image and equals and where):
            raise SpecError(Problem(field="--runner", reason=f"IMAGE=DIRECTORY is needed, not {text!r}"))
        path = Path(where).expanduser().absolute()
        if not (path / "bin" / "python").exists() and not _packages(path):
            reason = f"{where} is neither a virtual environment nor a directory with Python modules or packages"
            raise SpecError(Problem(field="--runner", reason=reason))
        found[image] = path
    return found


def environment_of(image: str, mapping: Mapping[str, Path]) -> Environment:
    """Return what *image* is here; an image that is not mapped is the current environment."""
    where = mapping.get(image)
    if where is None:
        return Environment(python=sys.executable)
    python = where / "bin" / "python"
    if python.exists():
        return Environment(python=str(python), mapped=True)
    return Environment(python=sys.executable, path=_packages(where), mapped=True)


def _packages(directory: Path) -> tuple[Path, ...]:
    """Return where in *directory* the runner's packages are; without them itself, if there are modules in it."""
    places = (directory, directory / "runner", directory / "crds")
    if not any((place / "trafficsim_runner").is_dir() for place in places):
        return (directory,) if _has_modules(directory) else ()
    wanted = ("trafficsim_runner", "trafficsim_api")
    return tuple(place for place in places if any((place / package).is_dir() for package in wanted))


def _has_modules(directory: Path) -> bool:
    """Say whether *directory* has something to import, a module or a package."""
    return any(any(directory.glob(pattern)) for pattern in ("*.py", "*/__init__.py"))
