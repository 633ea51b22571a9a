"""Answers that differ each time, on real sockets: the account against the server's own."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

from targets.counting import Counting
from workers.process import Figures, WorkerProcess, a_load


class Varying:
    """Answers with a head, a body length and now and then a status of its own each time; knows how many bytes went."""

    def __init__(self):
        self.numbers = itertools.count()
        self.size = self.answers = self.missing = 0
        self.lock = threading.Lock()

    def __call__(self, head):
        n = next(self.numbers)
        status = b"404 Not Found" if n % 50 == 49 else b"200 OK"
        body = json.dumps({"token": f"t{n}", "filling": "x" * (n * 37 % 500)}).encode()
        answer = b"HTTP/1.1 %b\r\nDate: %d\r\nX-Request-Id: %x\r\nContent-Length: %d\r\nX-Took: 0.%d\r\n\r\n%b" % (
            status, n, n * 7919, len(body), n, body,
        )  # fmt: skip
        with self.lock:
            self.answers += 1
            self.missing += n % 50 == 49
            self.size += len(answer)
        return answer


@pytest.mark.parametrize("model", ["closed", "open"])
def test_every_answer_is_counted_whatever_its_head(tmp_path, model):
    """Requests, classes, checks and bytes are the server's; hardly a head is kept."""
    varying = Varying()
    flow = [{"request": {"get": "/a"}, "save": {"token": "json.token", "id": "header.x-request-id"}}]
    more = {} if model == "closed" else {"arrivals": {"rate": "800/s"}}
    with Counting(answer=varying) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, **more), users=20)
        worker.wait_for(lambda ack: ack["active"])
        worker.wait_until(lambda w: w.live("done") >= 1500)
        worker.drain()
        figures = Figures.of(worker)
    assert varying.answers == figures["done"] == figures["sent"]
    assert varying.size == figures["bytes_in"]
    assert (varying.missing, varying.answers - varying.missing) == (figures["class_4xx"], figures["class_2xx"])
    assert varying.missing == figures["checks_failed"]
    assert figures["head_records"] < 100
