"""A node for tests, without starting one: its images, its names, what is its own and what is left of it."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from trafficsim_operator.testing import Unavailable, leftovers
from trafficsim_operator.testing.node import (
    Cluster,
    Link,
    Place,
    Text,
    archive,
    control,
    daemons,
    groups,
    machine,
    mounts,
    namespace,
    worker,
)


@pytest.fixture
def place(tmp_path):
    """A node that nobody has started."""
    return Place(name="a-node", parent=tmp_path)


@pytest.fixture
def program(tmp_path):
    """A program that goes into images."""
    (tmp_path / "prog").write_bytes(b"\x7fELF")
    return tmp_path / "prog"


def read(image):
    """Return the configuration of an image and its layer as path → entry."""
    whole = tarfile.open(fileobj=io.BytesIO(image))
    [described] = json.load(whole.extractfile("manifest.json"))
    layer = tarfile.open(fileobj=whole.extractfile(described["Layers"][0]))
    return described["RepoTags"], json.load(whole.extractfile(described["Config"])), {e.name: e for e in layer}


def test_an_image_holds_files_links_and_the_directories_above_them(program):
    """One layer; programs may be executed, texts read; directories come before what is in them."""
    files = {"bin/prog": program, "bin/sh": Link("prog"), "etc/a/b": Text("words")}
    tags, configuration, layer = read(archive("localhost/x:1", files, entrypoint=["/bin/prog"], environment={"A": "1"}))
    assert ["localhost/x:1"] == tags
    assert {"Entrypoint": ["/bin/prog"], "User": "65535:65535", "Env": ["A=1"]} == configuration["config"]
    assert ["bin", "etc", "etc/a", "bin/prog", "bin/sh", "etc/a/b"] == list(layer)
    assert [0o755, 0o644] == [layer["bin/prog"].mode, layer["etc/a/b"].mode]
    assert "prog" == layer["bin/sh"].linkname


def test_the_same_files_make_the_same_image(program):
    """No clock and no machine is in it, so that an import of the same is quick."""
    first, second = (archive("localhost/x:1", {"prog": program}, entrypoint=["/prog"]) for _ in range(2))
    assert first == second


def test_a_socket_path_fits_into_the_kernels_field():
    """A socket's path has at most 107 characters."""
    assert len(str(Place(name="n" * 40).socket)) <= 107


def test_credentials_are_for_nobody_else(place):
    """Tokens, keys and kubeconfigs are readable by their owner alone."""
    control.credentials(place)
    secret = [
        place.certificates / "tokens.csv",
        *place.certificates.glob("*.key"),
        *place.directory.glob("*.kubeconfig"),
    ]
    assert 9 == len(secret)
    assert {0o600} == {path.stat().st_mode & 0o777 for path in secret}


def test_everything_that_runs_pods_keeps_its_state_in_one_directory(place):
    """What a kill leaves is then found by its place."""
    settings = worker.kubelet(place, place.certificates / "ca.crt")
    kept = [settings["podLogsDir"], settings["volumePluginDir"], worker.network(place)["plugins"][0]["ipam"]["dataDir"]]
    assert all(Path(path).is_relative_to(place.directory) for path in kept)
    assert f"/{place.cgroup}" == settings["cgroupRoot"]


def test_mounts_of_the_node_are_found_the_last_first(place):
    """Nothing of another node, though its name begins alike."""
    points = [place.directory / "a", "/mnt", place.directory / "a/b", f"{place.directory}-2/a"]
    table = "".join(f"36 35 98:0 / {point} rw,noatime - overlay overlay rw\n" for point in points)
    assert [place.directory / "a/b", place.directory / "a"] == leftovers.mounts(place.directory, table)


@pytest.mark.parametrize(
    ("options", "controllers"),
    [
        ("rw,nosuid,relatime,cpu,cpuacct", "cpu,cpuacct"),
        ("rw,relatime,name=systemd", "name=systemd"),
        ("rw,relatime,xattr,release_agent=/lib/agent,name=systemd", "name=systemd"),
    ],
)
def test_a_hierarchy_is_known_by_its_controllers_or_its_name(options, controllers):
    """Everything else is how it is mounted."""
    assert controllers == groups.controllers(options)


