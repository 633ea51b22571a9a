"""
Compile the runner's hot modules while a wheel is built: `TRAFFICSIM_COMPILE=1 pip install .`.

mypyc makes C extensions of the modules listed in pyproject.toml. They are plain typed Python and stay in the wheel as
such: an extension beside a module is what Python imports first, and the sources are what its tracebacks show. Without
the variable, and for an editable install, the wheel is pure.

Nothing is written into the checkout: sources are copied to a temporary directory and compiled there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "TRAFFICSIM_COMPILE"
PACKAGES = ("crds/trafficsim_api", "runner/trafficsim_runner")
# The compiler reads the types of the modules beside the compiled ones, but what they import need not be installed.
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
options = ["--config-file=", "--ignore-missing-imports", "--python-version", "%d.%d" % sys.version_info[:2]]
extensions = mypycify([*options, *sys.argv[3:]], opt_level="3", debug_level="0", group_name="trafficsim")
setup(name="trafficsim", packages=[], ext_modules=extensions, script_args=sys.argv[1:3])
"""


class CompileHook(BuildHookInterface):
    """Adds the compiled modules to a wheel when that was asked for."""

    def dependencies(self) -> list[str]:
        """Return what the build needs beside the backend: the compiler, when it is to run."""
        return ["mypy>=1.14", "setuptools>=75"] if self._is_wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put what came of it into the wheel, which then fits this Python and this machine only."""
        if not self._is_wanted or version == "editable":
            return
        self._directory = Path(tempfile.mkdtemp(prefix="trafficsim-build-"))
        for extension in _compiled(Path(self.root), self._directory, self.config["modules"]):
            build_data["force_include"][str(extension)] = str(extension.relative_to(self._directory))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what only the build needed."""
        if hasattr(self, "_directory"):
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _is_wanted(self) -> bool:
        return os.environ.get(VARIABLE, "") not in ("", "0")


def _compiled(root: Path, directory: Path, modules: list[str]) -> list[Path]:
    """Return the extensions of *modules*, made in *directory*; say what the compiler said when it fails."""
    for package in PACKAGES:
        shutil.copytree(root / package, directory / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", _SETUP, "build_ext", "--inplace", *modules]
    # The Python in use may have been built with flags of its own that make the machine code worse: ours come last.
    environment = {**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -O2".strip(), "MYPYPATH": str(directory)}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(directory, ignore_errors=True)
        raise RuntimeError(f"{VARIABLE}=1: compiling failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    shutil.rmtree(directory / "build")
    return sorted(directory.rglob("*.so"))
