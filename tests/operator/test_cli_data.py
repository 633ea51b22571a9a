"""Test data on the command line: what `plan` says of it, what the summary says was taken, and files that are read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from trafficsim_api.document import load_spec
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.cli.data import used_data, used_lines
from trafficsim_operator.cli.main import main
from trafficsim_operator.fleet.rows import FileRows, local_rows
from trafficsim_operator.observed import RowsSeen

ROWS = [{"word": f"w{number}"} for number in range(12)]


def a_document(*feeders: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Build a document with *feeders*, named a, b, …; inline rows unless told otherwise."""
    data = [{"name": name, "from": {"inline": ROWS}, **feeder} for name, feeder in zip("abcd", feeders, strict=False)]
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 8,
            "duration": "1m",
            "data": data,
            "archetypes": [{"name": "reader", "flow": [{"request": {"get": "/{{data.a.word}}"}}]}],
            **spec,
        },
    }


def a_spec(*feeders: dict[str, Any], **spec: Any) -> TrafficSimulationSpec:
    """Return the spec of such a document."""
    return load_spec(a_document(*feeders, **spec)).spec


def planned(directory: Path, *feeders: dict[str, Any], options: tuple[str, ...] = (), **spec: Any) -> int:
    """Plan such a document; return the exit code."""
    file = directory / "shop.yaml"
    file.write_text(yaml.safe_dump(a_document(*feeders, **spec)))
    return main(["plan", *options, str(file)])


@pytest.mark.parametrize(
    ("feeder", "spec", "line"),
    [
        pytest.param({"mode": "unique"}, {}, "a: 12 rows, unique: user p has row p; 4 are never taken", id="unique"),
        pytest.param(
            {}, {}, "a: 12 rows, circular: 8 users take each once in 1.5 iterations of each user", id="more-rows"
        ),
        pytest.param(
            {"mode": "shuffled"}, {"users": 48}, "a: 12 rows, shuffled: 48 users are 4 to a row", id="more-users"
        ),
        pytest.param(
            {}, {"arrivals": {"rate": "1/s"}, "profile": [{"hold": {"for": "1m"}}]},
            "a: 12 rows, circular: 60 arrivals take each 5 times", id="arrivals",
        ),
        pytest.param(
            {"from": {"configMap": {"name": "m", "key": "a.csv"}}}, {},
            "a: circular; its rows are in the ConfigMap and known only then", id="config-map",
        ),
        pytest.param(
            {"from": {"path": "/nowhere/a.csv"}}, {},
            "a: circular; /nowhere/a.csv is not here: its rows are in the runners' image and known only then",
            id="image",
        ),
    ],
)  # fmt: skip
def test_plan_says_how_often_rows_come_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], feeder: dict[str, Any], spec: dict[str, Any], line: str
) -> None:
    """From the document alone, by the very formula."""
    assert 0 == planned(tmp_path, feeder, **spec)
    assert f"data        {line}\n" in capfd.readouterr().out


def test_plan_reads_the_file_beside_the_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rows that do not fit are refused as the run would refuse them, exit code 3."""
    (tmp_path / "words.csv").write_text("word,more\nx,y\nz,u\n")
    assert 0 == planned(tmp_path, {"from": {"path": "words.csv"}}, options=("--json",))
    found = json.loads(capfd.readouterr().out)["data"]
    assert [{"name": "a", "mode": "circular", "rows": 2, "columns": ["word", "more"]}] == found
    assert 3 == planned(tmp_path, {"from": {"path": "words.csv"}, "mode": "unique"})
    assert "data[0]: unique needs a row for each user: 2 rows are too few for 8 users" in capfd.readouterr().err
    (tmp_path / "words.csv").write_text("words\nx\n")
    assert 3 == planned(tmp_path, {"from": {"path": "words.csv"}})
    assert "data a has no column word, only words" in capfd.readouterr().err


def test_validate_reads_the_file_beside_the_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a run would refuse is refused before; a file that is elsewhere is said to be unchecked."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(a_document({"from": {"path": "words.csv"}, "mode": "unique"})))
    assert 0 == main(["validate", str(file)])
    assert f"{file}: not checked: data a: words.csv is not here: its rows are in the runners' image" in (
        capfd.readouterr().out
    )
    (tmp_path / "words.csv").write_text("word\nx\n")
    assert 3 == main(["validate", str(file)])
    assert f"{file}: data[0]: unique needs a row for each user: 1 rows are too few" in capfd.readouterr().err
    assert 3 == main(["validate", "--json", str(file)])
    (found,) = json.loads(capfd.readouterr().out)["files"]
    assert (False, "data[0]") == (found["valid"], found["problems"][0]["field"])
    (tmp_path / "words.csv").write_text("word\n" + "x\n" * 8)
    assert 0 == main(["validate", str(file)])
    assert "not checked" not in capfd.readouterr().out


def test_the_summary_says_how_often_rows_were_taken() -> None:
    """Circular and shuffled rows by iterations; unique ones by users; those in an image are the runners'."""
    spec = a_spec({}, {"mode": "shuffled"}, {"mode": "unique"}, {"from": {"path": "/d.csv"}})
    seen = RowsSeen(columns=("word",), count=12, digest="d")
    rows = {"a": seen, "b": seen, "c": seen, "d": RowsSeen()}
    assert [
        "a: 12 rows, each taken 2.5 times in circular order",
        "b: 12 rows, each taken 2.5 times in shuffled order",
        "c: 12 rows, 8 of them taken by a user each",
        "d: its rows are the runners'",
    ] == list(used_lines(spec, rows, 30))
    assert [2.5, 2.5, None, None] == [entry["timesEach"] for entry in used_data(spec, rows, 30)]


def test_files_are_read_when_they_change(tmp_path: Path) -> None:
    """Relative to the document; what was read is believed until the file is another."""
    files, file = FileRows(tmp_path), tmp_path / "a.csv"
    file.write_text("word\nx\n")
    first = files.read("a.csv")
    assert (1, "") == (first.count, first.problem)
    assert files.read("a.csv") is first
    file.write_text("word\nx\ny\n")
    os.utime(file, ns=(1, 1))
    assert 2 == files.read("a.csv").count
    file.unlink()
    assert f"path: {file} cannot be read: No such file or directory" == files.read("a.csv").problem
    (tmp_path / "d.csv").mkdir()
    assert f"path: {tmp_path / 'd.csv'} is no file" == files.read("d.csv").problem


def test_there_is_no_config_map_on_this_machine(tmp_path: Path) -> None:
    """A local run says so at once rather than wait for it."""
    spec = a_spec({"from": {"configMap": {"name": "m", "key": "a.csv"}}}, {})
    found = local_rows(spec, FileRows(tmp_path))
    assert ("configMap: there is none outside a cluster; give path or inline", False) == (
        found["a"].problem, found["a"].absent,
    )  # fmt: skip
    assert 12 == found["b"].count
