"""`.ci/run` on a machine that has nothing: what it installs, builds and requires. Every program it calls is a stub."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OF_THE_SYSTEM = ("bash", "cat", "dirname", "env", "flock", "mktemp", "rm", "sleep")
SCRIPTS = (".ci/run", "tools/test", "tools/builds")
STUBS = {
    "id": "echo 0",
    "apt-get": 'echo "apt-get $*" >>"$SEEN"; exit "${APT:-0}"',
    "make": 'echo "make $* requires $TRAFFICSIM_REQUIRE" >>"$SEEN"; [ "$2" != test ] || exec tools/test',
}
OF_THE_PROJECT = {
    "python": 'echo "build $* as $$" >>"$SEEN"; eval "${BUILD:-}"',
    "pytest": 'echo "pytest $*" >>"$SEEN"; eval "${TEST:-}"',
}


@pytest.fixture
def machine(tmp_path):
    """Return what starts `.ci/run` there with variables that say what its stubs do."""
    programs = tmp_path / "bin"
    for directory in (programs, tmp_path / ".ci", tmp_path / "tools", tmp_path / ".venv" / "bin"):
        directory.mkdir(parents=True)
    for name in OF_THE_SYSTEM:
        (programs / name).symlink_to(shutil.which(name))
    stubs = {programs / name: text for name, text in STUBS.items()}
    stubs |= {tmp_path / ".venv" / "bin" / name: text for name, text in OF_THE_PROJECT.items()}
    for file, text in stubs.items():
        file.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        file.chmod(0o755)
    for script in SCRIPTS:
        shutil.copy(ROOT / script, tmp_path / script)
    started = []

    def start(script=".ci/run", **variables):
        environ = {"PATH": str(programs), "SEEN": str(tmp_path / "seen"), "TMPDIR": str(tmp_path), **variables}
        command = [shutil.which("bash"), tmp_path / script]
        started.append(
            subprocess.Popen(
                command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                start_new_session=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what the stub of make has left
        except ProcessLookupError:
            pass
        process.stdout.close()
        process.wait()


def seen(tmp_path, beginning):
    file = tmp_path / "seen"
    return [line for line in file.read_text().splitlines() if line.startswith(beginning)] if file.exists() else []


def test_what_the_checks_and_the_node_need_is_installed(machine, tmp_path):
    """At once, before anything runs that would install it beside others."""
    process = machine()
    process.communicate(timeout=60)
    assert 0 == process.returncode
    [installed] = seen(tmp_path, "apt-get install")
    assert {"gcc", "python3-dev", "valgrind", "containerd", "etcd-server"} <= set(installed.split())


def test_packages_that_are_not_to_be_had_are_named(machine, tmp_path):
    """What needs them fails later, and more is learnt from that than from nothing."""
    process = machine(APT="100")
    told, _ = process.communicate(timeout=60)
    assert "could not be installed: " in told
    assert 1 == len(seen(tmp_path, "make --no-print-directory test"))


def test_no_level_may_be_skipped_neither_in_checks_nor_in_tests(machine, tmp_path):
    """Helm as well: without it most of the chart is not looked at."""
    machine().communicate(timeout=60)
    required = {line.split()[2]: line.split()[-1] for line in seen(tmp_path, "make")}
    assert {"control-plane,node,helm,kstatus"} == {required["check"], required["test"]}


def built(tmp_path):
    """Return what was built, or tried, and as which process."""
    lines = seen(tmp_path, "build")
    return {re.search(r"(\w+)(\.py)?( [-\w]+)* as", line)[1]: int(line.split()[-1]) for line in lines}


def test_what_cannot_be_built_keeps_nothing_else_from_it(machine, tmp_path):
    """And the tests are run: which of them are missing is theirs to say."""
    process = machine(BUILD="exit 3", TEST='flock "$TRAFFICSIM_BUILDS" bash -c :')
    process.communicate(timeout=60)
    assert 0 == process.returncode
    assert ["helm", "verdicts", "controlplane", "node", "images"] == list(built(tmp_path))
    assert ["pytest "] == seen(tmp_path, "pytest")


def test_an_interrupt_ends_the_builds(machine, tmp_path):
    """They would go on for minutes, beside whatever is started next."""
    process = machine("tools/test", BUILD='[[ "$*" != *controlplane* ]] || sleep 120', TEST="sleep 120")
    wait_for(lambda: "controlplane" in built(tmp_path) and seen(tmp_path, "pytest"))
    build = built(tmp_path)["controlplane"]
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{build}/cmdline").exists() or not Path(f"/proc/{build}/cmdline").read_bytes())
    assert 0 != process.wait(timeout=30)
    assert "node" not in built(tmp_path)


def wait_for(claim):
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)
