"""Rows of data in Python: the same row that a template of a flow would look up."""

from __future__ import annotations

from pathlib import Path

import pytest

from targets.scripted import Route, Scripted
from trafficsim_api.tables import Table
from workers.process import Figures, WorkerProcess, a_load

pytestmark = pytest.mark.component

SCENARIOS = Path(__file__).parents[1] / "scenarios"
ROWS, USERS = 7, 3


@pytest.fixture
def worker(tmp_path):
    table = Table(("user", "pass"), tuple((f"u{n}", f"p{n}") for n in range(ROWS)))
    file = tmp_path / f"rows-{table.digest}"
    file.write_text(table.content)
    with WorkerProcess(tmp_path, env={"TRAFFICSIM_SCENARIOS": str(SCENARIOS)}) as found:

        def assign(site, name, mode="circular"):
            data = [{"name": "accounts", "mode": mode, "digest": table.digest}]
            archetypes = [{"name": "customer", "scenario": f"customers:{name}"}]
            load = a_load(site.port, [], archetypes=archetypes, data=data)
            found.assign(load, users=USERS, rows={"accounts": str(file)})
            found.wait_for(lambda ack: ack["slab"])

        found.give = assign
        yield found


@pytest.mark.parametrize("mode", ["circular", "unique"])
def test_a_row_for_each_iteration(worker, mode):
    """Row (p + k·T) mod n, or row p."""
    with Scripted([Route(path="/*")]) as site:
        worker.give(site, "Customer", mode)
        worker.wait_until(lambda w: w.live("iterations_done") >= 10 * USERS)
        worker.drain()
        taken = [entry.path[1:].split("/") for entry in site.log.counts]
    assert len(taken) >= 10 * USERS
    expected = {"circular": lambda p, k: (p + k * USERS) % ROWS, "unique": lambda p, k: p}[mode]
    assert all(row == f"u{expected(int(user), int(k))}" for user, k, row in taken)


def test_rows_that_are_not_there(worker):
    """The iteration fails, and the log says what there is."""
    with Scripted([Route(path="/*")]) as site:
        worker.give(site, "Stranger")
        worker.wait_until(lambda w: Figures.of(w).get("scenario_failures", 0) >= USERS)
    worker.read(0.2)
    faults = [message["fault"]["message"] for message in worker.messages if "fault" in message]
    assert any("data: the simulation has no 'words', only accounts" in text for text in faults)
