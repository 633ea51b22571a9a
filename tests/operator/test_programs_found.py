"""Programs for the tests: found where they are, built or installed where they are not, and said where they can't be."""

import os
import time
from dataclasses import replace

import pytest

from trafficsim_operator.testing import go_modules, packages
from trafficsim_operator.testing.go_modules import COREDNS, KUBE_ROUTER, KUBERNETES, Module
from trafficsim_operator.testing.unavailable import Unavailable

GO_MOD = "module x\n\nrequire example.org/what v1.2.3\n\nrequire example.org/whatever v9\n"


def a_module(directory, requires="example.org/what"):
    return Module(called="What", directory=directory, requires=requires, package="{name}")


@pytest.fixture
def module(tmp_path):
    """A module that pins version 1.2.3 of what it builds."""
    (tmp_path / "go.mod").write_text(GO_MOD)
    return a_module(tmp_path)


def test_the_version_is_the_one_that_go_mod_pins(module):
    """A longer name that begins alike is another module."""
    assert "1.2.3" == module.version()


@pytest.mark.parametrize("module", [KUBERNETES, COREDNS, KUBE_ROUTER], ids=lambda module: module.called)
def test_what_a_checkout_builds_has_a_version(module):
    """The modules of this checkout can be read."""
    assert 3 == len([int(part) for part in module.version().split(".")])


def test_a_module_that_is_not_there_or_pins_nothing_is_said(tmp_path, module):
    """Both are reasons to skip, in words."""
    with pytest.raises(Unavailable, match="no checkout to build What from"):
        a_module(tmp_path / "absent").version()
    with pytest.raises(Unavailable, match=r"names no version of example\.org/other"):
        a_module(module.directory, requires="example.org/other").version()


def test_what_is_in_the_cache_is_not_built(module, tmp_path):
    """Its path says version, recipe and program, so nothing is looked at."""
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    program = tmp_path / "cache" / "trafficsim" / "what" / f"v1.2.3-{module.recipe()}" / "prog"
    program.parent.mkdir(parents=True)
    program.write_text("")
    assert {"prog": program} == dict(go_modules.build(module, ["prog"], environ))


GO = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo program >"$2"
"""


@pytest.fixture
def go(monkeypatch, tmp_path):
    """A Go that builds at once."""
    program = tmp_path / "bin" / "go"
    program.parent.mkdir()
    program.write_text(GO)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.defpath}")


@pytest.mark.parametrize(
    ("kept", "ages_in_hours"),
    [
        pytest.param([30], [30, 40, 50], id="the newest before it"),
        pytest.param([1, 2, 23], [1, 2, 23, 25], id="what was used within a day"),
        pytest.param([200], [200], id="the only one before it"),
    ],
)
@pytest.mark.usefixtures("go")
def test_a_build_removes_old_ones_that_nobody_uses(module, tmp_path, kept, ages_in_hours):
    """Each change of a source or a sum is a build of its own; another checkout may use an old one."""
    place = tmp_path / "cache" / "trafficsim" / "what"
    for hours in ages_in_hours:
        directory = place / f"v1.2.3-{hours}"
        directory.mkdir(parents=True)
        (directory / "prog").write_text("")
        os.utime(directory, (0, time.time() - hours * 3600))
    [(_, program)] = go_modules.build(module, ["prog"], {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert {program.parent, *(place / f"v1.2.3-{hours}" for hours in kept)} == set(place.iterdir())


def test_what_is_found_is_used(module, tmp_path):
    """Another checkout's build does not remove it for a day."""
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    program = go_modules.cache(module, environ) / "prog"
    program.parent.mkdir(parents=True)
    program.write_text("")
    os.utime(program.parent, (0, 0))
    dict(go_modules.build(module, ["prog"], environ))
    assert time.time() - program.parent.stat().st_mtime < 60


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        pytest.param(lambda at: (at / "README.md").write_text("x"), False, id="a file that does not go in"),
        pytest.param(lambda at: os.utime(at / "go.mod", (1, 1)), False, id="a time"),
        pytest.param(lambda at: (at / "go.mod").write_text(GO_MOD + "toolchain go1.99\n"), True, id="another Go"),
        pytest.param(lambda at: (at / "go.sum").write_text("example.org/what v1.2.3 h1:=\n"), True, id="a sum"),
        pytest.param(lambda at: (at / "main.go").write_text("package main\n"), True, id="a source"),
    ],
)
def test_a_program_is_built_anew_exactly_when_it_would_be_another(module, change, is_another):
    """So the cache is not asked for what a checkout no longer pins; the version alone would not tell."""
    before = go_modules.cache(module, {"XDG_CACHE_HOME": "/cache"})
    change(module.directory)
    after = go_modules.cache(module, {"XDG_CACHE_HOME": "/cache"})
    assert is_another is (before != after)
    assert before.name.startswith("v1.2.3-") and after.name.startswith("v1.2.3-")


def test_flags_package_and_machine_are_in_the_recipe(module):
    """Each is another program."""
    others = [replace(module, stamps="-X a=b"), replace(module, package="cmd/{name}")]
    found = {module.recipe("x86_64"), module.recipe("aarch64"), *(other.recipe("x86_64") for other in others)}
    assert 4 == len(found)


def test_a_program_that_is_there_is_taken(tmp_path):
    """Nobody is asked for a package."""
    found = packages.programs({"bridge": "plugins"}, lambda name: str(tmp_path / name), install=False)
    assert {"bridge": tmp_path / "bridge"} == found


def test_what_is_missing_is_said_with_its_package():
    """One sentence, which a reader can act on."""
    with pytest.raises(Unavailable) as caught:
        packages.programs({"ctr": "containerd", "nft": "nftables"}, lambda name: None, install=False)
    assert "ctr, nft not on PATH (Debian: apt-get install containerd nftables)" == str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root would install anything")
def test_what_apt_cannot_install_is_said_too(monkeypatch, tmp_path):
    """A package manager that fails is a reason in its own words."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho E: no such package >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    with pytest.raises(Unavailable, match="plugins could not be installed: E: no such package"):
        packages.programs({"bridge": "plugins"}, lambda name: None)


def test_programs_of_the_system_are_found_on_a_users_path():
    """Debian leaves /usr/sbin out of it, where ip, nft and sysctl lie; what was on PATH comes first."""
    assert ["/a", "/b", "/usr/local/sbin", "/usr/sbin", "/sbin"] == packages.path({"PATH": "/a:/b"}).split(os.pathsep)
