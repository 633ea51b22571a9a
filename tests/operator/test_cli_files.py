"""What the command line makes of files and options: exit codes, named fields, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trafficsim_api import __version__
from trafficsim_operator.cli.main import main

Write = Callable[[str | bytes | dict[str, Any]], str]


def a_document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "duration": "1m",
            "archetypes": [{"name": "browser", "flow": [{"request": {"get": "/"}}]}],
            **spec,
        },
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: str | bytes | dict[str, Any]) -> str:
        path = tmp_path / "shop.yaml"
        text = yaml.safe_dump(content) if isinstance(content, dict) else content
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return to_file


WRONG: dict[str, tuple[str | bytes | dict[str, Any], str]] = {
    "no YAML": ("spec: [", "shop.yaml"),
    "not UTF-8": (b"spec: \xff", "UTF-8"),
    "empty": ("", "is empty"),
    "another kind": ("apiVersion: v1\nkind: Pod\n", "kind: TrafficSimulation is needed"),
    "no target": ({**a_document(), "spec": {"archetypes": []}}, "target: "),
    "a wrong type": (a_document(users="many"), "users: "),
    "an unknown field": (a_document(user=10), "user: "),
    "a broken rule": (a_document(thresholds=[{"rule": "p95"}]), "thresholds[0].rule: "),
    "a request without a verb": (
        a_document(archetypes=[{"name": "a", "flow": [{"request": {}}]}]),
        "archetypes[0].flow[0].request: one of get, ",
    ),
}


@pytest.mark.parametrize(("content", "told"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("command", [["validate"], ["plan"], ["run", "--history", "none"]], ids=lambda c: c[0])
def test_a_wrong_file(
    command: list[str], content: Any, told: str, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, file and field named, on stderr alone."""
    assert 3 == main([*command, write(content)])
    out, err = capfd.readouterr()
    assert "" == out
    assert told in err
    assert all("shop.yaml" in line for line in err.splitlines())


CORPUS = sorted((Path(__file__).parents[1] / "api" / "corpus").iterdir())


@pytest.mark.parametrize("file", CORPUS, ids=lambda path: path.name)
def test_the_corpus_of_wrong_files(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each ends with 3 and says where and what, whatever is wrong with it."""
    assert 3 == main(["run", "--history", "none", str(file)])
    out, err = capfd.readouterr()
    assert "" == out
    assert err
    assert all(line.startswith(f"{file}:") for line in err.splitlines())


@pytest.mark.parametrize("command", [["validate"], ["plan"], ["run", "--history", "none"]], ids=lambda c: c[0])
@pytest.mark.parametrize("path", ["/no/such/file.yaml", "/", "\0"], ids=["missing", "a directory", "no name at all"])
def test_a_file_that_cannot_be_read(command: list[str], path: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert 3 == main([*command, path])
    assert "cannot be read" in capfd.readouterr().err


def test_a_wrong_file_as_json(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """With --json there is one document whatever happens."""
    assert 3 == main(["run", "--json", write(a_document(users="many"))])
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert "" == err
    assert (None, 3, "users") == (found["verdict"], found["exit"], found["problems"][0]["field"])


OPTIONS = {
    "an unknown command": (["fly"], "No such command"),
    "an unknown option": (["run", "--fast", "FILE"], "No such option"),
    "no file": (["run"], "Missing argument"),
    "a target without a port": (["run", "--allow-target", "shop.example.com", "FILE"], "--allow-target: host:port"),
    "a port that is none": (["run", "--allow-target", "shop.example.com:http", "FILE"], "--allow-target: host:port"),
    "an image without a place": (["run", "--runner", "shop:2", "FILE"], "--runner: IMAGE=DIRECTORY"),
    "an image in a strange place": (["run", "--runner", "shop:2=/", "FILE"], "--runner: / is neither"),
    "a history nowhere": (["run", "--history", "/no/such/place/runs.db", "FILE"], "--history: there is no directory"),
    "a history that is none": (["run", "--history", "/dev/null", "FILE"], "--history: "),
    "a policy that is not there": (["run", "--policy", "/no/policy.yaml", "FILE"], "/no/policy.yaml: cannot be read"),
    "time in strange units": (["run", "--start-within", "soon", "FILE"], "--start-within: a duration"),
    "watching standard input": (["run", "--watch", "-"], "--watch: standard input"),
}


@pytest.mark.parametrize(("arguments", "told"), OPTIONS.values(), ids=OPTIONS.keys())
def test_a_wrong_option(arguments: list[str], told: str, write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """What the user can mend is 3, never 2: that is a verdict."""
    file = write(a_document())
    assert 3 == main([file if argument == "FILE" else argument for argument in arguments])
    assert told in capfd.readouterr().err


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("- 1", "a policy is needed"),
        ("maxUsers: many", "maxUsers: "),
        ("targets: [{host: a, cidr: 10.0.0.0/8}]", "targets[0]: exactly one of service, host, cidr"),
        ("speed: 1", "speed: unknown field"),
    ],
)
def test_a_wrong_policy(
    policy: str, told: str, write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.yaml").write_text(policy)
    assert 3 == main(["plan", write(a_document()), "--policy", str(tmp_path / "policy.yaml")])
    err = capfd.readouterr().err
    assert err.startswith(f"{tmp_path / 'policy.yaml'}: ")
    assert told in err


def test_validate_says_what_a_sound_file_holds(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(a_document(users=1, thresholds=[{"rule": "p95 < 1s"}]))
    assert 0 == main(["validate", file])
    assert f"{file}: sound: shop, 1 user, 1 archetype, 1 action, 1 threshold\n" == capfd.readouterr().out


def test_validate_looks_at_every_file(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(a_document())
    assert 3 == main(["validate", "--json", "/no/such/file.yaml", file])
    found = json.loads(capfd.readouterr().out)["files"]
    assert [False, True] == [entry["valid"] for entry in found]


def test_the_file_may_come_from_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trafficsim_operator.cli.main", "validate", "-"],
        input=yaml.safe_dump(a_document(users="many")).encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert 3 == done.returncode
    assert b"-: users: " in done.stderr


@pytest.mark.parametrize(
    "command", [[], *([name] for name in ("run", "demo", "demo-rollout", "validate", "plan", "version"))]
)
def test_help_has_examples(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert 0 == main([*command, "--help"])
    assert "Examples:\n" in capfd.readouterr().out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["version", "--json"])
    assert __version__ == json.loads(capfd.readouterr().out)["version"]


@pytest.mark.parametrize("command", ["demo", "demo-rollout"])
def test_the_demo_document_is_sound(command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`demo --show > file` is a start for an own one."""
    assert 0 == main([command, "--show"])
    (tmp_path / "demo.yaml").write_text(capfd.readouterr().out)
    assert 0 == main(["validate", str(tmp_path / "demo.yaml")])


def test_local_commands_start_without_the_clusters_client() -> None:
    code = "import sys, trafficsim_operator.cli.run; print([m for m in ('kubernetes', 'kopf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
