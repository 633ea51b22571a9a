"""Setup and teardown in whole local runs, with one runner and with four: what the target saw, in its own order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from targets.scripted import Route, Scripted

pytestmark = [pytest.mark.component, pytest.mark.timeout(120)]

ROUTES = (
    Route(path="/healthz"),
    Route(path="/login", body='{"token":"t-17"}'),
    Route(path="/slow", delay_s=60.0),
    Route(path="/*"),
)
SETUP = {
    "flow": [
        {"request": {"post": "/login"}, "save": {"token": "json.token"}},
        {"think": {"constant": "200ms"}},
        {"request": {"put": "/tenant"}, "expect": {"status": 200}},
    ]
}
TEARDOWN = {"flow": [{"request": {"delete": "/tenant", "headers": {"x-user": "{{token}}"}}}]}


def a_document(url: str, **spec: Any) -> dict[str, Any]:
    flow = [{"request": {"get": "/mine", "headers": {"x-user": "{{token}}"}}}, {"think": {"constant": "50ms"}}]
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "once"},
        "spec": {
            "target": {"url": url, "healthPath": "/healthz"},
            "users": 8,
            "duration": "5s",
            "warmUp": "1s",
            "profile": [{"ramp": {"to": "100%", "over": "500ms"}}],
            "setup": SETUP,
            "archetypes": [{"name": "visitor", "flow": flow}],
            "teardown": TEARDOWN,
            "runner": {"resources": {"limits": {"cpu": "500m", "memory": "512Mi"}}},
            **spec,
        },
    }


async def run(document: dict[str, Any], home: Path, *, interrupt_at: str = "") -> tuple[int, dict[str, Any], str]:
    """Run *document*; return exit code, the JSON document and what was said. *interrupt_at*: Ctrl-C at that line."""
    (home / "once.yaml").write_text(json.dumps(document))
    command = [
        sys.executable,
        "-m",
        "trafficsim_operator.cli.main",
        "run",
        str(home / "once.yaml"),
        "--history",
        "none",
    ]
    command += [] if interrupt_at else ["--json"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "COLUMNS": "160"}
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(80):
            while interrupt_at and interrupt_at not in (await process.stderr.readline()).decode():
                assert process.returncode is None
            if interrupt_at:
                process.send_signal(signal.SIGINT)
            out, err = (text.decode() for text in await process.communicate())
    finally:
        if process.returncode is None:
            process.kill()
    assert "Traceback" not in err
    assert process.returncode is not None
    return process.returncode, {} if interrupt_at else json.loads(out), out + err


@pytest.mark.parametrize("runners", [1, 4])
async def test_once_before_the_first_user_and_once_after_the_last(runners: int, tmp_path: Path) -> None:
    """The target's log begins with setup and ends with teardown, whatever the number of runners."""
    lines = tmp_path / "lines"
    with Scripted(ROUTES, lines=lines) as target:
        code, found, _ = await run(a_document(target.url, scaling={"minRunners": runners}), tmp_path)
    assert (0, "Passed") == (code, found["verdict"])
    assert runners == found["runners"]["most"]
    seen = [json.loads(line) for line in lines.read_text().splitlines()]
    asked = [(line["method"], line["path"]) for line in seen if line["path"] != "/healthz"]
    assert [("POST", "/login"), ("PUT", "/tenant")] == asked[:2]
    assert ("DELETE", "/tenant") == asked[-1]
    assert {("GET", "/mine")} == set(asked[2:-1])
    log = target.log
    assert found["requests"] == log.count(path="/mine") == log.count(path="/mine", user="t-17")
    assert 1 == log.count(path="/tenant", method="DELETE", user="t-17")
    done = found["status"]["run"]
    assert ("Done", 2, 1) == tuple(done["setup"][name] for name in ("state", "requests", "saved"))
    assert ("Done", 1) == tuple(done["teardown"][name] for name in ("state", "requests"))
    assert "t-17" not in json.dumps(found)


async def test_a_setup_that_fails_sends_no_user(tmp_path: Path) -> None:
    """The target refuses: exit code 3, the action and the answer are named, and nobody came."""
    routes = (Route(path="/healthz"), Route(path="/login", statuses=(503,)), Route(path="/*"))
    with Scripted(routes) as target:
        code, found, _ = await run(a_document(target.url), tmp_path)
        asked = {entry.path: entry.count for entry in target.log.counts if entry.path != "/healthz"}
    assert (3, None) == (code, found["verdict"])
    assert "setup failed: POST /login was answered 503, which was not expected" == found["reason"]
    assert {"/login": 1} == asked


async def test_a_ctrl_c_at_setup_breaks_it_off(tmp_path: Path) -> None:
    """No user comes, nothing is torn down, and it is said."""
    setup = {"flow": [{"request": {"get": "/slow"}}], "timeout": "50s"}
    document = a_document(
        target_url := "http://127.0.0.1:1", setup=setup, teardown={"flow": [{"request": {"get": "/x"}}]}
    )
    document["spec"]["archetypes"][0]["flow"] = [{"request": {"get": "/mine"}}]
    with Scripted(ROUTES) as target:
        document["spec"]["target"]["url"] = target.url
        code, _, said = await run(document, tmp_path, interrupt_at="is at setup")
        assert 0 == sum(target.log.count(path=path) for path in ("/mine", "/x"))
    assert 2 == code
    assert "broken off: stopped by SIGINT" in said
    assert target_url not in said


async def test_a_ctrl_c_in_the_run_still_tears_down(tmp_path: Path) -> None:
    """An early end is an end."""
    with Scripted(ROUTES) as target:
        _, _, said = await run(a_document(target.url, duration="10m"), tmp_path, interrupt_at="users 8/8")
        assert 1 == target.log.count(path="/tenant", method="DELETE")
    assert "teardown is done" in said
