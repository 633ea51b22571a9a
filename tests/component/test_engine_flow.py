"""The worker's flows on real sockets: what is sent, kept, checked and counted."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from targets.scripted import Route, Scripted
from trafficsim_api.statistics import action_counter
from workers.process import Figures, WorkerProcess, a_load

ECHO = Route(path="/echo*", echo=True)


def run_flow(tmp_path, server, flow, *, users=2, at_least=10, env=None, **more):
    """Let *users* walk *flow* until *at_least* requests are done; return the figures and the last snapshot."""
    with WorkerProcess(tmp_path, env=env) as worker:
        worker.assign(a_load(server.port, flow, **more), users=users)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= at_least)
        worker.drain()
        return Figures.of(worker), worker.slab


def seen_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_token_goes_from_one_answer_into_the_next_request(tmp_path):
    """Saved values, parameters, headers, form and JSON bodies arrive as written, encoded for where they stand."""
    login = Route(path="/login", method="POST", body='{"data":{"token":"a b/c\\"d","n":7}}')
    headers = {"x-token": "{{token}}", "x-user": "{{user.id}}", "x-env": "{{env.SHOP}}"}
    echo = {"get": "/echo/{{token}}", "params": {"q": "{{token}} ü", "n": 1}, "headers": headers}
    flow = [
        {
            "request": {"post": "/login", "json": {"user": "u{{user.id}}"}},
            "save": {"token": "json.data.token", "n": "json.data.n"},
        },
        {
            "request": echo,
            "expect": {
                "status": "200",
                "json": {
                    "path": "/echo/a%20b/c%22d",
                    "query": "q=a+b%2Fc%22d+%C3%BC&n=1",
                    "headers.x-env": "blue",
                    "headers.x-token": 'a b/c"d',
                    "method": "GET",
                },
            },
        },
        {
            "request": {"put": "/echo/json", "json": {"t": "{{token}}", "n": [1, None, True, "{{n}}"]}},
            "expect": {
                "json": {"body": '{"t":"a b/c\\"d","n":[1,null,true,"7"]}', "headers.content-type": "application/json"}
            },
        },
        {
            "request": {"post": "/echo/form", "form": {"a b": "{{token}}"}},
            "expect": {
                "json": {"body": "a+b=a+b%2Fc%22d", "headers.content-type": "application/x-www-form-urlencoded"}
            },
        },
        {"request": {"delete": "/echo/{{user.archetype}}/{{user.iteration}}"}, "expect": {"body": "/echo/only/"}},
    ]
    with Scripted([login, ECHO]) as server:
        figures, _ = run_flow(tmp_path, server, flow, at_least=20, env={"SHOP": "blue"})
    assert figures.get("checks_failed", 0) == 0, figures
    assert figures["checks"] > figures["done"]


def test_cookies_belong_to_one_user(tmp_path):
    """A cookie set by an answer comes back with the same user's next requests, and is removed by Max-Age=0."""
    routes = [
        Route(path="/in", headers={"set-cookie": "sid=s1; Path=/; HttpOnly"}),
        Route(path="/out", headers={"set-cookie": "sid=; Max-Age=0"}),
        ECHO,
    ]
    flow = [
        {"request": {"get": "/in"}, "save": {"sid": "cookie.sid"}},
        {"request": {"get": "/echo/a"}, "expect": {"json": {"headers.cookie": "sid=s1"}}},
        {"request": {"get": "/echo/{{sid}}"}, "expect": {"json": {"headers.cookie": "sid=s1", "path": "/echo/s1"}}},
        {"request": {"get": "/out"}},
        {"request": {"get": "/echo/b"}, "expect": {"body": '"headers"'}},
    ]
    with Scripted(routes) as server:
        figures, _ = run_flow(tmp_path, server, flow, users=3, at_least=40)
    assert figures.get("checks_failed", 0) == 0, figures


