"""Pooled connections on the wire: what the target sees of them, and what is counted."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import trustme

from targets.counting import Counting
from targets.hostile import Behaviour, Hostile
from targets.scripted import Certificate, Route, Scripted
from trafficsim_api.statistics import lag_histogram, quantiles
from workers.process import Figures, WorkerProcess, a_load

S = 1_000_000_000
GET = [{"request": {"get": "/a"}}]


def pooled(**groups):
    return {"mode": "pooled", "groups": groups} if groups else {"mode": "pooled"}


def shares(**most):
    """Return the one worker's shares; each min a tenth, as by default."""
    return {name: [count, max(1, count // 10)] for name, count in {**most, "": 1}.items()}


def pools_of(ack):
    names = ("size", "used", "waiting", "max", "most", "waits", "wait_us", "longest_us", "dropped")
    return {group: dict(zip(names, figures, strict=True)) for group, figures in ack["pools"].items()}


def ends(worker):
    """Drain; return the figures, after checking that every request sent had its end."""
    worker.drain()
    figures = Figures.of(worker)
    assert figures.get("sent", 0) == figures.get("done", 0)
    return figures


def test_never_more_than_max(tmp_path):
    """60 users of three groups, who all have their turn; the target sees no connection more."""
    flow = [{"request": {"get": "/a"}}, {"group": "auth", "request": {"get": "/b"}},
            {"group": "bulk", "request": {"get": "/c"}}]  # fmt: skip
    with Counting(0.002) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, flow, connections=pooled())
        worker.assign(load, users=60, pools=shares(auth=2, user=5, bulk=3))
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("iterations_done") >= 600)
        told = pools_of(worker.wait_for(lambda ack: ack["pools"]))
        figures = ends(worker)
        assert 10 >= server.most
        assert server.requests == figures["sent"] == figures["class_2xx"]
        assert {"auth": 2, "user": 5, "bulk": 3} == {group: pool["max"] for group, pool in told.items()}
        assert all(pool["used"] <= pool["size"] <= pool["most"] <= pool["max"] for pool in told.values())
        assert 0 < figures["pool_waits"]


def test_a_group_without_keep_alive_closes_after_each_answer(tmp_path):
    """The request says so; no connection carries two. The others say nothing."""
    flow = [{"request": {"get": "/a"}}, {"group": "bulk", "request": {"get": "/c"}}]
    with Counting() as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, connections=pooled()), users=4, pools=shares(user=4, bulk=2))
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("iterations_done") >= 100)
        ends(worker)
        seen = list(zip(server.heads, server.ports, strict=True))
    bulk = [port for head, port in seen if head.startswith(b"GET /c")]
    assert len(bulk) == len(set(bulk))
    assert all((b"connection: close\r\n" in head) == head.startswith(b"GET /c") for head, _ in seen)


def test_a_wait_is_lag_and_not_service_time(tmp_path):
    """Ten users on one connection of 20 ms: the service time stays, the lag is nine times that."""
    with Counting(0.02) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, GET, connections=pooled()), users=10, pools=shares(user=1))
        worker.wait_until(lambda w: w.messages and w.live("done") >= 120)
        figures = ends(worker)
        slab = worker.slab
        assert 30e6 > figures["service_ns"] / figures["done"]
        assert 150e6 < quantiles(lag_histogram(slab.layout, slab.final().vector), (0.9,))[0] < 400e6
        assert figures["service_ns"] == figures["response_ns"]
        assert 1 == server.most


def test_a_wait_is_response_time_in_the_open_model(tmp_path):
    """It is counted from when the iteration was due."""
    with Counting(0.05) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, GET, connections=pooled(), arrivals={"rate": "60/s"})
        worker.assign(load, users=50, pools=shares(user=2))
        worker.wait_until(lambda w: w.messages and w.live("done") >= 100)
        figures = ends(worker)
        assert figures["service_ns"] / figures["done"] < 80e6 < 200e6 < figures["response_ns"] / figures["done"]


