"""What counts as a runner version on this machine: `--runner IMAGE=DIRECTORY`."""

from __future__ import annotations

from pathlib import Path

import pytest

from trafficsim_api.errors import SpecError
from trafficsim_operator.fleet.environments import environment_of, mapping_of


@pytest.mark.parametrize("module", ["flows.py", "shop/__init__.py"])
def test_a_directory_with_modules_is_a_version(module: str, tmp_path: Path) -> None:
    """It comes first on the path of those runners; whatever else is there stays behind it."""
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text("")
    found = environment_of("shop:2", mapping_of((f"shop:2={tmp_path}",)))
    assert found.mapped
    variables = found.variables({"PYTHONPATH": "/elsewhere"})
    assert {"PYTHONPATH": f"{tmp_path}:/elsewhere:{Path.cwd()}", "PYTHONSAFEPATH": "1"} == variables


def test_a_directory_with_the_runners_packages_is_one_of_them(tmp_path: Path) -> None:
    """Its modules beside them are found as well."""
    (tmp_path / "trafficsim_runner").mkdir()
    (tmp_path / "flows.py").write_text("")
    assert (tmp_path,) == environment_of("shop:2", mapping_of((f"shop:2={tmp_path}",))).path


def test_a_directory_with_nothing_to_import_is_none(tmp_path: Path) -> None:
    """A mistyped directory is named before anything starts."""
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SpecError, match="nor a directory with Python modules or packages"):
        mapping_of((f"shop:2={tmp_path}",))
