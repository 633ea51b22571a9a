"""The commands against a cluster: what they say and end with, over objects as the API server gives them."""

import json

import pytest
from click.testing import CliRunner
from rich.console import Console

from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_operator.cli import cluster
from trafficsim_operator.cli.main import trafficsim
from trafficsim_operator.cli.simulation_view import line, panel, table


def an_object(phase=None, verdict=None, generation=2, observed=2, command=None, answered=None, **status):
    meta = {"namespace": "shop", "name": "web", "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z"}
    if command:
        meta["annotations"] = {COMMAND_ANNOTATION: json.dumps({"id": command, "action": "rerun"})}
    found = {"observedGeneration": observed, **({"phase": phase} if phase else {}), **status}
    found |= {"verdict": verdict} if verdict else {}
    found |= {"lastCommand": {"id": answered, "action": "rerun", "result": "Done"}} if answered else {}
    return {"metadata": meta, "status": found}


@pytest.mark.parametrize(
    ("found", "code"),
    [
        pytest.param(an_object("Completed", "Passed"), 0, id="passed"),
        pytest.param(an_object("Completed", "Failed"), 1, id="failed"),
        pytest.param(an_object("Completed", "Inconclusive"), 2, id="inconclusive"),
        pytest.param(an_object("Failed"), 3, id="refused or never started"),
        pytest.param(an_object("Running"), None, id="runs"),
        pytest.param(an_object(), None, id="no operator has seen it"),
        pytest.param(an_object("Completed", "Passed", observed=1), None, id="about the file before the edit"),
        pytest.param(an_object("Completed", "Passed", command="c2", answered="c1"), None, id="a rerun is on its way"),
        pytest.param(an_object("Completed", "Passed", command="c2", answered="c2"), 0, id="the rerun has finished"),
    ],
)
def test_the_exit_code_is_the_verdicts(found, code):
    assert code == cluster._code(found)


FULL = an_object(
    "Running", users={"active": 300, "wanted": 300, "target": 300}, runners={"ready": 1, "wanted": 1}, tier="small",
    figures={"rps": "60", "p50": "10ms", "p95": "32ms", "p99": "53ms", "errorRate": "0.00"}, version="1.2",
    accounts={"requests": 12100, "failed": 3}, rules=[{"rule": "p95 < 250ms", "value": "32ms", "holds": "True"}],
)  # fmt: skip


def printed(renderable):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_row_has_kubectls_columns():
    text = printed(table([FULL], namespaces=True))
    head, row = text.strip().splitlines()
    columns = "NAMESPACE NAME PHASE USERS RPS P95 ERR% TIER RUNNERS VERSION VERDICT AGE"
    assert columns == " ".join(head.split())
    assert row.split()[:10] == ["shop", "web", "Running", "300", "60", "32ms", "0.00", "small", "1/1", "1.2"]


def test_a_line_and_a_panel_say_how_it_stands():
    assert "Running  users 300/300  runners 1/1  60 requests/s  p95 32ms  errors 0.00%" == line(FULL)
    assert "not seen by an operator yet" in line({"metadata": FULL["metadata"]})
    text = printed(panel(FULL))
    for part in ("shop/web", "300 active", "12,100 in all", "p95 32ms", "✓", "p95 < 250ms"):
        assert part in text


@pytest.mark.parametrize("command", ["get", "watch", "wait", "stop", "rerun"])
def test_help_has_examples(command):
    result = CliRunner().invoke(trafficsim, [command, "--help"])
    assert 0 == result.exit_code
    assert f"trafficsim {command}" in result.output
    assert "Exit codes:" in result.output


@pytest.mark.parametrize("command", ["get", "watch", "wait", "stop", "rerun"])
def test_no_cluster_is_the_environments_fault(command, tmp_path, caplog):
    """One sentence, exit 3, no traceback; the client's own complaint is not heard beside it."""
    missing = str(tmp_path / "missing")
    result = CliRunner().invoke(trafficsim, [command, "web", "--kubeconfig", missing])
    assert (3, f"no way to a cluster: there is no kubeconfig {missing}\n") == (result.exit_code, result.output)
    assert [] == caplog.records


def test_a_wrong_time_out_is_told():
    result = CliRunner().invoke(trafficsim, ["wait", "web", "--timeout", "soon"])
    assert 0 != result.exit_code
    assert "a duration such as" in result.output
