"""The list of modules to compile: all there, and closed under inheritance."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES = HOOK["custom"]["modules"]
NAMES = [name.removesuffix(".py").replace("/", ".") for name in MODULES]


def test_the_listed_modules_exist_once():
    """Sorted, so that two who add one at a time meet."""
    assert sorted(set(MODULES)) == MODULES
    assert [] == [name for name in MODULES if not any((ROOT / part / name).exists() for part in ("crds", "runner"))]


def test_a_compiled_class_has_compiled_ancestors_only():
    """An ancestor that is interpreted would make each attribute of the compiled class a dictionary's."""
    loose = {
        f"{cls.__module__}.{cls.__name__} inherits from {base.__module__}.{base.__name__}"
        for module in map(importlib.import_module, NAMES)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ in NAMES
        for base in cls.__mro__
        if base.__module__.startswith("trafficsim_") and base.__module__ not in NAMES
    }
    assert set() == loose
