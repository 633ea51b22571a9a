"""Flows compiled to linked steps, and the memo of heads a step keeps."""

from __future__ import annotations

import pytest

from trafficsim_api.protocol import Load
from trafficsim_api.resource import Think, actions_of
from trafficsim_runner.draws import key_of
from trafficsim_runner.flow import compile_load, pause_of
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.http.shapes import shape_of
from trafficsim_runner.program import AGAIN, END, REPEAT, REQUEST, RESTART, THINK
from trafficsim_runner.stats.account import HeadRecord, Tally
from trafficsim_runner.users import User


def compiled(flow, url="http://shop:8080/api", **environ):
    load = Load.model_validate_json(_json({"target": {"url": url}, "archetypes": [{"name": "one", "flow": flow}]}))
    actions = {action: n for n, action in enumerate(actions_of(load.archetypes))}
    return compile_load(load, endpoint_of(load.target), actions, [Tally(n) for n in range(len(actions))], environ)


def _json(value):
    import json

    return json.dumps(value)


def a_user(place=3):
    user = User()
    user.place, user.key = place, key_of(0, place)
    return user


def wire_of(request, **options):
    return compiled([{"request": request}], **options).tops[0].render(a_user())


def test_a_literal_request_is_complete_beforehand():
    """Its bytes are made once: prefix, Host, defaults, the user's headers, length and body."""
    program = compiled(
        [{"request": {"post": "/x", "params": {"a": "b c"}, "headers": {"X-A": "1"}, "json": {"k": [1]}}}]
    )
    step = program.tops[0]
    head, body = step.wire.split(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert b"POST /api/x?a=b+c HTTP/1.1" == first
    assert [b"host: shop:8080", b"accept: */*", b"content-type: application/json", b"X-A: 1", b"content-length: 9"] == [
        line for line in lines if not line.startswith(b"user-agent: trafficsim/")
    ]
    assert b'{"k":[1]}' == body
    assert step.wire is step.render(a_user())


def test_a_cookie_line_goes_into_a_literal_request():
    """Only users with cookies need bytes of their own; a Cookie header of the step's is left alone."""
    step = compiled([{"request": {"get": "/"}}]).tops[0]
    user = a_user()
    user.cookie_line = b"cookie: a=b\r\n"
    assert step.wire.replace(b"\r\n\r\n", b"\r\ncookie: a=b\r\n\r\n") == step.render(user)
    step = compiled([{"request": {"get": "/", "headers": {"Cookie": "mine=1"}}}]).tops[0]
    assert step.wire == step.render(user)


@pytest.mark.parametrize(
    ("request_", "line", "end"),
    [
        ({"get": "/a?x=1", "params": {"y": "2"}}, b"GET /api/a?x=1&y=2 HTTP/1.1", b"\r\n\r\n"),
        ({"get": "/u/{{user.id}}"}, b"GET /api/u/3 HTTP/1.1", b"\r\n\r\n"),
        ({"get": "/ü"}, b"GET /api/%C3%BC HTTP/1.1", b"\r\n\r\n"),
        ({"post": "/"}, b"POST /api/ HTTP/1.1", b"content-length: 0\r\n\r\n"),
        ({"put": "/", "body": "é{{user.id}}"}, b"PUT /api/ HTTP/1.1", "content-length: 3\r\n\r\né3".encode()),
        ({"post": "/", "form": {"a": "1&2"}}, b"POST /api/ HTTP/1.1", b"content-length: 7\r\n\r\na=1%262"),
        ({"delete": "/"}, b"DELETE /api/ HTTP/1.1", b"\r\n\r\n"),
    ],
)
def test_requests(request_, line, end):
    """What arrives is what was written, encoded, with the length that fits."""
    wire = wire_of(request_)
    assert wire.startswith(line + b"\r\n")
    assert wire.endswith(end)


def test_steps_are_linked():
    """Each step leads to the next, a loop's foot back to its body and on after it, the end to the top."""
    program = compiled(
        [
            {"request": {"get": "/a"}},
            {"repeat": {"times": "2..4", "flow": [{"think": {"constant": "1s"}}, {"request": {"get": "/b"}}]}},
        ]
    )
    a = program.tops[0]
    loop = a.next
    think = loop.next
    b = think.next
    foot = b.next
    end = foot.after
    assert [REQUEST, REPEAT, THINK, REQUEST, AGAIN, END] == [s.kind for s in (a, loop, think, b, foot, end)]
    assert (think, end, a, end) == (foot.next, loop.after, end.next, foot.after)
    assert {2, 3, 4} == {loop.times(a_user(n)) for n in range(60)}
    program.retire()
    assert {RESTART} == {s.next.kind for s in program.steps}


@pytest.mark.parametrize(
    ("think", "low", "high"),
    [
        ({"constant": "50ms"}, 50, 50),
        ({"min": "1s", "max": "2s"}, 1000, 2000),
        ({"median": "1s", "p95": "3s"}, 20, 40_000),
    ],
)
def test_pauses(think, low, high):
    """Each form stays within what it says, and the same user's first pause is always the same."""
    pause = pause_of(Think.model_validate(think))
    values = [pause(a_user(n)) for n in range(300)]
    assert low * 1_000_000 <= min(values) <= max(values) <= high * 1_000_000
    assert values == [pause(a_user(n)) for n in range(300)]


def a_record(n, total=100):
    head = b"HTTP/1.1 200 OK\r\nx: %d\r\n\r\n" % n
    return HeadRecord(head=head, total=total, status=200, headers=())


def test_a_known_head_is_found_only_with_its_length():
    """Same head and same length: the record; anything else: none."""
    step = compiled([{"request": {"get": "/"}}]).tops[0]
    record = a_record(1)
    assert not step.memoise(record)
    answer = record.head.ljust(100, b"b")
    assert record is step.known(answer)
    assert step.known(answer[:-1]) is None
    assert step.known(answer + b"b") is None
    assert step.known(record.head[:-1]) is None
    assert step.known(a_record(2).head.ljust(100)) is None


def a_shape(step, n):
    record = HeadRecord(head=b"HTTP/1.1 200 OK\r\nx-%d: 1\r\n\r\n" % n, total=0, status=200, headers=())
    return shape_of(record, [b"x-%d" % n], body=None, fixed=step.fixed, known=step.shapes)


def test_heads_that_never_come_back_are_matched_by_their_shape():
    """64 heads are kept; when they were hardly met again their shapes are, for 50 000 answers, then heads again."""
    step = compiled([{"request": {"get": "/"}}]).tops[0]
    for n in range(65):
        assert not step.differs
        step.memoise(a_record(n))
    assert step.differs
    shape = a_shape(step, 1)
    step.learn(shape)
    assert shape.record is step.known(b"HTTP/1.1 200 OK\r\nx-1: other\r\n\r\n")
    shape.record.uses = 50_001  # as after a fold
    assert shape.record is step.known(b"HTTP/1.1 200 OK\r\nx-1: another\r\n\r\n")
    assert (False, []) == (step.differs, step.shapes)


def test_shapes_that_never_come_back_pause_the_learning():
    """8 are kept; when they were hardly met again the next 10 000 answers are parsed and nothing is learned."""
    step = compiled([{"request": {"get": "/"}}]).tops[0]
    learned = 0
    for n in range(20_000):
        if step.memoises():
            step.learn(a_shape(step, n))
            learned += 1
        assert len(step.shapes) <= 8
    assert 8 < learned < 30


def test_heads_that_change_slowly_keep_the_memo():
    """A head that is met again and again until it changes, like one with the date in it, is worth its record."""
    step = compiled([{"request": {"get": "/"}}]).tops[0]
    folds = 0
    for n in range(1000):
        assert step.memoises()
        record = a_record(n)
        record.uses = 8
        folds += step.memoise(record)
    assert 1000 // 64 == folds
