"""Commands to a run on this machine: from another process by its history, and in the file that is watched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from component.local_command import a_shop, a_short_simulation, line_of, trafficsim, until_requests
from trafficsim_api.names import COMMAND_ANNOTATION

pytestmark = [pytest.mark.component, pytest.mark.slow, pytest.mark.timeout(120)]


def a_document(url: str, version: str = "1", **annotations: str) -> dict[str, Any]:
    flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "50ms"}}]
    document = a_short_simulation(
        url,
        flow,
        users=4,
        profile=[{"ramp": {"to": "100%", "over": "500ms"}}],
        runner={
            "env": [{"name": "VERSION", "value": version}],
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}},
        },
        rollout={
            "steps": [{"percent": 50, "pause": True}, {"percent": 100}],
            "warmUp": "1s", "window": "1s", "dwell": "3s", "maxDwell": "60s", "minSamples": 20,
        },
    )  # fmt: skip
    document["metadata"]["annotations"] = annotations
    return document


async def commanded(action: str, home: Path) -> tuple[int, dict[str, Any]]:
    """Give a command as its user does, in another process; return exit code and answer."""
    async with trafficsim(action, "short", "--local", "--timeout", "30s", "--json", home=home) as command:
        code = await command.ends()
        return code, command.document


async def test_a_rollout_is_taken_in_hand_and_the_run_ended_by_commands(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    async with a_shop() as shop:
        file.write_text(yaml.safe_dump(a_document(shop)))
        async with trafficsim("run", str(file), "--watch", home=tmp_path) as run:
            await until_requests(shop)
            code, answer = await commanded("abort", tmp_path)
            assert (3, "Refused", "no rollout is in progress") == (code, answer["result"], answer["reason"])

            file.write_text(yaml.safe_dump(a_document(shop, "2")))
            assert "steps 50/100%" in await line_of(run, "rollout 1: ")
            await line_of(run, "PausedAfterStep", 60)
            code, answer = await commanded("promote-full", tmp_path)
            assert (0, "Done", 1) == (code, answer["result"], answer["rollout"]["attempt"])
            await line_of(run, "is stable", 40)

            command = {COMMAND_ANNOTATION: json.dumps({"id": "a1", "action": "stop"})}
            file.write_text(yaml.safe_dump(a_document(shop, "2", **command)))
            assert "command " in await line_of(run, "edit taken over")
            assert 0 == await run.ends()
    assert "stop: Done" in run.err
    assert "Passed  short" in run.out
    assert "rollout " in run.out
    assert "is promoted" in run.out