def test_version_1_is_all_that_is_mounted_with_version_2_beside_it(place, tmp_path):
    """A cpuset gets what the machine has, or nothing could run in it; beside version 1 version 2 controls nothing."""
    names = ("cpu,cpuacct", "cpuset", "memory", "unified")
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-3")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0")
    lines = [f"cgroup {tmp_path / name} cgroup rw,relatime,{name} 0 0\n" for name in names[:3]]
    table = "".join([*lines, f"cgroup2 {tmp_path}/unified cgroup2 rw 0 0\n"])
    groups.make(place, table)
    assert [tmp_path / name / "a-node-node" / "daemons" / "cgroup.procs" for name in names] == groups.procs(
        place, table
    )
    daemons_ = tmp_path / "cpuset" / "a-node-node" / "daemons"
    assert ["0-3", "0"] == [(daemons_ / name).read_text() for name in ("cpuset.cpus", "cpuset.mems")]
    assert str(1024 * os.cpu_count()) == (tmp_path / "cpu,cpuacct" / "a-node-node" / "cpu.shares").read_text()
    assert ["daemons"] == [path.name for path in (tmp_path / "unified" / "a-node-node").iterdir()]


@pytest.fixture
def unified(tmp_path):
    """A machine with version 2 alone, whose root hands on what systemd needs."""
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
    (root / "cgroup.subtree_control").write_text("memory pids\n")
    return root, f"cgroup2 {root} cgroup2 rw,nosuid,nsdelegate 0 0\n"


def test_in_version_2_controllers_are_handed_on(place, unified):
    """The kubelet refuses a root of its own that lacks one; a group with processes in it can't hand on any."""
    root, table = unified
    groups.make(place, table)
    group = root / "a-node-node"
    assert "+cpu +cpuset +hugetlb" == (root / "cgroup.subtree_control").read_text()
    assert "+cpu +cpuset +hugetlb +memory +pids" == (group / "cgroup.subtree_control").read_text()
    assert [group / "daemons" / "cgroup.procs"] == groups.procs(place, table)
    assert ["cpu.weight"] == [path.name for path in (group / "daemons").iterdir()]
    assert str(100 * os.cpu_count()) == (group / "cpu.weight").read_text()


def test_what_is_handed_on_already_is_left_alone(place, unified):
    """Of the machine's own nothing is written."""
    root, table = unified
    (root / "cgroup.subtree_control").write_text("cpuset cpu io memory hugetlb pids\n")
    groups.make(place, table)
    assert "cpuset cpu io memory hugetlb pids\n" == (root / "cgroup.subtree_control").read_text()


@pytest.mark.parametrize(("weight", "shares"), [(1, 2), (39, 1024), (79, 2048), (10_000, 262_144), (10_000, 300_000)])
def test_daemons_weigh_what_the_kubelet_gives_its_pods(weight, shares):
    """By the kubelet's conversion, which ends at 10 000."""
    assert weight == groups.kubelets_weight(shares)


@pytest.mark.parametrize("table", ["", "cgroup /c cgroup rw,cpu,cpuacct 0 0\n"], ids=["nothing", "no memory"])
def test_a_machine_without_the_controllers_is_said(place, table):
    """It is a reason to skip."""
    with pytest.raises(Unavailable, match="cpu, cpuset, memory are not mounted"):
        groups.make(place, table)


def test_what_programs_insist_on_is_their_own(place):
    """Each directory is bound to one below the node's, before the program runs."""
    *before, end = mounts.separated(place)
    bound = dict(zip(before[-2::-2], before[-1::-2], strict=False))
    assert "--" == end
    for directory in mounts.PRIVATE:
        [own] = [source for source, target in bound.items() if target == directory]
        assert Path(own).is_dir() and Path(own).is_relative_to(place.directory)


