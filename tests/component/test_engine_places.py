"""The worker and its places: who is on, how they come and go, what is counted when they are cut or killed."""

from __future__ import annotations

import time

from targets.scripted import Route, Scripted
from workers.process import SECOND, Figures, WorkerProcess, a_load

THINKING = [{"request": {"get": "/", "headers": {"x-user": "{{user.id}}"}}}, {"think": {"constant": "20ms"}}]


def users_in(log):
    return {int(entry.user) for entry in log.counts}


def test_only_places_held_are_on(tmp_path):
    """A worker with some of the places runs just those users, however the rest is dealt."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, THINKING), users=20, places=[[3, 6], [17, 20]])
        ack = worker.wait_for(lambda ack: ack["settled"])
        assert ack["active"] == 6
        assert users_in(server.log) == {3, 4, 5, 17, 18, 19}


def test_users_follow_the_profile(tmp_path):
    """Through a ramp the users active are those the profile asks for, by their position; suspended there is none."""
    profile = [{"ramp": {"to": "50%", "over": "1s"}}, {"hold": {"for": "30s"}}]
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, THINKING, profile=profile), users=16)
        worker.wait_for(lambda ack: ack["active"] == 8)
        assert users_in(server.log) == {0, 2, 4, 6, 8, 10, 12, 14}
        worker.assign(a_load(server.port, THINKING, profile=profile), users=16, suspended=True)
        assert worker.wait_for(lambda ack: ack["settled"])["drained"]
        worker.assign(
            a_load(server.port, THINKING, profile=profile), users=16, origin_ns=time.monotonic_ns() - 10 * SECOND
        )
        assert worker.wait_for(lambda ack: ack["settled"])["active"] == 8


def test_a_start_is_spread_over_a_second(tmp_path):
    """Everybody on at once still does not come in one burst."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, [{"request": {"get": "/"}}, {"think": {"constant": "60s"}}]), users=100)
        began = time.monotonic()
        worker.wait_until(lambda w: w.messages and w.live("sent") >= 20)
        worker.wait_for(lambda ack: ack["settled"])
        assert time.monotonic() - began > 0.5
        assert worker.live("sent") == 100


def test_fewer_users_leave_and_more_come_while_the_rest_goes_on(tmp_path):
    """T → T': places beyond are left, new ones come, the account goes on without a break."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, THINKING)
        worker.assign(load, users=30)
        assert worker.wait_for(lambda ack: ack["settled"])["active"] == 30
        worker.assign(load, users=5)
        assert worker.wait_for(lambda ack: ack["settled"])["active"] == 5
        worker.assign(load, users=50)
        assert worker.wait_for(lambda ack: ack["settled"])["active"] == 50
        worker.assign(load, users=50)  # a repeat is harmless
        assert worker.wait_for(lambda ack: ack["settled"])["active"] == 50
        worker.drain()
        figures = Figures.of(worker)
        assert figures["places_gained"] == figures["places_lost"] == 30 + 45
        assert figures["sent"] == figures["done"] == server.log.received
        assert server.log.abandoned == 0


def test_a_user_that_leaves_finishes_its_request(tmp_path):
    """Drain waits for the answers that are out; nothing is cut off."""
    with Scripted([Route(path="/", delay_s=0.6)]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, [{"request": {"get": "/"}}]), users=10)
        worker.wait_for(lambda ack: ack["settled"])
        worker.drain()
        figures = Figures.of(worker)
        assert figures["sent"] == figures["done"] == figures["class_2xx"] == server.log.finished
        assert "cut" not in figures


def test_at_the_deadline_what_is_out_is_cut_and_counted(tmp_path):
    """Each request broken off is one failure of the generator, each user one that was cut."""
    with Scripted([Route(path="/", delay_s=30)]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, [{"request": {"get": "/"}}]), users=10)
        worker.wait_for(lambda ack: ack["settled"])
        worker.drain(within_s=0.3)
        figures = Figures.of(worker)
        assert 10 == figures["cut"] == figures["error_generator_cut"] == figures["failed"] == figures["sent"]


def test_the_run_ends_by_itself(tmp_path):
    """At its end everybody leaves, without a word from the supervisor; a later assignment brings them back."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, THINKING), users=10, seconds=5)
        worker.wait_for(lambda ack: ack["active"] == 10)
        worker.wait_for(lambda ack: ack["drained"])
        worker.assign(a_load(server.port, THINKING), users=10, seconds=60)
        worker.wait_for(lambda ack: ack["settled"] and ack["active"] == 10)


def test_a_run_that_begins_later_waits(tmp_path):
    """Before its origin nobody is on, and that is settled."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, THINKING), users=4, origin_ns=time.monotonic_ns() + 2 * SECOND)
        assert worker.wait_for(lambda ack: ack["settled"], 1.5)["drained"]
        worker.wait_for(lambda ack: ack["active"] == 4)


def test_a_worker_is_of_one_run(tmp_path):
    """The next run's counts begin at nothing: they are another worker's."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, THINKING), users=4)
        worker.wait_for(lambda ack: ack["settled"])
        worker.assign(a_load(server.port, THINKING), users=4, run=2)
        assert "a worker's counts are of one run" in worker.wait_for_error()
        assert 1 == worker.messages[-1].get("ack", {"epoch": 1})["epoch"]


def test_a_killed_worker_loses_at_most_what_its_users_had_out(tmp_path):
    """The live counts it left differ from the target's log by no more than one request per active user."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, [{"request": {"get": "/"}}]), users=32)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 3000)
        worker.kill()
        final = worker.slab.final()
        sent, done = worker.live("sent"), worker.live("done")
        received = server.stop().received
        assert final.active == 32
        assert abs(received - sent) <= 32
        assert abs(received - done) <= 2 * 32


def test_the_warm_up_is_marked(tmp_path):
    """At its end the counts so far are set aside."""
    with Scripted([Route(path="/")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, THINKING), users=4, warm_up_ms=60_000)
        worker.wait_for(lambda ack: ack["settled"])
        assert worker.slab.warmup() is None
        worker.assign(a_load(server.port, THINKING), users=4, warm_up_ms=1)
        worker.wait_until(lambda w: w.slab.warmup() is not None)
        slab = worker.slab
        mark = int(slab.warmup()[slab.layout.action(0, "done")])
        assert 0 < mark <= worker.live("done")
        worker.wait_until(lambda w: w.live("done") > mark)
        assert mark == int(slab.warmup()[slab.layout.action(0, "done")])
