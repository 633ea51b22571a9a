"""A runner with rows of data, over its control API: sent once, changed live, kept over a restart, refused by name."""

from __future__ import annotations

import json
import signal

import pytest

from supervised.running import REAL, Running, a_load, until
from targets.scripted import Route, Scripted
from trafficsim_api.data import Feed
from trafficsim_api.resource import Archetype
from trafficsim_api.tables import Table

pytestmark = pytest.mark.component

FIRST = Table(("user",), (("ann",), ("bob",)))
SECOND = Table(("user",), (("cid",), ("dan",)))


@pytest.fixture
def target():
    with Scripted([Route(path="/*")]) as server:
        yield server


@pytest.fixture
def runner(tmp_path):
    with Running(tmp_path / "runner", REAL) as running:
        yield running


def the_load(server, table, **changes):
    flow = [
        {"action": "row", "request": {"get": "/row", "headers": {"x-user": "{{data.accounts.user}}"}}},
        {"think": {"constant": "50ms"}},
    ]
    archetype = Archetype.model_validate_json(json.dumps({"name": "a", "flow": flow}))
    feed = Feed(name="accounts", mode="unique", digest=table.digest if table else None)
    return a_load(server.url).model_copy(update={"archetypes": (archetype,), "data": (feed,)} | changes)


def seen(server):
    return {entry.user for entry in server.log.counts if entry.path == "/row"}


def test_rows_come_once_and_change_live(runner, target):
    """The acknowledgement says which rows are held; a change reaches users in the midst of their flows."""
    held = runner.assign(2, load=the_load(target, FIRST), rows={FIRST.digest: FIRST.packed})
    assert (FIRST.digest,) == held.rows
    until(lambda: seen(target), lambda users: users == {"ann", "bob"})
    runner.assign(2, load=the_load(target, FIRST, seed=9))
    held = runner.assign(2, load=the_load(target, SECOND), rows={SECOND.digest: SECOND.packed})
    assert (SECOND.digest,) == held.rows
    until(lambda: seen(target), lambda users: users == {"ann", "bob", "cid", "dan"})
    held = runner.assign(2, load=the_load(target, None))
    assert ((SECOND.digest,), "") == (held.rows, held.problem)


def test_rows_survive_a_restart_of_the_container(runner, target):
    """The assignment is taken up with the rows that came with an earlier one."""
    runner.assign(2, load=the_load(target, FIRST), rows={FIRST.digest: FIRST.packed})
    runner.assign(2, load=the_load(target, FIRST))
    runner.signal(signal.SIGKILL)
    runner.ended()
    before = target.log.received
    runner.start()
    until(runner.acknowledgement, lambda held: held.active == 2)
    until(lambda: target.log.received, lambda received: received > before + 10)
    assert {"ann", "bob"} == seen(target)


def test_more_users_than_rows_are_refused_by_name(runner, target):
    """The assignment in force stays, and the problem is told."""
    runner.assign(2, load=the_load(target, FIRST), rows={FIRST.digest: FIRST.packed})
    status, _ = runner.put(runner.assignment(3, load=the_load(target, FIRST)))
    held = runner.acknowledgement()
    assert (422, 2) == (status, held.users)
    assert "data[0]: unique needs a row for each user: 2 rows are too few for 3 users" in held.problem
    status, _ = runner.put(runner.assignment(2, load=the_load(target, SECOND)))
    assert 422 == status
    assert f"data[0]: the rows {SECOND.digest} were not sent" in runner.acknowledgement().problem