def test_who_waits_too_long_is_dropped_and_pauses(tmp_path):
    """Nothing is sent for it, and its user pauses as after a failure: the next try comes 100 ms later, then 200."""
    with Counting(0.5) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, GET, connections=pooled(user={"wait": "100ms"}))
        worker.assign(load, users=4, pools=shares(user=1))
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("drop_pool_wait") >= 12)
        told = pools_of(worker.wait_for(lambda ack: ack["pools"] and ack["pools"]["user"][-1] >= 12))["user"]
        figures = ends(worker)
        assert 0 == figures.get("failed", 0)
        assert server.requests == figures["done"]
        assert told["dropped"] <= figures["drop_pool_wait"] <= figures["pool_waits"]
        assert 100_000 <= told["longest_us"] < 400_000


def test_unused_connections_close_but_for_the_min(tmp_path):
    """After idle; with nobody there the min goes as well, and the next user opens it again."""
    connections = pooled(user={"idle": "300ms"})
    slow = [{"request": {"get": "/a"}}, {"think": {"constant": "2s"}}]
    with Counting(0.02) as server, WorkerProcess(tmp_path) as worker:
        share = {"user": [20, 3], "": [20, 3]}
        worker.assign(a_load(server.port, GET, connections=connections), users=12, pools=share)
        worker.wait_for(lambda ack: ack["settled"])
        server.wait_until(lambda: server.open >= 10)
        worker.assign(a_load(server.port, slow, connections=connections), users=1, pools=share)
        server.wait_until(lambda: server.open == 3)
        opened, until = server.opened, time.monotonic() + 1.5
        while time.monotonic() < until:
            assert 3 == server.open
            time.sleep(0.05)
        assert opened == server.opened
        worker.assign(a_load(server.port, slow, connections=connections), users=1, pools=share, suspended=True)
        server.wait_until(lambda: server.open == 0)
        worker.assign(a_load(server.port, slow, connections=connections), users=1, pools=share)
        server.wait_until(lambda: server.open == 3)
        ends(worker)
        server.wait_until(lambda: server.open == 0)


def test_cookies_stay_the_users_own(tmp_path):
    """Whatever connection a request is on, it carries what its own user was given."""

    def answer(head):
        name = head.split(b"x-user: ")[1].split(b"\r\n")[0]
        cookie = b"set-cookie: id=" + name + b"\r\n" if head.startswith(b"GET /login") else b""
        return b"HTTP/1.1 200 OK\r\n" + cookie + b"content-length: 0\r\n\r\n"

    headers = {"x-user": "u{{user.number}}"}
    flow = [{"request": {"get": "/login", "headers": headers}}, {"request": {"get": "/a", "headers": headers}}]
    with Counting(answer=answer) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, connections=pooled()), users=12, pools=shares(user=3))
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("iterations_done") >= 100)
        ends(worker)
        heads, ports = server.heads, server.ports
    seen = [head for head in heads if head.startswith(b"GET /a")]
    for head in seen:
        name = head.split(b"x-user: ")[1].split(b"\r\n")[0]
        assert b"cookie: id=" + name + b"\r\n" in head
    users: dict[int, set[bytes]] = {}
    for head, port in zip(heads, ports, strict=True):
        users.setdefault(port, set()).add(head.split(b"x-user: ")[1].split(b"\r\n")[0])
    assert any(len(found) > 1 for found in users.values())


