"""Connections grow old and are replaced between two requests; nothing of it shows in the numbers."""

from __future__ import annotations

import pytest

from targets.scripted import Route, Scripted
from workers.process import Figures, WorkerProcess, a_load


@pytest.mark.parametrize("flow", [
    pytest.param([{"request": {"get": "/a"}}], id="busy users, whose requests follow each other in the hot loop"),
    pytest.param([{"request": {"post": "/a"}}, {"think": {"constant": "20ms"}}], id="users that think"),
])  # fmt: skip
def test_old_connections_are_replaced(tmp_path, flow):
    """With a most age of 1 s each user connects again about once a second, and no request fails or is lost."""
    with Scripted([Route(path="/a", delay_s=0.002)]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, connections={"maxAge": "1s"}), users=10)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("closes") >= 20, within_s=20)
        assert 10 >= worker.live("connects") - worker.live("closes")
        worker.drain()
        figures = Figures.of(worker)
        log = server.log
    assert 0 == figures.get("failed", 0) == log.abandoned
    assert log.received == figures["sent"] == figures["done"]
    assert log.opened_connections - 1 == figures["connects"]


def test_a_connection_is_kept_for_five_minutes_unless_told(tmp_path):
    """Without a maxAge each user keeps its one connection through a short run."""
    with Scripted([Route(path="/a", delay_s=0.002)]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, [{"request": {"get": "/a"}}]), users=5)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 2000, within_s=20)
        assert 5 == worker.live("connects")
