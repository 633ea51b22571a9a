"""A worker above 80 % of the CPU it can have lets flows wait before they begin, and says so."""

from __future__ import annotations

from targets.scripted import Route, Scripted
from workers.process import Figures, WorkerProcess, a_load

FLOW = [{"action": "a", "request": {"get": "/"}}]
# A thousandth of a core: whatever it does is more than 80 % of that.
NOTHING = 1


def test_flows_wait_where_cpu_is_short(tmp_path):
    """Ten users that never pause, ten requests allowed: six at a time once load is known, all of it counted."""
    with Scripted([Route(path="/", delay_s=0.02)]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, FLOW), users=10, limits={"concurrency": 10}, cores=NOTHING)
        worker.wait_for(lambda ack: ack["starts_limit"] == 6)
        worker.wait_for(lambda ack: ack["in_flight"] == 6 and ack["starts_waiting"] == 4)
        worker.wait_until(lambda w: w.live("starts_delayed") >= 100)
        sent = worker.live("sent")
        worker.wait_until(lambda w: w.live("sent") >= sent + 100)
        worker.drain()
        figures = Figures.of(worker)
        assert figures["sent"] == figures["done"] == server.log.received
        assert figures["drop_generator_saturated"] <= 4
        assert "drop_no_slot" not in figures


def test_with_cpu_to_spare_nobody_waits(tmp_path):
    """The same at a pace that leaves most of a core: no flow waits."""
    thinking = [*FLOW, {"think": {"constant": "50ms"}}]
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, thinking), users=10, limits={"concurrency": 10}, cores=1000)
        worker.wait_until(lambda w: w.messages and w.live("sent") >= 400, within_s=30)
        ack = worker.wait_for(lambda ack: ack["active"] == 10)
        assert (10, 0) == (ack["starts_limit"], ack["starts_waiting"])
        assert 0 == worker.live("starts_delayed")
        worker.drain()


def test_arrivals_wait_too(tmp_path):
    """200/s of 50 ms each are ten at a time, four may be out: two in the cut, eight wait, the others find no user."""
    load = a_load(0, FLOW, arrivals={"rate": "200/s"}, profile=[{"hold": {"for": "1s"}}])
    with Scripted([Route(path="/", delay_s=0.05)]) as server, WorkerProcess(tmp_path) as worker:
        load["target"]["url"] = f"http://127.0.0.1:{server.port}"
        worker.assign(load, users=10, limits={"concurrency": 4}, cores=NOTHING, seconds=8)
        worker.wait_for(lambda ack: ack["starts_limit"] == 2)
        worker.wait_for(lambda ack: ack["in_flight"] == 2 and ack["starts_waiting"] == 8)
        worker.wait_for(lambda ack: ack["drained"], within_s=20)
        figures = Figures.of(worker)
        assert figures["starts_delayed"] > 50
        assert figures["sent"] == figures["done"] == server.log.received
        begun = figures["sent"] + figures.get("drop_generator_saturated", 0) + figures["drop_no_slot"]
        assert figures["arrivals_planned"] == begun
        assert figures["arrivals_started"] == figures["sent"]


def test_an_arrival_starts_once(tmp_path):
    """One that pauses first has started when it does; that its request waits later makes it no second one."""
    flow = [{"think": {"constant": "10ms"}}, *FLOW]
    with Scripted([Route(path="/", delay_s=0.2)]) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, flow, arrivals={"rate": "100/s"}, profile=[{"hold": {"for": "1s"}}])
        worker.assign(load, users=10, limits={"concurrency": 10}, cores=NOTHING, seconds=4)
        worker.wait_for(lambda ack: ack["starts_waiting"] >= 2)
        worker.wait_for(lambda ack: ack["drained"], within_s=20)
        figures = Figures.of(worker)
        assert figures["starts_delayed"] > 20
        assert figures["arrivals_started"] + figures["drop_no_slot"] == figures["arrivals_planned"]
        assert figures["sent"] <= figures["arrivals_started"]
