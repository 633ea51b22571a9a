"""What an installation says about its compiled modules is read from its files."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from trafficsim_api.compiled import compiled_modules, described


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "half_compiled" / "inner").mkdir(parents=True)
    for directory in ("half_compiled", "half_compiled/inner"):
        (tmp_path / directory / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "half_compiled"


def test_a_module_with_an_extension_beside_it_is_compiled(package):
    """Nested ones are named in full; the extension of another Python is none."""
    (package / "inner" / f"hot{EXTENSION_SUFFIXES[0]}").touch()
    (package / "inner" / "cold.py").touch()
    (package / "other.cpython-27-x.so").touch()
    assert ["half_compiled.inner.hot"] == compiled_modules(["half_compiled", "not_installed_at_all"])


@pytest.mark.parametrize(
    ("modules", "text"), [([], "pure Python"), (["a.b", "a.c"], "2 modules compiled: a.b, a.c")], ids=["none", "some"]
)
def test_described(modules, text):
    """One line for people."""
    assert text == described(modules)


def test_the_runner_says_what_it_is():
    """`--version` needs no environment, and tells the same."""
    command = [sys.executable, "-m", "trafficsim_runner", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    assert done.stdout.splitlines()[1:] == [described(compiled_modules())]