def test_a_missing_value_drops_the_action(tmp_path):
    """A request that needs a value the answer did not bring is not sent, counted, and the flow goes on."""
    flow = [
        {"request": {"get": "/echo/a"}, "save": {"token": "json.not.there"}},
        {"request": {"get": "/echo/{{token}}"}},
    ]
    with Scripted([ECHO]) as server:
        figures, _ = run_flow(tmp_path, server, flow)
        assert figures["sent"] == server.log.count(path="/echo/a") == server.log.received
    assert 0 <= figures["drop_template"] - figures["done"] + 2 <= 2
    # What is to be saved must be there: the status was well, the save was not.
    assert (figures["checks"], figures["checks_failed"]) == (2 * figures["done"], figures["done"])


@pytest.mark.parametrize(
    ("expect", "missed"),
    [
        (None, 0.5),
        ({"status": "200"}, 0.5),
        ({"status": "2xx,500"}, 0),
        ({"status": "404", "header": {"Content-Type": "application/json"}}, 0.5),
        ({"json": {"ok": True}}, 0),
        ({"json": {"ok": 1, "no.such": None}}, 1),
        ({"body": "ok", "header": {"x-none": "1"}}, 0.5),
        ({}, None),
    ],
)
def test_every_entry_of_expect_is_a_check(tmp_path, expect, missed):
    """The target answers 200 and 500 in turn; *missed* is the share of checks that fail."""
    step = {"request": {"get": "/"}} | ({} if expect is None else {"expect": expect})
    with Scripted([Route(path="/", statuses=[200, 500])]) as server:
        figures, _ = run_flow(tmp_path, server, [step], users=1, at_least=40)
    if missed is None:
        assert "checks" not in figures
        return
    if expect is not None and expect.get("status") == "404":
        missed = 0.5
    assert figures.get("checks_failed", 0) / figures["checks"] == pytest.approx(missed, abs=0.03)
    assert figures["failed"] == figures["error_target_status_5xx"] == figures["class_5xx"]


def test_accounts_equal_the_servers(tmp_path):
    """Per action and class, what the worker counted as sent and answered is what the target's own log says."""
    routes = [
        Route(path="/a", statuses=[200, 404, 500]),
        Route(path="/b", statuses=[201], framing="chunked", pieces=3),
        Route(path="/c", framing="close"),
        Route(path="/d", keep_alive=False),
    ]
    flow = [{"action": path[1:], "request": {"get": path}} for path in ("/a", "/b", "/c", "/d")]
    flow.insert(2, {"think": {"min": "1ms", "max": "5ms"}})
    with Scripted(routes) as server:
        figures, slab = run_flow(tmp_path, server, flow, users=20, at_least=2000)
        log = server.log
    vector = slab.snapshot().vector
    for number, (name, _) in enumerate(slab.layout.actions):
        received = log.count(path=f"/{name}")
        assert received == action_counter(slab.layout, vector, number, "sent")
        assert received == action_counter(slab.layout, vector, number, "done")
        for status in (200, 201, 404, 500):
            if count := log.count(path=f"/{name}", status=status):
                assert count == action_counter(slab.layout, vector, number, f"class_{status // 100}xx")
    assert (
        log.received
        == figures["sent"]
        == figures["done"]
        == int(sum(vector[slab.layout.service(number) + bucket] for number in range(4) for bucket in range(4096)))
    )
    assert log.abandoned == 0