@pytest.mark.parametrize("flow", [
    pytest.param(GET, id="busy users, whose requests follow each other in the hot loop"),
    pytest.param([*GET, {"think": {"constant": "5ms"}}], id="users that think"),
])  # fmt: skip
def test_the_mode_is_edited_live(tmp_path, flow):
    """There and back under load: nothing fails, nothing is lost, old connections close between requests."""
    with Counting(0.003) as server, WorkerProcess(tmp_path) as worker:

        def go_on(**more):
            at = worker.live("done")
            worker.assign(a_load(server.port, flow, **{k: v for k, v in more.items() if k != "pools"}), users=20,
                          **{k: v for k, v in more.items() if k == "pools"})  # fmt: skip
            worker.wait_for(lambda ack: ack["settled"])
            worker.wait_until(lambda w: w.live("done") >= at + 400)

        worker.assign(a_load(server.port, flow), users=20)
        worker.wait_for(lambda ack: ack["settled"])
        for _ in range(2):
            go_on(connections=pooled(), pools=shares(user=4))
            server.wait_until(lambda: server.open <= 4)
            server.most = server.open
            go_on(connections=pooled(user={"priority": "high"}), pools=shares(user=6))
            assert server.most <= 6
            go_on(connections=pooled(), pools=shares(user=2))
            server.wait_until(lambda: server.open <= 2)
            go_on()
            server.wait_until(lambda: server.open == 20)
        figures = ends(worker)
        assert 0 == figures.get("failed", 0)
        assert server.requests == figures["sent"] == figures["class_2xx"]
        server.wait_until(lambda: server.open == 0)
    assert [] == [message for message in worker.messages if "fault" in message]


def test_a_close_of_the_servers_is_no_failure(tmp_path):
    """Idle connections that the server closes are replaced; an idempotent request that met the close is sent again."""
    flow = [{"request": {"get": "/a"}}, {"think": {"min": "1ms", "max": "30ms"}}]
    with Counting(0.001) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, connections=pooled()), users=20, pools=shares(user=6))
        worker.wait_for(lambda ack: ack["settled"])
        for number in range(1, 20):
            worker.wait_until(lambda w, number=number: w.live("done") >= 40 * number)
            server.close_all()
        figures = ends(worker)
        assert 6 >= server.most
        assert 20 < server.opened
        # Those the server closed with a request on them, its answer cut off, failed; no other did.
        cut_off = figures.get("error_target_closed_early", 0) + figures.get("error_network_reset", 0)
        assert cut_off == figures.get("failed", 0)


def test_old_connections_are_replaced(tmp_path):
    """maxAge holds for pooled ones too, busy or idle."""
    with Counting(0.002) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, GET, connections={**pooled(), "maxAge": "1s"})
        worker.assign(load, users=10, pools=shares(user=4))
        worker.wait_for(lambda ack: ack["settled"])
        server.wait_until(lambda: server.opened >= 12)
        figures = ends(worker)
        assert 0 == figures.get("failed", 0)
        assert (4, server.requests) == (server.most, figures["done"])


def test_redirects_go_on_with_the_place_in_the_pool(tmp_path):
    """Within the target on its connection, elsewhere on another; there are never more than max, and none is lost."""
    with Counting(0.002) as other:

        def answer(head):
            to = {b"/a": b"/b", b"/b": b"http://127.0.0.1:%d/c" % other.port}[head.split(b" ")[1]]
            return b"HTTP/1.1 302 Found\r\nlocation: " + to + b"\r\ncontent-length: 0\r\n\r\n"

        flow = [{"request": {"get": "/a", "redirects": 3}}]
        with Counting(0.002, answer=answer) as server, WorkerProcess(tmp_path) as worker:
            worker.assign(a_load(server.port, flow, connections=pooled()), users=12, pools=shares(user=3))
            worker.wait_for(lambda ack: ack["settled"])
            worker.wait_until(lambda w: w.live("done") >= 100)
            figures = ends(worker)
            assert 0 == figures.get("failed", 0)
            assert server.requests == 2 * other.requests == 2 * figures["done"]
            assert 3 >= server.most
            assert 3 >= other.most


