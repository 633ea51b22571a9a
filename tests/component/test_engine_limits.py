"""The worker's limits: policy at every connect, connections, requests in flight, names that do not exist."""

from __future__ import annotations

import time

from targets.scripted import Route, Scripted
from workers.process import Figures, WorkerProcess, a_load

FLOW = [{"request": {"get": "/"}}, {"think": {"constant": "10ms"}}]


def test_connections_are_bounded(tmp_path):
    """Users beyond the limit are not served; each of their tries is counted, the others go on."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, FLOW), users=10, limits={"connections": 6})
        worker.wait_until(lambda w: w.messages and w.slab and w.live("drop_no_slot") >= 8 and w.live("done") >= 100)
        assert server.log.opened_connections <= 6 + 20  # the log's own readers connect as well
        worker.drain()
        assert Figures.of(worker)["connects"] == 6


def test_requests_in_flight_are_bounded(tmp_path):
    """Concurrency is a limit of its own."""
    with Scripted([Route(path="/", delay_s=0.2)]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, FLOW), users=10, limits={"concurrency": 3})
        worker.wait_until(lambda w: w.messages and w.live("drop_no_slot") >= 8 and w.live("done") >= 12)
        assert all(message["ack"]["in_flight"] <= 3 for message in worker.messages if "ack" in message)
        worker.drain()
        assert Figures.of(worker)["sent"] == server.log.received


def test_a_target_outside_the_policy_is_not_connected_to(tmp_path):
    """The address is checked at the connect; nothing reaches the target, and the generator is at fault."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        limits = {"targets": [{"network": "127.0.0.0/8", "ports": [1]}, {"network": "10.0.0.0/8", "ports": []}]}
        worker.assign(a_load(server.port, FLOW), users=3, limits=limits)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("error_generator_forbidden") >= 6)
        worker.drain()
        assert "sent" not in Figures.of(worker)
        assert 0 == server.log.received
        worker.assign(a_load(server.port, FLOW), users=3)
        worker.wait_until(lambda w: w.live("class_2xx") >= 6)


def test_an_assignment_it_cannot_take_is_refused_and_the_old_one_stays(tmp_path):
    """A verb the policy does not allow, or a document that is none, is answered with an error."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, FLOW), users=2)
        worker.wait_for(lambda ack: ack["settled"])
        kept = worker.epoch
        worker.assign(a_load(server.port, [{"request": {"delete": "/"}}]), users=2, limits={"verbs": ["get"]})
        assert "DELETE" in worker.wait_for_error()
        worker.epoch = kept
        worker.wait_for(lambda ack: ack["active"] == 2)
        worker.send({"assign": {"run": 1}})
        worker.wait_until(lambda w: sum("error" in message for message in w.messages) == 2)


def test_a_name_nobody_knows_is_an_error_of_its_own(tmp_path):
    """Users pause longer after every failure: 100 ms, doubled up to 1 s."""
    with WorkerProcess(tmp_path) as worker:
        load = a_load(1, FLOW, target={"url": "http://no-such-host.invalid:8080"})
        worker.assign(load, users=2)
        began = time.monotonic()
        worker.wait_until(lambda w: w.messages and w.live("error_network_dns") >= 8, 20)
        assert time.monotonic() - began > 0.7
        worker.drain()
        figures = Figures.of(worker)
        assert figures["failed"] == figures["done"] == figures["error_network_dns"]
        assert figures["checks_failed"] == figures["checks"]


def test_a_target_that_comes_back_is_used_again(tmp_path):
    """After refusals the users find the target within a second or two of its return."""
    with Scripted([Route(path="/")]) as server:
        port = server.port
    with WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(port, FLOW), users=4)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("error_network_refused") >= 8)
        with Scripted([Route(path="/")], port=port) as server:
            worker.wait_until(lambda w: w.live("class_2xx") >= 20)
            worker.drain()
            assert Figures.of(worker)["class_2xx"] == server.log.received


def test_a_name_is_looked_up(tmp_path):
    """A host name is as good as an address, whatever its addresses are, as long as one of them takes connections."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, FLOW, target={"url": f"http://localhost:{server.port}"})
        limits = {"targets": [{"network": "127.0.0.0/8"}, {"network": "::1/128"}]}
        worker.assign(load, users=6, limits=limits)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 60)
        worker.drain()
        figures = Figures.of(worker)
        assert figures["sent"] == figures["class_2xx"] == server.log.received


def test_a_worker_without_an_assignment_is_drained(tmp_path):
    """Asked to drain before it was given anything, it says that nobody is there."""
    with WorkerProcess(tmp_path) as worker:
        worker.drain()