def test_a_process_is_known_by_id_and_start(place):
    """A number is used again: only the process that was noted counts, and a killed writer's empty note does not."""
    place.ids.mkdir(parents=True)
    started = daemons.started(os.getpid())
    notes = {"mine": f"{os.getpid()} {started}\n", "reused": f"{os.getpid()} {int(started) + 1}\n", "cut": ""}
    for name, text in notes.items():
        (place.ids / name).write_text(text)
    assert {"cut": False, "mine": True, "reused": False} == daemons.alive(place)


def test_an_ended_process_is_not_alive(place):
    """A zombie has ended, and so has what is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert "-" == daemons.started(process.pid)
    assert "-" == daemons.started(process.pid)


PROXIES = {"HTTPS_PROXY": "http://proxy:3128", "http_proxy": "http://proxy:3128", "NO_PROXY": "localhost"}


def test_nothing_in_the_node_is_told_of_a_proxy():
    """It can't be reached from there; everything else is handed on, and the system's programs are found."""
    told = namespace.environment({"PATH": "/bin", "LANG": "C"} | PROXIES)
    assert {"PATH", "LANG"} == told.keys()
    assert ["/bin", "/usr/sbin"] == [part for part in told["PATH"].split(":") if part in ("/bin", "/usr/sbin")]


def test_a_program_of_the_node_is_not_told_of_a_proxy(place, monkeypatch):
    """As it is started."""
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(groups, "procs", lambda _: [])
    monkeypatch.setattr(namespace, "inside", lambda _, argv: argv)
    printer = "import os; print(sorted({name.upper() for name in os.environ if 'proxy' in name.lower()}))"
    daemons.start(place, "printer", [sys.executable, "-c", printer])
    log, deadline = place.logs / "printer.log", time.monotonic() + 30
    while not log.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "[]" == log.read_text().strip()


@pytest.fixture
def nobody():
    """The test's process with the rights of nobody in particular."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def used_by_root():
    """The state of a node that root has ended, where others may look."""
    with tempfile.TemporaryDirectory() as directory:
        place = Place(parent=Path(directory))
        place.lock.touch(0o444)
        place.parent.chmod(0o555)
        yield place
        place.parent.chmod(0o755)


def test_without_root_there_is_no_node_where_root_had_one(used_by_root, nobody):
    """That is a reason to skip, and not a fault of ours."""
    for attempt in (Cluster(used_by_root).start, Cluster(used_by_root).stop):
        with pytest.raises(Unavailable, match="a node needs root"):
            attempt()


def test_kernel_parameters_are_put_back_after_the_last_node(place, tmp_path):
    """What the first node found counts, and not what a second one found when the first had changed it."""
    parameter = tmp_path / "proc" / "kernel" / "panic"
    parameter.parent.mkdir(parents=True)
    parameter.write_text("0\n")
    first, second = Place(name="first", parent=tmp_path / "nodes"), Place(name="second", parent=tmp_path / "nodes")
    for node in (first, second):
        node.directory.mkdir(parents=True)
        machine.prepare(node, tmp_path / "proc", [])
        parameter.write_text("10\n")
    machine.put_back(first, tmp_path / "proc")
    assert "10" == parameter.read_text().strip()
    first.directory.rmdir()
    machine.put_back(second, tmp_path / "proc")
    assert "0" == parameter.read_text().strip()
    assert not second.machine.exists()


def test_directories_that_were_missing_go_with_the_last_node(tmp_path):
    """But for what was there before, and for one that somebody has come to use."""
    place = Place(parent=tmp_path / "nodes")
    old, new, used = (tmp_path / name for name in ("old", "new", "used"))
    old.mkdir()
    place.directory.mkdir(parents=True)
    machine.prepare(place, tmp_path / "proc", map(str, (old, new, used)))
    assert new.is_dir()
    (used / "file").touch()
    machine.put_back(place, tmp_path / "proc")
    assert [True, False, True] == [path.exists() for path in (old, new, used)]
