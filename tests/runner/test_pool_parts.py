"""What a worker is told of its pools, and how the kernel is asked to watch a connection."""

from __future__ import annotations

import json
import socket

import pytest

from trafficsim_api.places import Places
from trafficsim_api.protocol import Assignment
from trafficsim_runner.held import Held
from trafficsim_runner.http.connection import set_heartbeat


def an_assignment(**connections):
    flow = [{"request": {"get": "/"}}, {"group": "auth", "request": {"get": "/"}}]
    return Assignment.model_validate_json(json.dumps({
        "simulation": "s", "run": 1, "runner": "r", "revision": "v", "epoch": 1, "users": 30, "places": [[0, 30]],
        "processes": 2, "start_at_ms": 0, "warm_up_ms": 0, "end_ms": 1000,
        "load": {"target": {"url": "http://shop"}, "archetypes": [{"name": "one", "flow": flow}],
                 "connections": connections},
        "limits": {"targets": [], "connections": 500, "concurrency": 100},
    }))  # fmt: skip


def told(assignment, *sizes):
    division = []
    for size in sizes:
        division.append(Places.of([(sum(map(len, division)), sum(map(len, division)) + size)]))
    held = Held(assignment=assignment, load={}, origin_ns=0)
    return [held.message(division, index)["assign"] for index in range(len(sizes))]


def test_each_worker_is_told_its_share():
    """Of each group of the load, and under "" what another group would have; the limit covers them."""
    first, second = told(an_assignment(mode="pooled"), 20, 10)
    assert {"user": (133, 13), "auth": (33, 3), "": (133, 13)} == first["pools"]
    assert {"user": (67, 7), "auth": (17, 2), "": (67, 7)} == second["pools"]
    limits = [worker["limits"]["connections"] for worker in (first, second)]
    assert 500 == sum(limits)
    assert [332, 168] == limits


def test_without_pools_nothing_is_told():
    """Each user has its own connection: the limit is shared by places."""
    first, second = told(an_assignment(), 20, 10)
    assert ({}, {}) == (first["pools"], second["pools"])
    assert [333, 167] == [worker["limits"]["connections"] for worker in (first, second)]


@pytest.mark.parametrize(
    ("every_s", "patience_ms", "kept"),
    [
        pytest.param(60, 30_000, (1, 60, 10, 3, 90_000), id="a minute, then three probes"),
        pytest.param(5, 1000, (1, 5, 5, 3, 20_000), id="probes no further apart than the beats"),
        pytest.param(5, 120_000, (1, 5, 5, 3, 120_000), id="not while an answer may still come"),
    ],
)
def test_the_kernel_asks_for_the_peer(every_s, patience_ms, kept):
    """TCP keep-alive: nothing that the target would count as a request."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as raw:
        set_heartbeat(raw, every_s, patience_ms)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        found = [raw.getsockopt(socket.IPPROTO_TCP, option) for option in options]
        assert kept == (raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *found)
        set_heartbeat(raw, 0, patience_ms)
        assert 0 == raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert 0 == raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
