"""The pages on rollouts: the diagram is the table's, defaults the models', the words of the status are explained."""

from pathlib import Path

import pytest

from trafficsim_api.names import Reason
from trafficsim_api.rollout import PauseReason, Rollout, RolloutPhase
from trafficsim_operator import rollout_diagram
from trafficsim_operator.plan.pauses import COMMANDS
from trafficsim_operator.plan.rollout import TRANSITIONS

ROOT = Path(__file__).parents[2]
STORY = (ROOT / "docs" / "rollout.md").read_text()
ENDS = (
    Reason.PROMOTED,
    Reason.ANALYSIS_FAILED,
    Reason.CANDIDATE_SILENT,
    Reason.CANDIDATE_FAILING,
    Reason.PREPARE_TIMEOUT,
    Reason.SHIFT_TIMEOUT,
    Reason.ABORTED,
    Reason.WITHDRAWN,
    Reason.SUPERSEDED,
    Reason.SIMULATION_ENDED,
)


def test_the_diagram_is_drawn_from_the_table():
    """`python -m trafficsim_operator.rollout_diagram` writes it; each way of the table is one line."""
    assert rollout_diagram.page(STORY) == STORY
    lines = rollout_diagram.diagram().splitlines()
    for phase, ways in TRANSITIONS.items():
        for following in ways:
            assert 1 == sum(line.startswith(f"    {phase} --> {following}: ") for line in lines)


def test_a_way_without_words_is_an_error(monkeypatch):
    monkeypatch.setitem(TRANSITIONS, RolloutPhase.STABLE, frozenset())
    with pytest.raises(AssertionError, match="words and ways differ"):
        rollout_diagram.diagram()


def test_check_says_when_the_page_is_old(tmp_path, monkeypatch, capsys):
    page = tmp_path / "rollout.md"
    page.write_text(STORY.replace("its runners are ready", "whenever"))
    monkeypatch.setattr(rollout_diagram, "TARGET", page)
    assert 1 == rollout_diagram.main(["--check"])
    assert "rollout.md is out of date" in capsys.readouterr().err
    assert (0, 0) == (rollout_diagram.main([]), rollout_diagram.main(["--check"]))
    assert STORY == page.read_text()


def test_a_page_without_marks_is_not_written():
    with pytest.raises(ValueError, match="marks"):
        rollout_diagram.page("# A page\n")


def test_the_table_of_settings_is_the_models():
    """Every field with its default, as it is written."""
    rows = [
        line for line in STORY.partition("## Settings")[2].partition("\n## ")[0].splitlines() if line.startswith("| `")
    ]
    written = Rollout().model_dump(mode="json", by_alias=True)
    assert {row.split("`")[1] for row in rows} == written.keys()
    for row in rows:
        name, default = (cell.strip(" `") for cell in row.split("|")[1:3])
        if name == "steps":
            percents = ", ".join(str(step["percent"]) for step in written["steps"])
            assert f"{percents} %" == default
        else:
            assert str(written[name]).lower() == default, name


@pytest.mark.parametrize("word", [*RolloutPhase, *PauseReason, *ENDS, *COMMANDS])
def test_every_word_of_the_status_is_explained(word):
    """Phases, pauses, reasons and commands stand on the page."""
    assert word in STORY
