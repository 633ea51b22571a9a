"""The worker in the open model: arrivals on time whatever the target does, response time from when they were due."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from targets.scripted import Route, Scripted
from trafficsim_api.arrivals import UNIT, Poisson
from trafficsim_api.statistics import histogram, quantiles, total
from workers.process import SECOND, Figures, WorkerProcess, a_load

ONE = [{"request": {"get": "/"}}]
MS = 1_000_000


def arriving(port, rate, flow=None, **more):
    more.setdefault("profile", [{"hold": {"for": "1s"}}])
    return a_load(port, ONE if flow is None else flow, arrivals={"rate": rate, **more.pop("arrivals", {})}, **more)


def begin(worker, load, **options):
    """Assign a run that begins when the process is surely up: arrivals before that are nobody's."""
    origin = time.monotonic_ns() + 3 * SECOND
    worker.assign(load, origin_ns=origin, **options)
    return origin


def test_arrivals_come_at_their_rate(tmp_path):
    """200/s for 3 s are 600 iterations, each one sent and counted, by a few users with kept connections."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        begin(worker, arriving(server.port, "200/s"), users=50, seconds=3)
        worker.wait_until(lambda w: w.messages and w.live("arrivals_planned") >= 590)
        worker.wait_for(lambda ack: ack["drained"])
        figures = Figures.of(worker)
        assert 599 == figures["arrivals_planned"]
        assert figures["arrivals_planned"] == figures["arrivals_started"] == figures["iterations_done"]
        assert figures["sent"] == figures["done"] == server.log.received == figures["arrivals_planned"]
        assert figures["connects"] <= 50
        assert "drop_no_slot" not in figures


def test_a_slow_target_does_not_slow_the_arrivals(tmp_path):
    """100/s at 300 ms each: 30 at work at a time, and the rate is kept."""
    with Scripted([Route(path="/", delay_s=0.3)]) as server, WorkerProcess(tmp_path) as worker:
        begin(worker, arriving(server.port, "100/s"), users=50, seconds=3)
        ack = worker.wait_for(lambda ack: ack["active"] >= 25)
        assert ack["active"] <= 40
        worker.wait_for(lambda ack: ack["drained"])
        figures = Figures.of(worker)
        assert 299 == figures["arrivals_started"] == figures["arrivals_planned"]


def test_arrivals_past_the_ceiling_are_dropped(tmp_path):
    """With 5 users of 500 ms each 10 iterations a second are possible: of 100/s nine in ten find no slot."""
    with Scripted([Route(path="/", delay_s=0.5)]) as server, WorkerProcess(tmp_path) as worker:
        begin(worker, arriving(server.port, "100/s"), users=5, seconds=3)
        worker.wait_until(lambda w: w.messages and w.live("arrivals_planned") >= 290)
        worker.wait_for(lambda ack: ack["drained"])
        figures = Figures.of(worker)
        assert 20 <= figures["arrivals_started"] <= 35
        assert figures["arrivals_planned"] == figures["arrivals_started"] + figures["drop_no_slot"]
        assert figures["connects"] == 5


def test_a_profile_scales_the_rate(tmp_path):
    """A ramp to 100/s over 2 s, then a second of it: 100 + 100 arrivals."""
    profile = [{"ramp": {"to": "100%", "over": "2s"}}]
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        begin(worker, arriving(server.port, "100/s", profile=profile), users=10, seconds=3)
        worker.wait_until(lambda w: w.messages and w.live("arrivals_planned") >= 150)
        worker.wait_for(lambda ack: ack["drained"])
        assert 199 == worker.live("arrivals_planned")


def test_two_workers_share_the_arrivals(tmp_path):
    """Each starts those of its places: together all, none twice; the same draws as on one."""
    flow = [{"request": {"get": "/", "params": {"n": "{{user.id}}"}}}]
    with Scripted([Route(path="/")]) as server, \
         WorkerProcess(tmp_path) as first, WorkerProcess(tmp_path, index=1) as second:  # fmt: skip
        origin = time.monotonic_ns() + 3 * SECOND
        for worker, places in ((first, [[0, 10], [15, 20]]), (second, [[10, 15]])):
            worker.assign(arriving(server.port, "100/s", flow), users=20, places=places, origin_ns=origin, seconds=2)
        for worker in (first, second):
            worker.wait_until(lambda w: w.messages and w.live("arrivals_planned") >= 45)
            worker.wait_for(lambda ack: ack["drained"])
        planned = first.live("arrivals_planned"), second.live("arrivals_planned")
        assert sum(planned) == 199
        assert abs(planned[1] - 50) <= 5


def test_an_edit_of_the_rate_counts_from_its_instant_on(tmp_path):
    """50/s, and 200/s from 2 s on, told a while before: 100 + 200 until 3 s, without a gap."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        origin = begin(worker, arriving(server.port, "50/s"), users=20, seconds=3)
        worker.wait_until(lambda w: w.messages and w.live("arrivals_planned") >= 20)
        edited = arriving(server.port, "200/s", since_ms=2000, before=100 << 20)
        worker.assign(edited, users=20, origin_ns=origin, seconds=3)
        worker.assign(edited, users=20, origin_ns=origin, seconds=3)  # a repeat is harmless
        worker.wait_until(lambda w: w.messages and w.live("arrivals_planned") >= 250)
        worker.wait_for(lambda ack: ack["drained"])
        assert worker.live("arrivals_planned") == 299