@pytest.mark.parametrize("behaviour", [
    Behaviour.REFUSES, Behaviour.RESETS_AFTER_ACCEPT, Behaviour.RESETS_AFTER_REQUEST, Behaviour.CLOSES_AFTER_REQUEST,
    Behaviour.HANGS, Behaviour.UNSOLICITED_RESPONSE, Behaviour.TWO_RESPONSES, Behaviour.NEVER_ACCEPTS,
])  # fmt: skip
def test_a_hostile_target(tmp_path, behaviour):
    """Each request ends with its reason; a place in the pool is never lost: users go on trying as long as they are."""
    with Hostile(behaviour) as server, WorkerProcess(tmp_path) as worker:
        port = int(server.url.rpartition(":")[2])
        load = a_load(port, GET, timeouts={"connect": "300ms", "request": "300ms"},
                      connections=pooled(user={"connect": "200ms", "wait": "5s"}))  # fmt: skip
        worker.assign(load, users=8, pools=shares(user=3))
        worker.wait_until(lambda w: w.messages and w.live("done") >= 20, 30)
        told = pools_of(worker.wait_for(lambda ack: ack["pools"]))["user"]
        assert told["size"] <= told["most"] <= 3
        worker.drain()
        figures = Figures.of(worker)
        ack = worker.wait_for(lambda ack: ack["drained"] and not ack["connections"])
        assert (0, 0, 0) == (ack["in_flight"], ack["connections"], pools_of(ack)["user"]["size"])
        assert figures.get("drop_internal", 0) == 0 == figures.get("error_generator_internal", 0)
    assert [] == [message for message in worker.messages if "fault" in message]


def test_tls(tmp_path):
    """Handshakes as with the users' own, those for nobody too."""
    ca = trustme.CA()
    leaf = ca.issue_cert("shop.example")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    certificate = Certificate(chain=tmp_path / "chain.pem", key=tmp_path / "key.pem")
    with Scripted([Route(path="/a", delay_s=0.005)], tls=certificate) as server, WorkerProcess(tmp_path) as worker:
        load = a_load(server.port, GET, scheme="https", ca=ca.cert_pem.bytes().decode(),
                      target={"tls": {"serverName": "shop.example"}}, connections=pooled())  # fmt: skip
        worker.assign(load, users=10, pools={"user": [4, 4], "": [4, 4]})
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 200)
        figures = ends(worker)
        assert (4, 0) == (figures["connects"], figures.get("failed", 0))
        assert server.log.received == figures["done"]


def test_a_name_is_looked_up(tmp_path):
    """Once for all who connect together, also for the connections that the min asks for."""
    with Scripted([Route(path="/a", delay_s=0.002)]) as server, WorkerProcess(tmp_path) as worker:
        target = {"url": f"http://localhost:{server.port}"}
        worker.assign(a_load(server.port, GET, target=target, connections=pooled()), users=20,
                      pools={"user": [5, 3], "": [5, 3]},
                      limits={"targets": [{"network": "127.0.0.0/8"}, {"network": "::1/128"}]})  # fmt: skip
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 300)
        figures = ends(worker)
        assert 0 == figures.get("failed", 0)
        assert server.log.received == figures["done"]


def test_the_target_changes_under_the_waiting(tmp_path):
    """Who waited for the old one begins its step again at the new one; nothing is lost."""
    with Counting(0.01) as old, Counting(0.01) as new, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(old.port, GET, connections=pooled()), users=20, pools=shares(user=2))
        worker.wait_for(lambda ack: ack["settled"])
        worker.assign(a_load(new.port, GET, connections=pooled()), users=20, pools=shares(user=2))
        new.wait_until(lambda: new.requests >= 100)
        old.wait_until(lambda: old.open == 0)
        figures = ends(worker)
        assert 0 == figures.get("failed", 0)
        assert old.requests + new.requests == figures["done"]
        assert 2 >= max(old.most, new.most)


def test_first_come_first_served(tmp_path):
    """Users that wait for one connection are served in turn, round after round."""
    flow = [{"request": {"get": "/a", "headers": {"x-user": "{{user.number}}"}}}]
    with Counting(0.002) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, connections=pooled()), users=5, pools=shares(user=1))
        worker.wait_for(lambda ack: ack["settled"])
        begun = server.requests
        server.wait_until(lambda: server.requests >= begun + 200)
        order = [int(head.split(b"x-user: ")[1].split(b"\r\n")[0]) for head in server.heads[begun:][:200]]
        ends(worker)
    rounds = [order[at : at + 5] for at in range(0, 200, 5)]
    assert set(range(5)) == set(rounds[0])
    assert all(left == right for left, right in pairwise(rounds)), rounds
