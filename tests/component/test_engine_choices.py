"""Choices on real sockets: the same users choose the same, however the places are dealt."""

from __future__ import annotations

import json
from collections import defaultdict

from targets.scripted import Route, Scripted
from workers.process import WorkerProcess, a_load

USER = {"x-user": "{{user.id}}"}


def get(path):
    return {"request": {"get": path, "headers": USER}}


def test_users_choose_the_same_on_one_worker_and_on_three(tmp_path):
    """Also within loops and within choices; every way through the flow is walked."""
    inner = {"choose": [{"flow": [get("/b1")]}, {"flow": [get("/b2")]}]}
    flow = [
        {"repeat": {"times": "1..3", "flow": [{"choose": [{"weight": 2, "flow": [get("/a")]}, {"flow": [inner]}]}]}},
        get("/end"),
        {"think": {"constant": "1ms"}},
    ]
    runs = []
    for parts in ([[0, 12]], [[0, 5]], [[5, 6]], [[6, 12]]):
        lines = tmp_path / f"lines-{parts}"
        directory = tmp_path / f"worker-{parts}"
        directory.mkdir()
        with Scripted([Route(path="/*")], lines=lines) as server, WorkerProcess(directory) as worker:
            worker.assign(a_load(server.port, flow, seed=11), users=12, places=parts)
            worker.wait_for(lambda ack: ack["settled"])
            count = sum(stop - start for start, stop in parts)
            worker.wait_until(lambda w, n=count: w.live("done") >= n * 60)
            worker.drain()
        ways = defaultdict(list)
        for line in map(json.loads, lines.read_text().splitlines()):
            ways[int(line["user"])].append(line["path"])
        runs.append(ways)
    whole, *others = runs
    assert {"/a", "/b1", "/b2", "/end"} == {path for way in whole.values() for path in way}
    compared = 0
    for ways in others:
        for user, way in ways.items():
            n = min(len(way), len(whole[user]))
            compared += n
            assert whole[user][:n] == way[:n]
    assert compared >= 12 * 20
