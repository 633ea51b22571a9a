"""The worker against targets that misbehave: each is classified, memory stays bounded, and the load goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from targets.hostile import Behaviour, Hostile, Limits
from trafficsim_api.layout import Error
from workers.process import Figures, WorkerProcess, a_load

FAST = {"connect": "400ms", "request": "500ms"}
MIB = 1 << 20
# More than a fast machine takes from one connection before its time is up: 2 GiB once were not.
ENDLESS = Limits(bytes=64 << 30)

FAILS = {
    Behaviour.REFUSES: Error.REFUSED,
    Behaviour.NEVER_ACCEPTS: Error.CONNECT_TIMEOUT,
    Behaviour.RESETS_AFTER_ACCEPT: Error.RESET,
    Behaviour.RESETS_AFTER_REQUEST: Error.RESET,
    Behaviour.RESETS_MID_BODY: Error.RESET,
    Behaviour.CLOSES_AFTER_REQUEST: Error.CLOSED,
    Behaviour.HANGS: Error.REQUEST_TIMEOUT,
    Behaviour.HANGS_MID_HEAD: Error.REQUEST_TIMEOUT,
    Behaviour.HANGS_MID_BODY: Error.REQUEST_TIMEOUT,
    Behaviour.HANGS_IN_TLS: Error.TLS_TIMEOUT,
    Behaviour.GARBAGE: Error.PROTOCOL,
    Behaviour.ENDLESS_HEADERS: Error.PROTOCOL,
    Behaviour.ENDLESS_BODY: Error.REQUEST_TIMEOUT,
    Behaviour.ENDLESS_BODY_UNTIL_CLOSE: Error.REQUEST_TIMEOUT,
    Behaviour.HUGE_CONTENT_LENGTH: Error.REQUEST_TIMEOUT,
    Behaviour.SHORT_BODY: Error.CLOSED,
    Behaviour.TRUNCATED_CHUNK: Error.CLOSED,
    Behaviour.BAD_CHUNK_SIZE: Error.PROTOCOL,
    Behaviour.INFORMATIONAL_STORM: Error.PROTOCOL,
    Behaviour.BARE_LF: Error.PROTOCOL,
    Behaviour.LENGTH_AND_CHUNKED: Error.PROTOCOL,
    Behaviour.TWO_LENGTHS: Error.PROTOCOL,
    Behaviour.NEGATIVE_LENGTH: Error.PROTOCOL,
    Behaviour.SWITCHES_PROTOCOLS: Error.PROTOCOL,
    Behaviour.HTTP_2_PREFACE: Error.PROTOCOL,
    Behaviour.WRONG_HOST: Error.TLS,
    Behaviour.EXPIRED: Error.TLS,
    Behaviour.UNKNOWN_CA: Error.TLS,
    Behaviour.PLAIN_TEXT_FOR_TLS: Error.TLS,
    Behaviour.SLOW_DRIP: Error.REQUEST_TIMEOUT,
    Behaviour.MANY_HEADERS: Error.PROTOCOL,
    Behaviour.FAT_HEAD: Error.REQUEST_TIMEOUT,
}
ANSWERS = (
    Behaviour.GOOD, Behaviour.GOOD_TLS, Behaviour.CLOSE_DELIMITED, Behaviour.HEAD_WITH_LENGTH,
    Behaviour.CONTINUE_THEN_OK, Behaviour.KEEP_ALIVE_RACE, Behaviour.SPLIT_HEAD,
)  # fmt: skip
UNSOLICITED = (
    Behaviour.LONG_BODY, Behaviour.TWO_RESPONSES, Behaviour.BODY_AFTER_NO_CONTENT, Behaviour.BODY_AFTER_NOT_MODIFIED,
)  # fmt: skip


@pytest.fixture(scope="module")
def hostile_worker(tmp_path_factory):
    """Return one worker for all behaviours: each is an edit of its load, so it also has to recover from every one."""
    with WorkerProcess(tmp_path_factory.mktemp("worker")) as worker:
        yield worker


def load_for(server, flow=None, **more):
    flow = flow or [{"request": {"get": "/"}}]
    load = a_load(0, flow, timeouts=FAST, **more)
    load["target"]["url"] = server.url
    if server.trust:
        load["ca"] = server.trust.read_text()
    return load


def begin(worker, load, users):
    """Send new users of the worker to another target, count from there, and wait for them."""
    worker.read()
    worker.mark()
    worker.assign(load, users=users)
    worker.wait_for(lambda ack: ack["settled"])


def resident(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize(("behaviour", "kind"), FAILS.items(), ids=lambda value: str(value))
def test_a_misbehaving_target_is_classified(hostile_worker, behaviour, kind):
    """Every failure is of the one kind, users come back after a pause, and at most 64 MiB of memory is taken."""
    with Hostile(behaviour, limits=ENDLESS) as server:
        worker = hostile_worker
        begin(worker, load_for(server), users=8)
        before = resident(worker.process.pid)
        worker.wait_until(lambda w: w.live("done") >= 12)
        grown = resident(worker.process.pid) - before
        worker.drain()
        figures = Figures.of(worker)
        assert figures["done"] == figures["failed"] == figures[f"error_{kind}"], figures
        assert grown < 64 * MIB


@pytest.mark.parametrize("behaviour", ANSWERS)
def test_an_odd_but_right_answer_is_an_answer(hostile_worker, behaviour):
    """Answers that are only unusual are counted as answered, and none twice."""
    flow = [{"request": {"head": "/"}}, {"request": {"get": "/"}}] if behaviour == Behaviour.HEAD_WITH_LENGTH else None
    with Hostile(behaviour) as server:
        worker = hostile_worker
        begin(worker, load_for(server, flow), users=8)
        worker.wait_until(lambda w: w.live("done") >= 100)
        worker.drain()
        figures = Figures.of(worker)
        assert figures["done"] == figures["class_2xx"] == figures["sent"], figures
        assert "failed" not in figures
        server.stop()
        if "requests" in server.account:
            assert figures["sent"] == server.account["requests"]


@pytest.mark.parametrize("behaviour", UNSOLICITED)
def test_bytes_past_the_answer_end_the_connection(hostile_worker, behaviour):
    """What nobody asked for is counted, the connection is closed, and the answer before it counts."""
    with Hostile(behaviour) as server:
        worker = hostile_worker
        begin(worker, load_for(server), users=4)
        worker.wait_until(lambda w: w.live("done") >= 50)
        worker.drain()
        figures = Figures.of(worker)
        assert figures["done"] == figures["sent"]
        assert figures["unsolicited"] > 0
        assert "failed" not in figures
        assert figures["connects"] >= figures["unsolicited"]


def test_an_answer_before_any_request_is_no_answer(hostile_worker):
    """An answer sent ahead of the request is taken for its answer at best; the account stays whole."""
    with Hostile(Behaviour.UNSOLICITED_RESPONSE) as server:
        worker = hostile_worker
        begin(worker, load_for(server), users=4)
        worker.wait_until(lambda w: w.live("done") >= 20)
        worker.drain()
        figures = Figures.of(worker)
        answered = sum(figures.get(f"class_{c}xx", 0) for c in range(2, 6))
        errors = sum(count for name, count in figures.items() if name.startswith("error_"))
        assert figures["done"] == answered + errors


def test_the_body_kept_for_a_check_is_bounded(hostile_worker):
    """A check of the body keeps at most 8 MiB of it per answer and 32 MiB in all."""
    flow = [{"request": {"get": "/"}, "expect": {"body": "nowhere"}}]
    with Hostile(Behaviour.ENDLESS_BODY, limits=ENDLESS) as server:
        worker = hostile_worker
        begin(worker, load_for(server, flow), users=8)
        before = resident(worker.process.pid)
        worker.wait_until(lambda w: w.live("done") >= 8)
        assert resident(worker.process.pid) - before < 64 * MIB
        assert worker.live("error_network_request_timeout") >= 8


@pytest.mark.parametrize("behaviour", [Behaviour.MANY_HEADERS, Behaviour.FAT_HEAD])
def test_the_heads_kept_are_bounded(hostile_worker, behaviour):
    """However many users are answered with heads that never end, at most 64 MiB of memory is taken."""
    with Hostile(behaviour, limits=ENDLESS) as server:
        worker = hostile_worker
        worker.assign(load_for(server), users=0)
        worker.wait_for(lambda ack: ack["drained"])
        before, most = resident(worker.process.pid), 0
        begin(worker, load_for(server), users=300)
        deadline = time.monotonic() + 20
        while worker.live("done") < 600 and time.monotonic() < deadline:
            worker.read(0.02)
            most = max(most, resident(worker.process.pid))
        assert worker.live("done") >= 600
        assert most - before < 64 * MIB
