"""The page on troubleshooting has every reason that the code may write, where it may write it, and no other."""

import ast
import json
import re
from pathlib import Path

import pytest

from trafficsim_api.names import Condition, Event, Reason
from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.rollout import PauseReason

ROOT = Path(__file__).parents[2]
PLAN = ROOT / "operator" / "trafficsim_operator" / "plan"
STANDARD = {Condition.READY, Condition.RECONCILING, Condition.STALLED}
ENDED = "Why a rollout ended"
EVENTS = "Events"


def rows():
    """Return heading → the cells of each row of its table, without the head."""
    found = {}
    for section in re.split(r"^## ", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
        found[heading] = [[cell.strip() for cell in cells] for cells in table[2:]]
    return found


ROWS = rows()
NAMED = {heading: {name for row in table for name in re.findall(r"`(\w+)`", row[0])} for heading, table in ROWS.items()}
BY_CONDITION = {
    condition: names
    for heading, names in NAMED.items()
    if heading not in (ENDED, EVENTS)
    for condition in heading.split(", ")
}


def members(node, *kinds):
    """Yield the members of *kinds* that are named in *node*."""
    by_name = {kind.__name__: kind for kind in kinds}
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in by_name:
            yield by_name[part.value.id][part.attr]


def nodes(kind):
    """Yield every node of a kind in the modules of the plan."""
    for file in PLAN.glob("*.py"):
        yield from (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kind))


def test_every_condition_has_a_section():
    """And no section is of a condition that there is none of."""
    assert set(Condition) == BY_CONDITION.keys()


def test_every_reason_of_a_condition_or_a_rollout_is_there():
    """And none that does not exist; a verdict is a reason, too."""
    told = set().union(*BY_CONDITION.values(), NAMED[ENDED])
    assert {*Reason, *PauseReason, *Verdict} == told


def test_every_event_is_there():
    """And none that does not exist."""
    assert set(Event) == NAMED[EVENTS]


@pytest.mark.parametrize(("heading", "table"), ROWS.items(), ids=ROWS.keys())
def test_every_row_says_what_it_means_and_what_to_do(heading, table):
    """Each reason once in its section."""
    assert [] == [row for row in table if len(row) != 3 or not all(row)]
    names = [name for row in table for name in re.findall(r"`(\w+)`", row[0])]
    assert len(names) == len(set(names)), heading


def test_a_reason_stands_with_its_condition():
    """Wherever a function of the code is about one condition alone, and names reasons."""
    found = {}
    for node in nodes(ast.FunctionDef):
        kinds = set(members(node, Condition))
        if len(kinds) == 1 and "of_phase" not in {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}:
            found.setdefault(kinds.pop(), set()).update(members(node, Reason, PauseReason))
    assert {"RunnersHealthy", "Accepted", "Preflight", "RolloutPaused", "AutoscalerConflict"} <= found.keys()
    assert {} == {kind: reasons - BY_CONDITION[kind] for kind, reasons in found.items() if reasons - BY_CONDITION[kind]}


@pytest.mark.parametrize(
    ("call", "condition"),
    [
        pytest.param("Life", Condition.READY, id="steps of a run"),
        pytest.param("of_phase", Condition.READY, id="phases"),
        pytest.param("Judgement", Condition.PASSED, id="verdicts"),
        pytest.param("_inconclusive", Condition.PASSED, id="what can't be judged"),
        pytest.param("of_verdict", Condition.PASSED, id="conditions of a verdict"),
    ],
)
def test_what_decides_names_reasons_of_its_section(call, condition):
    """A phase's reason is Ready's, a judgement's is Passed's."""
    called = [node for node in nodes(ast.Call) if isinstance(node.func, ast.Name) and node.func.id == call]
    found = {reason for node in called for reason in members(node, Reason)}
    assert found
    assert set() == found - BY_CONDITION[condition]


@pytest.mark.parametrize("call", ["abort", "back", "promote", "withdrawn"])
def test_why_a_rollout_ends_stands_with_it(call):
    """Each way in which it does."""
    called = [node for node in nodes(ast.Call) if isinstance(node.func, ast.Name) and node.func.id == call]
    assert called
    assert set() == {reason for node in called for reason in members(node, Reason)} - NAMED[ENDED]


def test_recorded_statuses_have_no_other_reasons():
    """Those of runs as well; RunnersHealthy has the phase for a reason while it is Unknown."""
    statuses = [json.loads(file.read_text()) for file in (ROOT / "tests/operator/golden").glob("status-*.json")]
    assert statuses
    strange = [
        (condition["type"], condition["reason"])
        for status in statuses
        for condition in status["conditions"]
        if condition["reason"] not in BY_CONDITION[condition["type"]]
        and not (condition["type"] == Condition.RUNNERS_HEALTHY and condition["reason"] in set(Phase))
    ]
    assert [] == strange


def test_a_pause_is_told_of_by_its_condition():
    """Each reason to wait, and that nobody is waited for."""
    assert {*PauseReason, Reason.NOT_PAUSED} == BY_CONDITION[Condition.ROLLOUT_PAUSED]
