"""Edits of a watched file: what is new is said, what is wrong too, and nothing else comes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_operator.edits import changes, edits


def a_document(**spec: Any) -> dict[str, Any]:
    archetypes = [{"name": "one", "flow": [{"request": {"get": "/"}}]}]
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {"target": {"url": "http://127.0.0.1:8080"}, "archetypes": archetypes, **spec},
    }


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({"users": 10}, {"users": 20}, "users: 10 → 20"),
        ({}, {"users": 20}, "users: (default) → 20"),
        ({"duration": "5m"}, {}, "duration: 5m → (default)"),
        ({"suspend": False}, {"suspend": True}, "suspend: false → true"),
        ({"thresholds": []}, {"thresholds": [{"rule": "p95 < 1s"}], "users": 2}, "thresholds, users: (default) → 2"),
        ({"users": 10}, {"users": 10}, ""),
    ],
)
def test_what_is_new(before: dict[str, Any], after: dict[str, Any], what: str) -> None:
    assert what == changes({"spec": before}, {"spec": after})


async def test_edits_of_a_file(tmp_path: Path) -> None:
    """Written in place or replaced; wrong ones name their field once; a neighbour's change is none."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(a_document(users=1)))
    stream = edits(file, a_document(users=1))

    async def edit_after(change: Any) -> Any:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        change()
        async with asyncio.timeout(20):
            return await waiting

    def replace() -> None:
        (tmp_path / "other.yaml").write_text("nothing")
        (tmp_path / "new").write_text(yaml.safe_dump(a_document(users=3)))
        os.replace(tmp_path / "new", file)

    found = await edit_after(lambda: file.write_text(yaml.safe_dump(a_document(users=2))))
    assert "users: 1 → 2" == found.what
    found = await edit_after(lambda: file.write_text(yaml.safe_dump(a_document(users="many"))))
    assert ["users"] == [problem.field for problem in found.problems]
    found = await edit_after(replace)
    assert "users: 2 → 3" == found.what
    assert 3 == found.body["spec"]["users"]
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_command_in_the_file_counts_at_the_edit_that_brings_it(tmp_path: Path) -> None:
    """Later edits are handed over without it: one that was given by `trafficsim pause` since is the newest."""
    file = tmp_path / "shop.yaml"

    def write(users: int, *, command: str = "") -> None:
        document = a_document(users=users)
        document["metadata"]["annotations"] = {"team": "a", **({COMMAND_ANNOTATION: command} if command else {})}
        file.write_text(yaml.safe_dump(document))

    write(1)
    stream = edits(file, yaml.safe_load(file.read_text()))
    found = []
    for users, command in ((1, '{"id": "1"}'), (2, '{"id": "1"}'), (2, '{"id": "2"}'), (3, "")):
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        write(users, command=command)
        async with asyncio.timeout(20):
            edit = await waiting
        found.append((edit.what, edit.body["metadata"]["annotations"].get(COMMAND_ANNOTATION)))
        assert "a" == edit.body["metadata"]["annotations"]["team"]
    await stream.aclose()  # type: ignore[attr-defined]
    assert [
        ('command {"id": "1"}', '{"id": "1"}'),
        ("users: 1 → 2", None),
        ('command {"id": "2"}', '{"id": "2"}'),
        ("users: 2 → 3, metadata", None),
    ] == found
