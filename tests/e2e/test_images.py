"""The images as a node gets them: built from the Dockerfile, unpacked, and run under a restricted pod's security."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from levels import unavailable
from trafficsim_api import __version__
from trafficsim_api.protocol import PORT
from trafficsim_operator.manifests.deployment import KEYS_PATH, STATE_PATH
from trafficsim_operator.testing import Unavailable
from trafficsim_operator.testing.images import build
from trafficsim_operator.testing.images.building import child
from trafficsim_operator.testing.images.bundle import Launch
from trafficsim_operator.testing.images.container import unpacked
from trafficsim_operator.testing.images.startup import start_s

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "image"
PYTHON = "/opt/trafficsim/bin/python"


def had(make):
    """Return what *make* makes; where the level is required a machine that cannot build images is a failure."""
    try:
        return make()
    except Unavailable as error:
        unavailable("node", error)


@pytest.fixture(scope="module")
def images():
    """Every image, built where its sources have changed."""
    return had(build)


def opened(archive):
    """Yield the image in *archive* as a place to run in."""
    context = unpacked(archive)
    root = had(context.__enter__)
    yield root
    context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def runner(images):
    yield from opened(images["runner"].archive)


@pytest.fixture(scope="module")
def operator(images):
    yield from opened(images["operator"].archive)


@pytest.fixture(scope="module")
def demo(images):
    yield from opened(images["demo"].archive)


def said(root, *arguments, **launch):
    """Return what the image says when it is run with *arguments*, to its end."""
    done = root.run(Launch(arguments=arguments, **launch))
    assert 0 == done.returncode, done.stderr
    return done.stdout


def ran(root, program, **launch):
    """Return what *program*, Python, prints in the image."""
    done = root.run(Launch(argv=[PYTHON, "-P", "-c", program], **launch))
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_a_second_build_does_nothing(images):
    """The same sources are the same archives."""
    again = build()
    assert {target: image.archive for target, image in images.items()} == {t: i.archive for t, i in again.items()}
    assert [] == [target for target, image in again.items() if image.is_new]


def test_the_runner_says_that_its_hot_modules_are_compiled(runner):
    """All that pyproject.toml lists, in the image of this version."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = table["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
    version, compiled = said(runner, "--version").splitlines()
    assert f"trafficsim-runner {__version__}" == version
    names = compiled.partition(": ")[2].split(", ")
    assert [] == [file for file in listed if file.removesuffix(".py").replace("/", ".") not in names]


@pytest.mark.parametrize("target", ["runner", "operator", "demo"])
def test_it_is_somebody_without_rights_on_a_root_nobody_writes(target, request):
    """User 65532, no capability, nothing writable but what a pod mounts."""
    root = request.getfixturevalue(target)
    program = """if True:
        import os, pathlib
        status = dict(line.split(":\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
        print(os.getuid(), os.getgid(), int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"])
        for place in ("/", "/tmp", "/opt/trafficsim", "/var/run"):
            try:
                (pathlib.Path(place) / "written").touch()
            except OSError as error:
                print(place, error.strerror)
    """
    expected = ["65532 65532 0 0 1"]
    expected += [f"{place} Read-only file system" for place in ("/", "/tmp", "/opt/trafficsim", "/var/run")]
    assert expected == ran(root, program).splitlines()


@pytest.mark.parametrize(
    ("target", "arguments", "words"),
    [
        ("runner", ["--help"], "TRAFFICSIM_SIMULATION_UID"),
        ("operator", ["--help"], "Serve TrafficSimulations in a Kubernetes cluster"),
        ("operator", ["--version"], __version__),
        ("demo", ["--help"], "A small shop to put load on"),
    ],
)
def test_its_command_needs_no_shell(target, arguments, words, request):
    """With nothing on PATH, and no shell where one would be."""
    root = request.getfixturevalue(target)
    hidden = dict.fromkeys(("/bin/sh", "/bin/dash", "/bin/bash"), Path("/dev/null"))
    assert words in said(root, *arguments, environment={"PATH": "/nowhere"}, read_only=hidden)


def test_the_command_line_is_in_the_operators_image(operator):
    """For a Job, or `kubectl run`: what it shows is the version of the wheel."""
    done = operator.run(Launch(argv=["/opt/trafficsim/bin/trafficsim", "version"]))
    assert f"trafficsim {__version__}" == done.stdout.splitlines()[0], done.stderr


@pytest.mark.parametrize("target", ["runner", "operator"])
def test_no_module_is_compiled_at_a_start(target, request):
    """Byte code is there for whatever is imported, the standard library's too."""
    program = f"""if True:
        import sys, importlib
        importlib.import_module("trafficsim_{target}.{"service" if target == "runner" else "main"}")
        import os
        print(*sorted(
            name for name, module in sys.modules.items()
            if (spec := getattr(module, "__spec__", None)) and spec.cached and not os.path.exists(spec.cached)
        ))
    """
    assert "" == ran(request.getfixturevalue(target), program)


def test_labels_ports_and_user_are_told(runner, operator, demo):
    """What tools read off an image."""
    for root, title, ports in [
        (runner, "trafficsim runner", {f"{PORT}/tcp"}),
        (operator, "trafficsim operator", {"8080/tcp"}),
        (demo, "trafficsim demo shop", {f"{PORT}/tcp", "8080/tcp"}),
    ]:
        labels = {name.removeprefix("org.opencontainers.image."): text for name, text in root.config.labels.items()}
        assert (title, __version__, "Apache-2.0") == (labels["title"], labels["version"], labels["licenses"])
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])
        assert ("65532:65532", ports) == (root.config.user, root.config.ports)


def test_no_secret_of_the_build_is_left(runner, images):
    """Neither the bundle of certificates nor pip itself."""
    program = "import pathlib; print(*pathlib.Path('/run/secrets').glob('*'), *pathlib.Path('/opt').rglob('pip'))"
    assert "" == ran(runner, program)


@pytest.mark.parametrize("target", ["runner", "demo"])
def test_it_answers_under_a_read_only_root(target, request):
    """From exec to health, by the median of three."""
    assert 0 < start_s(request.getfixturevalue(target), target)


def test_a_scenario_added_to_the_image_is_found(images, tmp_path):
    """The example's Dockerfile, its resource, and the class that the runner is asked for."""
    image = had(lambda: child(images["runner"], EXAMPLE, "localhost/trafficsim/buyers:1", tmp_path / "buyers.tar"))
    program = """if True:
        import pathlib
        from trafficsim_api.document import load
        from trafficsim_runner.scenario.declared import declared_by
        spec = load(pathlib.Path("/etc/simulation.yaml").read_bytes(), "simulation.yaml").spec
        for reference, declared in declared_by(spec.archetypes, {}).items():
            print(reference, *(name for name, _ in declared.actions), *(metric.name for metric in declared.metrics))
    """
    document = {"/etc/simulation.yaml": EXAMPLE / "simulation.yaml"}
    with unpacked(image) as root:
        assert "buyers:Buyer login order cancel kept" == ran(root, program, read_only=document)
        assert f"trafficsim-runner {__version__}" == said(root, "--version").splitlines()[0]


def test_a_runner_says_what_it_lacks(runner):
    """Exit code 2, and the variable's name; state and keys are where a pod mounts them."""
    done = runner.run(Launch(in_memory=[STATE_PATH, KEYS_PATH]))
    assert (2, True) == (done.returncode, "TRAFFICSIM_RUNNER_UID is needed" in done.stderr)
