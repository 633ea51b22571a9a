"""The example of a scenario, as its users write it: typed, and what the documentation says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

from trafficsim_api.document import load
from trafficsim_runner.scenario.declared import declared_by

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("module", ["shop_flows.py", "image/buyers.py"])
def test_the_example_passes_strict_typing(module, tmp_path):
    """A scenario is checked against the typed base class."""
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\nfollow_imports = silent\n")
    options = ["--config-file", str(config), "--cache-dir", str(tmp_path), str(EXAMPLES / module)]
    said, errors, code = api.run(options)
    assert 0 == code, said + errors


def test_a_wrong_scenario_does_not(tmp_path):
    """The types are told, not just Any."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from trafficsim_runner.scenario import Scenario, Trend\n"
        "class Wrong(Scenario):\n"
        "    rows = Trend()\n"
        "    async def run(self) -> None:\n"
        "        answer = await self.get(3, action='x')\n"
        "        self.rows.record(answer.text)\n"
        "        answer.jsn()\n"
    )
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\nfollow_imports = silent\n")
    said, _, code = api.run(["--config-file", str(config), "--cache-dir", str(tmp_path), str(wrong)])
    assert 1 == code
    assert 3 == said.count(": error:"), said


def test_the_example_declares_what_its_rules_name():
    """No rule is left without a number."""
    spec = load((EXAMPLES / "scenario.yaml").read_bytes(), "scenario.yaml").spec
    (declared,) = declared_by(spec.archetypes, {}, str(EXAMPLES)).values()
    assert {"exported", "listed", "report_bytes"} == {name for name, _, _ in declared.layout.metrics}
    assert {"login", "list", "look_up", "report"} == {name for name, _ in declared.layout.actions}


def test_what_an_image_brings_along_is_what_its_simulation_names():
    """The same, for the module that a runner's image has."""
    image = EXAMPLES / "image"
    spec = load((image / "simulation.yaml").read_bytes(), "simulation.yaml").spec
    (declared,) = declared_by(spec.archetypes, {}, str(image)).values()
    assert {"kept"} == {name for name, _, _ in declared.layout.metrics}
    assert f"COPY --chown=65532:65532 {declared.kind.__module__}.py /opt/scenarios/" in (
        (image / "Dockerfile").read_text().splitlines()
    )