def test_repeat_and_think_draw_the_same_on_one_worker_and_on_four(tmp_path):
    """The same seed gives every user the same archetype and the same way through its flow, however places are dealt."""
    flow = [
        {"repeat": {"times": "1..5", "flow": [{"request": {"get": "/x", "headers": {"x-user": "{{user.id}}"}}}]}},
        {"think": {"min": "1ms", "max": "30ms"}},
        {"request": {"get": "/{{user.archetype}}", "headers": {"x-user": "{{user.id}}"}}},
    ]
    archetypes = [{"name": "one", "weight": 2, "flow": flow}, {"name": "two", "weight": 1, "flow": flow}]
    runs = []
    for parts in ([[0, 24]], [[0, 5]], [[5, 11]], [[11, 12]], [[12, 24]]):
        lines = tmp_path / f"lines-{parts}"
        with Scripted([Route(path="/*")], lines=lines) as server:
            directory = tmp_path / f"worker-{parts}"
            directory.mkdir()
            with WorkerProcess(directory) as worker:
                worker.assign(a_load(server.port, flow, archetypes=archetypes, seed=7), users=24, places=parts)
                worker.wait_for(lambda ack: ack["settled"])
                count = sum(stop - start for start, stop in parts)
                worker.wait_until(lambda w, n=count: w.live("done") >= n * 60)
                worker.drain()
        ways = defaultdict(list)
        for line in seen_lines(lines):
            ways[int(line["user"])].append(line["path"])
        runs.append(ways)
    whole, *others = runs
    assert set(whole) == set(range(24)) == {user for ways in others for user in ways}
    compared = 0
    for ways in others:
        for user, way in ways.items():
            n = min(len(way), len(whole[user]))
            compared += n
            assert whole[user][:n] == way[:n]
    assert compared >= 24 * 20
    assert len({tuple(way[:10]) for way in whole.values()}) > 5


def test_an_edit_of_the_load_is_live(tmp_path):
    """New actions get a new slab that begins with the old counts; users walk the new flow, nobody is restarted."""
    with Scripted([Route(path="/*")]) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(
            a_load(server.port, [{"action": "a", "request": {"get": "/a"}}, {"think": {"constant": "2ms"}}]), users=8
        )
        first = worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 50)
        worker.assign(
            a_load(server.port, [{"action": "b", "request": {"get": "/b"}}, {"think": {"constant": "2ms"}}]), users=8
        )
        second = worker.wait_for(lambda ack: ack["settled"])
        assert second["slab"] != first["slab"]
        worker.wait_until(lambda w: w.live("done", action=1) >= 50)
        before = worker.live("sent", action=0)
        worker.wait_until(lambda w: w.live("done", action=1) >= 150)
        worker.drain()
        figures, slab = Figures.of(worker), worker.slab
        assert slab.layout.actions == (("a", "user"), ("b", "user"))
        assert worker.live("sent", action=0) == before == server.log.count(path="/a")
        assert worker.live("sent", action=1) == server.log.count(path="/b")
        assert figures["places_gained"] == figures["places_lost"] == 8
        assert figures["connects"] == 8


def test_a_new_target_takes_over_after_the_current_action(tmp_path):
    """Both targets' logs together are what was sent."""
    flow = [{"request": {"get": "/a"}}, {"think": {"constant": "5ms"}}]
    with Scripted([Route(path="/*")]) as one, Scripted([Route(path="/*")]) as two, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(one.port, flow), users=8)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 50)
        worker.assign(a_load(two.port, flow), users=8)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: two.log.received >= 50)
        received = one.log.received
        worker.drain()
        assert received == one.log.received
        assert Figures.of(worker)["sent"] == one.log.received + two.log.received


def test_a_value_no_request_can_carry_is_missing(tmp_path):
    """Half a surrogate pair in an answer drops the actions that need it; the users go on, and nobody hangs."""
    with Scripted([Route(path="/login", body='{"token":"\\ud800"}'), ECHO]) as server:
        flow = [
            {"request": {"get": "/login"}, "save": {"token": "json.token"}},
            {"request": {"get": "/echo/{{token}}"}},
            {"request": {"get": "/echo/on"}},
        ]
        figures, _ = run_flow(tmp_path, server, flow, users=8, at_least=80)
    assert figures["done"] == figures["class_2xx"] == figures["sent"] == server.log.received
    assert figures["drop_template"] >= 32
    assert "drop_internal" not in figures
