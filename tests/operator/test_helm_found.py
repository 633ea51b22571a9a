"""Where helm comes from: what is named, else what was built; never another version that lies about."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from trafficsim_operator.testing import Unavailable, helm


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """The checkout's Go module, wherever the package itself is installed."""
    directory = Path(__file__).parents[2] / "tools" / "helm"
    monkeypatch.setattr(helm, "HELM", replace(helm.HELM, directory=directory))


def test_what_is_named_is_taken(tmp_path):
    program = tmp_path / "helm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert program == helm.find({"TRAFFICSIM_HELM": str(program)})


def test_what_is_named_has_to_be_a_program(tmp_path):
    with pytest.raises(Unavailable, match=r"TRAFFICSIM_HELM: .*/none is no program"):
        helm.find({"TRAFFICSIM_HELM": str(tmp_path / "none")})


def test_unless_told_nothing_is_built(tmp_path):
    with pytest.raises(Unavailable, match="not built yet"):
        helm.find({"XDG_CACHE_HOME": str(tmp_path)}, build=False)
    assert [] == [*tmp_path.iterdir()]


def test_a_build_is_found_by_its_recipe(tmp_path):
    program = tmp_path / "trafficsim" / "helm" / f"v{helm.HELM.version()}-{helm.HELM.recipe()}" / "helm"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    assert program == helm.find({"XDG_CACHE_HOME": str(tmp_path)}, build=False)


def test_it_is_run_without_the_users_configuration(tmp_path):
    """Neither plug-ins nor repositories: what it renders follows from the chart alone."""
    program = tmp_path / "helm"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    told = helm.run(Path(program), "template", environ={"KUBECONFIG": "here"}).stdout
    assert "KUBECONFIG=here" in told
    assert f"HOME={os.environ.get('HOME', '')}\n" not in told
