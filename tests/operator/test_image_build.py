"""What goes into an image, how it is built, and how it is run: the parts that only take and return values."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from trafficsim_api import __version__
from trafficsim_operator.manifests.deployment import KEYS_PATH, STATE_PATH
from trafficsim_operator.testing import Unavailable
from trafficsim_operator.testing.images import TARGETS, base, building, startup
from trafficsim_operator.testing.images.__main__ import main
from trafficsim_operator.testing.images.archive import Config, config_of, gone, unpacked_size
from trafficsim_operator.testing.images.bundle import Launch, runtime_config
from trafficsim_operator.testing.images.engine import Engine, Kind, Request
from trafficsim_operator.testing.images.inputs import context_files, digest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A checkout of two sources, of which .dockerignore lets one in."""
    for name, text in {
        ".dockerignore": "*\n!runner\n!pyproject.toml\n",
        "Dockerfile": "FROM scratch\n",
        "pyproject.toml": "",
        "README.md": "left out",
        "runner/main.py": "x = 1\n",
        "runner/__pycache__/main.cpython-311.pyc": "",
        "runner/hot.cpython-311-x86_64-linux-gnu.so": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_goes_in_is_what_dockerignore_lets_in(checkout):
    """Nothing is listed twice: names after a `!`, it, and the Dockerfile; nothing that a run leaves behind."""
    expected = [".dockerignore", "Dockerfile", "pyproject.toml", "runner/main.py"]
    assert expected == [str(file) for file in context_files(checkout)]


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        pytest.param(lambda root: (root / "README.md").write_text("else"), False, id="a file left out"),
        pytest.param(lambda root: (root / "runner" / "main.py").touch(), False, id="a time"),
        pytest.param(lambda root: (root / "runner" / "main.py").write_text("x = 2\n"), True, id="a source"),
        pytest.param(lambda root: (root / "runner" / "main.py").chmod(0o755), True, id="a mode"),
        pytest.param(lambda root: (root / "runner" / "main.py").rename(root / "runner" / "m.py"), True, id="a name"),
        pytest.param(lambda root: (root / "Dockerfile").write_text("FROM x\n"), True, id="the Dockerfile"),
    ],
)
def test_another_digest_exactly_when_the_build_would_be_another(checkout, change, is_another):
    """So an image is built again when it has to be, and not for a fresh checkout's times."""
    before = digest(checkout, context_files(checkout), "buildah", "")
    change(checkout)
    assert is_another is (before != digest(checkout, context_files(checkout), "buildah", ""))


def test_the_digest_is_of_engine_and_base_too(checkout):
    """Another base is another image."""
    files = context_files(checkout)
    found = {digest(checkout, files, *words) for words in [("buildah", ""), ("docker", ""), ("buildah", "x")]}
    assert 3 == len(found)


REQUEST = Request(
    context=Path("/src"), name="docker.io/trafficsim/runner:1", target="runner",
    arguments={"VERSION": "1", "BASE": "b"}, ca=Path("/etc/ca.crt"),
)  # fmt: skip
OPTIONS = "--target runner --build-arg BASE=b --build-arg VERSION=1 --secret id=ca,src=/etc/ca.crt /src"


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        (Kind.DOCKER, "p build --network host --pull=false --tag docker.io/trafficsim/runner:1"),
        (Kind.PODMAN, "p build --network host --pull=false --tag docker.io/trafficsim/runner:1"),
        (
            Kind.BUILDAH,
            "p --root /s/layers --runroot /s/run --storage-driver overlay build --network host --pull=false"
            " --tag docker.io/trafficsim/runner:1 --isolation chroot --layers",
        ),
    ],
)
def test_the_command_that_builds(kind, before):
    """Certificates come as a secret, never as an argument: those stand in the image's history."""
    engine = Engine(kind=kind, program=Path("p"), storage=Path("/s"))
    assert f"{before} {OPTIONS}".split() == engine.build(REQUEST)


def test_without_target_arguments_and_certificates_nothing_is_said_of_them():
    """The last stage is built."""
    command = Engine(kind=Kind.DOCKER, program=Path("p"), storage=Path("/s")).build(
        Request(context=Path("/src"), name="n:1")
    )
    assert ["p", "build", "--network", "host", "--pull=false", "--tag", "n:1", "/src"] == command


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (Kind.DOCKER, "p save --output /a.tar n:1"),
        (Kind.PODMAN, "p save --format docker-archive --output /a.tar n:1"),
        (
            Kind.BUILDAH,
            "p --root /s/layers --runroot /s/run --storage-driver overlay push n:1 docker-archive:/a.tar:n:1",
        ),
    ],
)
def test_the_command_that_saves(kind, command):
    """Every engine writes the same kind of archive."""
    engine = Engine(kind=kind, program=Path("p"), storage=Path("/s"))
    assert command.split() == engine.save("n:1", Path("/a.tar"))


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (Kind.DOCKER, "p load --input /a.tar"),
        (Kind.PODMAN, "p load --input /a.tar"),
        (Kind.BUILDAH, "p --root /s/layers --runroot /s/run --storage-driver overlay pull docker-archive:/a.tar"),
    ],
)
def test_the_command_that_loads(kind, command):
    """Which is the way back."""
    assert command.split() == Engine(kind=kind, program=Path("p"), storage=Path("/s")).load(Path("/a.tar"))


