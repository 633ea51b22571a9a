"""Redirects on real sockets: followed within the limits, counted as one request, their time the whole way's."""

from __future__ import annotations

import pytest

from targets.scripted import Route, Scripted
from workers.process import Figures, WorkerProcess, a_load

ECHO = Route(path="/echo*", echo=True)


def to(path, where, status=302, **more):
    return Route(path=path, statuses=[status], headers={"location": where, **more.pop("headers", {})}, **more)


def run(tmp_path, server, flow, *, users=3, at_least=30, **more):
    with WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, **more), users=users)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= at_least)
        worker.drain()
        return Figures.of(worker)


def test_a_login_is_one_request(tmp_path):
    """POST, 303, cookie, GET: the cookie goes along, the check sees the last answer, and one request is counted."""
    login = to("/login", "/echo/home", 303, method="POST", headers={"set-cookie": "sid=s1"}, delay_s=0.02)
    seen = {"method": "GET", "path": "/echo/home", "headers.cookie": "sid=s1", "body": ""}
    request = {"post": "/login", "json": {"a": 1}, "redirects": 1}
    flow = [{"request": request, "expect": {"status": 200, "json": seen}}]
    with Scripted([login, ECHO]) as server:
        figures = run(tmp_path, server, flow)
        log = server.log
    assert 0 == figures.get("checks_failed", 0) == figures.get("failed", 0)
    assert figures["sent"] == figures["done"] == figures["class_2xx"] == log.count(path="/login")
    assert log.received == 2 * figures["done"]
    assert log.opened_connections - 1 == figures["connects"] == 3
    assert figures["service_ns"] >= figures["done"] * 20_000_000
    assert "class_3xx" not in figures


@pytest.mark.parametrize(
    ("status", "method", "body"), [(301, "GET", ""), (302, "GET", ""), (307, "PUT", "text"), (308, "PUT", "text")]
)
def test_verb_and_body(tmp_path, status, method, body):
    """307 and 308 ask the same again, the others with GET; on connections that close after each answer too."""
    routes = [to("/a", "b?x=1", status), to("/b", "/echo", status, keep_alive=False), ECHO]
    expect = {"json": {"method": method, "body": body, "path": "/echo"}}
    flow = [{"request": {"put": "/a", "body": "text", "redirects": 2}, "expect": expect}]
    with Scripted(routes) as server:
        figures = run(tmp_path, server, flow)
    assert 0 == figures.get("checks_failed", 0) == figures.get("failed", 0)


def test_without_redirects_the_answer_is_the_redirect(tmp_path):
    """The default: nothing is followed."""
    with Scripted([to("/a", "/b"), Route(path="/b")]) as server:
        figures = run(tmp_path, server, [{"request": {"get": "/a"}, "expect": {"status": 302}}])
        assert 0 == server.log.count(path="/b")
    assert figures["done"] == figures["class_3xx"]
    assert 0 == figures.get("checks_failed", 0)


@pytest.mark.parametrize("where", ["/a", "ftp://x/"], ids=["in a circle", "nowhere"])
def test_more_redirects_than_allowed_are_the_targets_failure(tmp_path, where):
    """A circle ends after as many hops as the request follows, an address that is none at once."""
    with Scripted([to("/a", where)]) as server:
        figures = run(tmp_path, server, [{"request": {"get": "/a", "redirects": 3}}], at_least=6)
        received = server.log.received
    assert figures["sent"] == figures["done"] == figures["failed"] == figures["error_target_protocol"]
    assert received == figures["sent"] * (4 if where == "/a" else 1)


def test_a_redirect_without_a_location_is_the_answer(tmp_path):
    """There is nothing to follow."""
    with Scripted([Route(path="/a", statuses=[304, 302])]) as server:
        figures = run(tmp_path, server, [{"request": {"get": "/a", "redirects": 3}}])
    assert figures["done"] == figures["class_3xx"]


def test_another_host_within_the_limits(tmp_path):
    """It is asked without the target's secrets and sets no cookie; the next request is the target's again."""
    lines = tmp_path / "lines"
    with Scripted([Route(path="/*", echo=True, headers={"set-cookie": "theirs=1"})], host="127.0.0.2",
                  lines=lines) as other:  # fmt: skip
        routes = [to("/a", f"{other.url}/there", headers={"set-cookie": "ours=1"}), ECHO]
        headers = {"authorization": "Bearer x", "x-user": "{{user.id}}"}
        flow = [
            {"request": {"get": "/a", "headers": headers, "redirects": 5}, "save": {"seen": "json.headers"}},
            {"request": {"get": "/echo/b"}, "expect": {"json": {"headers.cookie": "ours=1"}}},
            {"request": {"post": "/echo/c", "body": "{{seen}}"}, "save": {"all": "json.body"}},
        ]
        with Scripted(routes) as server:
            figures = run(tmp_path, server, flow)
            assert 0 == server.log.count(path="/there")
        assert other.log.count(path="/there") == server.log.count(path="/a")
    assert 0 == figures.get("checks_failed", 0) == figures.get("failed", 0)
    assert figures["sent"] == figures["done"]
    assert lines.read_text()


@pytest.mark.parametrize("limit", ["address", "verb"])
def test_beyond_the_limits_nothing_is_sent(tmp_path, limit):
    """Policy's addresses and verbs hold for every hop; what they forbid is the generator's own failure."""
    with (
        Scripted([Route(path="/there")], host="127.0.0.2") as other,
        Scripted([to("/a", f"{other.url}/there"), Route(path="/b")]) as server,
        WorkerProcess(tmp_path) as worker,
    ):
        flow = [{"request": {"post": "/a", "redirects": 5}}]
        limits = {"targets": [{"network": "127.0.0.1/32", "ports": []}]}
        if limit == "verb":
            limits = {"verbs": ["post"]}
        worker.assign(a_load(server.port, flow), users=2, limits=limits)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 6)
        worker.drain()
        figures = Figures.of(worker)
        assert 0 == other.log.received
    assert figures["sent"] == figures["done"] == figures["error_generator_forbidden"] == server.log.received


def test_a_chain_that_takes_too_long_times_out_as_a_whole(tmp_path):
    """Each hop is within the time-out, together they are not."""
    routes = [to("/a", "/b", delay_s=0.15), to("/b", "/c", delay_s=0.15), Route(path="/c", delay_s=0.15)]
    flow = [{"request": {"get": "/a", "redirects": 5}}]
    with Scripted(routes) as server:
        figures = run(tmp_path, server, flow, at_least=3, timeouts={"connect": "1s", "request": "300ms"})
    assert figures["sent"] == figures["done"] == figures["error_network_request_timeout"]


def test_who_leaves_while_redirected_goes_to_the_end(tmp_path):
    """A chain is one action: draining waits for its last answer, and the account stays whole."""
    routes = [to("/a", "/b", delay_s=0.05, keep_alive=False), Route(path="/b", delay_s=0.05)]
    with Scripted(routes) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, [{"request": {"get": "/a", "redirects": 2}}]), users=30)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 60)
        worker.drain()
        figures = Figures.of(worker)
        log = server.log
    assert figures["sent"] == figures["done"] == figures["class_2xx"] == log.count(path="/a") == log.count(path="/b")
    assert "failed" not in figures
