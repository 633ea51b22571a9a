"""Rows of data as the target sees them: each exactly as often as planned, on one runner and on four."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from driven.run import a_document, a_run
from targets.scripted import Log, Route, Scripted

pytestmark = [pytest.mark.component, pytest.mark.timeout(120)]

USERS = 8
ROWS = 12
ITEMS = [{"id": f"i{number}", "price": f"{number} €"} for number in range(ROWS)]
FLOW = [
    {
        "request": {
            "get": "/{{user.number}}/{{user.iteration}}/{{data.own.id}}/{{data.inturn.id}}/{{data.mixed.id}}",
            "headers": {"x-price": "{{data.own.price}}"},
        }
    },
    {"think": {"constant": "150ms"}},
]
MODES = {"own": "unique", "inturn": "circular", "mixed": "shuffled"}


async def load(directory: Path, *, runners: int = 1, flow: Sequence[Mapping[str, Any]] = FLOW, **spec: Any) -> Log:
    """Run the load and return the target's account of it."""
    with Scripted([Route(path="/healthz"), Route(path="/*")]) as server:
        document = a_document(
            server.url,
            archetypes=[{"name": "buyer", "flow": flow}],
            **{"users": USERS, "duration": "4s", "scaling": {"minRunners": runners, "maxRunners": 4}, **spec},
        )
        async with a_run(document, directory=directory) as run:
            await run.ends()
            assert run.account().count("sent") == server.log.received - server.log.count(path="/healthz")
            assert run.account().worker("drop_template") == 0
        return server.log


def taken_in(log: Log) -> dict[tuple[int, int], tuple[int, ...]]:
    """Return which row of each feeder an iteration took, by (user, iteration); none was sent twice."""
    found = {}
    for entry in log.counts:
        if entry.path != "/healthz":
            user, iteration, *rows = entry.path[1:].split("/")
            assert entry.count == 1
            found[int(user), int(iteration)] = tuple(int(row[1:]) for row in rows)
    return found


async def test_rows_on_one_and_on_four_runners(tmp_path: Path) -> None:
    """
    Unique: user p always has row p. Circular: row (p + k·T) mod n in its k-th iteration. Shuffled: the rows of a pass
    are a permutation, the same one on four runners.
    """
    found = []
    for runners in (1, 4):
        directory = tmp_path / str(runners)
        directory.mkdir()
        data = [{"name": name, "mode": mode, "from": {"inline": ITEMS}} for name, mode in MODES.items()]
        taken = taken_in(await load(directory, runners=runners, data=data))
        assert len(taken) > USERS * 5
        assert all(own == user for (user, _), (own, _, _) in taken.items())
        assert all(turn == (user + k * USERS) % ROWS for (user, k), (_, turn, _) in taken.items())
        mixed = [taken[t % USERS, t // USERS][2] for t in range(4 * ROWS)]
        passes = [tuple(mixed[first : first + ROWS]) for first in range(0, len(mixed), ROWS)]
        assert all(set(range(ROWS)) == set(rows) for rows in passes)
        assert len(set(passes)) > 1
        found.append(taken)
    one, four = found
    assert all(rows == four[turn] for turn, rows in one.items() if turn in four)


async def test_rows_of_arrivals(tmp_path: Path) -> None:
    """In the open model arrival n takes row n mod rows: over 24 arrivals each of 12 rows comes twice."""
    log = await load(
        tmp_path, runners=4, flow=[{"request": {"get": "/{{data.items.id}}"}}], arrivals={"rate": "8/s"},
        data=[{"name": "items", "from": {"inline": ITEMS}}], duration="3s", profile=[{"hold": {"for": "3s"}}],
    )  # fmt: skip
    counts = Counter({entry.path: entry.count for entry in log.counts if entry.path != "/healthz"})
    assert 23 <= sum(counts.values()) <= 24
    assert Counter(f"/i{number % ROWS}" for number in range(sum(counts.values()))) == counts


async def test_rows_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beside the document, read here and sent to each runner once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(item, ensure_ascii=False) for item in ITEMS))
    flow = [{"request": {"get": "/{{user.number}}/{{user.iteration}}/{{data.items.id}}"}}, FLOW[1]]
    data = [{"name": "items", "mode": "unique", "from": {"path": "items.jsonl"}}]
    taken = taken_in(await load(tmp_path, runners=2, flow=flow, data=data, duration="2s"))
    assert set(range(USERS)) == {user for user, _ in taken}
    assert all((user,) == rows for (user, _), rows in taken.items())


async def test_no_two_users_have_one_row_while_they_move(tmp_path: Path) -> None:
    """A second runner takes half of the users: no row is asked for before the answer to its last request came."""
    lines, delay_s = tmp_path / "lines", 0.3
    rows = [{"id": f"r{number}"} for number in range(20)]
    with Scripted([Route(path="/healthz"), Route(path="/*", delay_s=delay_s)], lines=lines) as server:
        document = a_document(
            server.url, users=20, duration="25s", scaling={"maxRunners": 2},
            data=[{"name": "own", "mode": "unique", "from": {"inline": rows}}],
            archetypes=[{"name": "buyer", "flow": [{"request": {"get": "/{{data.own.id}}"}}]}],
        )  # fmt: skip
        async with a_run(document, directory=tmp_path / "run") as run:
            await run.until(lambda run: run.status.users.active == 20)
            wider = {**document, "spec": {**document["spec"], "scaling": {"minRunners": 2, "maxRunners": 2}}}
            await run.record.put(wider, namespace="local", name="truth", uid="truth-0", source="test", allowed=())
            await run.until(lambda run: sorted(run.looks[-1].active.values()) == [10, 10])
            await run.ends()
    asked: dict[str, list[float]] = {}
    for entry in map(json.loads, lines.read_text().splitlines()):
        if entry["path"] != "/healthz":
            asked.setdefault(entry["path"], []).append(entry["at"])
    assert 20 == len(asked)
    for instants in asked.values():
        assert min(after - before for before, after in pairwise(sorted(instants))) >= delay_s - 0.005