def test_the_command_that_removes_what_a_killed_build_left():
    """In the storage that is ours alone, never in the machine's."""
    engine = Engine(kind=Kind.BUILDAH, program=Path("p"), storage=Path("/s"))
    assert "p --root /s/layers --runroot /s/run --storage-driver overlay rm --all" == " ".join(engine.abandoned())


def test_an_engine_that_does_not_work_is_named(tmp_path):
    """Podman is not looked for further where it was asked for and is not there."""
    with pytest.raises(Unavailable, match="podman does not work here"):
        building.build(("runner",), kind=Kind.PODMAN, environ={"XDG_CACHE_HOME": str(tmp_path)})


@pytest.fixture(autouse=True)
def no_podman(monkeypatch):
    """Nothing is built at this level, whatever is installed."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)


ENGINE = """#!/bin/sh
echo "$*" >>{calls}
case "$1" in
    save) echo archive >"$5" ;;
    pull) exit 1 ;;
    inspect) [ "$4" = here:1 ] ;;
    build) [ ! -e {broken} ] || {{ echo "step 3 failed"; exit 1; }} ;;
esac
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A podman that notes what it is called with, has the image here:1, can pull none, and may be broken."""
    program, calls, broken = tmp_path / "podman", tmp_path / "calls", tmp_path / "broken"
    program.write_text(ENGINE.format(calls=calls, broken=broken))
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name, **_: str(program) if name == "podman" else None)

    def verbs():
        found = [line.split()[0] for line in calls.read_text().splitlines()]
        calls.unlink()
        return found

    verbs.broken = broken
    return verbs


def test_what_is_built_once_is_not_built_again(engine, tmp_path):
    """Nothing but whether the engine works is asked; and an image that was not asked for is not built."""
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    (first,) = building.build(("runner",), base="here:1", environ=environ).values()
    assert ["info", "inspect", "build", "save"] == engine()
    assert ("docker.io/trafficsim/runner:" + __version__, "here:1", True) == (first.name, first.base, first.is_new)
    (second,) = building.build(("runner",), base="here:1", environ=environ).values()
    assert ["info"] == engine()
    assert (first.archive, False) == (second.archive, second.is_new)


def test_a_build_that_fails_says_how_and_leaves_nothing(engine, tmp_path):
    """The end of what the engine said; the next call tries again."""
    engine.broken.touch()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"podman failed; the end of .*:\nstep 3 failed"):
            building.build(("demo",), base="here:1", environ={"XDG_CACHE_HOME": str(tmp_path)})
        assert ["info", "inspect", "build"] == engine()
    assert [] == [path.name for path in building.cache({"XDG_CACHE_HOME": str(tmp_path)}).glob("demo*")]


def test_what_a_killed_build_left_goes_with_the_next(engine, tmp_path):
    """Half an archive, and what its engine had in work; not what somebody who is alive is writing."""
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    directory = building.cache(environ)
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    dead, alive = directory / f"runner-1.tar.{ended.pid}.new", directory / f"runner-2.tar.{os.getpid()}.new"
    (directory / "work" / "base").mkdir(parents=True)
    for path in (dead, alive, directory / "work" / "base" / "root.tar"):
        path.touch()
    building.build(("demo",), base="here:1", environ=environ)
    assert [False, True, False] == [path.exists() for path in (dead, alive, directory / "work")]


def test_a_base_that_was_asked_for_is_not_replaced(engine, tmp_path):
    """Only where the Dockerfile's own cannot be pulled one is made of Debian packages."""
    with pytest.raises(Unavailable, match="the base image elsewhere:1 is not here and cannot be pulled"):
        building.build(("demo",), base="elsewhere:1", environ={"XDG_CACHE_HOME": str(tmp_path)})
    assert ["info", "inspect", "pull"] == engine()