def test_poisson_arrivals(tmp_path):
    """As many as the process has in that time, by the seed alone."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        load = arriving(server.port, "150/s", arrivals={"process": "poisson"}, seed=5)
        begin(worker, load, users=50, seconds=3)
        worker.wait_until(lambda w: w.messages and w.live("arrivals_planned") >= 300)
        worker.wait_for(lambda ack: ack["drained"])
        assert worker.live("arrivals_planned") == Poisson(5).first_after(150 * 3 * UNIT)


def test_a_stall_shows_in_the_response_times(tmp_path):
    """
    A worker stopped for a second: what was due meanwhile is sent late, and its response time says so.

    The target answered quickly all the time, and that is what the service time says.
    """
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        begin(worker, arriving(server.port, "100/s"), users=200, seconds=4)
        worker.wait_until(lambda w: w.messages and w.live("sent") >= 50)
        os.kill(worker.process.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        while time.monotonic() - stopped < 1.0:
            worker.read(0.05)
        os.kill(worker.process.pid, signal.SIGCONT)
        worker.wait_until(lambda w: w.live("arrivals_planned") >= 390)
        worker.wait_for(lambda ack: ack["drained"])
        slab = worker.slab
        vector = slab.final().vector
        response, service = (histogram(slab.layout, vector, which) for which in ("response", "service"))
        assert int(response.sum()) == int(service.sum()) == total(slab.layout, vector, "done")
        assert quantiles(response, (0.99,))[0] > 900 * MS
        assert quantiles(response, (0.80,))[0] > 100 * MS
        assert quantiles(service, (0.95,))[0] < 100 * MS
        assert worker.live("response_ns") > worker.live("service_ns") + 40 * SECOND
        assert int(np.count_nonzero(response > 1 << 62)) == 0


def test_from_one_model_to_the_other(tmp_path):
    """An edit takes arrivals in or away in mid-run; everybody of the other model is gone, and all is counted once."""
    thinking = [{"request": {"get": "/"}}, {"think": {"constant": "50ms"}}]
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, thinking), users=10)
        worker.wait_for(lambda ack: ack["active"] == 10)
        worker.assign(arriving(server.port, "100/s", thinking), users=10)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("arrivals_started") >= 50)
        worker.assign(a_load(server.port, thinking), users=10)
        worker.wait_for(lambda ack: ack["settled"] and ack["active"] == 10)
        planned = worker.live("arrivals_planned")
        done = worker.live("done")
        worker.wait_until(lambda w: w.live("done") >= done + 100)
        assert worker.live("arrivals_planned") == planned
        worker.drain()
        figures = Figures.of(worker)
        assert figures["sent"] == figures["done"] == server.log.received