def test_three_archives_of_a_target_are_kept(tmp_path):
    """Those that were asked for last, and what stands beside them."""
    for number in range(5):
        for ending in (".tar", ".json", ".starts"):
            path = tmp_path / f"runner-{number}{ending}"
            path.touch()
            os.utime(path, (number, number))
    (tmp_path / "demo-0.tar").touch()
    building.forget(tmp_path, "runner")
    expected = {"demo-0.tar"} | {
        f"runner-{number}{ending}" for number in (2, 3, 4) for ending in (".tar", ".json", ".starts")
    }
    assert expected == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop"], "no target shop: there are operator, runner, demo"),
        (["--ca", "/nowhere.crt"], "--ca /nowhere.crt: no such file"),
        (["--engine", "kaniko"], "invalid choice: 'kaniko'"),
    ],
)
def test_what_is_wrong_with_the_command_is_named(arguments, said, capsys):
    """Exit code 2, with the word that is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert 2 == ended.value.code
    assert said in capsys.readouterr().err


def test_every_base_is_pinned():
    """The public one by its digest, ours by what it is made of; nothing is called latest."""
    text = (ROOT / "Dockerfile").read_text()
    assert "@sha256:" in building.default_base(text)
    assert base.NAME.startswith("localhost/trafficsim/base:bookworm-")
    assert ":latest" not in text


def test_the_dockerfile_has_every_target():
    """With an entry point each that needs no shell."""
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    for target in TARGETS:
        (stage,) = [stage for stage in stages if stage.partition("\n")[0].endswith(f" AS {target}")]
        assert 'ENTRYPOINT ["/opt/trafficsim/bin/python", "-P", "-m", ' in stage


def a_config(**fields):
    return Config(
        **{
            "entrypoint": ("/python",), "command": ("--listen", ":80"), "environment": {"PATH": "/bin"},
            "user": "65532:65532", "labels": {}, "ports": frozenset(),
        }
        | fields
    )  # fmt: skip


@pytest.mark.parametrize(
    ("launch", "argv"),
    [
        pytest.param(Launch(), ["/python", "--listen", ":80"], id="as the image says"),
        pytest.param(Launch(arguments=["--help"]), ["/python", "--help"], id="other arguments"),
        pytest.param(Launch(arguments=[]), ["/python"], id="no arguments"),
        pytest.param(Launch(argv=["/bin/true"]), ["/bin/true"], id="another program"),
    ],
)
def test_what_a_container_runs(launch, argv):
    """Arguments replace the image's command, as `args` of a pod does; argv replaces both, as its `command`."""
    assert argv == runtime_config(a_config(), launch, root=Path("/r"), cgroup="/g")["process"]["args"]


def test_a_container_is_confined_as_a_restricted_pod_is():
    """Nothing that the Pod Security Standard forbids is in it."""
    launch = Launch(environment={"A": "1"}, read_only={"/etc/keys": Path("/k")}, in_memory=["/state"])
    found = runtime_config(a_config(), launch, root=Path("/r"), cgroup="/g")
    process = found["process"]
    assert {"path": "/r", "readonly": True} == found["root"]
    assert {"uid": 65532, "gid": 65532} == process["user"]
    assert [] == [name for names in process["capabilities"].values() for name in names]
    assert process["noNewPrivileges"]
    assert ["PATH=/bin", "HOME=/", "A=1"] == process["env"]
    writable = {mount["destination"] for mount in found["mounts"] if "ro" not in mount["options"]}
    assert {"/proc", "/dev", "/dev/shm", "/state"} == writable


@pytest.mark.parametrize("user", ["", "root", "65532", "nobody:nogroup"])
def test_a_user_by_name_is_refused(user):
    """`runAsNonRoot` cannot be checked for a name."""
    with pytest.raises(ValueError, match="not given as numbers"):
        runtime_config(a_config(user=user), Launch(), root=Path("/r"), cgroup="/g")


def test_a_runner_is_started_with_the_paths_of_its_pod(tmp_path):
    """What is measured is what a node starts."""
    launch = startup.launch_of("runner", 9646, tmp_path)
    assert {KEYS_PATH: tmp_path} == launch.read_only
    assert [STATE_PATH] == launch.in_memory


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["a/", "a/b"], []),
        (["a/", "a/.wh.b"], [("a/b", False)]),
        (["a/.wh..wh..opq", "a/c"], [("a", True)]),
        ([".wh.tmp"], [("tmp", False)]),
    ],
)
def test_what_a_layer_takes_away(names, taken):
    """A file of that name, or all that was in a directory before."""
    assert taken == gone(names)


def test_an_archive_tells_how_it_is_started(tmp_path):
    """Configuration and size are read without unpacking; a layer that stands in it twice counts once."""
    whole = {
        "Env": ["A=b=c"], "Entrypoint": ["/x"], "Cmd": None, "User": "1:2", "Labels": {"l": "v"},
        "ExposedPorts": {"80/tcp": {}},
    }  # fmt: skip
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        for name, content in {
            "1.tar": b"x" * 1000,
            "c.json": json.dumps({"config": whole}).encode(),
            "manifest.json": json.dumps([{"Config": "c.json", "Layers": ["1.tar", "1.tar"]}]).encode(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    expected = Config(
        entrypoint=("/x",), command=(), environment={"A": "b=c"}, user="1:2", labels={"l": "v"},
        ports=frozenset({"80/tcp"}),
    )  # fmt: skip
    assert expected == config_of(archive)
    assert 1000 == unpacked_size(archive)
